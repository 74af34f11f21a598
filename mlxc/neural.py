"""The neural functionals: r2SCAN with learned, bounded corrections, alone or mixed with exact exchange."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from mlxc.analytic import Channel, Total, r2scan_correlation, r2scan_enhancement
from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.limits import (
    U_MAX,
    bounded_enhancement,
    bounded_mixing,
    expansion_gate,
    scaled_correlation,
)
from mlxc.localhybrid import HybridChannel, HybridTotal
from mlxc.network import MLP

#: Largest s^2, alpha and y that `variables_of` gives: about 2e4.  Beyond it, in the tails, networks are constant.
_LAST = 1 - 1e-9


def _squash(p: torch.Tensor) -> torch.Tensor:
    """[0, inf) -> [0, 1), smooth; also for the slightly negative values that rounding gives."""
    return p / torch.sqrt(1 + p * p)


def _unsquash(q: torch.Tensor) -> torch.Tensor:
    q = q.clamp(max=_LAST)
    return q / torch.sqrt(1 - q * q)


#: How variables without bound enter a network, and the way back; all others are bounded by themselves.
_BOUNDED = {
    "p": (_squash, _unsquash),
    "alpha": (_squash, _unsquash),
    "y": (_squash, _unsquash),
    "yt": (_squash, _unsquash),
}


def network_inputs(x: Any, names: tuple[str, ...]) -> torch.Tensor:
    """The named variables of x, each bounded by 1, (len(names), ...)."""
    values = [_BOUNDED[k][0](getattr(x, k)) if k in _BOUNDED else getattr(x, k) for k in names]
    return torch.stack(torch.broadcast_tensors(*values))


def variables_of(inputs: torch.Tensor, names: tuple[str, ...]) -> SimpleNamespace:
    """The inverse of `network_inputs`."""
    pairs = zip(names, inputs, strict=True)
    return SimpleNamespace(**{k: _BOUNDED[k][1](q) if k in _BOUNDED else q for k, q in pairs})


class NeuralMetaGGA(Functional):
    """E_xc = sum_s int e_x,s^LDA F(F_x^r2SCAN, u_x) + int n e_c^r2SCAN exp(u_c), with u from two small networks.

    u_x depends on s^2 and alpha of one spin channel; u_c on s^2 and alpha of the total density and zeta^2.
    A new one is r2SCAN exactly.  Built in for every choice of weights: uniform gas, gradient expansion, spin and
    uniform scaling of exchange, spin-swap symmetry, e_c <= 0, no correlation for one fully polarised orbital,
    Lieb-Oxford bound on F_x, and all that r2SCAN's correlation obeys at every point when densities are scaled, which
    leaves u_c as it is.

    Methods take variables x as attributes: a Channel or Total, or points with the same attributes (mlxc.train).

    width, depth : units per hidden layer and number of hidden layers of all networks.
    """

    xctype = "MGGA"
    built_in = frozenset(
        {
            "uniform gas", "one-electron correlation", "scaling of exchange", "exchange spin scaling", "spin reversal",
            "closed shells", "exchange is negative", "exchange is negative at every point", "size consistency",
            "correlation is not positive", "correlation is not positive at every point",
            "gradient expansion of exchange", "scaling of correlation", "high-density limit", "low-density limit",
            "kinetic correlation", "correlation scales at every point",
        }
    )  # fmt: skip
    #: All that exchange depends on, and all that u_c depends on.
    exchange_variables: tuple[str, ...] = ("p", "alpha")
    correlation_variables: tuple[str, ...] = ("p", "alpha", "zeta2")

    def __init__(self, width: int = 16, depth: int = 2, name: str = "neural-mgga"):
        super().__init__()
        self.name = name
        self.config = {"width": width, "depth": depth}
        self.exchange = MLP(2, width, depth)
        self.correlation = MLP(len(self.correlation_variables), width, depth)

    @staticmethod
    def variables(features: Features) -> tuple[Channel, Total]:
        """What exchange and correlation depend on."""
        return Channel(features), Total(features)

    def exchange_shift(self, x: Any) -> torch.Tensor:
        """u_x, (S, G)."""
        raw = self.exchange(network_inputs(x, ("p", "alpha")))
        return U_MAX * torch.tanh(raw) * expansion_gate(x.p, x.alpha)

    def correlation_shift(self, x: Any) -> torch.Tensor:
        """u_c, (G,)."""
        raw = self.correlation(network_inputs(x, self.correlation_variables))
        return U_MAX * torch.tanh(raw) * expansion_gate(x.p, x.alpha)

    def exchange_energy(self, x: Any, fx: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Exchange energies per volume (S, G) from r2SCAN's enhancement factor fx and u_x, (S, G) each."""
        return x.e_lda * bounded_enhancement(fx, shift)

    def parts(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        channel, total = self.variables(features)
        e_x = self.exchange_energy(channel, r2scan_enhancement(channel), self.exchange_shift(channel))
        e_c = scaled_correlation(r2scan_correlation(total), self.correlation_shift(total))
        return channel.multiplicity * e_x.sum(0), total.n_switched * e_c


class NeuralLocalHybrid(NeuralMetaGGA):
    """E_xc = sum_s int [a_s ex_s + (1 - a_s) e_x,s] + int e_c with e_x and e_c as in a NeuralMetaGGA and a learned a_s.

    a_s depends on s^2, alpha, z = `iso_orbital` and y = ex / ex_LDA of its spin channel, and on zeta^2, z and y of both
    spins together; u_c on z and y of both besides.  A hole that distant atoms share makes y of its spin small:
    where y of both is as small, it is a stretched bond, where it is not, self-interaction.  A new one is r2SCAN with a
    quarter of exact exchange.  Built in for every choice of weights, besides what holds for the meta-GGA: no
    self-interaction in one-electron densities and exchange energy density -n / (2 r) in density tails; the gradient
    expansion of exchange holds where zeta is the same everywhere.
    """

    exx_omega = 0.0
    built_in = (NeuralMetaGGA.built_in - {"exchange spin scaling", "exchange is negative at every point"}) | {
        "one-electron energy",
        "one-electron excited states",
        "one-electron self-consistency",
        "energy density of tails",
    }
    mixing_variables = ("p", "alpha", "z", "y", "zeta2", "zt", "yt")
    exchange_variables = (*mixing_variables, "tail")
    correlation_variables = ("p", "alpha", "zeta2", "y", "z")

    def __init__(self, width: int = 16, depth: int = 2, name: str = "neural-local-hybrid"):
        super().__init__(width, depth, name)
        self.mixing = MLP(len(self.mixing_variables), width, depth)

    @staticmethod
    def variables(features: Features) -> tuple[HybridChannel, HybridTotal]:
        total = HybridTotal(features)
        return HybridChannel(features, total), total

    def mixing_function(self, x: Any) -> torch.Tensor:
        """a_s, (S, G)."""
        return bounded_mixing(self.mixing(network_inputs(x, self.mixing_variables)), x.z, x.zeta2, x.tail)

    def local_mixing(self, features: Features) -> torch.Tensor:
        return self.mixing_function(self.variables(features)[0])

    def exchange_energy(self, x: Any, fx: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        a = self.mixing_function(x)
        return a * x.exact + (1 - a) * super().exchange_energy(x, fx, shift)
