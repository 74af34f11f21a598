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

from typing import Any

import numpy as np
import scipy.linalg
from pyscf import df, gto, lib

from mlxc.errors import InputError

#: Eigenvalues of a density matrix below this are nothing but rounding.
OCCUPATION_MIN = 1e-10
#: Points whose pairs of orbitals are handled at a time.
POINTS = 1024
#: An orbital below this fraction of the largest one everywhere in such a group of points is left out there.
ORBITAL_MIN = 1e-6


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
    mol, coords = exchange.mol, exchange.coords
    pairs = exchange.pairs(*factorize(dm))
    ex = np.empty(len(coords))
    for p0, p1 in lib.prange(0, len(coords), block):
        phi = mol.eval_gto("GTOval", coords[p0:p1]) @ pairs.local
        ex[p0:p1] = -0.5 * np.einsum("gi,gi,i->g", phi, pairs.potential(phi, p0), pairs.signs)
    return ex


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
        self.mol, self.coords, self.omega, self.max_memory = mol, coords, omega, max_memory
        try:
            self.auxmol = df.make_auxmol(mol, auxbasis or auxiliary_basis(mol))
        except Exception as err:  # PySCF raises by element and basis: KeyError, RuntimeError, BasisNotFoundError
            raise InputError(
                f"no auxiliary basis for exact exchange with the basis {mol.basis!r} ({err}): give one by name, "
                'for example auxbasis="def2-universal-jkfit"'
            ) from err
        self._disk: Any = None
        metric = self.auxmol.intor("int2c2e")
        self._metric = scipy.linalg.cho_factor(metric, lower=True)
        nao, self.naux = mol.nao, len(metric)
        self._pairs = self._store("pairs", (self.naux, nao * (nao + 1) // 2))
        self._fill_pairs()
        self._potentials = self._store("potentials", (len(coords), self.naux))
        with self.auxmol.with_range_coulomb(omega):
            for p0, p1 in lib.prange(0, len(coords), 8192):
                points = gto.fakemol_for_charges(coords[p0:p1])
                self._potentials[p0:p1] = gto.intor_cross("int2c2e", self.auxmol, points).T

    def _store(self, name: str, shape: tuple[int, int]) -> Any:
        """A table in memory if it takes less than half of max_memory, else on disk for as long as this object lives."""
        if shape[0] * shape[1] * 8e-6 < self.max_memory / 2:
            return np.empty(shape)
        self._disk = self._disk or lib.H5TmpFile()
        return self._disk.create_dataset(name, shape, "f8", chunks=(min(shape[0], 256), shape[1]))

    def _fill_pairs(self) -> None:
        """(P|mu nu), (naux, nao (nao + 1) / 2), by groups of auxiliary shells."""
        ao_loc = self.auxmol.ao_loc_nr()
        step = max(1, int(self.max_memory / 8 / (8e-6 * self._pairs.shape[1] * (ao_loc[1:] - ao_loc[:-1]).max())))
        nbas = self.mol.nbas
        for s0, s1 in lib.prange(0, self.auxmol.nbas, step):
            shells = (0, nbas, 0, nbas, s0, s1)
            block = df.incore.aux_e2(self.mol, self.auxmol, "int3c2e", aosym="s2ij", shls_slice=shells)
            self._pairs[ao_loc[s0] : ao_loc[s1]] = block.T

    def half_transformed(self, local: np.ndarray) -> np.ndarray:
        """(P|mu j), (naux, nao, n)."""
        out = np.empty((self.naux, self.mol.nao, local.shape[1]))
        step = max(1, int(200 / (8e-6 * self.mol.nao**2)))
        for p0, p1 in lib.prange(0, self.naux, step):
            np.matmul(lib.unpack_tril(self._pairs[p0:p1]), local, out=out[p0:p1])
        return out

    def solve(self, x: np.ndarray) -> np.ndarray:
        """sum_Q (P|Q)^-1 x_Q for x (naux, n)."""
        return scipy.linalg.cho_solve(self._metric, x)

    def potentials(self, p0: int, p1: int) -> np.ndarray:
        """V_P(g), (p1 - p0, naux)."""
        return self._potentials[p0:p1]

    def pairs(self, local: np.ndarray, signs: np.ndarray) -> FittedPairs:
        """Pair potentials of the orbitals of one spin."""
        return FittedPairs(self, local, signs)


def _row_starts(n: int) -> np.ndarray:
    """Where each row of a packed lower triangle begins."""
    return np.arange(n) * np.arange(1, n + 1) // 2


class FittedPairs:
    """Pair potentials of one spin's orbitals, L (nao, n) with signs (n,), and the derivative gathered from them."""

    def __init__(self, tables: FittedExchange, local: np.ndarray, signs: np.ndarray):
        self.tables, self.local, self.signs = tables, local, signs
        self.n = local.shape[1]
        self.half = tables.half_transformed(local)
        rows, columns = np.tril_indices(self.n)
        molecular = np.matmul(local.T, self.half)[:, rows, columns]
        #: C^P_ij for i >= j, one pair per row.
        self.coefficients = np.ascontiguousarray(tables.solve(molecular).T)
        self.gathered = np.zeros_like(self.coefficients)
        self.gathered_full: Any = 0.0

    def _groups(self, phi: np.ndarray, p0: int):
        """Groups of points with the orbitals that are there: points, table of V_P, orbitals and their pairs."""
        for g0, g1 in lib.prange(0, len(phi), POINTS):
            size = abs(phi[g0:g1]).max(axis=0, initial=0.0)
            here = np.flatnonzero(size > ORBITAL_MIN * size.max(initial=0.0))
            if len(here):
                rows, columns = np.tril_indices(len(here))
                packed = here[rows] * (here[rows] + 1) // 2 + here[columns]
                yield slice(g0, g1), self.tables.potentials(p0 + g0, p0 + g1), here, packed

    def potential(self, phi: np.ndarray, p0: int) -> np.ndarray:
        """h (g, n) at the points p0 ... p0 + g, where the orbitals are phi (g, n)."""
        out = np.zeros_like(phi)
        for points, table, here, packed in self._groups(phi, p0):
            signed = np.ascontiguousarray((phi[points, here] * self.signs[here]).T)
            v = self.coefficients[packed] @ table.T
            h = np.zeros_like(signed)
            for i, start in enumerate(_row_starts(len(here))):
                row = v[start : start + i + 1]
                h[i] += np.einsum("jg,jg->g", row, signed[: i + 1])
                h[:i] += row[:i] * signed[i]
            out[points, here] = h.T
        return out

    def gather(self, b: np.ndarray, phi: np.ndarray, p0: int) -> None:
        """Add sum_g b phi_i phi_j V_P for weights b (g,) and orbitals phi (g, n) at the points p0 ... p0 + g."""
        for points, table, here, packed in self._groups(phi, p0):
            orbitals = np.ascontiguousarray(phi[points, here].T)
            weighted = orbitals * b[points]
            products = np.empty((len(packed), len(table)))
            for i, start in enumerate(_row_starts(len(here))):
                np.multiply(orbitals[: i + 1], weighted[i], out=products[start : start + i + 1])
            self.gathered[packed] += products @ table

    def gather_full(self, b: np.ndarray, ao: np.ndarray, phi: np.ndarray, p0: int) -> None:
        """Add sum_g b phi_mu phi_j V_P, for `full`; ao (g, nao) are the basis functions at the points."""
        for g0, g1 in lib.prange(0, len(phi), 128):
            products = np.einsum("g,gm,gj->gmj", b[g0:g1], ao[g0:g1], phi[g0:g1]).reshape(g1 - g0, -1)
            self.gathered_full += (self.tables.potentials(p0 + g0, p0 + g1).T @ products).reshape(self.half.shape)

    def full(self) -> np.ndarray:
        """The whole symmetric dE/dD, (nao, nao), from everything that `gather_full` has seen."""
        fitted = self.tables.solve(self.gathered_full.reshape(len(self.half), -1)).reshape(self.half.shape)
        half = -0.5 * np.einsum("Pmj,Pnj->mn", fitted, self.half * self.signs, optimize=True)
        return half + half.T

    def columns(self) -> np.ndarray:
        """sum_g,j b phi_i phi_j s_j v_mu,j over everything gathered, (nao, n)."""
        return np.einsum("Pij,Pmj->mi", self.fitted(), self.half * self.signs, optimize=True)

    def fitted(self) -> np.ndarray:
        """What `gather` has seen, solved for the fit, (naux, n, n)."""
        return lib.unpack_tril(np.ascontiguousarray(self.tables.solve(self.gathered.T)))
