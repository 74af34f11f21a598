"""Molecules turned, moved and with their atoms in another order.

PySCF's grids of atoms keep their directions in space, so that a molecule that turns changes its energy by what the grid
is wrong by.  Here they turn with it, and what remains is exact.
"""

from functools import lru_cache

import numpy as np
import pytest
from pyscf import gto, lib
from scipy.spatial.transform import Rotation

import mlxc
from mlxc import properties

SYMBOLS = ("O", "H", "H")
COORDS = np.array([[0.1, 0.0, 0.2], [0.0, 1.43, 1.11], [0.3, -1.40, 1.20]])  # Bohr
TURN = Rotation.from_euler("xyz", [0.3, 1.1, 2.0]).as_matrix()
UNTURNED = np.eye(3)
XC = ("mlxc-lh7-d4", "mlxc-mgga3")


def results(xc, coords, order=(0, 1, 2), turned=UNTURNED):
    """Energy, forces, dipole and polarizability, atomic units; `turned` is how the grids of the atoms are."""
    atom = [(SYMBOLS[i], coords[i]) for i in order]
    mol = gto.M(atom=atom, unit="Bohr", basis="def2-svp", verbose=0)
    mf = mlxc.KS(mol, xc).density_fit()
    own = mf.grids.gen_atomic_grids

    def atomic_grids(*args, **kwargs):
        return {symbol: (points @ turned.T, volume) for symbol, (points, volume) in own(*args, **kwargs).items()}

    mf.grids.level, mf.grids.gen_atomic_grids = 0, atomic_grids
    mf.conv_tol, mf.conv_tol_grad = 1e-11, 1e-8
    mf.kernel()
    assert mf.converged
    forces = -mf.nuc_grad_method().set(grid_response=True).kernel()
    with lib.temporary_env(properties, TOLERANCE=1e-11):
        return mf.e_tot, forces, mf.dip_moment(unit="AU", verbose=0), mlxc.polarizability(mf)


@lru_cache
def reference(xc):
    return results(xc, COORDS)


@pytest.mark.parametrize("xc", XC)
def test_what_turns_with_the_molecule(xc):
    energy, forces, dipole, polarizability = reference(xc)
    turned = results(xc, COORDS @ TURN.T, turned=TURN)
    assert turned[0] == pytest.approx(energy, abs=1e-8)
    assert np.allclose(turned[1], forces @ TURN.T, atol=1e-8)
    assert np.allclose(turned[2], TURN @ dipole, atol=1e-8)
    assert np.allclose(turned[3], TURN @ polarizability @ TURN.T, atol=1e-8)
    assert abs(forces).max() > 1e-3
    assert not np.allclose(turned[2], dipole, atol=0.1)


@pytest.mark.parametrize("xc", XC)
def test_moved_and_in_another_order(xc):
    """All at once; the dipole of a neutral molecule does not know where that is."""
    order = (2, 0, 1)
    energy, forces, dipole, polarizability = reference(xc)
    moved = results(xc, COORDS + np.array([1.0, -2.0, 3.0]), order)
    assert moved[0] == pytest.approx(energy, abs=1e-8)
    assert np.allclose(moved[1], forces[list(order)], atol=1e-8)
    assert np.allclose(moved[2], dipole, atol=1e-8)
    assert np.allclose(moved[3], polarizability, atol=1e-8)
