"""Local hybrids: exact and semilocal exchange mixed point by point.

E_xc = sum_s integral [ a_s ex_s + (1 - a_s) e_x,s ] + integral e_c with a mixing function 0 <= a_s <= 1
(Jaramillo, Scuseria, Ernzerhof, J. Chem. Phys. 118, 1068 (2003)).
"""

from __future__ import annotations

import torch

from mlxc.analytic import Channel, Total, pw92
from mlxc.features import Features
from mlxc.functional import Functional

#: Added to 8 n tau (Bohr^-8 Eh) so that tau_W / tau vanishes smoothly in empty space.
ISO_FLOOR = 1e-28


def iso_orbital(features: Features) -> torch.Tensor:
    """z_s = tau_W / tau per spin channel, (S, G): 1 for one orbital, 0 in a uniform gas."""
    return features.sigma_same / (8 * features.rho * features.tau + ISO_FLOOR)


def mixed_exchange(features: Features, mixing: torch.Tensor, semilocal: torch.Tensor) -> torch.Tensor:
    """Exchange energy per volume (G,) from the mixing function and semilocal energy densities per spin, (S, G) each."""
    return features.multiplicity * (mixing * features.exact_exchange + (1 - mixing) * semilocal).sum(0)


class HartreeFock(Functional):
    """a = 1 and no correlation: Hartree-Fock on the grid, the oracle of everything that carries exact exchange."""

    name, xctype, exx_omega = "hf", "MGGA", 0.0

    def energy_density(self, features: Features) -> torch.Tensor:
        return features.multiplicity * features.exact_exchange.sum(0)


class IsoOrbitalHybrid(Functional):
    """The t-LMF local hybrid: a_s = c tau_W,s / tau_s with Slater exchange and PW92 correlation.

    Bahmann, Rodenberg, Arbuznikov, Kaupp, J. Chem. Phys. 126, 011103 (2007), with c = 0.48.
    """

    name, xctype, exx_omega = "t-lmf", "MGGA", 0.0

    def __init__(self, c: float = 0.48):
        super().__init__()
        self.c = c

    def energy_density(self, features: Features) -> torch.Tensor:
        channel, total = Channel(features), Total(features)
        exchange = mixed_exchange(features, self.c * iso_orbital(features), channel.e_lda)
        return exchange + total.n_switched * pw92(total)[0]
