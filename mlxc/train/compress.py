"""Molecules squeezed onto about a thousand points each, so that an epoch of fixed-density training takes a second.

The learned corrections depend on two (exchange) or four (correlation) bounded variables and nothing else.  The grid
points of a molecule are therefore gathered into cells of these variables, and each cell is replaced by one point at
its energy-weighted mean: an error of second order in the cell's size.  The cells follow the molecule's own density,
so that molecules share no points whose neighbourhood training could exploit.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from mlxc.analytic import r2scan_enhancement
from mlxc.limits import bounded_enhancement
from mlxc.neural import NeuralMetaGGA, correlation_inputs, exchange_inputs

#: Cells per molecule are 2**SPLITS, of exchange and of correlation.
SPLITS = (10, 11)
#: Largest s^2 and alpha of a point, squashed: about 2e4.  Beyond it, in the tails, the functional is constant.
LAST = 1 - 1e-9
#: Points at which slopes are penalised, drawn with a probability that is proportional to the energy there.
SLOPE_POINTS = 20000


def condense(inputs: np.ndarray, weights: np.ndarray, splits: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (d, K) and sums (K,) of weights (N,) at points inputs (d, N), in K <= 2**splits cells.

    Every cell is halved at its mean, across the variable with the largest variance in it.  The first two cells are
    those of positive and negative weights: some Lebedev grids have both.
    """
    cell = (weights > 0).astype(np.int64)
    for level in range(1, splits + 1):
        count = 2**level
        total = np.bincount(cell, weights, count)
        used = total != 0
        mean, square = (
            np.array([np.bincount(cell, weights * v, count) for v in x]) / np.where(used, total, 1)
            for x in (inputs, inputs**2)
        )
        if level < splits:
            widest = (square - mean**2).argmax(0)
            above = inputs[widest[cell], np.arange(len(cell))] > mean[widest[cell], cell]
            cell = 2 * cell + above
    return mean[:, used], total[used]


def _unsquash(q: torch.Tensor) -> torch.Tensor:
    q = q.clamp(max=LAST)
    return q / torch.sqrt(1 - q * q)


@dataclass
class Points:
    """Points of all molecules: network inputs (d, K), energy weights in Eh (K,) and the molecule's index (K,)."""

    inputs: torch.Tensor
    weights: torch.Tensor
    molecule: torch.Tensor

    @classmethod
    def join(cls, parts: list[tuple[np.ndarray, np.ndarray]]) -> Points:
        """From one (inputs, weights) per molecule."""
        inputs, weights = (torch.from_numpy(np.concatenate(x, axis=-1)) for x in zip(*parts, strict=True))
        index = np.repeat(np.arange(len(parts)), [len(w) for _, w in parts])
        return cls(inputs, weights, torch.from_numpy(index))

    def variables(self) -> SimpleNamespace:
        """p = s^2 and alpha; for correlation zeta and r_s as well; (K,) each."""
        q = self.inputs
        x = SimpleNamespace(p=_unsquash(q[0]), alpha=_unsquash(q[1]))
        if len(q) == 4:
            x.zeta, x.rs = q[2].sqrt(), q[3] / (1 - q[3])
        return x

    def energies(self, values: torch.Tensor, molecules: int) -> torch.Tensor:
        """Sums of weights * values (K,) over each molecule, (molecules,)."""
        return torch.zeros(molecules, dtype=torch.float64).index_add(0, self.molecule, self.weights * values)

    def sample(self, number: int, rng: np.random.Generator) -> Points:
        """Points drawn with a probability proportional to their energy."""
        probability = self.weights.abs().numpy()
        drawn = rng.choice(len(probability), number, p=probability / probability.sum())
        return Points(self.inputs[:, drawn], self.weights[drawn], self.molecule[drawn])


class Condensed:
    """A set of molecules on their condensed points: all that training sees of them."""

    def __init__(self, molecules) -> None:
        """From an iterable of (Channel, Total, correlation energy per particle, weights), one molecule at a time."""
        exchange, correlation = [], []
        for channel, total, ec, weights in molecules:
            e_x = (channel.multiplicity * weights * channel.e_lda).flatten()
            e_c = weights * total.n_switched * ec
            exchange.append(condense(exchange_inputs(channel).flatten(1).numpy(), e_x.numpy(), SPLITS[0]))
            correlation.append(condense(correlation_inputs(total).numpy(), e_c.numpy(), SPLITS[1]))
        self.molecules = len(exchange)
        self.exchange, self.correlation = Points.join(exchange), Points.join(correlation)
        self.x, self.c = self.exchange.variables(), self.correlation.variables()
        self.f0 = r2scan_enhancement(self.x)  # type: ignore[arg-type]
        rng = np.random.default_rng(0)
        self.slope_x = self.exchange.sample(SLOPE_POINTS, rng).variables()
        self.slope_c = self.correlation.sample(SLOPE_POINTS, rng).variables()

    def corrections(self, functional: NeuralMetaGGA) -> tuple[torch.Tensor, torch.Tensor]:
        """E_xc - E_xc^r2SCAN of every molecule, (M,) Eh, and the mean square of the shifts, ()."""
        ux = functional.exchange_shift(self.x)  # type: ignore[arg-type]
        uc = functional.correlation_shift(self.c)  # type: ignore[arg-type]
        e_x = self.exchange.energies(bounded_enhancement(self.f0, ux) - self.f0, self.molecules)
        e_c = self.correlation.energies(torch.expm1(uc), self.molecules)
        return e_x + e_c, ux.square().mean() + uc.square().mean()

    def slope(self, functional: NeuralMetaGGA) -> torch.Tensor:
        """Mean square slope of the shifts with respect to s^2 and alpha, weighted with the energy, ().

        Steep shifts in the cores, where most of the energy lies, cost accuracy on every integration grid.
        """
        total = torch.zeros((), dtype=torch.float64)
        for shift, at in ((functional.exchange_shift, self.slope_x), (functional.correlation_shift, self.slope_c)):
            p, alpha = at.p.clone().requires_grad_(), at.alpha.clone().requires_grad_()
            u = shift(SimpleNamespace(**{**vars(at), "p": p, "alpha": alpha}))  # type: ignore[arg-type]
            for g in torch.autograd.grad(u.sum(), (p, alpha), create_graph=True):
                total = total + g.square().mean()
        return total
