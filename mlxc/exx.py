"""The exact-exchange energy density on a grid, and its derivative with respect to the density matrix.

For one spin with density matrix D = sum_i s_i L_i L_i^T (signs s_i = +-1) and phi_i(g) = sum_mu phi_mu(g) L_mu,i,

    ex(g) = -1/2 sum_i s_i phi_i(g) h_i(g),   h_i(g) = sum_j s_j phi_j(g) v_ij(g),
    v_ij(g) = integral phi_i(r) phi_j(r) u(|g - r|) dr,

where u(r) is 1/r or erf(omega r)/r.  `FittedExchange` expands phi_i phi_j in an auxiliary basis with the Coulomb
metric (Whitten, J. Chem. Phys. 58, 4496 (1973)), so that v_ij(g) = sum_P C^P_ij V_P(g) with a table V_P(g) that
depends on the geometry alone; `mlxc.exx_analytic` integrates the pairs themselves and is the oracle of the tests.

For weights b(g), E = sum_g b(g) ex(g) has the derivative

    dE/dL_mu,i = 2 (F L)_mu,i s_i,   F L = -1/2 [ sum_g b phi_mu h_i + sum_g,j b phi_i phi_j s_j v_mu,j ],

and the symmetric F with that action on the occupied space is rebuilt by `occupied_fock`, as in the
occ-RI-K method (Manzer, Horn, Mardirossian, Head-Gordon, J. Chem. Phys. 143, 024113 (2015)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.linalg
from pyscf import df, gto, lib

from mlxc.errors import InputError
from mlxc.potentials import AuxiliaryPotentials
from mlxc.tables import PotentialTable, Store

#: Eigenvalues of a density matrix below this are nothing but rounding.
OCCUPATION_MIN = 1e-10
#: Basis functions below this everywhere in a group of points are left out of whole Fock matrices there.
AO_MIN = 1e-8


def factorize(dm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L (nao, n) and signs (n,) with dm = L diag(signs) L^T, for a symmetric matrix dm (nao, nao).

    A positive matrix is factorised by pivoted Cholesky decomposition, whose columns are local (Aquilante, Pedersen,
    Sanchez de Meras, Koch, J. Chem. Phys. 125, 174101 (2006)); any other by diagonalisation.
    """
    dm = (dm + dm.T) / 2
    scale = abs(dm).max(initial=0.0)
    if scale == 0:
        return np.zeros((len(dm), 0)), np.zeros(0)
    factor, pivot, rank, _ = scipy.linalg.lapack.dpstrf(dm, tol=OCCUPATION_MIN * scale, lower=1)
    local = np.zeros((len(dm), rank))
    local[pivot - 1] = np.tril(factor)[:, :rank]
    if abs(local @ local.T - dm).max() < 10 * OCCUPATION_MIN * scale:
        return local, np.ones(rank)
    e, u = np.linalg.eigh(dm)
    keep = abs(e) > OCCUPATION_MIN * scale
    return u[:, keep] * np.sqrt(abs(e[keep])), np.sign(e[keep])


def energy_density(exchange: Any, dm: np.ndarray, block: int = 20000) -> np.ndarray:
    """ex (G,) of one spin's density matrix (nao, nao) at the points of a FittedExchange or AnalyticExchange."""
    points, pairs = exchange.potentials, exchange.pairs(*factorize(dm))
    ex = np.empty(len(points.coords))
    for p0, p1 in points.blocks(block):
        phi = exchange.mol.eval_gto("GTOval", points.coords[p0:p1]) @ pairs.local
        ex[points.order[p0:p1]] = -0.5 * np.einsum("gi,gi,i->g", phi, pairs.potential(phi, p0), pairs.signs)
    return ex


def basis_functions_at(ao: np.ndarray) -> np.ndarray:
    """Indices of the basis functions that are not negligible at all points of ao (g, nao)."""
    return np.flatnonzero(abs(ao).max(axis=0, initial=0.0) > AO_MIN)


def occupied_fock(columns: np.ndarray, local: np.ndarray, overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric F with F @ local = columns and nothing between unoccupied orbitals, and the projector (nao, nao).

    columns, local : (nao, n); overlap : (nao, nao).  The projector P = 1 - S Q Q^T (Q orthonormal, span of `local`)
    takes a matrix M to its unoccupied block, P @ M @ P.T, which may be added to F.
    """
    e, u = np.linalg.eigh(local.T @ overlap @ local)
    keep = e > OCCUPATION_MIN
    to_orthonormal = u[:, keep] / np.sqrt(e[keep])
    q, fq = local @ to_orthonormal, columns @ to_orthonormal
    sq = overlap @ q
    half = fq - 0.5 * sq @ (q.T @ fq)
    return half @ sq.T + sq @ half.T, np.eye(len(overlap)) - sq @ q.T


def auxiliary_basis(mol: gto.Mole) -> dict:
    """PySCF's default auxiliary basis for exchange, but for H and He an even-tempered one.

    The s functions of their JK-fit sets leave errors of 5e-5 Eh in the exchange energy of one electron.
    """
    basis = df.make_auxbasis(mol)
    light = {k: v for k, v in df.aug_etb(mol, beta=2.0).items() if gto.charge(k) in (1, 2)}
    return {**basis, **light}


def auxiliary_mole(mol: gto.Mole, auxbasis: Any = None) -> gto.Mole:
    """The molecule of auxiliary functions; `auxbasis` as in PySCF.  InputError where there are none."""
    try:
        return df.make_auxmol(mol, auxbasis or auxiliary_basis(mol))
    except Exception as err:  # PySCF raises by element and basis: KeyError, RuntimeError, BasisNotFoundError
        raise InputError(
            f"no auxiliary basis for exact exchange with the basis {mol.basis!r} ({err}): give one by name, "
            'for example auxbasis="def2-universal-jkfit"'
        ) from err


class FittedExchange:
    """Tables of the density-fitting route for one molecule and one set of points.

    Parameters
    ----------
    mol : pyscf.gto.Mole
    coords : (G, 3) points in Bohr
    omega : range separation, Bohr^-1, for erf(omega r)/r; 0 for 1/r
    auxbasis : as in PySCF; by default `auxiliary_basis(mol)`
    max_memory : MB for the tables; what does not fit is kept on disk

    Raises InputError where there is no auxiliary basis.
    """

    def __init__(
        self, mol: gto.Mole, coords: np.ndarray, omega: float = 0.0, auxbasis: Any = None, max_memory: float = 4000
    ):
        self.mol, self.omega, self.max_memory = mol, omega, max_memory
        self.auxmol = auxiliary_mole(mol, auxbasis)
        metric = self.auxmol.intor("int2c2e")
        self._metric = scipy.linalg.cho_factor(metric, lower=True)
        self.naux = len(metric)
        store = Store(max_memory)
        self._pairs = store.empty((self.naux, mol.nao * (mol.nao + 1) // 2))
        self._fill_pairs()
        self.potentials = PotentialTable(AuxiliaryPotentials(self.auxmol, omega), coords, store)

    def _fill_pairs(self) -> None:
        """(P|mu nu), (naux, nao (nao + 1) / 2), by groups of auxiliary shells."""
        ao_loc = self.auxmol.ao_loc_nr()
        step = max(1, int(self.max_memory / 8 / (8e-6 * self._pairs.shape[1] * (ao_loc[1:] - ao_loc[:-1]).max())))
        nbas = self.mol.nbas
        for s0, s1 in lib.prange(0, self.auxmol.nbas, step):
            shells = (0, nbas, 0, nbas, s0, s1)
            block = df.incore.aux_e2(self.mol, self.auxmol, "int3c2e", aosym="s2ij", shls_slice=shells)
            self._pairs[ao_loc[s0] : ao_loc[s1]] = block.T

    def _half_transformed(self, x: np.ndarray):
        """(P|mu j) = sum_nu (P|mu nu) x_nu,j by groups of P: (slice, (P, nao, n))."""
        step = max(1, int(self.max_memory / 20 / (8e-6 * self.mol.nao * max(self.mol.nao, x.shape[1]))))
        for p0, p1 in lib.prange(0, self.naux, step):
            yield slice(p0, p1), lib.unpack_tril(self._pairs[p0:p1]) @ x

    def transformed(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(P|ij) = sum_mu,nu x_mu,i (P|mu nu) y_nu,j, (naux, n, m)."""
        out = np.empty((self.naux, x.shape[1], y.shape[1]))
        for at, half in self._half_transformed(y):
            np.matmul(x.T, half, out=out[at])
        return out

    def back_transformed(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """sum_P,j z^P_ij (P|mu nu) y_nu,j, (nao, n), for z (naux, n, m) and y (nao, m)."""
        out = np.zeros((self.mol.nao, z.shape[1]))
        for at, half in self._half_transformed(y):
            out += np.tensordot(half, z[at], axes=((0, 2), (0, 2)))
        return out

    def solve(self, x: np.ndarray) -> np.ndarray:
        """sum_Q (P|Q)^-1 x_Q for x (naux, n)."""
        return scipy.linalg.cho_solve(self._metric, x)

    def pairs(self, local: np.ndarray, signs: np.ndarray) -> FittedPairs:
        """Pair potentials of the orbitals of one spin."""
        return FittedPairs(self, local, signs)


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
        self.gathered = np.zeros_like(self.coefficients)

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
            self.gathered += group.gather(packed_products(orbitals, b[group.points]))

    def fitted(self) -> np.ndarray:
        """What `gather` has seen, solved for the fit, (naux, n, n)."""
        return lib.unpack_tril(np.ascontiguousarray(self.tables.solve(self.gathered.T)))

    def columns(self) -> np.ndarray:
        """sum_g,j b phi_i phi_j s_j v_mu,j over everything gathered, (nao, n)."""
        return self.tables.back_transformed(self.fitted(), self.local * self.signs)

    def full(self, b: np.ndarray, blocks: Callable[[], Iterable[tuple[int, np.ndarray]]]) -> np.ndarray:
        """The whole symmetric dE/dD, (nao, nao), for weights b (G,) at the points of the table.

        `blocks()` goes through these: (first point, basis functions (g, nao)), once for every few orbitals.
        """
        tables, (nao, n) = self.tables, self.local.shape
        half, step = np.zeros((nao, nao)), max(1, int(tables.max_memory / 4 / (8e-6 * tables.naux * nao)))
        for j0, j1 in lib.prange(0, n, step):
            local, gathered = self.local[:, j0:j1], np.zeros((tables.naux, nao, j1 - j0))
            for p0, ao in blocks():
                for group in tables.potentials.groups(p0, p0 + len(ao)):
                    here = basis_functions_at(ao[group.points])
                    values = ao[group.points][:, here].T
                    for j, weighted in enumerate(local[here].T @ values * b[p0:][group.points]):
                        gathered[:, here, j] += group.gather(values * weighted).T
            fitted = tables.solve(gathered.reshape(tables.naux, -1)).reshape(gathered.shape)
            for at, exchange in tables._half_transformed(local * self.signs[j0:j1]):
                half -= 0.5 * np.tensordot(fitted[at], exchange, axes=((0, 2), (0, 2)))
        return half + half.T
