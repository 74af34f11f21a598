"""Molecules squeezed onto about a thousand points each, so that an epoch of fixed-density training takes a second.

A functional depends on a few bounded variables (exchange, correlation) and nothing else.  The grid points of a
molecule are therefore gathered into cells of these variables, and each cell is replaced by one point at its
energy-weighted mean: an error of second order in the cell's size.  The cells follow the molecule's own density, so
that molecules share no points whose neighbourhood training could exploit.
"""

from __future__ import annotations

import copy
import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from mlxc.analytic import r2scan_correlation, r2scan_enhancement
from mlxc.features import Features
from mlxc.limits import scaled_correlation
from mlxc.neural import NeuralMetaGGA, network_inputs, variables_of

#: Cells per molecule, of exchange and of correlation.
CELLS = (600, 600)
#: Points at which slopes are penalised, drawn with a probability that is proportional to the energy there.
SLOPE_POINTS = 5000
#: Variables with respect to which slopes are penalised, where a functional has them.
SLOPES = ("p", "alpha", "z", "y", "zt", "yt", "zeta2")


def condense(
    inputs: np.ndarray, weights: np.ndarray, energies: np.ndarray, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of inputs (d, N) with weights (N,), and sums of energies (e, N), in K <= cells cells: (d, K) and (e, K).

    Again and again the cell with the largest weighted sum of squares about its mean, in one of the inputs, is cut at
    this mean.  Points of positive and of negative weight (some Lebedev grids have both) share no cell.
    """
    number = itertools.count()
    heap: list = []

    def push(members: np.ndarray) -> None:
        x, w = inputs[:, members], np.abs(weights[members])
        mean = x @ w / w.sum()
        spread = w @ ((x - mean[:, None]) ** 2).T
        widest = spread.argmax()
        above = x[widest] > mean[widest]
        divisible = above.any() and not above.all()
        heapq.heappush(heap, (-spread[widest] if divisible else 0.0, next(number), members, above))

    for sign in (1, -1):
        members = np.flatnonzero(weights * sign > 0)
        if len(members):
            push(members)
    while len(heap) < cells and heap[0][0] < 0:
        _, _, members, above = heapq.heappop(heap)
        push(members[above])
        push(members[~above])
    means = np.array([np.average(inputs[:, m], axis=1, weights=weights[m]) for _, _, m, _ in heap])
    return means.T, np.array([energies[:, m].sum(1) for _, _, m, _ in heap]).T


@dataclass
class Points:
    """Points of all molecules: variables and energies as attributes of x, (K,) each, the molecule's index, (K,)."""

    x: SimpleNamespace
    molecule: torch.Tensor

    @classmethod
    def join(cls, parts: list[tuple[np.ndarray, np.ndarray]], variables: tuple[str, ...], energies: tuple[str, ...]):
        """From the results of `condense` for each molecule and the names of their rows."""
        means, sums = (torch.from_numpy(np.concatenate(x, axis=-1)) for x in zip(*parts, strict=True))
        x = variables_of(means, variables)
        vars(x).update(zip(energies, sums, strict=True))
        index = np.repeat(np.arange(len(parts)), [e.shape[1] for _, e in parts])
        return cls(x, torch.from_numpy(index))

    def add(self, energies: torch.Tensor, molecules: int) -> torch.Tensor:
        """Sums of energies (K,) over each molecule, (molecules,)."""
        return energies.new_zeros(molecules).index_add(0, self.molecule, energies)

    def only(self, molecule: int) -> Points:
        """The points of one molecule."""
        mine = self.molecule == molecule
        x = SimpleNamespace(**{k: v[mine] for k, v in vars(self.x).items()})
        return Points(x, torch.zeros_like(self.molecule[mine]))

    def sample(self, number: int, energy: torch.Tensor, rng: np.random.Generator) -> SimpleNamespace:
        """Attributes of points drawn with a probability proportional to |energy| (K,)."""
        probability = energy.abs().numpy()
        drawn = rng.choice(len(probability), number, p=probability / probability.sum())
        return SimpleNamespace(**{k: v[drawn] for k, v in vars(self.x).items()})


class Condensed:
    """A set of molecules on their condensed points: all that training sees of them.

    Exchange points have the attributes of a Channel, but e_lda (and exact) in Eh, and f0, r2SCAN's enhancement factor;
    correlation points have those of a Total and energy, r2SCAN's correlation energy in Eh.
    """

    def __init__(self, family: type[NeuralMetaGGA], molecules: Iterable[tuple[Features, torch.Tensor]]) -> None:
        """From (features, weights) of one molecule at a time, for functionals of this family."""
        exchange, correlation = [], []
        names_x, names_c = family.exchange_variables, family.correlation_variables
        hybrid = family.exx_omega is not None
        for features, weights in molecules:
            channel, total = family.variables(features)
            e_lda = channel.e_lda
            parts = [e_lda, e_lda * r2scan_enhancement(channel)] + ([features.exact_exchange] if hybrid else [])
            e_x = (channel.multiplicity * weights * torch.stack(parts)).flatten(1).numpy()
            e_c = (weights * total.n_switched * r2scan_correlation(total)).numpy()
            # In tails exact exchange is many times the local one: cells are made for both.
            inputs = network_inputs(channel, names_x).flatten(1).numpy()
            exchange.append(condense(inputs, e_x[0] + e_x[-1], e_x, CELLS[0]))
            correlation.append(condense(network_inputs(total, names_c).numpy(), e_c, e_c[None], CELLS[1]))
        self.molecules = len(exchange)
        #: What means over these points of exchange and of correlation count for: less where other processes have more.
        self.shares = 1.0, 1.0
        self.exchange = Points.join(exchange, names_x, ("e_lda", "r2scan", "exact")[: 2 + hybrid])
        self.correlation = Points.join(correlation, names_c, ("energy",))
        self.x, self.c = self.exchange.x, self.correlation.x
        self.x.f0 = self.x.r2scan / self.x.e_lda
        rng = np.random.default_rng(0)
        self.slope_x = self.exchange.sample(SLOPE_POINTS, self.x.e_lda, rng)
        self.slope_c = self.correlation.sample(SLOPE_POINTS, self.c.energy, rng)

    def corrections(self, functional: NeuralMetaGGA) -> tuple[torch.Tensor, torch.Tensor]:
        """E_xc - E_xc^r2SCAN of every molecule, (M,) Eh, and the mean square of the shifts times `shares`, ()."""
        x, c = self.x, self.c
        ux, uc = functional.exchange_shift(x), functional.correlation_shift(c)
        e_x = self.exchange.add(functional.exchange_energy(x, x.f0, ux) - x.r2scan, self.molecules)
        e_c = self.correlation.add(scaled_correlation(c.energy, uc) - c.energy, self.molecules)
        size = self.shares[0] * ux.square().mean() + self.shares[1] * uc.square().mean()
        return (e_x + e_c).cpu(), size.cpu()

    def correction(self, functional: NeuralMetaGGA, molecule: int) -> torch.Tensor:
        """E_xc - E_xc^r2SCAN of one molecule, () Eh."""
        alone = copy.copy(self)
        alone.molecules = 1
        alone.exchange, alone.correlation = (p.only(molecule) for p in (self.exchange, self.correlation))
        alone.x, alone.c = alone.exchange.x, alone.correlation.x
        return alone.corrections(functional)[0][0]

    def slope(self, functional: NeuralMetaGGA) -> torch.Tensor:
        """Mean square slopes, weighted with the energy, of F_x (with r2SCAN's share of it constant) and u_c, ().

        Slopes are those with respect to SLOPES.  Steep ones in the cores, where most of the energy lies, cost accuracy
        on every integration grid.
        """

        def enhancement(x: SimpleNamespace) -> torch.Tensor:
            return functional.exchange_energy(x, x.f0, functional.exchange_shift(x)) / x.e_lda

        total = self.x.e_lda.new_zeros(())
        values = (enhancement, self.slope_x), (functional.correlation_shift, self.slope_c)
        for share, (value, at) in zip(self.shares, values, strict=True):
            leaves = {k: v.clone().requires_grad_() for k, v in vars(at).items() if k in SLOPES}
            v = value(SimpleNamespace(**{**vars(at), **leaves}))
            for g in torch.autograd.grad(v.sum(), list(leaves.values()), create_graph=True):
                total = total + share * g.square().mean()
        return total.cpu()
