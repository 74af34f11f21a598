"""Integration of a local hybrid on PySCF's grid: energy and Fock matrix of restricted and unrestricted densities.

`LocalHybridNumInt` takes the place of PySCF's NumInt, whose own routines know nothing of exact exchange on the grid.
"""

from __future__ import annotations

from functools import reduce
from itertools import combinations_with_replacement
from operator import iadd
from typing import Any

import numpy as np
import torch
from pyscf import dft, lib

from mlxc.backend import Backend
from mlxc.errors import InputError
from mlxc.exx import BLOCK, FittedExchange, factorize, occupied_fock
from mlxc.numint import derivatives
from mlxc.pairs import basis_functions_at
from mlxc.parallel import shared_out


class Block:
    """One spin at the points of one block: orbitals and what a functional sees of them, without the total's factors.

    ao (4, g, nao) values and gradients of the basis functions, local (nao, n), signs (n,), pairs of mlxc.exx, and p0,
    the number of the first point.
    """

    def __init__(self, ao: np.ndarray, pairs: Any, p0: int):
        self.ao, self.pairs, self.p0 = ao, pairs, p0
        # Basis functions have the points innermost, and products along them are twice as fast.
        self.phi = (pairs.local.T @ ao.swapaxes(1, 2)).swapaxes(1, 2)
        signed = self.phi * pairs.signs
        self.rho = np.einsum("gi,gi->g", signed[0], self.phi[0])
        self.grad = 2 * np.einsum("gi,xgi->xg", signed[0], self.phi[1:])
        self.tau = 0.5 * np.einsum("xgi,xgi->g", signed[1:], self.phi[1:])
        self.h = pairs.potential(self.phi[0], p0)
        self.ex = -0.5 * np.einsum("gi,gi->g", signed[0], self.h)

    def columns(self, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray, vex: np.ndarray) -> np.ndarray:
        """F @ local (nao, n) from the derivatives of E; its last part waits in `pairs` for the other blocks."""
        self.pairs.gather(vex, self.phi[0], self.p0)
        exchange = self.ao[0].T @ (vex[:, None] * self.h)
        return semilocal_columns(self.ao, self.phi, vrho, vgrad, vtau) - 0.5 * exchange

    def semilocal(self, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray) -> np.ndarray:
        """All of the semilocal part of F, (nao, nao)."""
        out = np.zeros((self.ao.shape[2], self.ao.shape[2]))
        for at in self.pairs.tables.potentials.slices(self.p0, self.p0 + self.ao.shape[1]):
            here = basis_functions_at(self.ao[0, at])
            ao = self.ao[:, at][:, :, here]
            value = 0.5 * vrho[at, None] * ao[0] + np.einsum("xg,xgm->gm", vgrad[:, at], ao[1:])
            half = ao[0].T @ value
            half += 0.25 * sum(a.T @ (vtau[at, None] * a) for a in ao[1:])
            out[np.ix_(here, here)] += half + half.T
        return out


class LocalHybridNumInt(dft.numint.NumInt):
    """PySCF's NumInt for one local hybrid.

    Tables of exact exchange are kept for the last molecule and grid.  `nr_rks` and `nr_uks` return the whole Fock
    matrix; those of the copy that `occupied()` makes only what the occupied orbitals feel, at a fraction of the cost.
    """

    def __init__(self, functional: Any, auxbasis: Any = None):
        super().__init__()
        self.libxc = Backend(functional)
        self.functional = functional
        self.auxbasis = auxbasis
        #: [molecule, coordinates, auxiliary basis, tables]; one list for all copies, so that what one of them makes
        #: serves the others.
        self._tables: list[Any] = []
        self._unoccupied: list | None = None
        #: What this one is the `occupied()` copy of.
        self.original: LocalHybridNumInt | None = None

    def occupied(self) -> LocalHybridNumInt:
        """A copy for the cycles of one SCF.

        Its Fock matrices are exact between occupied orbitals and all others.  Between unoccupied orbitals, which the
        energy does not feel, they hold the semilocal part at the first density that they were asked for.
        """
        new = self.copy()
        new.original, new._unoccupied = self, None
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Without tables: a deep copy, and one in another process, make their own."""
        return super().__getstate__() | {"_tables": []}

    def tables(self, mol: Any, grids: Any, max_memory: float) -> FittedExchange:
        """Tables of exact exchange for `mol` on `grids`."""
        if grids.coords is None:
            grids.build(with_non0tab=True)
        wanted = mol, grids.coords, self.auxbasis
        if not self._tables or any(a is not b for a, b in zip(self._tables, wanted, strict=False)):
            self._tables.clear()  # before new ones take as much memory
            exchange = FittedExchange(mol, grids.coords, self.functional.exx_omega, self.auxbasis, max_memory / 2)
            self._tables[:] = *wanted, exchange
        return self._tables[-1]

    def ranges(self, mol: Any, grids: Any, max_memory: float) -> list[tuple[int, int]]:
        """First point of every block, and the one after its last: no more than the threads have memory for."""
        tables, threads = self.tables(mol, grids, max_memory), lib.num_threads()
        if threads not in tables.ranges:  # always the same, for what is kept of them
            points = tables.potentials
            room = int(max_memory / 8 / threads / (8e-6 * 5 * mol.nao))
            tables.ranges[threads] = list(points.blocks(min(BLOCK, room, -(-len(points.coords) // threads))))
        return tables.ranges[threads]

    def blocks(self, mol: Any, grids: Any, pairs: list[Any], ranges: list[tuple[int, int]]):
        """The blocks of these ranges: (one Block for the pairs of each spin, weights)."""
        tables = pairs[0].tables
        for p0, p1 in ranges:
            ao = self._basis(grids, tables, p0, p1)
            yield [Block(ao, p, p0) for p in pairs], grids.weights[tables.potentials.order[p0:p1]]

    def _basis(self, grids: Any, tables: FittedExchange, p0: int, p1: int) -> np.ndarray:
        """Basis functions and their gradients (4, g, nao) at points p0 ... p1 of the tables."""
        return tables.kept.get((p0, p1), lambda: self._evaluated(grids, tables, p0, p1, deriv=1))

    def _basis_alone(self, grids: Any, tables: FittedExchange, p0: int, p1: int) -> np.ndarray:
        """The same (g, nao) without gradients, which cost three times as much where they are not kept."""
        kept = tables.kept.find((p0, p1))
        return self._evaluated(grids, tables, p0, p1, deriv=0) if kept is None else kept[0]

    def _evaluated(self, grids: Any, tables: FittedExchange, p0: int, p1: int, deriv: int) -> np.ndarray:
        mol, coords = tables.mol, tables.potentials.coords[p0:p1]
        return self.eval_ao(mol, coords, deriv, non0tab=self.make_mask(mol, coords), cutoff=grids.cutoff)

    def variables(self, mol: Any, grids: Any, dms: np.ndarray, max_memory: float = 2000) -> np.ndarray:
        """What the functional sees of spin density matrices (S, nao, nao), as `spin_variables`, in the grid's order."""
        tables = self.tables(mol, grids, max_memory)
        pairs, order = [tables.pairs(*factorize(d)) for d in dms], tables.potentials.order

        def work(share: list[tuple[int, int]]) -> list[np.ndarray]:
            return [spin_variables(blocks, len(dms) - 1) for blocks, _ in self.blocks(mol, grids, pairs, share)]

        ranges = self.ranges(mol, grids, max_memory)
        shares = shared_out(work, ranges)
        out = np.empty((len(shares[0][0]), len(order)))
        for k, share in enumerate(shares):
            for (p0, p1), x in zip(ranges[k :: len(shares)], share, strict=True):
                out[:, order[p0:p1]] = x
        return out

    def integrate(self, mol: Any, grids: Any, dms: np.ndarray, max_memory: float = 2000) -> tuple:
        """(electrons (S,), E_xc, Fock matrices (S, nao, nao)) of spin density matrices dms (S, nao, nao).

        S = 1 stands for two equal spins.
        """
        spin = len(dms) - 1
        tables = self.tables(mol, grids, max_memory)
        pairs = [tables.pairs(*factorize(d)) for d in dms]
        exchange = np.empty((len(dms), len(tables.potentials.coords)))
        whole = self.original is None
        all_semilocal = whole or self._unoccupied is None

        def work(share: list[tuple[int, int]]) -> tuple:
            own = [p.share() for p in pairs]
            nelec, exc = np.zeros(len(dms)), 0.0
            columns = [np.zeros_like(p.local) for p in own]
            semilocal = np.zeros_like(dms)
            for (p0, p1), (blocks, weight) in zip(share, self.blocks(mol, grids, own, share), strict=True):
                energy, potentials = potentials_of(self.functional, blocks, spin, weight)
                exc += energy @ weight
                nelec += [b.rho @ weight for b in blocks]
                for s, (block, (vrho, vgrad, vtau, vex)) in enumerate(zip(blocks, potentials, strict=True)):
                    if all_semilocal:
                        semilocal[s] += block.semilocal(vrho, vgrad, vtau)
                    if whole:
                        exchange[s, p0:p1] = vex
                    else:
                        columns[s] += block.columns(vrho, vgrad, vtau, vex)
            return nelec, exc, semilocal, *([] if whole else [*columns, *(p.gathered for p in own)])

        ranges = self.ranges(mol, grids, max_memory)
        gathered = 1e-6 * sum(p.coefficients.nbytes for p in pairs)  # by every thread
        # PySCF takes off what this process has already, the kept basis functions too.
        room = max_memory + tables.kept.size
        shares = shared_out(work, ranges, most=int(room / 4 / max(gathered, 1e-6)))
        nelec, exc, semilocal, *rest = (reduce(iadd, x) for x in zip(*shares, strict=True))
        del shares
        if whole:

            def basis(p0: int, p1: int) -> np.ndarray:
                return self._basis_alone(grids, tables, p0, p1)

            return nelec, exc, semilocal + [p.full(b, ranges, basis) for p, b in zip(pairs, exchange, strict=True)]
        if self._unoccupied is None:
            self._unoccupied = list(semilocal)
        overlap = mol.intor_symmetric("int1e_ovlp")
        fock = np.empty_like(dms)
        columns = rest[: len(dms)]
        for s, p in enumerate(pairs):
            p.gathered = rest[len(dms) + s]
            f, projector = occupied_fock(columns[s] - 0.5 * p.columns(), p.local, overlap)
            fock[s] = f + projector @ self._unoccupied[s] @ projector.T
        return nelec, exc, fock

    def nr_rks(self, mol, grids, xc_code, dms, relativity=0, hermi=1, max_memory=2000, verbose=None):
        """As PySCF's, for one density matrix.  Raises InputError for a list of them."""
        self._xc_type(xc_code)
        one_at_a_time(dms, 2)
        nelec, exc, fock = self.integrate(mol, grids, np.asarray(dms)[None] / 2, max_memory)
        return 2 * nelec[0], exc, fock[0]

    def nr_uks(self, mol, grids, xc_code, dms, relativity=0, hermi=1, max_memory=2000, verbose=None):
        """As PySCF's, for one pair of density matrices.  Raises InputError for a list of them."""
        self._xc_type(xc_code)
        one_at_a_time(dms, 3)
        dms = np.asarray(dms)
        return self.integrate(mol, grids, np.array([dms / 2, dms / 2]) if dms.ndim == 2 else dms, max_memory)


def one_at_a_time(dms: Any, dimensions: int) -> None:
    """InputError for density matrices in an array of more dimensions."""
    if np.ndim(dms) > dimensions:
        raise InputError("a local hybrid takes one density at a time: call get_veff for each")


def semilocal_factors(
    phi: np.ndarray, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Half the derivatives of E with respect to s_i phi_i (g, n) and its gradient (3, g, n), of orbitals (4, g, n)."""
    value = vrho[:, None] * phi[0] + np.einsum("xg,xgi->gi", vgrad, phi[1:])
    slope = vgrad[:, :, None] * phi[0] + (0.5 * vtau)[:, None] * phi[1:]
    return value, slope


def semilocal_columns(
    ao: np.ndarray, phi: np.ndarray, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray
) -> np.ndarray:
    """The semilocal part of F @ local (nao, n): ao (4, g, nao) and orbitals phi (4, g, n), each with gradients."""
    value, slope = semilocal_factors(phi, vrho, vgrad, vtau)
    return sum(s.T @ a for a, s in zip(ao, (value, *slope), strict=True)).T


def spin_variables(blocks: list[Block], spin: int) -> np.ndarray:
    """The variables of mlxc.numint, (nvar, g): totals from the one block of spin = 0, both spins' for spin = 1."""
    scale = 2 - spin
    pairs = combinations_with_replacement(range(len(blocks)), 2)
    sigma = [scale**2 * (blocks[s].grad * blocks[t].grad).sum(0) for s, t in pairs]
    rho, tau, ex = ([scale * getattr(b, k) for b in blocks] for k in ("rho", "tau", "ex"))
    return np.concatenate([rho, sigma, tau, ex])


def gradient_potentials(grad: list[np.ndarray], vsigma: np.ndarray, spin: int) -> list[np.ndarray]:
    """sum over spin pairs of dE/dsigma (npair, g) times the other's gradient, (3, g) per spin."""
    out = [np.zeros_like(g) for g in grad]
    for (s, t), w in zip(combinations_with_replacement(range(len(grad)), 2), vsigma, strict=True):
        out[s] += (2 - spin) * w * grad[t]
        out[t] += (2 - spin) * w * grad[s]
    return out


def potentials_of(functional: Any, blocks: list[Block], spin: int, weight: np.ndarray) -> tuple[np.ndarray, list]:
    """Energy per volume (g,), and per spin (d/dn, d/d grad n (3, g), d/dtau, d/dex) of E_xc, weights included."""
    x = spin_variables(blocks, spin)
    exc, *rows = derivatives(functional, torch.from_numpy(x), spin, 1)
    energy = exc * x[: 1 + spin].sum(0)
    v, n = np.array(rows) * weight, len(blocks)
    vgrad = gradient_potentials([b.grad for b in blocks], v[n : -2 * n], spin)
    return energy, list(zip(v[:n], vgrad, v[-2 * n : -n], v[-n:], strict=True))
