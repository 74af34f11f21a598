"""Uniform scaling, n_gamma(r) = gamma^3 n(gamma r), of known densities."""

from __future__ import annotations

import numpy as np
import torch

from mlxc.constraints.condition import Condition, Curve, Finding, correlation_apart, exchange_apart, worst
from mlxc.constraints.subject import Density, Subject, determinant

#: Shipped systems whose Hartree-Fock densities are scaled, and with --quick.
DENSITIES = (
    ("two_electron", "He"), ("two_electron", "H2 R=0.7414"), ("two_electron", "H2 R=2.0"), ("two_electron", "Be2+"),
    ("small", "Li"), ("small", "N"), ("small", "OH"), ("small", "H2O"), ("small", "N2"),
)  # fmt: skip
QUICK = DENSITIES[:1] + DENSITIES[5:7]
#: Scaling factors of inequalities, and of both limits.
GAMMAS = np.geomspace(0.1, 100, 13)
HIGH, LOW = (1e4, 1e5), (4.0**-3, 4.0**-4, 4.0**-5)
#: Functionals are cut off below about 1e-11 Bohr^-3 (`mlxc.analytic.RHO_SWITCH`; libxc): what has a lower mean density,
#: int n^2 / N, than this at the last of LOW tells nothing of its limit.
NOT_CUT_OFF = 1e-10
#: Relative step of the derivative with respect to gamma.
STEP = 1e-3
LEVY_PERDEW = "Levy, Perdew, Phys. Rev. A 32, 2010 (1985)"


def densities(quick: bool) -> list[Density]:
    """The densities of these conditions."""
    return [determinant(file, name) for file, name in (QUICK if quick else DENSITIES)]


def _correlation(subject: Subject, density: Density, gamma: float) -> float:
    return subject.integrals(density, gamma)[1]


def _exchange(subject: Subject, quick: bool) -> Finding:
    exchange_apart(subject)
    cases: dict[str, float] = {}
    for d in densities(quick):
        one = subject.integrals(d)[0]
        cases |= {f"{d.name}, gamma = {g:g}": subject.integrals(d, g)[0] / (g * one) - 1 for g in (0.1, 10.0)}
    return worst(cases)


def _inequality(subject: Subject, quick: bool) -> Finding:
    correlation_apart(subject)
    cases, curves = {}, []
    for d in densities(quick):
        ratios = np.array([_correlation(subject, d, g) / g for g in GAMMAS])
        one = _correlation(subject, d, 1.0)
        scale = max(abs(one), 1e-12)
        # E_c[n_gamma] / gamma falls in magnitude as gamma grows, so that nowhere it may be lower than before.
        broken = np.maximum(np.maximum.accumulate(ratios) - ratios, 0) / scale
        cases[d.name] = float(broken.max())
        curves.append(Curve(d.name, tuple(GAMMAS), tuple(ratios / one if one else 0 * ratios)))
    return worst(cases, curves=tuple(curves), axis="gamma")


def _high(subject: Subject, quick: bool) -> Finding:
    correlation_apart(subject)
    local = Subject("lda,pw")
    cases = {}
    for d in densities(quick):
        growth, of_local = (_correlation(x, d, HIGH[1]) - _correlation(x, d, HIGH[0]) for x in (subject, local))
        cases[d.name] = growth / of_local
    return worst(cases)


def _low(subject: Subject, quick: bool) -> Finding:
    correlation_apart(subject)
    cases = {}
    for d in densities(quick):
        n = subject.features(d, LOW[-1]).total_rho
        share = torch.from_numpy(d.weights) * n
        if n @ share < NOT_CUT_OFF * share.sum():
            continue
        values = np.array([_correlation(subject, d, g) / g for g in LOW])
        before, last = np.abs(np.diff(values))
        cases[d.name] = float(last / before) if before > 1e-9 * abs(values).max() and before > 1e-12 else 0.0
    return worst(cases)


def kinetic_correlation(subject: Subject, density: Density) -> float:
    """T_c = dE_c[n_gamma] / dgamma - E_c at gamma = 1, Eh (Levy, Perdew)."""
    up, down = (_correlation(subject, density, 1 + k * STEP) for k in (1, -1))
    return (up - down) / (2 * STEP) - _correlation(subject, density, 1.0)


def _kinetic(subject: Subject, quick: bool) -> Finding:
    correlation_apart(subject)
    return worst({d.name: -kinetic_correlation(subject, d) for d in densities(quick)}, 0.0, remark="cases: -T_c")


_CASES = "Hartree-Fock densities of atoms and molecules from Be2+ and H2 to N2"
CONDITIONS = (
    Condition(
        "scaling of exchange", "scaling", "E_x[n_gamma] = gamma E_x[n]", LEVY_PERDEW,
        f"{_CASES}, gamma = 0.1 and 10; largest relative deviation", "", 1e-5, _exchange,
    ),
    Condition(
        "scaling of correlation", "scaling",
        "E_c[n_gamma] > gamma E_c[n] for gamma > 1 and < for gamma < 1", LEVY_PERDEW,
        f"{_CASES}: E_c[n_gamma] / gamma grows with gamma from 0.1 to 100; largest fall relative to |E_c|",
        "", 1e-6, _inequality,
    ),
    Condition(
        "high-density limit", "scaling", "E_c[n_gamma] tends to a constant as gamma grows",
        "Levy, Phys. Rev. A 43, 4637 (1991); for finite systems without degeneracy",
        f"{_CASES}, from gamma = {HIGH[0]:g} to {HIGH[1]:g}: growth of E_c over that of the local density "
        "approximation, which has no limit", "", 0.02, _high,
    ),
    Condition(
        "low-density limit", "scaling", "E_c[n_gamma] / gamma tends to a constant as gamma vanishes",
        "Levy, Perdew, Phys. Rev. B 48, 11638 (1993)",
        f"{_CASES} but dilute ones, gamma = 1/64, 1/256, 1/1024: ratio of the changes of E_c / gamma, 1/2 where "
        "1 / sqrt(r_s) is left, 4 where it grows like 1 / gamma", "", 0.95, _low,
    ),
    Condition(
        "kinetic correlation", "scaling", "T_c = dE_c[n_gamma]/dgamma - E_c >= 0 at gamma = 1", LEVY_PERDEW,
        f"{_CASES}; most negative value", "Eh", 1e-7, _kinetic,
    ),
)  # fmt: skip
