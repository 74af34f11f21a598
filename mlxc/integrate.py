"""Integration of a local hybrid on PySCF's grid: energy and Fock matrix of restricted and unrestricted densities.

`LocalHybridNumInt` takes the place of PySCF's NumInt, whose own routines know nothing of exact exchange on the grid.
"""

from __future__ import annotations

import copy
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from pyscf import dft

from mlxc.exx import FittedExchange, factorize, occupied_fock
from mlxc.numint import Backend, derivatives


class Block:
    """One spin at the points of one block: orbitals and what a functional sees of them, without the total's factors.

    ao (4, g, nao) values and gradients of the basis functions, local (nao, n), signs (n,), pairs of mlxc.exx, and p0,
    the number of the first point.
    """

    def __init__(self, ao: np.ndarray, pairs: Any, p0: int):
        self.ao, self.pairs, self.p0 = ao, pairs, p0
        self.phi = ao @ pairs.local
        signed = self.phi * pairs.signs
        self.rho = np.einsum("gi,gi->g", signed[0], self.phi[0])
        self.grad = 2 * np.einsum("gi,xgi->xg", signed[0], self.phi[1:])
        self.tau = 0.5 * np.einsum("xgi,xgi->g", signed[1:], self.phi[1:])
        self.h = pairs.potential(self.phi[0], p0)
        self.ex = -0.5 * np.einsum("gi,gi->g", signed[0], self.h)

    def columns(self, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray, vex: np.ndarray) -> np.ndarray:
        """F @ local (nao, n) from the derivatives of E; its last part waits in `pairs` for the other blocks."""
        phi, grad_phi = self.phi[0], self.phi[1:]
        value = vrho[:, None] * phi + np.einsum("xg,xgi->gi", vgrad, grad_phi) - 0.5 * vex[:, None] * self.h
        slope = vgrad[:, :, None] * phi + (0.5 * vtau)[:, None] * grad_phi
        self.pairs.gather(vex, phi, self.p0)
        return self.ao[0].T @ value + sum(a.T @ s for a, s in zip(self.ao[1:], slope, strict=True))

    def semilocal(self, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray) -> np.ndarray:
        """All of the semilocal part of F, (nao, nao)."""
        value = 0.5 * vrho[:, None] * self.ao[0] + np.einsum("xg,xgm->gm", vgrad, self.ao[1:])
        half = self.ao[0].T @ value
        half += 0.25 * sum(a.T @ (vtau[:, None] * a) for a in self.ao[1:])
        return half + half.T


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
        self._tables: FittedExchange | None = None
        self._unoccupied: list | None = None
        self._whole = True

    def occupied(self) -> LocalHybridNumInt:
        """A copy for the cycles of one SCF.

        Its Fock matrices are exact between occupied orbitals and all others.  Between unoccupied orbitals, which the
        energy does not feel, they hold the semilocal part at the first density that they were asked for.
        """
        new = copy.copy(self)
        new._whole, new._unoccupied = False, None
        return new

    def tables(self, mol: Any, grids: Any, max_memory: float) -> FittedExchange:
        """Tables of exact exchange for `mol` on `grids`."""
        if grids.coords is None:
            grids.build(with_non0tab=True)
        tables = self._tables
        if tables is None or tables.mol is not mol or tables.coords is not grids.coords:
            omega = self.functional.exx_omega
            tables = self._tables = FittedExchange(mol, grids.coords, omega, self.auxbasis, max_memory / 2)
        return tables

    def integrate(self, mol: Any, grids: Any, dms: np.ndarray, max_memory: float = 2000) -> tuple:
        """(electrons (S,), E_xc, Fock matrices (S, nao, nao)) of spin density matrices dms (S, nao, nao).

        S = 1 stands for two equal spins.
        """
        spin = len(dms) - 1
        tables = self.tables(mol, grids, max_memory)
        pairs = [tables.pairs(*factorize(d)) for d in dms]
        nelec, exc = np.zeros(len(dms)), 0.0
        columns = [np.zeros_like(p.local) for p in pairs]
        semilocal = np.zeros_like(dms)
        whole = self._whole or self._unoccupied is None
        p1 = 0
        for ao, _, weight, _ in self.block_loop(mol, grids, mol.nao, 1, max_memory=max_memory / 4):
            p0, p1 = p1, p1 + len(weight)
            blocks = [Block(ao, p, p0) for p in pairs]
            e, potentials = potentials_of(self.functional, blocks, spin, weight)
            exc += e
            nelec += [b.rho @ weight for b in blocks]
            for s, (block, (vrho, vgrad, vtau, vex)) in enumerate(zip(blocks, potentials, strict=True)):
                if whole:
                    semilocal[s] += block.semilocal(vrho, vgrad, vtau)
                if self._whole:
                    block.pairs.gather_full(vex, ao[0], block.phi[0], p0)
                else:
                    columns[s] += block.columns(vrho, vgrad, vtau, vex)
        if self._whole:
            return nelec, exc, semilocal + [p.full() for p in pairs]
        if self._unoccupied is None:
            self._unoccupied = list(semilocal)
        overlap = mol.intor_symmetric("int1e_ovlp")
        fock = np.empty_like(dms)
        for s, (p, c) in enumerate(zip(pairs, columns, strict=True)):
            f, projector = occupied_fock(c - 0.5 * p.columns(), p.local, overlap)
            fock[s] = f + projector @ self._unoccupied[s] @ projector.T
        return nelec, exc, fock

    def nr_rks(self, mol, grids, xc_code, dms, relativity=0, hermi=1, max_memory=2000, verbose=None):
        """As PySCF's, for one density matrix."""
        self._xc_type(xc_code)
        nelec, exc, fock = self.integrate(mol, grids, np.asarray(dms)[None] / 2, max_memory)
        return 2 * nelec[0], exc, fock[0]

    def nr_uks(self, mol, grids, xc_code, dms, relativity=0, hermi=1, max_memory=2000, verbose=None):
        """As PySCF's, for one pair of density matrices."""
        self._xc_type(xc_code)
        dms = np.asarray(dms)
        return self.integrate(mol, grids, np.array([dms / 2, dms / 2]) if dms.ndim == 2 else dms, max_memory)


def potentials_of(functional: Any, blocks: list[Block], spin: int, weight: np.ndarray) -> tuple[float, list]:
    """E_xc of a block and its derivatives per spin: (d/dn, d/d grad n (3, g), d/dtau, d/dex), weights included."""
    scale = 2 - spin
    pairs = list(combinations_with_replacement(range(len(blocks)), 2))
    x = np.concatenate(
        [
            [scale * b.rho for b in blocks],
            [scale**2 * (blocks[s].grad * blocks[t].grad).sum(0) for s, t in pairs],
            [scale * b.tau for b in blocks],
            [scale * b.ex for b in blocks],
        ]
    )
    exc, *v = derivatives(functional, torch.from_numpy(x), spin, 1)
    energy = float((exc * x[: 1 + spin].sum(0)) @ weight)
    v = [row * weight for row in v]
    n = len(blocks)
    vrho, vsigma, vtau, vex = v[:n], v[n : n + len(pairs)], v[n + len(pairs) : -n], v[-n:]
    vgrad = [np.zeros_like(b.grad) for b in blocks]
    for (s, t), w in zip(pairs, vsigma, strict=True):
        vgrad[s] += scale * w * blocks[t].grad
        vgrad[t] += scale * w * blocks[s].grad
    return energy, list(zip(vrho, vgrad, vtau, vex, strict=True))
