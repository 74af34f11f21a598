"""Linear response of a local hybrid: what second-order solvers, stability analysis, TDDFT and polarizabilities ask for.

A change of the density matrix that touches the occupied orbitals phi_j = sum_mu phi_mu L_mu,j of one spin is
dD = A L^T + L B^T, with A != B where excitations and de-excitations are treated apart (TDDFT).  With a_j, b_j the
orbitals of A and B and c = a + b, the exact-exchange energy density (mlxc.exx) changes by

    dex = -1/2 sum_j [ c_j h_j + phi_j sum_i phi_i v_i,c_j ],

and the exact-exchange operator with weights w = dE/dex by -1/2 sum_g w { v_mu,a_j phi_j phi_i + v_mu,j b_j phi_i
+ phi_mu [ a_j v_j,i + phi_j v_b_j,i ] } (its columns on L; its transpose's have a and b exchanged).
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from pyscf import lib

from mlxc.exx import POINTS
from mlxc.integrate import Block, LocalHybridNumInt, gradient_potentials, semilocal_columns, spin_variables
from mlxc.numint import derivatives


class PerturbedPairs:
    """Potentials v_i,x_j(g) between orbitals i of `pairs` and as many orbitals x_j = sum_mu phi_mu X_mu,j."""

    def __init__(self, pairs: Any, x: np.ndarray):
        tables, n = pairs.tables, pairs.n
        self.half = tables.half_transformed(x)
        molecular = np.matmul(pairs.local.T, self.half).reshape(-1, n * n)
        #: C^P_i,x_j, (naux, n * n).
        self.coefficients = tables.solve(molecular)


class Response:
    """dD -> dF for the occupied orbitals (nao, n) of each spin; S = 1 orbitals stand for two equal spins.

    Exact in the blocks that connect occupied orbitals with any others; zero between unoccupied ones.
    """

    def __init__(self, ni: LocalHybridNumInt, mol: Any, grids: Any, occupied: list[np.ndarray], max_memory: float):
        self.ni, self.mol, self.grids, self.max_memory = ni, mol, grids, max_memory
        self.spin, self.overlap = len(occupied) - 1, mol.intor_symmetric("int1e_ovlp")
        tables = ni.tables(mol, grids, max_memory)
        self.pairs = [tables.pairs(c, np.ones(c.shape[1])) for c in occupied]
        self.first, self.second = [], []
        for block, weight in self._blocks():
            x = torch.from_numpy(spin_variables(block, self.spin))
            _, *rows = derivatives(ni.functional, x, self.spin, 2)
            self.first.append(np.array(rows[: len(x)]) * weight)
            self.second.append(np.array(rows[len(x) :]) * weight)
            for b, w in zip(block, self.first[-1][-len(block) :], strict=True):
                b.pairs.gather(w, b.phi[0], b.p0)
        #: sum_g w phi_i phi_j V_P, solved for the fit, (naux, n, n).
        self.fitted = [p.fitted() for p in self.pairs]
        #: C^P_ij of all pairs, (naux, n * n).
        self.zeroth = [
            lib.unpack_tril(np.ascontiguousarray(p.coefficients.T)).reshape(-1, p.n * p.n) for p in self.pairs
        ]

    def _blocks(self):
        return self.ni.blocks(self.mol, self.grids, self.pairs, self.max_memory)

    def __call__(self, dms: np.ndarray) -> np.ndarray:
        """dF (S, nao, nao) for dms (S, nao, nao) of spin channels, symmetric or not."""
        changes = [
            Change(p, f, c, self._sides(d, p.local))
            for d, p, f, c in zip(dms, self.pairs, self.fitted, self.zeroth, strict=True)
        ]
        for (blocks, _), v, second in zip(self._blocks(), self.first, self.second, strict=True):
            for change, block in zip(changes, blocks, strict=True):
                change.enter(block)
            x1 = self._variables(blocks, changes)
            v1 = np.zeros_like(x1)
            for (k, m), row in zip(combinations_with_replacement(range(len(x1)), 2), second, strict=True):
                v1[k] += row * x1[m]
                if k != m:
                    v1[m] += row * x1[k]
            n = len(blocks)
            sigma, sigma1 = v[n : -2 * n], v1[n : -2 * n]
            vgrad1 = gradient_potentials([b.grad for b in blocks], sigma1, self.spin)
            grad_part = gradient_potentials([c.grad for c in changes], sigma, self.spin)
            for s, (change, block) in enumerate(zip(changes, blocks, strict=True)):
                tau1, ex1 = v1[-2 * n + s], v1[-n + s]
                change.add(block, v1[s], vgrad1[s] + grad_part[s], tau1, ex1, v[-n + s])
        return np.array([self._rebuild(c, p.local) for c, p in zip(changes, self.pairs, strict=True)])

    def _sides(self, dm: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A and B of dm = A L^T + L B^T."""
        sl = self.overlap @ local
        both = 0.5 * sl.T @ dm @ sl
        return dm @ sl - local @ both, dm.T @ sl - local @ both.T

    def _variables(self, blocks: list[Block], changes: list[Change]) -> np.ndarray:
        """Changes of the functional's variables, as in `spin_variables`."""
        scale = 2 - self.spin
        pairs = combinations_with_replacement(range(len(blocks)), 2)
        sigma = [
            scale**2 * ((blocks[s].grad * changes[t].grad).sum(0) + (blocks[t].grad * changes[s].grad).sum(0))
            for s, t in pairs
        ]
        rest = [[scale * getattr(c, k) for c in changes] for k in ("rho", "tau", "ex")]
        return np.concatenate([rest[0], sigma, rest[1], rest[2]])

    def _rebuild(self, change: Change, local: np.ndarray) -> np.ndarray:
        """dF (nao, nao) from dF @ L and dF^T @ L."""
        right, left = change.columns()
        sl = self.overlap @ local
        return right @ sl.T + sl @ left.T - sl @ (local.T @ right) @ sl.T


class Change:
    """First-order change of one spin, at the points of one block after the other, and the columns gathered from it."""

    def __init__(self, pairs: Any, fitted: np.ndarray, zeroth: np.ndarray, sides: tuple[np.ndarray, np.ndarray]):
        self.pairs, self.fitted, self.zeroth, self.sides = pairs, fitted, zeroth, sides
        self.perturbed = [PerturbedPairs(pairs, x) for x in sides]
        n = pairs.n
        self.direct = [np.zeros_like(x) for x in sides]
        self.gathered = [np.zeros_like(fitted.reshape(-1, n * n)) for _ in range(2)]

    def enter(self, block: Block) -> None:
        """Changes of what a functional sees, at the points of `block`."""
        phi, h = block.phi, block.h
        self.values = [block.ao[0] @ x for x in self.sides]
        c = block.ao @ (self.sides[0] + self.sides[1])
        self.rho = np.einsum("gj,gj->g", c[0], phi[0])
        self.grad = np.einsum("xgj,gj->xg", c[1:], phi[0]) + np.einsum("gj,xgj->xg", c[0], phi[1:])
        self.tau = 0.5 * np.einsum("xgj,xgj->g", c[1:], phi[1:])
        # Per side x: sum_j phi_j v_i,x_j and sum_j x_j v_i,j.
        self.moved, self.kept = ([np.empty_like(phi[0]) for _ in range(2)] for _ in range(2))
        n = self.pairs.n
        for g0, g1 in lib.prange(0, len(h), POINTS):
            table = self.pairs.tables.potentials(block.p0 + g0, block.p0 + g1)
            v0 = (table @ self.zeroth).reshape(-1, n, n)
            for k, (x, value) in enumerate(zip(self.perturbed, self.values, strict=True)):
                v1 = (table @ x.coefficients).reshape(-1, n, n)
                self.moved[k][g0:g1] = np.einsum("gij,gj->gi", v1, phi[0][g0:g1])
                self.kept[k][g0:g1] = np.einsum("gij,gj->gi", v0, value[g0:g1])
        moved = np.einsum("gi,gi->g", phi[0], self.moved[0] + self.moved[1])
        self.ex = -0.5 * (np.einsum("gj,gj->g", c[0], h) + moved)

    def add(
        self, block: Block, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray, vex: np.ndarray, weight: np.ndarray
    ) -> None:
        """Gather the columns from changes of the potentials; `weight` is the unchanged dE/dex."""
        phi = block.phi[0]
        same = semilocal_columns(block.ao, block.phi, vrho, vgrad, vtau) - 0.5 * block.ao[0].T @ (
            vex[:, None] * block.h
        )
        n = self.pairs.n
        for k in range(2):
            first, second = k, 1 - k
            exchange = weight[:, None] * (self.kept[first] + self.moved[second])
            self.direct[k] += same - 0.5 * block.ao[0].T @ exchange
            products = weight[:, None] * self.values[second] + vex[:, None] * phi
            for g0, g1 in lib.prange(0, len(phi), POINTS):
                table = self.pairs.tables.potentials(block.p0 + g0, block.p0 + g1)
                pair = phi[g0:g1, :, None] * products[g0:g1, None, :]
                self.gathered[k] += table.T @ pair.reshape(-1, n * n)

    def columns(self) -> list[np.ndarray]:
        """dF @ L and dF^T @ L, (nao, n) each."""
        out = []
        for k in range(2):
            fitted = self.pairs.tables.solve(self.gathered[k]).reshape(self.fitted.shape)
            moved = np.einsum("Pij,Pmj->mi", self.fitted, self.perturbed[k].half, optimize=True)
            kept = np.einsum("Pij,Pmj->mi", fitted, self.pairs.half, optimize=True)
            out.append(self.direct[k] - 0.5 * (moved + kept))
        return out
