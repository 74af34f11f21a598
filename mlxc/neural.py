"""The neural functionals: r2SCAN with learned, bounded corrections, alone or mixed with exact exchange."""

from __future__ import annotations

import torch

from mlxc.analytic import LDA_X, RHO_FLOOR, Channel, Total, r2scan_correlation, r2scan_enhancement
from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.limits import U_MAX, bounded_enhancement, bounded_mixing, scaled_correlation, uniform_gas_gate
from mlxc.localhybrid import iso_orbital, mixed_exchange
from mlxc.network import MLP


def _squash(p: torch.Tensor) -> torch.Tensor:
    """[0, inf) -> [0, 1), smooth; also for the slightly negative values that rounding gives."""
    return p / torch.sqrt(1 + p * p)


def exchange_inputs(x: Channel) -> torch.Tensor:
    """What the exchange network sees, bounded by 1: s^2 and alpha of a spin channel, (2, S, G)."""
    return torch.stack([_squash(x.p), _squash(x.alpha)])


def correlation_inputs(x: Total) -> torch.Tensor:
    """What the correlation network sees, bounded by 1: s^2, alpha, zeta^2 and r_s of the total density, (4, G)."""
    return torch.stack([_squash(x.p), _squash(x.alpha), (x.zeta**2).expand_as(x.rs), x.rs / (1 + x.rs)])


def mixing_inputs(features: Features, x: Channel, total: Total) -> torch.Tensor:
    """What the mixing network sees, bounded by 1: s^2, alpha, tau_W / tau, y, zeta^2, both tau_W / tau, (6, S, G)."""
    z = iso_orbital(features)
    n = 2 * features.rho + RHO_FLOOR
    y = features.exact_exchange / (0.5 * LDA_X * n ** (4 / 3))
    shared = [(total.zeta**2).expand_as(total.rs), z[0] * z[-1]]
    return torch.stack([_squash(x.p), _squash(x.alpha), z, _squash(y), *(v.expand_as(z) for v in shared)])


class NeuralMetaGGA(Functional):
    """E_xc = sum_s int e_x,s^LDA F(F_x^r2SCAN, u_x) + int n e_c^r2SCAN exp(u_c), with u from two small networks.

    u_x depends on s^2 and alpha of one spin channel; u_c on s^2 and alpha of the total density, zeta^2 and r_s.
    A new one is r2SCAN exactly.  Built in for every choice of weights: uniform gas, spin and uniform scaling of
    exchange, spin-swap symmetry, e_c <= 0, no correlation for one fully polarised orbital, Lieb-Oxford bound on F_x.

    width, depth : units per hidden layer and number of hidden layers of both networks.
    """

    xctype = "MGGA"

    def __init__(self, width: int = 16, depth: int = 2, name: str = "neural-mgga"):
        super().__init__()
        self.name = name
        self.config = {"width": width, "depth": depth}
        self.exchange = MLP(2, width, depth)
        self.correlation = MLP(4, width, depth)

    def exchange_shift(self, x: Channel) -> torch.Tensor:
        """u_x, (S, G)."""
        raw = self.exchange(exchange_inputs(x))
        return U_MAX * torch.tanh(raw) * uniform_gas_gate(x.p, x.alpha)

    def correlation_shift(self, x: Total) -> torch.Tensor:
        """u_c, (G,)."""
        raw = self.correlation(correlation_inputs(x))
        return U_MAX * torch.tanh(raw) * uniform_gas_gate(x.p, x.alpha)

    def shifted(
        self, channel: Channel, total: Total, fx: torch.Tensor, ec: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Enhancement factor (S, G) and correlation per particle (G,) from r2SCAN's fx and ec."""
        fx = bounded_enhancement(fx, self.exchange_shift(channel))
        return fx, scaled_correlation(ec, self.correlation_shift(total))

    def corrected(self, channel: Channel, total: Total, fx: torch.Tensor, ec: torch.Tensor) -> torch.Tensor:
        """Energy per volume, (G,), from r2SCAN's enhancement factor fx (S, G) and correlation per particle ec (G,)."""
        fx, ec = self.shifted(channel, total, fx, ec)
        return channel.energy(fx) + total.n_switched * ec

    def energy_density(self, features: Features) -> torch.Tensor:
        channel, total = Channel(features), Total(features)
        return self.corrected(channel, total, r2scan_enhancement(channel), r2scan_correlation(total))


class NeuralLocalHybrid(NeuralMetaGGA):
    """E_xc = sum_s int [a_s ex_s + (1 - a_s) e_x,s] + int e_c with e_x and e_c of a NeuralMetaGGA and a learned a_s.

    a_s depends on s^2, alpha, tau_W / tau and y = ex / ex_LDA of its spin channel, on zeta^2 and on the product of both
    channels' tau_W / tau.  A new one is r2SCAN with a quarter of exact exchange.  Built in for every choice of weights,
    besides what holds for the meta-GGA: no self-interaction in one-electron densities, exchange energy density
    -n / (2 r) in density tails.
    """

    exx_omega = 0.0

    def __init__(self, width: int = 16, depth: int = 2, name: str = "neural-local-hybrid"):
        super().__init__(width, depth, name)
        self.mixing = MLP(6, width, depth)

    def mixing_function(self, inputs: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """a_s from its six inputs and s^2, (S, G)."""
        return bounded_mixing(self.mixing(inputs), inputs[2], inputs[4], p)

    def energy_density(self, features: Features) -> torch.Tensor:
        channel, total = Channel(features), Total(features)
        fx, ec = self.shifted(channel, total, r2scan_enhancement(channel), r2scan_correlation(total))
        a = self.mixing_function(mixing_inputs(features, channel, total), channel.p)
        return mixed_exchange(features, a, channel.e_lda * fx) + total.n_switched * ec
