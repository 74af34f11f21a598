"""The uniform electron gas and its neighbourhood."""

from __future__ import annotations

import numpy as np
import torch

from mlxc.analytic import Total, pw92
from mlxc.constraints.condition import Condition, Curve, Finding, exchange_apart, worst
from mlxc.constraints.points import features_of_points, slater, uniform_exchange, uniform_gas
from mlxc.constraints.subject import Subject
from mlxc.features import Features

#: Radii r_s and polarisations of the scan; mu of exchange (Antoniewicz, Kleinman, Phys. Rev. B 31, 6779 (1985)).
RADII, POLARISATIONS, MU = np.geomspace(0.01, 100, 41), (0.0, 0.3, 0.6, 0.9, 1.0), 10 / 81
#: Reduced gradient, and change of alpha, of the differences that give the gradient coefficient.
STEP = 0.02


def exact(features: Features) -> torch.Tensor:
    """E_xc of uniform gases per volume: Slater exchange and PW92 correlation, (G,)."""
    exchange = uniform_exchange(features.rho, 0.0).sum(0) * features.multiplicity
    return exchange + features.total_rho * pw92(Total(features))[0]


def _gas(subject: Subject, quick: bool) -> Finding:
    curves, cases = [], {}
    for zeta in POLARISATIONS:
        features = features_of_points(subject.mixed, uniform_gas(RADII, np.full_like(RADII, zeta)))
        with torch.no_grad():
            error = (subject.functional(features) / exact(features) - 1).numpy()
        curves.append(Curve(f"zeta = {zeta:g}", tuple(RADII), tuple(error)))
        cases[f"zeta = {zeta:g}, r_s = {RADII[abs(error).argmax()]:.3g}"] = float(error[abs(error).argmax()])
    remark = "VV10 vanishes in the uniform gas" if subject.with_nonlocal else ""
    return worst(cases, curves=tuple(curves), axis="r_s / Bohr", remark=remark)


def _exchange_enhancement(subject: Subject, s: float, alpha: float) -> float:
    """F_x of a spin-unpolarised point; exact exchange counts with the exact gradient expansion of its own."""
    x = uniform_gas(np.array([1.0]), np.zeros(1))
    x |= {"s_a": np.array([s]), "s_b": np.array([s]), "cosine": np.ones(1)}
    x |= {"alpha_a": np.array([alpha]), "alpha_b": np.array([alpha])}
    x |= {"y_a": np.array([1 + MU * s**2]), "y_b": np.array([1 + MU * s**2])}
    f = features_of_points(subject.mixed, x)
    with torch.no_grad():
        return float(subject.functional.parts(f)[0] / slater(f))


def _gradient(subject: Subject, quick: bool) -> Finding:
    exchange_apart(subject)
    by_s = (_exchange_enhancement(subject, STEP, 1.0) - _exchange_enhancement(subject, 0.0, 1.0)) / STEP**2
    by_alpha = (_exchange_enhancement(subject, 0.0, 1 + STEP**2) - _exchange_enhancement(subject, 0.0, 1 - STEP**2)) / (
        2 * STEP**2
    )
    mu = by_s - 20 / 27 * by_alpha
    return Finding(abs(mu / MU - 1), (("mu / (10/81) - 1", mu / MU - 1),), remark=f"mu = {mu:.4f}")


CONDITIONS = (
    Condition(
        "uniform gas",
        "uniform gas",
        "e_xc(r_s, zeta) of a uniform density is that of the uniform electron gas",
        "exchange: Dirac, Proc. Camb. Philos. Soc. 26, 376 (1930); correlation: Perdew, Wang, Phys. Rev. B 45, 13244 "
        "(1992), which Monte Carlo results bear out within about 1 % of correlation",
        "largest relative error of e_xc for r_s from 0.01 to 100 and five polarisations",
        "",
        2e-3,
        _gas,
    ),
    Condition(
        "gradient expansion of exchange",
        "uniform gas",
        "F_x = 1 + (10/81) s^2 + ... for slowly varying densities",
        "Antoniewicz, Kleinman, Phys. Rev. B 31, 6779 (1985)",
        "relative error of mu = dF_x/ds^2 - (20/27) dF_x/dalpha at s = 0, alpha = 1, which contains the second-order "
        "expansion of tau, its Laplacian integrated by parts; exact exchange counts as exact",
        "",
        0.02,
        _gradient,
    ),
)
