"""Local hybrids: exact and semilocal exchange mixed point by point.

E_xc = sum_s integral [ a_s ex_s + (1 - a_s) e_x,s ] + integral e_c with a mixing function 0 <= a_s <= 1
(Jaramillo, Scuseria, Ernzerhof, J. Chem. Phys. 118, 1068 (2003)).
"""

from __future__ import annotations

import math

import torch

from mlxc.analytic import LDA_X, RHO_FLOOR, Channel, Total, pw92
from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.limits import tail_gate


def iso_orbital(features: Features, eta: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """z = (tau_W + eta tau_unif) / (tau + eta tau_unif): 1 for one orbital; of each spin, (S, G), and of both, (G,).

    That of both is the ratio of the sums over the spins, 1 for one orbital in each.  Unlike the product of the spins' z
    it hardly depends on a spin that is hardly there: its slope with respect to any tau is at most 1 / tau of both.

    Where one orbital has an extremum, as between the atoms of H2, tau_W and tau both vanish, and the slope of their
    bare ratio is without bound: eta tau_unif bounds it by 1 / (eta tau_unif).  With eta = 1 it is 1 - beta of Furness
    and Sun, Phys. Rev. B 99, 041119 (2019).  Of what depends on it with eta = 0.01, the minority spin of transition
    states got potentials dE/dtau of -100, in which no SCF converges.
    """
    n = features.rho + RHO_FLOOR
    small = eta * 0.3 * (6 * math.pi**2) ** (2 / 3) * n ** (5 / 3)
    w, t = features.sigma_same / (8 * n) + small, features.tau + small
    return w / t, w.sum(0) / t.sum(0)


def _local_exchange(features: Features) -> torch.Tensor:
    """Exchange energy of the uniform gas per volume and spin, without low-density switch, (S, G)."""
    return 0.5 * LDA_X * (2 * features.rho + RHO_FLOOR) ** (4 / 3)


class HybridTotal(Total):
    """Total with y = ex / ex_LDA of both spins together and the `iso_orbital` z of both, (G,) each."""

    def __init__(self, features: Features):
        super().__init__(features)
        self.y = features.exact_exchange.sum(0) / _local_exchange(features).sum(0)
        self.z = iso_orbital(features)[1]


class HybridChannel(Channel):
    """Channel with what a mixing function may depend on, and the exact-exchange energy density.

    z              `iso_orbital`, (S, G)
    y              ex / ex_LDA, (S, G)
    zeta2, zt, yt  zeta^2, z and y of both spins together, (G,); zeta2 is () for a closed shell
    tail           1, but 0 in density tails, (S, G)
    exact          ex, Eh Bohr^-3, (S, G)
    """

    def __init__(self, features: Features, total: HybridTotal):
        super().__init__(features)
        self.exact = features.exact_exchange
        self.z = iso_orbital(features)[0]
        self.y = self.exact / _local_exchange(features)
        self.zeta2, self.zt, self.yt = total.zeta2, total.z, total.y
        self.tail = tail_gate(self.p, self.y)


class HartreeFock(Functional):
    """a = 1 and no correlation: Hartree-Fock on the grid, the oracle of everything that carries exact exchange."""

    name, xctype, exx_omega = "hf", "MGGA", 0.0

    def parts(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        exchange = features.multiplicity * features.exact_exchange.sum(0)
        return exchange, torch.zeros_like(exchange)

    def local_mixing(self, features: Features) -> torch.Tensor:
        return torch.ones_like(features.rho)


#: eta of the t-LMF's `iso_orbital`: that of the uniform gas, where tau_W / tau is 0.
ETA_LMF = 0.01


class IsoOrbitalHybrid(Functional):
    """The t-LMF local hybrid: a_s = c tau_W,s / tau_s with Slater exchange and PW92 correlation.

    Bahmann, Rodenberg, Arbuznikov, Kaupp, J. Chem. Phys. 126, 011103 (2007), with c = 0.48; tau_W / tau is that of
    `iso_orbital` with ETA_LMF, smooth where it vanishes.
    """

    name, xctype, exx_omega = "t-lmf", "MGGA", 0.0

    def __init__(self, c: float = 0.48):
        super().__init__()
        self.c = c

    def parts(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        channel, total = Channel(features), Total(features)
        a = self.local_mixing(features)
        exchange = a * features.exact_exchange + (1 - a) * channel.e_lda
        return channel.multiplicity * exchange.sum(0), total.n_switched * pw92(total)[0]

    def local_mixing(self, features: Features) -> torch.Tensor:
        return self.c * iso_orbital(features, ETA_LMF)[0]


#: Local hybrids of a fixed form, by name.
FIXED_FORMS = {"t-lmf": IsoOrbitalHybrid}
