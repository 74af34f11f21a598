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
from pyscf.lib.exceptions import BasisNotFoundError

from mlxc.errors import InputError
from mlxc.pairs import FittedPairs
from mlxc.parallel import each, shared_out
from mlxc.potentials import AuxiliaryPotentials
from mlxc.tables import Kept, PotentialTable, Store

#: Eigenvalues of a density matrix below this are nothing but rounding.
OCCUPATION_MIN = 1e-10
#: Grid points of a block: enough to keep one core busy for long, few enough for its cache.
BLOCK = 16384
#: Auxiliary functions of which three-index integrals are transformed at a time.
CHUNK = 64


def factorize(dm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L (nao, n) and signs (n,) with dm = L diag(signs) L^T, for a symmetric matrix dm (nao, nao).

    A positive matrix is factorised by pivoted Cholesky decomposition, whose columns are local (Aquilante, Pedersen,
    Sanchez de Meras, Koch, J. Chem. Phys. 125, 174101 (2006)); any other by diagonalisation.  Raises InputError for a
    complex one.
    """
    if np.iscomplexobj(dm):
        raise InputError("local hybrids take real orbitals only")
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


def energy_density(exchange: Any, dm: np.ndarray) -> np.ndarray:
    """ex (G,) of one spin's density matrix (nao, nao) at the points of a FittedExchange or AnalyticExchange."""
    points, pairs = exchange.potentials, exchange.pairs(*factorize(dm))
    ex = np.empty(len(points.coords))

    def evaluate(block: tuple[int, int]) -> None:
        p0, p1 = block
        phi = exchange.mol.eval_gto("GTOval", points.coords[p0:p1]) @ pairs.local
        ex[points.order[p0:p1]] = -0.5 * np.einsum("gi,gi,i->g", phi, pairs.potential(phi, p0), pairs.signs)

    each(evaluate, points.blocks(BLOCK))
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
    """PySCF's default auxiliary basis for exchange, but for H and He an even-tempered one up to its highest momentum.

    The s functions of their JK-fit sets leave errors of 5e-5 Eh in the exchange energy of one electron.  An
    even-tempered set has the momenta of products on one atom alone: for H with nothing but s functions (6-31G*) it
    lacks the p and d functions that products with other atoms need, and errs by 1e-3 Eh.  Ghost atoms have the
    functions of the atoms that they stand for.
    """
    basis = df.make_auxbasis(mol)
    for label in basis.keys() & mol._basis.keys():  # the latter may have elements that the molecule has not
        symbol, functions = label.removeprefix("GHOST-").removeprefix("X-"), mol._basis[label]
        if gto.charge(symbol) in (1, 2):
            atom = gto.M(atom=[(symbol, (0, 0, 0))], basis={symbol: functions}, spin=gto.charge(symbol) % 2, verbose=0)
            own = df.aug_etb(atom, beta=2.0)[symbol]
            highest = max(shell[0] for shell in own)
            try:
                default = gto.format_basis({symbol: basis[label]})[symbol]
            except BasisNotFoundError:  # of He in cc-pVQZ-jkfit, for one
                default = []
            basis[label] = own + [shell for shell in default if shell[0] > highest]
    return basis


def auxiliary_mole(mol: gto.Mole, auxbasis: Any = None) -> gto.Mole:
    """The molecule of auxiliary functions; `auxbasis` as in PySCF.  InputError where there are none."""
    try:
        auxmol = df.make_auxmol(mol, auxbasis or auxiliary_basis(mol))
    except Exception as err:  # PySCF raises by element and basis: KeyError, RuntimeError, BasisNotFoundError
        raise InputError(
            f"no auxiliary basis for exact exchange with the basis {mol.basis!r} ({err}): give one by name, "
            'for example mf.density_fit(auxbasis="def2-universal-jkfit")'
        ) from err
    shells = [(mol.atom_symbol(i), len(mol.atom_shell_ids(i)), len(auxmol.atom_shell_ids(i))) for i in range(mol.natm)]
    missing = sorted({symbol for symbol, own, auxiliary in shells if own and not auxiliary})
    if missing:  # PySCF only warns, and a basis chosen for one molecule stays in an object that is given another
        raise InputError(
            f"the auxiliary basis has nothing for {', '.join(missing)}: make another object for another molecule, or "
            "give one by name"
        )
    return auxmol


class FittedExchange:
    """Tables of the density-fitting route for one molecule and one set of points.

    Parameters
    ----------
    mol : pyscf.gto.Mole
    coords : (G, 3) points in Bohr
    omega : range separation, Bohr^-1, for erf(omega r)/r; 0 for 1/r
    auxbasis : as in PySCF; by default `auxiliary_basis(mol)`
    max_memory : MB for the tables, and half as much for `kept`; what does not fit is on disk, or not kept

    Raises InputError where there is no auxiliary basis or a linearly dependent one.
    """

    def __init__(
        self, mol: gto.Mole, coords: np.ndarray, omega: float = 0.0, auxbasis: Any = None, max_memory: float = 4000
    ):
        self.mol, self.omega, self.max_memory = mol, omega, max_memory
        self.auxmol = auxiliary_mole(mol, auxbasis)
        metric = self.auxmol.intor("int2c2e")
        try:
            self._metric = scipy.linalg.cho_factor(metric, lower=True)
        except np.linalg.LinAlgError as err:
            raise InputError(f"the auxiliary basis {auxbasis!r} is linearly dependent: give a smaller one") from err
        self.naux = len(metric)
        store = Store(max_memory)
        self._pairs = store.empty((self.naux, mol.nao * (mol.nao + 1) // 2))
        self._fill_pairs()
        self.potentials = PotentialTable(AuxiliaryPotentials(self.auxmol, omega), coords, store)
        #: Room for basis functions at the points, which are needed in every cycle, and how the points are divided into
        #: blocks, by the number of threads: see mlxc.integrate.
        self.kept, self.ranges = Kept(max_memory / 2), dict[int, list[tuple[int, int]]]()

    def _fill_pairs(self) -> None:
        """(P|mu nu), (naux, nao (nao + 1) / 2), by groups of auxiliary shells."""
        ao_loc = self.auxmol.ao_loc_nr()
        step = max(1, int(self.max_memory / 8 / (8e-6 * self._pairs.shape[1] * (ao_loc[1:] - ao_loc[:-1]).max())))
        nbas = self.mol.nbas
        for s0, s1 in lib.prange(0, self.auxmol.nbas, step):
            shells = (0, nbas, 0, nbas, s0, s1)
            block = df.incore.aux_e2(self.mol, self.auxmol, "int3c2e", aosym="s2ij", shls_slice=shells)
            self._pairs[ao_loc[s0] : ao_loc[s1]] = block.T

    def _chunks(self, columns: int) -> list[slice]:
        """Auxiliary functions by groups that every thread has room for, with `columns` half-transformed orbitals."""
        room = self.max_memory / 20 / lib.num_threads() / (8e-6 * self.mol.nao * max(self.mol.nao, columns))
        return [slice(p0, p1) for p0, p1 in lib.prange(0, self.naux, int(np.clip(room, 1, CHUNK)))]

    def _half_transformed(self, at: slice, x: np.ndarray) -> np.ndarray:
        """(P|mu j) = sum_nu (P|mu nu) x_nu,j for the functions P of one chunk, (P, nao, n)."""
        return lib.unpack_tril(self._pairs[at]) @ x

    def transformed(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(P|ij) = sum_mu,nu x_mu,i (P|mu nu) y_nu,j, (naux, n, m)."""
        out = np.empty((self.naux, x.shape[1], y.shape[1]))

        def transform(at: slice) -> None:
            np.matmul(x.T, self._half_transformed(at, y), out=out[at])

        each(transform, self._chunks(y.shape[1]))
        return out

    def back_transformed(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """sum_P,j z^P_ij (P|mu nu) y_nu,j, (nao, n), for z (naux, n, m) and y (nao, m)."""

        def transform(share: list[slice]) -> np.ndarray:
            out = np.zeros((self.mol.nao, z.shape[1]))
            for at in share:
                out += np.tensordot(self._half_transformed(at, y), z[at], axes=((0, 2), (0, 2)))
            return out

        return np.sum(shared_out(transform, self._chunks(y.shape[1])), axis=0)

    def solve(self, x: np.ndarray, overwrite: bool = False) -> np.ndarray:
        """sum_Q (P|Q)^-1 x_Q for x (naux, n), in place of x where that may be overwritten and is in Fortran order."""
        return scipy.linalg.cho_solve(self._metric, x, overwrite_b=overwrite)

    def pairs(self, local: np.ndarray, signs: np.ndarray) -> FittedPairs:
        """Pair potentials of the orbitals of one spin."""
        return FittedPairs(self, local, signs)
