"""Implicit solvents: their order with density fitting, gradients, excitations."""

import numpy as np
import pytest
from pyscf import dft, gto, scf

import mlxc
from mlxc.analytic import R2SCAN
from mlxc.errors import InputError
from mlxc.localhybrid import HartreeFock

MOLECULES = {"HF": "H 0 0.1 0; F 0 0 0.95", "OH": "O 0 0 0; H 0 0.1 0.97"}


def molecule(name, shift=0.0):
    """With the second atom moved by `shift` Bohr."""
    mol = gto.M(atom=MOLECULES[name], basis="sto-3g", spin=int(name == "OH"), verbose=0)
    coords = mol.atom_coords()
    coords[1, 2] += shift
    return mol.set_geom_(coords, unit="Bohr", inplace=False)


def dissolved(mol, xc, model):
    mf = getattr(mlxc.KS(mol, xc).density_fit(), model)()
    if model == "SMD":
        mf.with_solvent.solvent = "water"
    return mf.set(grids=mf.grids.set(atom_grid=(20, 50), prune=None)).run(conv_tol=1e-11)


def excited(mf, method):
    return getattr(mf.run(conv_tol=1e-11), method)().run(nstates=2).e


@pytest.mark.parametrize(("name", "model"), [("OH", "PCM"), ("HF", "SMD")])
@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga3"])
def test_gradient_is_the_derivative_of_the_energy(name, model, xc):
    got = mlxc.geometry.gradient_method(dissolved(molecule(name), xc, model)).kernel()[1, 2]
    up, down = (dissolved(molecule(name, h), xc, model).e_tot for h in (2e-3, -2e-3))
    assert got == pytest.approx((up - down) / 4e-3, abs=5e-6)
    gas = mlxc.KS(molecule(name), xc).density_fit()
    gas.grids.set(atom_grid=(20, 50), prune=None)
    assert abs(got - mlxc.geometry.gradient_method(gas.run()).kernel()[1, 2]) > 1e-3


@pytest.mark.parametrize("method", ["TDA", "TDDFT"])
def test_excitations_of_both_families_in_a_solvent(method):
    """Against libxc's r2SCAN and Hartree-Fock, and what the solvent shifts them by."""
    mol = molecule("HF")
    semilocal = dft.RKS(mol, xc="r2scan").density_fit().PCM()
    semilocal.grids.set(atom_grid=(20, 50), prune=None)
    exchange = scf.RHF(mol).density_fit().PCM()
    for expected, xc, tolerance in ((semilocal, R2SCAN(), 1e-5), (exchange, HartreeFock(), 2e-4)):
        name = "TDHF" if expected is exchange and method == "TDDFT" else method
        found = excited(dissolved(mol, xc, "PCM"), method), excited(expected, name)
        gas = excited(dissolved(mol, xc, "PCM").undo_solvent(), method), excited(expected.undo_solvent(), name)
        assert np.allclose(*found, atol=tolerance)
        assert np.allclose(found[0] - gas[0], found[1] - gas[1], atol=2e-5)
        assert found[0][0] - gas[0][0] > 5e-3


def test_a_frozen_solvent_has_no_gradient():
    mf = dissolved(molecule("HF"), "mlxc-mgga3", "PCM")
    mf.with_solvent.frozen = True
    with pytest.raises(InputError, match="frozen"):
        mlxc.geometry.gradient_method(mf)


def test_density_fitting_after_the_solvent_has_no_gradient():
    """PySCF 2.9 left the solvent out of it."""
    mf = mlxc.KS(molecule("HF"), "mlxc-mgga3").PCM().density_fit()
    mf.grids.set(atom_grid=(20, 50), prune=None)
    with pytest.raises(InputError, match=r"density_fit\(\).PCM\(\)"):
        mlxc.vibrations(mf.run())
