"""Exact conditions built into a correction, so that no choice of its weights can break them.

Corrections take an enhancement or energy that already obeys a condition and a free number u from a network, and keep
the condition:

- u = 0 leaves the starting point as it is;
- `expansion_gate` makes u vanish in the uniform gas, as s^4 and (alpha - 1)^2, which keeps gradient expansions of
  second order as well;
- `bounded_enhancement` keeps 0 < F_x < LIEB_OXFORD for every u;
- `scaled_correlation` keeps the sign and every zero of the correlation energy;
- `bounded_mixing` keeps a mixing function between 0 and 1, and 1 in one-electron densities and in density tails.

Spin scaling and uniform scaling of exchange follow from the variables: one spin channel's s^2 and alpha alone.
"""

from __future__ import annotations

import math

import torch

#: Largest exchange enhancement that implies the Lieb-Oxford bound for every density
#: (Perdew, Burke, Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996), after eq. 13).
LIEB_OXFORD = 1.804
#: Largest |u|: a correction changes an energy density by at most a factor of about exp(U_MAX).
U_MAX = 0.5


def expansion_gate(p: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """A smooth factor in [0, 1) that vanishes where s^2 = p = 0 and alpha = 1, and only there.

    It is of fourth order in s: where a density varies slowly, alpha - 1 is of second order in the gradient, and
    corrections are of fourth order.
    """
    distance = p**2 + (alpha - 1) ** 2
    return distance / (0.1 + distance)


def bounded_enhancement(f0: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """f0 moved by u within (0, LIEB_OXFORD): its logit shifted by u.  About f0 exp(u) where f0 is small."""
    return f0 * LIEB_OXFORD / (f0 + (LIEB_OXFORD - f0) * torch.exp(-u))


def scaled_correlation(e0: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """e0 exp(u): non-positive where e0 is, zero where e0 is."""
    return e0 * torch.exp(u)


#: Mixing of a new local hybrid where no limit fixes it, as in PBE0 (Adamo, Barone, J. Chem. Phys. 110, 6158 (1999)).
MIXING = 0.25
#: s^2 beyond which exact exchange takes over: in molecules reached in the tails only.  Far out the exact energy density
#: is many times the semilocal one: a mixing function that depended on tau there would make electrons of negative mass.
TAIL = 10.0
#: y = ex / ex_LDA beyond which it does so too: reached where the density is tiny and flat, as in the minority spin far
#: out, where tau is of the order of n^(5/3), and ex still of the order of n / r.
TAIL_Y = 10.0


def tail_gate(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A smooth factor in (0, 1]: 1 where s^2 = p = 0 and y = 0, vanishing in density tails as p or y grows."""
    return 1 / (1 + (p / TAIL) ** 2 + (y / TAIL_Y) ** 4)


def bounded_mixing(u: torch.Tensor, z: torch.Tensor, zeta2: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
    """The share of exact exchange from a free number u: MIXING at u = 0, always in [0, 1].

    It is 1 where z = tau_W / tau = 1 and zeta2 = zeta^2 = 1 (one fully polarised orbital), and tends to 1 as the
    `tail_gate` vanishes, so that the exchange energy density tends to -n / (2 r) far out.
    """
    semilocal = torch.sigmoid(math.log(1 / MIXING - 1) - u)
    return 1 - semilocal * (1 - (z * zeta2) ** 2) * tail
