"""Linear response of a local hybrid: what second-order solvers, stability analysis, TDDFT and polarizabilities ask for.

A change of the density matrix that touches the occupied orbitals phi_j = sum_mu phi_mu L_mu,j of one spin is
dD = A L^T + L B^T, with A != B where excitations and de-excitations are treated apart (TDDFT).  With a_j, b_j the
orbitals of A and B and c = a + b, the exact-exchange energy density (mlxc.exx) changes by

    dex = -1/2 sum_j [ c_j h_j + phi_j sum_i phi_i v_i,c_j ],

and the exact-exchange operator with weights w = dE/dex by -1/2 sum_g w { v_mu,a_j phi_j phi_i + v_mu,j b_j phi_i
+ phi_mu [ a_j v_j,i + phi_j v_b_j,i ] } (its columns on L; its transpose's have a and b exchanged).
"""

from __future__ import annotations

import copy
from functools import reduce
from itertools import combinations_with_replacement
from operator import iadd
from typing import Any

import numpy as np
import torch
from pyscf import lib

from mlxc.integrate import Block, LocalHybridNumInt, gradient_potentials, semilocal_columns, spin_variables
from mlxc.numint import derivatives
from mlxc.pairs import packed_product
from mlxc.parallel import shared_out


class PerturbedPairs:
    """Potentials v_i,x_j(g) between orbitals i of `pairs` and as many orbitals x_j = sum_mu phi_mu X_mu,j."""

    def __init__(self, pairs: Any, x: np.ndarray):
        self.x, tables = x, pairs.tables
        molecular = tables.transformed(pairs.local, x).reshape(-1, pairs.n**2)
        #: C^P_i,x_j, (n * n, naux).
        self.coefficients = np.ascontiguousarray(tables.solve(molecular).T)


class Response:
    """dD -> dF for the occupied orbitals (nao, n) of each spin; S = 1 orbitals stand for two equal spins.

    Orbitals are those of D = L L^T: orthogonal, a fractionally occupied one times the root of its occupation.
    Exact in the blocks that connect occupied orbitals with any others; zero between unoccupied ones.
    """

    def __init__(self, ni: LocalHybridNumInt, mol: Any, grids: Any, occupied: list[np.ndarray], max_memory: float):
        self.ni, self.mol, self.grids, self.max_memory = ni, mol, grids, max_memory
        self.spin, overlap = len(occupied) - 1, mol.intor_symmetric("int1e_ovlp")
        tables = ni.tables(mol, grids, max_memory)
        self.pairs = [tables.pairs(c, np.ones(c.shape[1])) for c in occupied]
        #: S L (L^T S L)^-1 of each spin: its transpose takes L to unity.
        self.duals = [overlap @ c / np.einsum("mi,mn,ni->i", c, overlap, c, optimize=True) for c in occupied]
        self.ranges = ni.ranges(mol, grids, max_memory)
        #: First and second derivatives at the points of each block, by its first point.
        self.first: dict[int, np.ndarray] = {}
        self.second: dict[int, np.ndarray] = {}
        shares = shared_out(self._differentiate, self.ranges)
        for p, *gathered in zip(self.pairs, *shares, strict=True):
            p.gathered = reduce(iadd, gathered)
        #: sum_g w phi_i phi_j V_P, solved for the fit, (naux, n, n).
        self.fitted = [p.fitted() for p in self.pairs]

    def _differentiate(self, share: list[tuple[int, int]]) -> list[np.ndarray]:
        """Fill `first` and `second` for these blocks; what their points give to `gathered` of each spin."""
        pairs = [p.share() for p in self.pairs]
        for blocks, weight in self._blocks(share, pairs):
            x, p0 = torch.from_numpy(spin_variables(blocks, self.spin)), blocks[0].p0
            _, *rows = derivatives(self.ni.functional, x, self.spin, 2)
            self.first[p0] = np.array(rows[: len(x)]) * weight
            self.second[p0] = np.array(rows[len(x) :]) * weight
            for b, w in zip(blocks, self.first[p0][-len(blocks) :], strict=True):
                b.pairs.gather(w, b.phi[0], b.p0)
        return [p.gathered for p in pairs]

    def _blocks(self, share: list[tuple[int, int]], pairs: list[Any]):
        return self.ni.blocks(self.mol, self.grids, pairs, share)

    def __call__(self, dms: np.ndarray) -> np.ndarray:
        """dF (m, S, nao, nao) for dms (m, S, nao, nao) of spin channels, symmetric or not."""
        one = sum(4 * f.nbytes for f in self.fitted)
        room = max(1, int(self.max_memory / 4 / max(1e-6 * one, 1e-6)))
        threads = min(room, lib.num_threads())
        together = room // threads
        parts = [self._apply(dms[k : k + together], threads) for k in range(0, len(dms), together)]
        return np.concatenate(parts) if parts else np.zeros_like(dms)

    def _apply(self, dms: np.ndarray, threads: int) -> np.ndarray:
        sets = [
            [
                Change(p, f, *self._sides(d, p.local, dual))
                for d, p, f, dual in zip(dm, self.pairs, self.fitted, self.duals, strict=True)
            ]
            for dm in dms
        ]

        def work(share: list[tuple[int, int]]) -> list[list[Change]]:
            own = [[c.share() for c in changes] for changes in sets]
            for blocks, _ in self._blocks(share, self.pairs):
                for s, block in enumerate(blocks):
                    enter(block, [changes[s] for changes in own])
                for changes in own:
                    self._gather(blocks, changes, self.first[blocks[0].p0], self.second[blocks[0].p0])
            return own

        parts = shared_out(work, self.ranges, most=threads)
        for changes, *shares in zip(sets, *parts, strict=True):
            for change, *others in zip(changes, *shares, strict=True):
                change.collect(others)
        return np.array(
            [
                [self._rebuild(c, p.local, dual) for c, p, dual in zip(changes, self.pairs, self.duals, strict=True)]
                for changes in sets
            ]
        )

    def _gather(self, blocks: list[Block], changes: list[Change], first: np.ndarray, second: np.ndarray) -> None:
        """From changes of the variables to changes of the potentials, and their contributions to dF."""
        x1 = self._variables(blocks, changes)
        v1 = np.zeros_like(x1)
        for (k, m), row in zip(combinations_with_replacement(range(len(x1)), 2), second, strict=True):
            v1[k] += row * x1[m]
            if k != m:
                v1[m] += row * x1[k]
        n = len(blocks)
        vgrad1 = gradient_potentials([b.grad for b in blocks], v1[n : -2 * n], self.spin)
        grad_part = gradient_potentials([c.grad for c in changes], first[n : -2 * n], self.spin)
        for s, (change, block) in enumerate(zip(changes, blocks, strict=True)):
            change.add(block, v1[s], vgrad1[s] + grad_part[s], v1[-2 * n + s], v1[-n + s], first[-n + s])

    @staticmethod
    def _sides(dm: np.ndarray, local: np.ndarray, dual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A and B of dm = A L^T + L B^T."""
        both = 0.5 * dual.T @ dm @ dual
        return dm @ dual - local @ both, dm.T @ dual - local @ both.T

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

    @staticmethod
    def _rebuild(change: Change, local: np.ndarray, dual: np.ndarray) -> np.ndarray:
        """dF (nao, nao) from dF @ L and dF^T @ L."""
        right, left = change.columns()
        return right @ dual.T + dual @ left.T - dual @ (local.T @ right) @ dual.T


def enter(block: Block, changes: list[Change]) -> None:
    """Let several changes of one spin see the points of a block: the potentials of the orbitals serve all."""
    pairs, n = block.pairs, block.pairs.n
    for change in changes:
        change.start(block)
    for group in pairs.tables.potentials.groups(block.p0, block.p0 + len(block.h)):
        v0, at = group.spread(pairs.coefficients), group.points
        phi = np.ascontiguousarray(block.phi[0][at].T)
        for change in changes:
            for k, side in enumerate(change.sides):
                v1 = group.spread(side.coefficients).reshape(n, n, phi.shape[1])
                change.moved[k][at] = np.einsum("ijg,jg->gi", v1, phi)
                change.kept[k][at] = packed_product(v0, np.ascontiguousarray(change.values[k][at].T)).T
    for change in changes:
        for role in change.roles:
            if role is not None:
                change.ex -= 0.5 * np.einsum("gi,gi->g", block.phi[0], change.moved[role])


class Change:
    """First-order change of one spin, at the points of one block after the other, and the columns gathered from it.

    Of A and B only those are worked on that differ and are not zero: `sides`, with `roles` telling which is which.
    """

    def __init__(self, pairs: Any, fitted: np.ndarray, a: np.ndarray, b: np.ndarray):
        self.pairs, self.fitted, self.both = pairs, fitted, a + b
        small = 1e-13 * max(abs(a).max(initial=0.0), abs(b).max(initial=0.0))
        distinct = [a] if abs(a - b).max(initial=0.0) <= small else [a, b]
        kept = [x for x in distinct if abs(x).max(initial=0.0) > small]
        self.sides = [PerturbedPairs(pairs, x) for x in kept]
        roles = [next((k for k, x in enumerate(kept) if x is side), None) for side in distinct]
        self.roles: tuple[int | None, int | None] = (roles[0], roles[-1])
        self.direct = [np.zeros_like(a) for _ in self._different()]
        self.gathered = [np.zeros((pairs.n**2, len(fitted))) for _ in self._different()]

    def share(self) -> Change:
        """The same change with nothing gathered, for one of several threads."""
        own = copy.copy(self)
        own.direct, own.gathered = [[np.zeros_like(x) for x in xs] for xs in (self.direct, self.gathered)]
        return own

    def collect(self, shares: list[Change]) -> None:
        """Add what the shares have gathered."""
        for share in shares:
            for k in self._different():
                self.direct[k] += share.direct[k]
                self.gathered[k] += share.gathered[k]

    def _different(self) -> range:
        """dF @ L and dF^T @ L, or the first alone where they are equal."""
        return range(1 if self.roles[0] == self.roles[1] else 2)

    def start(self, block: Block) -> None:
        """Changes of what needs no exchange at the points of `block`, and room for the rest."""
        phi = block.phi
        self.values = [block.ao[0] @ s.x for s in self.sides]
        c = block.ao @ self.both
        self.rho = np.einsum("gj,gj->g", c[0], phi[0])
        self.grad = np.einsum("xgj,gj->xg", c[1:], phi[0]) + np.einsum("gj,xgj->xg", c[0], phi[1:])
        self.tau = 0.5 * np.einsum("xgj,xgj->g", c[1:], phi[1:])
        self.ex = -0.5 * np.einsum("gj,gj->g", c[0], block.h)
        # Per side x: sum_j phi_j v_i,x_j and sum_j x_j v_i,j.
        self.moved, self.kept = ([np.empty_like(phi[0]) for _ in self.sides] for _ in range(2))

    def add(
        self, block: Block, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray, vex: np.ndarray, weight: np.ndarray
    ) -> None:
        """Gather the columns from changes of the potentials; `weight` is the unchanged dE/dex."""
        phi, n = block.phi[0], self.pairs.n
        same = semilocal_columns(block.ao, block.phi, vrho, vgrad, vtau)
        for k in self._different():
            first, second = self.roles[k], self.roles[1 - k]
            exchange, products = vex[:, None] * block.h, vex[:, None] * phi
            if first is not None:
                exchange += weight[:, None] * self.kept[first]
            if second is not None:
                exchange += weight[:, None] * self.moved[second]
                products += weight[:, None] * self.values[second]
            self.direct[k] += same - 0.5 * block.ao[0].T @ exchange
            for group in self.pairs.tables.potentials.groups(block.p0, block.p0 + len(phi)):
                pair = phi[group.points].T[:, None] * products[group.points].T
                group.gather_into(self.gathered[k], pair.reshape(n * n, pair.shape[2]))

    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """dF @ L and dF^T @ L, (nao, n) each."""
        out = []
        for k in self._different():
            fitted = self.pairs.tables.solve(np.ascontiguousarray(self.gathered[k].T)).reshape(self.fitted.shape)
            tables, side = self.pairs.tables, self.roles[k]
            columns = self.direct[k] - 0.5 * tables.back_transformed(fitted, self.pairs.local)
            if side is not None:
                columns -= 0.5 * tables.back_transformed(self.fitted, self.sides[side].x)
            out.append(columns)
        return out[0], out[-1]
