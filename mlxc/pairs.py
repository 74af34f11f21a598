"""Potentials between pairs of orbitals at the points of a grid, and what their derivatives gather (see mlxc.exx)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import reduce
from operator import iadd
from typing import TYPE_CHECKING

import numpy as np
from pyscf import lib

from mlxc.parallel import shared_out

if TYPE_CHECKING:
    from mlxc.exx import FittedExchange

#: Basis functions below this everywhere in a group of points are left out of whole Fock matrices there.
AO_MIN = 1e-8


def basis_functions_at(ao: np.ndarray) -> np.ndarray:
    """Indices of the basis functions that are not negligible at all points of ao (g, nao)."""
    return np.flatnonzero(abs(ao).max(axis=0, initial=0.0) > AO_MIN)


def _row_starts(n: int) -> np.ndarray:
    """Where each row of a packed lower triangle begins."""
    return np.arange(n) * np.arange(1, n + 1) // 2


def packed_product(v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """sum_j v_ij(g) x_j(g), (n, g), for symmetric v_ij packed by rows (n (n + 1) / 2, g) and x (n, g)."""
    out = np.zeros_like(x)
    for i, start in enumerate(_row_starts(len(x))):
        row = v[start : start + i + 1]
        out[i] += np.einsum("jg,jg->g", row, x[: i + 1])
        out[:i] += row[:i] * x[i]
    return out


def packed_products(x: np.ndarray, b: np.ndarray) -> np.ndarray:
    """b(g) x_i(g) x_j(g) packed by rows, (n (n + 1) / 2, g), for x (n, g) and b (g,)."""
    weighted, out = x * b, np.empty((len(x) * (len(x) + 1) // 2, len(b)))
    for i, start in enumerate(_row_starts(len(x))):
        np.multiply(x[: i + 1], weighted[i], out=out[start : start + i + 1])
    return out


class FittedPairs:
    """Pair potentials of one spin's orbitals, L (nao, n) with signs (n,), and the derivative gathered from them."""

    def __init__(self, tables: FittedExchange, local: np.ndarray, signs: np.ndarray):
        self.tables, self.local, self.signs = tables, local, signs
        self.n = local.shape[1]
        rows, columns = np.tril_indices(self.n)
        molecular = tables.transformed(local, local)[:, rows, columns]
        #: C^P_ij for i >= j, one pair per row.
        self.coefficients = np.ascontiguousarray(tables.solve(molecular).T)
        #: sum_g b phi_i phi_j V_P, (pairs, naux); takes no memory before it is used.
        self.gathered = np.zeros(self.coefficients.shape)

    def share(self) -> FittedPairs:
        """The same pairs with room to gather, for one of several threads."""
        own = copy.copy(self)
        own.gathered = np.zeros(self.coefficients.shape)
        return own

    def potential(self, phi: np.ndarray, p0: int) -> np.ndarray:
        """h (g, n) at the points p0 ... p0 + g of a block, where the orbitals are phi (g, n)."""
        out = np.empty_like(phi)
        for group in self.tables.potentials.groups(p0, p0 + len(phi)):
            signed = np.ascontiguousarray((phi[group.points] * self.signs).T)
            out[group.points] = packed_product(group.spread(self.coefficients), signed).T
        return out

    def gather(self, b: np.ndarray, phi: np.ndarray, p0: int) -> None:
        """Add sum_g b phi_i phi_j V_P for weights b (g,) and orbitals phi (g, n) at the points p0 ... p0 + g."""
        for group in self.tables.potentials.groups(p0, p0 + len(phi)):
            orbitals = np.ascontiguousarray(phi[group.points].T)
            group.gather_into(self.gathered, packed_products(orbitals, b[group.points]))

    def fitted(self) -> np.ndarray:
        """What `gather` has seen, solved for the fit, (naux, n, n)."""
        return lib.unpack_tril(np.ascontiguousarray(self.tables.solve(self.gathered.T)))

    def columns(self) -> np.ndarray:
        """sum_g,j b phi_i phi_j s_j v_mu,j over everything gathered, (nao, n)."""
        return self.tables.back_transformed(self.fitted(), self.local * self.signs)

    def full(self, b: np.ndarray, ranges: list[tuple[int, int]], basis: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """The whole symmetric dE/dD, (nao, nao), for weights b (G,) at the points of the table.

        `ranges` has the first point of each block and the one after its last, `basis` gives its basis functions
        (g, nao); it is asked for them once for every few orbitals.
        """
        tables, (nao, n) = self.tables, self.local.shape
        half, room = np.zeros((nao, nao)), tables.max_memory / 4 / lib.num_threads()
        for j0, j1 in lib.prange(0, n, max(1, int(room / (8e-6 * tables.naux * nao)))):
            local = self.local[:, j0:j1]

            def gather(share: list[tuple[int, int]], local=local) -> np.ndarray:
                gathered = np.zeros((local.shape[1], nao, tables.naux))
                for p0, p1 in share:
                    ao = basis(p0, p1)
                    for group in tables.potentials.groups(p0, p1):
                        here = basis_functions_at(ao[group.points])
                        values = np.ascontiguousarray(ao[group.points][:, here].T)
                        for j, weighted in enumerate(local[here].T @ values * b[p0:p1][group.points]):
                            gathered[j, here] += group.gather(values * weighted)
                return gathered

            gathered = reduce(iadd, shared_out(gather, ranges))  # in place: these are the largest arrays of all
            fitted = tables.solve(gathered.reshape(-1, tables.naux).T, overwrite=True).reshape(-1, j1 - j0, nao)
            half -= 0.5 * tables.back_transformed(fitted.swapaxes(1, 2), local * self.signs[j0:j1]).T
        return half + half.T
