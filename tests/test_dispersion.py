"""D4 as part of a model's name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyscf import gto
from pyscf.dispersion import dftd4

import mlxc
from mlxc import models
from mlxc.bench.species import identity_of
from mlxc.errors import InputError, UnknownFunctionalError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with the damping parameters of PBE0."""
    folder = tmp_path_factory.mktemp("models") / "two"
    shutil.copytree(Path(models.__file__).parent / "mlxc-lh1", folder)
    info = json.loads((folder / "model.json").read_text()) | {"d4": "pbe0"}
    (folder / "model.json").write_text(json.dumps(info))
    return str(folder)


@pytest.fixture(scope="module")
def mol():
    return gto.M(atom="H 0 0 0; F 0 0 0.92; Ne 0 0.3 4", basis="def2-svp", verbose=0)


def test_dispersion_is_added_to_energy_and_gradient(model, mol):
    bare, mf = (mlxc.KS(mol, xc).density_fit().run(conv_tol=1e-10) for xc in (model, f"{model}-d4"))
    found = dftd4.DFTD4Dispersion(mol, xc="pbe0", atm=True).get_dispersion(grad=True)
    assert str(mf.xc) == "mlxc-lh1-d4"
    assert found["energy"] < -1e-5
    assert mf.e_tot - bare.e_tot == pytest.approx(float(found["energy"]), abs=1e-9)
    slopes = [x.nuc_grad_method().kernel() for x in (mf, bare)]
    assert np.allclose(slopes[0] - slopes[1], found["gradient"], atol=1e-7)


def test_another_functional_takes_no_dispersion_over(model, mol):
    mf = mlxc.KS(mol, f"{model}-d4")
    assert mlxc.attach(mf, model).disp is None
    mf.disp = "d4:pbe"  # somebody's own wish stays
    assert mlxc.attach(mf, "mlxc-mgga1").disp == "d4:pbe"


def test_results_with_and_without_dispersion_are_kept_apart(model):
    assert identity_of(model) != identity_of(f"{model}-d4")


def test_a_model_without_parameters_or_a_machine_without_the_library_says_so(model, mol, monkeypatch):
    with pytest.raises(UnknownFunctionalError, match="D4 was not fitted"):
        mlxc.KS(mol, "mlxc-lh1-d4")
    monkeypatch.setattr("mlxc.dispersion.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pyscf-dispersion"):
        mlxc.KS(mol, f"{model}-d4")
