"""Molecules squeezed onto a few shared nodes, so that an epoch of fixed-density training takes a tenth of a second.

The learned corrections depend on two (exchange) or four (correlation) bounded variables and nothing else.  A
molecule's integral over its grid is therefore linear in the correction's values on a lattice of these variables
(multilinear interpolation): E_x = sum_k M_k [F(node_k) - F_0(node_k)].  The M_k are summed up once per molecule; all
molecules share the nodes.  The lattice must be so fine that training cannot exploit the interpolation; the errors on
a model's card are integrated on the full grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from mlxc.analytic import Channel, r2scan_enhancement
from mlxc.limits import bounded_enhancement
from mlxc.neural import NeuralMetaGGA, correlation_inputs, exchange_inputs

#: Nodes along each network input: (s^2, alpha) and (s^2, alpha, zeta^2, r_s).
EXCHANGE_SHAPE = (96, 96)
CORRELATION_SHAPE = (40, 40, 17, 24)
#: Last node of the inputs that approach 1: s^2, alpha or r_s of about 30, beyond which hardly any energy lies.
LAST = 0.9995


def _last(shape: tuple[int, ...]) -> np.ndarray:
    last = np.full(len(shape), LAST)
    last[2:3] = 1.0  # zeta^2 does reach 1
    return last


def deposit(inputs: torch.Tensor, weights: torch.Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Spread weights (N,) at the points inputs (d, N) over a lattice, (prod(shape),); multilinear."""
    size = np.array(shape)[:, None]
    x = np.clip(inputs.numpy() / _last(shape)[:, None], 0, 1) * (size - 1)
    low = np.minimum(x.astype(np.int64), size - 2)
    fraction = x - low
    out = np.zeros(int(np.prod(shape)))
    for corner in product((0, 1), repeat=len(shape)):
        up = np.array(corner)[:, None]
        share = np.where(up, fraction, 1 - fraction).prod(0)
        index = np.ravel_multi_index(tuple(low + up), shape)
        out += np.bincount(index, share * weights.numpy(), minlength=len(out))
    return out


def nodes(shape: tuple[int, ...]) -> torch.Tensor:
    """Network inputs at the lattice points, (d, prod(shape))."""
    axes = [np.linspace(0, last, n) for n, last in zip(shape, _last(shape), strict=True)]
    return torch.from_numpy(np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")]))


def _unsquash(q: torch.Tensor) -> torch.Tensor:
    return q / torch.sqrt(1 - q * q)


@dataclass
class Lattice:
    """The nodes that any molecule occupies, and what each molecule puts there.

    exchange (M, Kx), correlation (M, Kc): energy weights, Eh; density (Kc,): electrons of all molecules together.
    """

    exchange: torch.Tensor
    correlation: torch.Tensor
    density: torch.Tensor
    x: SimpleNamespace
    c: SimpleNamespace

    @classmethod
    def build(cls, molecules) -> Lattice:
        """From an iterable of (Channel, Total, correlation energy per particle, weights), one molecule at a time."""
        rows_x, rows_c, density = [], [], np.zeros(int(np.prod(CORRELATION_SHAPE)))
        for channel, total, ec, weights in molecules:
            inputs = correlation_inputs(total)
            rows_x.append(csr_array(_exchange_row(channel, weights)[None]))
            rows_c.append(csr_array(deposit(inputs, weights * total.n_switched * ec, CORRELATION_SHAPE)[None]))
            density += deposit(inputs, weights * total.n, CORRELATION_SHAPE)
        exchange, used_x = _occupied(rows_x)
        correlation, used_c = _occupied(rows_c)
        qx, qc = nodes(EXCHANGE_SHAPE)[:, used_x], nodes(CORRELATION_SHAPE)[:, used_c]
        x = SimpleNamespace(p=_unsquash(qx[0]), alpha=_unsquash(qx[1]))
        c = SimpleNamespace(p=_unsquash(qc[0]), alpha=_unsquash(qc[1]), zeta=qc[2].sqrt(), rs=qc[3] / (1 - qc[3]))
        return cls(exchange, correlation, torch.from_numpy(density[used_c]), x, c)

    def corrections(self, functional: NeuralMetaGGA) -> tuple[torch.Tensor, torch.Tensor]:
        """E_xc - E_xc^r2SCAN of every molecule, (M,) Eh, and the mean square of the shifts, ()."""
        f0 = r2scan_enhancement(self.x)  # type: ignore[arg-type]
        ux = functional.exchange_shift(self.x)  # type: ignore[arg-type]
        uc = functional.correlation_shift(self.c)  # type: ignore[arg-type]
        energy = self.exchange @ (bounded_enhancement(f0, ux) - f0) + self.correlation @ torch.expm1(uc)
        return energy, ux.square().mean() + (self.density @ uc.square()) / self.density.sum()

    def slope(self, functional: NeuralMetaGGA) -> torch.Tensor:
        """Mean square slope of the shifts with respect to s^2 and alpha, weighted with the energy at a node, ().

        Steep shifts in the cores, where most of the energy lies, cost accuracy on every integration grid.
        """
        total = torch.zeros((), dtype=torch.float64)
        for shift, nodes_, energy in (
            (functional.exchange_shift, self.x, self.exchange),
            (functional.correlation_shift, self.c, self.correlation),
        ):
            p, alpha = nodes_.p.clone().requires_grad_(), nodes_.alpha.clone().requires_grad_()
            u = shift(SimpleNamespace(**{**vars(nodes_), "p": p, "alpha": alpha}))  # type: ignore[arg-type]
            weight = energy.sum(0).abs()
            for g in torch.autograd.grad(u.sum(), (p, alpha), create_graph=True):
                total = total + weight @ g.square() / weight.sum()
        return total


def _occupied(rows: list[csr_array]) -> tuple[torch.Tensor, np.ndarray]:
    """The columns that are not empty, (M, K), and their indices, (K,)."""
    matrix = vstack(rows, format="csc")
    used = np.flatnonzero(np.diff(matrix.indptr))
    return torch.from_numpy(matrix[:, used].toarray()), used


def _exchange_row(channel: Channel, weights: torch.Tensor) -> np.ndarray:
    inputs = exchange_inputs(channel).flatten(1)
    return deposit(inputs, (channel.multiplicity * weights * channel.e_lda).flatten(), EXCHANGE_SHAPE)
