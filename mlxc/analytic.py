"""Analytic functionals in torch: Slater + PW92, PBE, r2SCAN.  Starting point of the networks and oracle of the tests.

Exchange is written for one spin channel through its enhancement factor and obeys spin scaling,
E_x[n_a, n_b] = (E_x[2 n_a] + E_x[2 n_b]) / 2, by construction (Oliver, Perdew, Phys. Rev. A 20, 397 (1979)).

Sources: PW92: Perdew, Wang, Phys. Rev. B 45, 13244 (1992), in the seven-digit constants that PBE and later
functionals use (libxc PW_MOD); PBE: Perdew, Burke, Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996);
r2SCAN: Furness, Kaplan, Ning, Perdew, Sun, J. Phys. Chem. Lett. 11, 8208 (2020).
"""

from __future__ import annotations

import math

import torch

from mlxc.features import Features
from mlxc.functional import Functional

#: Below about this density (Bohr^-3) a channel is switched off smoothly; its energy is below 1e-12 Eh in a molecule.
RHO_SWITCH = 1e-11
#: Added to densities so that reduced variables of an empty channel stay finite.
RHO_FLOOR = 1e-18
#: Rounding of (1 +- zeta)^p at full polarisation, where the power has no derivative.
ZETA_ROUND = 1e-11

LDA_X = -0.75 * (3 / math.pi) ** (1 / 3)
GAMMA = (1 - math.log(2)) / math.pi**2
BETA = 0.06672455060314922
ETA = 0.001
_PW92 = (
    # A, alpha1, beta1 ... beta4 for the unpolarised gas, the polarised gas and minus the spin stiffness
    (0.0310907, 0.21370, 7.5957, 3.5876, 1.6382, 0.49294),
    (0.01554535, 0.20548, 14.1189, 6.1977, 3.3662, 0.62517),
    (0.0168869, 0.11125, 10.357, 3.6231, 0.88026, 0.49671),
)
_F_ZETA0 = 8 / (9 * (2 ** (4 / 3) - 2))
_R2SCAN_X = (1, -0.667, -0.4445555, -0.663086601049, 1.451297044490, -0.887998041597, 0.234528941479, -0.023185843322)
_R2SCAN_C = (1, -0.64, -0.4352, -1.535685604549, 3.061560252175, -1.915710236206, 0.516884468372, -0.051848879792)
_DP2_4 = 0.361**4
_H0X = 1.174


def switch(rho: torch.Tensor) -> torch.Tensor:
    """Smooth low-density cut-off: 1 for a density well above RHO_SWITCH, vanishing quadratically below it."""
    square = rho * rho
    return square / (square + RHO_SWITCH**2)


def _power(x: torch.Tensor, p: float) -> torch.Tensor:
    """x^p for x >= 0, with finite derivatives at x = 0."""
    return (x * x + ZETA_ROUND**2) ** (p / 2)


class Channel:
    """Dimensionless exchange variables of spin channels, each scaled to the unpolarised density 2 n_s; all (S, G).

    p      s^2 = |grad n|^2 / [4 (3 pi^2)^(2/3) n^(8/3)]
    alpha  regularised iso-orbital indicator (tau - tau_W) / (tau_unif + eta tau_W) of r2SCAN
    e_lda  energy per volume of the uniform gas of density 2 n_s, times the low-density switch and 1/2
    """

    def __init__(self, features: Features):
        n = 2 * features.rho + RHO_FLOOR
        n13 = n ** (1 / 3)
        self.p = 4 * features.sigma_same / (4 * (3 * math.pi**2) ** (2 / 3) * (n * n13) ** 2)
        tau_unif = 0.3 * (3 * math.pi**2) ** (2 / 3) * n * n13 * n13
        tau_w = features.sigma_same / (2 * n)
        self.alpha = (2 * features.tau - tau_w) / (tau_unif + ETA * tau_w)
        self.e_lda = 0.5 * LDA_X * n * n13 * switch(n)
        self.multiplicity = features.multiplicity

    def energy(self, enhancement: torch.Tensor) -> torch.Tensor:
        """Exchange energy per volume, (G,), from the enhancement factor of each channel, (S, G)."""
        return self.multiplicity * (self.e_lda * enhancement).sum(0)


class Total:
    """Variables of the total density on which correlation depends; all (G,), but for closed shells those of zeta alone.

    n, n_switched (times the low-density switch), rs, zeta, zeta2 = zeta^2, p = s^2, phi and ds (spin-scaling factors
    of the gradient and of tau_unif), the regularised alpha, and t2 = [|grad n| / (2 phi k_s n)]^2.
    """

    def __init__(self, features: Features):
        self.n = features.total_rho + RHO_FLOOR
        self.n_switched = self.n * switch(self.n)
        n13 = self.n ** (1 / 3)
        self.rs = (3 / (4 * math.pi)) ** (1 / 3) / n13
        self.closed_shell = features.multiplicity == 2
        if self.closed_shell:
            self.zeta = self.n.new_zeros(())
        else:
            self.zeta = (features.rho[0] - features.rho[1]) / self.n
        self.zeta2 = self.zeta**2
        self.up, self.down = 1 + self.zeta, 1 - self.zeta
        self.phi = self.mean_power(2 / 3)
        self.p = features.total_sigma / (4 * (3 * math.pi**2) ** (2 / 3) * (self.n * n13) ** 2)
        tau_unif = 0.3 * (3 * math.pi**2) ** (2 / 3) * self.n * n13 * n13
        tau_w = features.total_sigma / (8 * self.n)
        self.ds = self.mean_power(5 / 3)
        self.alpha = (features.total_tau - tau_w) / (tau_unif * self.ds + ETA * tau_w)
        self.t2 = (3 * math.pi**2 / 16) ** (2 / 3) * self.p / (self.phi**2 * self.rs)

    def mean_power(self, p: float) -> torch.Tensor:
        """[(1 + zeta)^p + (1 - zeta)^p] / 2."""
        return 0.5 * (_power(self.up, p) + _power(self.down, p))


def _pw92_g(rs: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The interpolation G(r_s) of PW92 (their eq. 10) and dG/dr_s."""
    a, a1, b1, b2, b3, b4 = _PW92[k]
    root = rs.sqrt()
    q = 2 * a * root * (b1 + root * (b2 + root * (b3 + root * b4)))
    dq = a * (b1 / root + 2 * b2 + root * (3 * b3 + root * 4 * b4))
    log = torch.log1p(1 / q)
    front = -2 * a * (1 + a1 * rs)
    return front * log, -2 * a * a1 * log - front * dq / (q * (q + 1))


def pw92(x: Total) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlation energy per particle of the uniform gas and its derivative with respect to r_s, (G,) each."""
    if x.closed_shell:
        return _pw92_g(x.rs, 0)
    z4 = x.zeta**4
    f = (x.mean_power(4 / 3) - 1) / (2 ** (1 / 3) - 1)
    (e0, d0), (e1, d1), (ac, dac) = (_pw92_g(x.rs, k) for k in range(3))
    return tuple(
        u0 + z4 * f * (u1 - u0 + ua / _F_ZETA0) - f * ua / _F_ZETA0 for u0, u1, ua in ((e0, e1, ac), (d0, d1, dac))
    )  # type: ignore[return-value]


def pbe_enhancement(p: torch.Tensor) -> torch.Tensor:
    """F_x of PBE; kappa = 0.804, mu = beta pi^2 / 3."""
    kappa, mu = 0.804, BETA * math.pi**2 / 3
    return 1 + kappa - kappa / (1 + mu / kappa * p)


def pbe_correlation(x: Total) -> torch.Tensor:
    """Correlation energy per particle of PBE, (G,)."""
    ec = pw92(x)[0]
    phi3 = x.phi**3
    a_t2 = BETA / GAMMA / torch.expm1(-ec / (GAMMA * phi3)) * x.t2
    h = torch.log1p(BETA / GAMMA * x.t2 * (1 + a_t2) / (1 + a_t2 + a_t2 * a_t2))
    return ec + GAMMA * phi3 * h


class _Polynomial(torch.autograd.Function):
    """sum_i c_i x^i with few intermediates; its derivative is the next polynomial, so it has every order."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, coefficients: tuple[float, ...]) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.coefficients = coefficients
        value = torch.full_like(x, coefficients[-1])
        for c in coefficients[-2::-1]:
            value.mul_(x).add_(c)
        return value

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        derivative = tuple(i * c for i, c in enumerate(ctx.coefficients))[1:] or (0.0,)
        return grad * _Polynomial.apply(x, derivative), None


def _polynomial(x: torch.Tensor, coefficients: tuple[float, ...]) -> torch.Tensor:
    """sum_i c_i x^i, while torch records it (mlxc.torchscript) in operations of its own."""
    if not torch.jit.is_tracing():
        return _Polynomial.apply(x, coefficients)
    value = coefficients[-1] * x + coefficients[-2]
    for c in coefficients[-3::-1]:
        value = value * x + c
    return value


def _r2scan_switch(alpha: torch.Tensor, poly: tuple, c1: float, c2: float, d: float) -> torch.Tensor:
    """The interpolation f(alpha) between the single-orbital and the slowly varying limit, in three pieces."""
    low, high = alpha.clamp(max=0.0), alpha.clamp(min=2.5)
    middle = alpha.clamp(0.0, 2.5)
    left = torch.exp(-c1 * low / (1 - low))
    right = -d * torch.exp(c2 / (1 - high))
    return torch.where(alpha < 0, left, torch.where(alpha > 2.5, right, _polynomial(middle, poly)))


def r2scan_enhancement(x: Channel) -> torch.Tensor:
    """F_x of r2SCAN, (S, G)."""
    k1, mu = 0.065, 10 / 81
    c2x = -sum(i * c for i, c in enumerate(_R2SCAN_X)) * (1 - _H0X)
    mixed = ((20 / 27 + 5 * ETA / 3) * c2x * torch.exp(-x.p * x.p / _DP2_4) + mu) * x.p
    h1 = 1 + k1 - k1 / (1 + mixed / k1)
    f = _r2scan_switch(x.alpha, _R2SCAN_X, 0.667, 0.8, 1.24)
    # The floor keeps p^(-1/4) finite; the exponential has long vanished there.
    gx = -torch.expm1(-4.9479 * (x.p + 1e-12).rsqrt().sqrt())
    return (h1 + f * (_H0X - h1)) * gx


def r2scan_correlation(x: Total) -> torch.Tensor:
    """Correlation energy per particle of r2SCAN, (G,)."""
    b1, b2, b3, chi = 0.0285764, 0.0889, 0.125541, 0.12802585262625815
    root = x.rs.sqrt()
    denominator = 1 + b2 * root + b3 * x.rs
    lda0 = -b1 / denominator
    dlda0 = b1 * (0.5 * b2 / root + b3) / denominator**2
    gc = (1 - 2.363 * (x.mean_power(4 / 3) - 1)) * (1 - x.zeta**12)
    g_inf = (1 + 4 * chi * x.p).rsqrt().sqrt()
    ec0 = (lda0 + b1 * torch.log1p(torch.expm1(-lda0 / b1) * (1 - g_inf))) * gc

    lsda, dlsda = pw92(x)
    phi3 = x.phi**3
    w1 = torch.expm1(-lsda / (GAMMA * phi3))
    beta = BETA * (1 + 0.1 * x.rs) / (1 + 0.1778 * x.rs)
    y = beta / (GAMMA * w1) * x.t2
    df2 = sum(i * c for i, c in enumerate(_R2SCAN_C))
    bracket = 20 * x.rs * (dlda0 * gc - dlsda) - 45 * ETA * (lda0 * gc - lsda)
    dy = df2 / (27 * GAMMA * x.ds * phi3 * w1) * bracket * x.p * torch.exp(-x.p * x.p / _DP2_4)
    ec1 = lsda + GAMMA * phi3 * torch.log1p(w1 * (1 - (1 + 4 * (y - dy)).rsqrt().sqrt()))
    f = _r2scan_switch(x.alpha, _R2SCAN_C, 0.64, 1.5, 0.7)
    return ec1 + f * (ec0 - ec1)


class SlaterPW92(Functional):
    """Local spin density approximation: Slater exchange and PW92 correlation (libxc "slater,pw_mod")."""

    name, xctype = "slater-pw92", "LDA"

    def parts(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        channel, total = Channel(features), Total(features)
        return channel.energy(torch.ones_like(channel.e_lda)), total.n_switched * pw92(total)[0]


class PBE(Functional):
    """Perdew-Burke-Ernzerhof GGA (libxc "pbe")."""

    name, xctype = "pbe", "GGA"

    def parts(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        channel, total = Channel(features), Total(features)
        return channel.energy(pbe_enhancement(channel.p)), total.n_switched * pbe_correlation(total)


class R2SCAN(Functional):
    """Regularised-restored SCAN meta-GGA (libxc "r2scan")."""

    name, xctype = "r2scan", "MGGA"

    def parts(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        channel, total = Channel(features), Total(features)
        return channel.energy(r2scan_enhancement(channel)), total.n_switched * r2scan_correlation(total)
