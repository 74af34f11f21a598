"""D4 as part of a model's name."""

import numpy as np
import pytest
from pyscf import gto
from pyscf.dispersion import dftd4

import mlxc
from mlxc.analytic import PBE, R2SCAN
from mlxc.bench.species import identity_of
from mlxc.errors import InputError, UnknownFunctionalError


@pytest.fixture(scope="module")
def mol():
    return gto.M(atom="H 0 0 0; F 0 0 0.92; Ne 0 0.3 4", basis="def2-svp", verbose=0)


def test_dispersion_is_added_to_energy_and_gradient(mol):
    bare, mf = (mlxc.KS(mol, xc).density_fit().run(conv_tol=1e-10) for xc in ("mlxc-lh5", "mlxc-lh5-d4"))
    found = dftd4.DFTD4Dispersion(mol, xc="pbe0", atm=True).get_dispersion(grad=True)
    assert str(mf.xc) == "mlxc-lh5-d4"
    assert found["energy"] < -1e-5
    assert mf.e_tot - bare.e_tot == pytest.approx(float(found["energy"]), abs=1e-9)
    slopes = [x.nuc_grad_method().kernel() for x in (mf, bare)]
    assert np.allclose(slopes[0] - slopes[1], found["gradient"], atol=1e-7)


def test_the_default_has_dispersion_and_another_functional_does_not_take_it_over(mol):
    mf = mlxc.KS(mol)
    assert mf.disp == "d4:pbe0"
    assert mlxc.attach(mf, "mlxc-lh5").disp is None
    mf.disp = "d4:pbe"  # somebody's own wish stays
    assert mlxc.attach(mf, "mlxc-mgga1").disp == "d4:pbe"


def test_an_object_that_has_run_gets_the_dispersion_of_its_next_functional(mol):
    expected = mlxc.KS(mol, "r2scan-d4").run().e_tot
    for make in (lambda mf: mf, lambda mf: mf.newton()):
        mf = mlxc.attach(make(mlxc.KS(mol, "pbe-d4")).run(), "r2scan-d4")
        assert not mf.converged
        assert mf.run().e_tot == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("functional", [PBE(), R2SCAN()])
def test_functionals_have_the_parameters_of_their_own_names(mol, functional):
    energies = [mlxc.KS(mol, functional).set(disp=disp).run().e_tot for disp in ("d4", None)]
    expected = dftd4.DFTD4Dispersion(mol, xc=functional.name.lower(), atm=True).get_dispersion()["energy"]
    assert energies[0] - energies[1] == pytest.approx(float(expected), abs=1e-8)


def test_dispersion_can_be_taken_away(mol):
    expected = mlxc.KS(mol, "mlxc-lh5").run().e_tot
    assert mlxc.KS(mol, "mlxc-lh5-d4").set(disp=None).run().e_tot == pytest.approx(expected, abs=1e-8)


def test_results_with_and_without_dispersion_are_kept_apart():
    assert identity_of("mlxc-lh5") != identity_of("mlxc-lh5-d4") == identity_of("default")


def test_a_model_without_parameters_or_a_machine_without_the_library_says_so(mol, monkeypatch):
    with pytest.raises(UnknownFunctionalError, match="D4 was not fitted"):
        mlxc.KS(mol, "mlxc-mgga1-d4")
    monkeypatch.setattr("mlxc.dispersion.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pyscf-dispersion"):
        mlxc.KS(mol, "mlxc-lh5-d4")
