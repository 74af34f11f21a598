"""Polarizabilities against dipoles in finite fields."""

import numpy as np
import pytest
from pyscf import gto, lib, scf
from pyscf.x2c import x2c

import mlxc
from mlxc import polarizability
from mlxc.errors import ConvergenceError, InputError
from mlxc.localhybrid import HartreeFock, IsoOrbitalHybrid


def dipole_in_field(mf, field):
    """Dipole (3,), atomic units, of a copy of `mf` in a field (3,)."""
    mf = mf.copy()
    hcore = mf.get_hcore() + np.einsum("x,xmn->mn", field, mf.mol.intor("int1e_r"))
    mf.get_hcore = lambda *args: hcore
    mf.kernel(mf.make_rdm1())
    assert mf.converged
    return mf.dip_moment(unit="AU", verbose=0)


@pytest.mark.parametrize("name", ["H2O", "CH3"])
@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-lh7", "mlxc-mgga3"])
def test_polarizability_is_the_derivative_of_the_dipole(name, xc, mole):
    mf = mlxc.KS(mole(name), IsoOrbitalHybrid() if xc == "t-lmf" else xc).density_fit()
    mf.grids.level = 1
    mf.conv_tol, mf.conv_tol_grad = 1e-12, 1e-7
    mf.kernel()
    field = np.array([0.0, 1e-3, 1e-3])
    up, down = (dipole_in_field(mf, h * field) for h in (1, -1))
    alpha = polarizability(mf)
    assert np.allclose(alpha @ field, (up - down) / 2, atol=3e-4 * abs(alpha @ field).max())
    assert np.allclose(alpha, alpha.T, atol=1e-4)


def test_equations_that_pyscf_leaves_unsolved_have_no_result(mole, monkeypatch):
    """As PySCF before 2.14 did, without a word."""
    solve = lib.krylov
    mf = mlxc.KS(mole("H2O", "sto-3g"), "lda,vwn").run()
    monkeypatch.setattr(lib, "krylov", lambda *args, **kwargs: 0.99 * solve(*args, **kwargs))
    with pytest.raises(ConvergenceError, match="is left"):
        polarizability(mf)


@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga3"])
def test_a_solvent_follows_a_static_field(xc, mole):
    mf = mlxc.KS(mole("H2O", "sto-3g"), xc).density_fit().PCM()
    mf.grids.level = 1
    mf.conv_tol, mf.conv_tol_grad = 1e-12, 1e-7
    mf.kernel()
    field = np.array([0.0, 1e-3, 1e-3])
    up, down = (dipole_in_field(mf, h * field) for h in (1, -1))
    change = (up - down) / 2
    assert np.allclose(polarizability(mf) @ field, change, atol=3e-4 * abs(change).max())
    assert not mf.with_solvent.equilibrium_solvation


def test_polarizability_of_hartree_fock(mole):
    mol = mole("H2O")
    expected = polarizability(scf.RHF(mol).run())
    assert np.allclose(polarizability(mlxc.KS(mol, HartreeFock()).run()), expected, atol=2e-3)
    assert np.allclose(polarizability(scf.UHF(mol).run()), expected, atol=1e-5)


@pytest.mark.parametrize("xc", ["t-lmf", "pbe"])
def test_polarizability_of_one_electron(xc):
    """The other spin has no electrons."""
    mf = mlxc.KS(gto.M(atom="H", basis="def2-svpd", spin=1, verbose=0), xc)
    mf.conv_tol, mf.conv_tol_grad = 1e-12, 1e-7
    mf.kernel()
    up, down = (dipole_in_field(mf, np.array([0.0, 0.0, h])) for h in (1e-3, -1e-3))
    alpha = polarizability(mf)
    assert alpha[2, 2] == pytest.approx((up - down)[2] / 2e-3, rel=1e-3)
    assert np.allclose(alpha, alpha[2, 2] * np.eye(3), atol=1e-3)


def test_polarizability_refuses_what_it_cannot_do(mole):
    with pytest.raises(InputError, match="kernel"):
        polarizability(mlxc.KS(mole("H2O")))
    with pytest.raises(InputError, match="to_uks"):
        polarizability(mole("CH3").ROKS())
    with pytest.raises(InputError, match="not GHF"):
        polarizability(scf.GHF(mole("H2O")))
    with pytest.raises(InputError, match="for molecules in RKS"):
        polarizability(x2c.UHF(mole("H2O")))
    with pytest.raises(InputError, match="fractional"):
        polarizability(scf.addons.frac_occ(mole("O").UKS(xc="pbe")).run())
