"""QCSchema through QCEngine, against PySCF asked directly."""

import importlib
import sys

import numpy as np
import pyscf
import pytest
import qcengine
import torch
from pyscf import gto
from qcelemental.models import v1, v2

import mlxc
from mlxc.errors import InputError
from mlxc.geometry import gradient_method
from mlxc.harmonic import hessian
from mlxc.qcschema import atomic_result

ONE_CORE = {"ncores": 1, "memory": 1}
HF = {"symbols": ["H", "F"], "geometry": [[0, 0, 0], [0, 0.3, 1.7]], "fix_com": True, "fix_orientation": True}
ION = {"symbols": ["H", "H"], "geometry": [[0, 0, 0], [0, 0, 2.0]], "molecular_charge": 1, "molecular_multiplicity": 2}


def asked(driver="energy", method="default", molecule=HF, basis="sto-3g", **keywords):
    """An input of version 2 on a coarse grid."""
    return v2.AtomicInput(
        molecule=molecule,
        specification={
            "driver": driver,
            "model": {"method": method, "basis": basis},
            "keywords": {"grid_level": 0} | keywords,
        },
    )


def answered(*args, **kwargs):
    return qcengine.compute(asked(*args, **kwargs), "mlxc", task_config=ONE_CORE)


@pytest.fixture(scope="module")
def mf():
    """The same calculation with PySCF; coordinates in Bohr."""
    mol = gto.M(atom="H 0 0 0; F 0 0.3 1.7", unit="Bohr", basis="sto-3g", verbose=0)
    mf = mlxc.KS(mol).density_fit()
    mf.grids.level = 0
    return mf.run()


def test_gradient_with_all_that_belongs_to_it(mf):
    result = answered("gradient")
    assert result.success
    assert np.allclose(result.return_result, gradient_method(mf).kernel(), atol=1e-6)
    assert abs(result.return_result).max() > 0.01
    found = result.properties
    assert np.array_equal(found.return_gradient, result.return_result)
    assert found.return_energy == pytest.approx(mf.e_tot, abs=1e-8)
    assert np.allclose(found.scf_dipole_moment, mf.dip_moment(unit="AU", verbose=0), atol=1e-5)
    assert found.scf_dispersion_correction_energy == pytest.approx(mf.scf_summary["dispersion"], abs=1e-10)
    assert (found.calcinfo_nalpha, found.calcinfo_nbeta, found.calcinfo_nbasis) == (5, 5, 6)
    assert result.provenance.creator == "mlxc"
    assert result.provenance.version == mlxc.__version__
    extras = result.extras["mlxc"]
    assert extras["model"] == "mlxc-lh7-d4"
    assert extras["model_sha256"] == mlxc.models.sha256("default")
    assert np.allclose(extras["ensemble_energies_hartree"], mlxc.ensemble_energies(mf), atol=1e-7)
    assert extras["energy_uncertainty_kcal"] > 0
    assert extras["novelty"] == mlxc.novelty(mf)
    assert v2.AtomicResult(**result.model_dump()).return_result.shape == (2, 3)


def test_properties(mf):
    result = answered("properties").return_result
    assert np.allclose(result["dipole"], mf.dip_moment(unit="AU", verbose=0), atol=1e-5)
    assert np.allclose(result["polarizability"], mlxc.polarizability(mf), atol=1e-4)


def test_hessian_has_rows_of_atoms_and_directions():
    result = answered("hessian", "lda,vwn", {**ION, "geometry": [[0, 0, 0], [0, 1.2, 1.6]]})
    mol = gto.M(atom="H 0 0 0; H 0 1.2 1.6", unit="Bohr", basis="sto-3g", charge=1, spin=1, verbose=0)
    other = mlxc.KS(mol, "lda,vwn").density_fit()
    other.grids.level = 0
    expected = hessian(other.run())
    assert result.return_result.shape == (6, 6)
    assert result.return_result[1, 5] == pytest.approx(expected[0, 1, 1, 2], abs=1e-5)
    assert np.allclose(result.return_result[:3, 3:], expected[0, 1], atol=1e-5)
    assert abs(result.return_result[1, 5]) > 0.05


@pytest.mark.parametrize("form", ["model", "dict", "version 2 dict"])
def test_inputs_of_both_versions(form):
    """Answers have the version of the question."""
    old = v1.AtomicInput(
        molecule=v1.Molecule(**ION),
        driver="energy",
        model={"method": "pbe", "basis": "sto-3g"},
        keywords={"grid_level": 0},
    )
    new = asked(method="pbe", molecule=ION)
    given = {"model": old, "dict": old.dict(), "version 2 dict": new.model_dump()}[form]
    result = qcengine.compute(given, "mlxc", task_config=ONE_CORE, raise_error=True)
    assert isinstance(result, v2.AtomicResult if form == "version 2 dict" else v1.AtomicResult)
    assert result.return_result == pytest.approx(atomic_result(new).return_result, abs=1e-8)
    settings = {"density_fit": True, "grid_level": 0, "conv_tol": 1e-9, "unrestricted": False}
    assert result.extras["mlxc"] == {
        "model": "pbe", "model_sha256": None, "pyscf": pyscf.__version__, "settings": settings
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "nonsense"}, "unknown functional"),
        ({"basis": "nonsense"}, "'nonsense' is unknown"),
        ({"basis": None}, "a name that PySCF knows"),
        ({"max_iterations": 3}, "no setting max_iterations"),
        ({"grid_level": "fine"}, "grid_level"),
        ({"molecule": HF | {"real": [True, False], "symbols": ["H", "F"]}}, "ghost"),
    ],
)
def test_what_cannot_be_done_is_an_input_error(change, reason):
    failed = answered(**change)
    assert isinstance(failed, v2.FailedOperation)
    assert failed.error.error_type == "input_error"
    assert reason in failed.error.error_message
    assert "Traceback" not in failed.error.error_message


def test_what_does_not_converge_or_fit_says_so(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pyscf.scf.hf.SCF.max_cycle", 1)
        assert answered(method="pbe").error.error_type == "convergence_error"

    def full(*args):
        raise MemoryError

    monkeypatch.setattr("mlxc.qcschema.solve", full)
    assert answered(method="pbe").error.error_type == "resource_error"


def test_cores_and_memory_are_those_of_the_task(monkeypatch):
    from pyscf import lib

    seen = []

    def look(mf):
        seen.append((lib.num_threads(), torch.get_num_threads(), mf.max_memory, mf.mol.max_memory))
        raise InputError("enough")

    monkeypatch.setattr("mlxc.qcschema.solve", look)
    before = lib.num_threads(), torch.get_num_threads()
    qcengine.compute(asked(method="pbe"), "mlxc", task_config={"ncores": 2, "memory": 0.5})
    assert seen == [(2, 2, pytest.approx(536.87, abs=0.01), pytest.approx(536.87, abs=0.01))]
    assert (lib.num_threads(), torch.get_num_threads()) == before


def test_without_qcengine_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "mlxc.qcschema")
    monkeypatch.setitem(sys.modules, "qcengine", None)
    with pytest.raises(InputError, match=r"mlxc\[qcschema\]"):
        importlib.import_module("mlxc.qcschema")
