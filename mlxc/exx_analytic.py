"""The exact-exchange energy density without fitting: slow, and the oracle for mlxc.exx.

It has the interface of mlxc.exx for energy densities and for the occupied columns of the Fock matrix.
"""

from __future__ import annotations

import numpy as np
from pyscf import gto, lib

#: Points whose integrals are held at a time.
POINTS = 1024


class AnalyticExchange:
    """The same as FittedExchange without fitting, from the integrals of every AO pair at every point."""

    def __init__(self, mol: gto.Mole, coords: np.ndarray, omega: float = 0.0):
        self.mol, self.omega, self.potentials = mol, omega, self
        self.coords, self.order = coords, np.arange(len(coords))

    def blocks(self, size: int):
        """As PotentialTable.blocks."""
        return lib.prange(0, len(self.coords), size)

    def pair_potentials(self, p0: int, p1: int) -> np.ndarray:
        """v_mu,nu(g), (p1 - p0, nao, nao)."""
        with self.mol.with_range_coulomb(self.omega):
            return self.mol.intor("int1e_grids", grids=self.coords[p0:p1])

    def pairs(self, local: np.ndarray, signs: np.ndarray) -> AnalyticPairs:
        """Pair potentials of the orbitals of one spin."""
        return AnalyticPairs(self, local, signs)


class AnalyticPairs:
    """The same as FittedPairs, for AnalyticExchange."""

    def __init__(self, tables: AnalyticExchange, local: np.ndarray, signs: np.ndarray):
        self.tables, self.local, self.signs = tables, local, signs
        self.gathered = np.zeros_like(local)

    def _half(self, phi: np.ndarray, p0: int):
        """(points, sum_j v_mu,j s_j phi_j) by groups of points."""
        for g0, g1 in lib.prange(0, len(phi), POINTS):
            density = (phi[g0:g1] * self.signs) @ self.local.T
            v = self.tables.pair_potentials(p0 + g0, p0 + g1)
            yield slice(g0, g1), np.einsum("gmn,gn->gm", v, density)

    def potential(self, phi: np.ndarray, p0: int) -> np.ndarray:
        """As FittedPairs.potential."""
        return np.concatenate([half @ self.local for _, half in self._half(phi, p0)])

    def gather(self, b: np.ndarray, phi: np.ndarray, p0: int) -> None:
        """As FittedPairs.gather."""
        for points, half in self._half(phi, p0):
            self.gathered += half.T @ (phi[points] * b[points, None])

    def columns(self) -> np.ndarray:
        """As FittedPairs.columns."""
        return self.gathered
