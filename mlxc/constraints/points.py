"""Points of all densities that there could be: their features, and the search for the worst of them.

A point is given by r_s and zeta of the total density, by s, alpha and y = ex / ex_LDA of each spin channel (those of
the unpolarised density 2 n_s), and by the cosine of the angle between both gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import differential_evolution
from scipy.special import erf
from scipy.stats import qmc

from mlxc.analytic import LDA_X
from mlxc.constraints.condition import Finding
from mlxc.features import Features
from mlxc.ongrid import Mixed

#: Smallest and largest value of each variable; r_s is spread evenly in its logarithm.  As far as s and alpha go, and
#: in the spirit of its r_s, that of Pederson and Burke, J. Chem. Phys. 159, 214113 (2023).
BOUNDS = {
    "rs": (1e-2, 10.0),
    "zeta": (-1.0, 1.0),
    "s_a": (0.0, 5.0),
    "s_b": (0.0, 5.0),
    "alpha_a": (0.0, 5.0),
    "alpha_b": (0.0, 5.0),
    "cosine": (-1.0, 1.0),
    "y_a": (0.5, 3.0),
    "y_b": (0.5, 3.0),
}
#: Points of the first look, of which the worst are the first generation of the search, and its generations.
SAMPLE, MEMBERS, GENERATIONS = 2**16, 64, 150
QUICK_SAMPLE, QUICK_GENERATIONS = 2**13, 30


def uniform_exchange(rho: torch.Tensor, omega: float) -> torch.Tensor:
    """Exchange energy per volume of the uniform gas with erf(omega r) / r; rho (...) of one spin; omega = 0: 1 / r.

    The share of erfc(omega r) / r is a function of a = omega / (2 k_F): Gill, Adamson, Pople, Mol. Phys. 88, 1005
    (1996); from a = 1.5 on its series, which does not cancel.
    """
    full = 0.5 * LDA_X * (2 * rho) ** (4 / 3)
    if omega == 0:
        return full
    a = omega / (2 * (6 * math.pi**2 * rho.clamp(min=1e-30)) ** (1 / 3)).numpy()
    low = np.minimum(a, 1.5)
    e = np.exp(-1 / (4 * low**2))
    bracket = math.sqrt(math.pi) * erf(1 / (2 * low)) - 3 * low + 4 * low**3 + (2 * low - 4 * low**3) * e
    series = 1 / (36 * a**2) - 1 / (960 * a**4) + 1 / (26880 * a**6)
    return full * (1 - torch.from_numpy(np.where(a < 1.5, 1 - 8 / 3 * low * bracket, series)))


def slater(features: Features) -> torch.Tensor:
    """Exchange energy per volume of the unpolarised uniform gas with the total density, (G,)."""
    return LDA_X * features.total_rho ** (4 / 3)


def features_of_points(mixed: Mixed, x: dict[str, np.ndarray]) -> Features:
    """Features (2, G) of the points with these variables, (G,) each, with exact exchange of this interaction."""
    n = 3 / (4 * np.pi * x["rs"] ** 3)
    rho = np.array([n * (1 + x["zeta"]) / 2, n * (1 - x["zeta"]) / 2])
    s, alpha = np.array([x["s_a"], x["s_b"]]), np.array([x["alpha_a"], x["alpha_b"]])
    slope = 2 * (6 * np.pi**2) ** (1 / 3) * rho ** (4 / 3) * s
    sigma = np.array([slope[0] ** 2, slope[0] * slope[1] * x["cosine"], slope[1] ** 2])
    unif = 0.3 * (6 * np.pi**2) ** (2 / 3) * rho ** (5 / 3)
    tau = alpha * unif + (5 / 3) * s**2 * unif
    spins = torch.from_numpy(rho)
    ex = None
    if mixed:
        y = torch.from_numpy(np.array([x["y_a"], x["y_b"]]))
        ex = y * torch.stack([c * uniform_exchange(spins, omega) for omega, c in mixed]).sum(0)
    return Features(spins, torch.from_numpy(sigma), torch.from_numpy(tau), ex)


def uniform_gas(rs: np.ndarray, zeta: np.ndarray) -> dict[str, np.ndarray]:
    """The variables of uniform gases."""
    zero, one = np.zeros_like(rs), np.ones_like(rs)
    return {"rs": rs, "zeta": zeta, "s_a": zero, "s_b": zero, "alpha_a": one, "alpha_b": one, "cosine": zero,
            "y_a": one, "y_b": one}  # fmt: skip


def _variables(unit: np.ndarray, fixed: dict[str, float]) -> dict[str, np.ndarray]:
    """Variables of points in the unit cube, (len(BOUNDS), G)."""
    out = {}
    for u, (name, (low, high)) in zip(unit, BOUNDS.items(), strict=True):
        out[name] = low * (high / low) ** u if name == "rs" else low + (high - low) * u
        if name in fixed:
            out[name] = np.full_like(u, fixed[name])
    return out


def search(
    violation: Callable[[dict[str, np.ndarray]], torch.Tensor], quick: bool, fixed: dict[str, float] | None = None
) -> Finding:
    """The largest violation of a function of variables (G,) -> (G,), by sampling and differential evolution.

    Differential evolution: Storn, Price, J. Glob. Optim. 11, 341 (1997).  Variables in `fixed` stay there.
    """

    def evaluate(unit: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            values = violation(_variables(unit, fixed or {})).numpy()
        return -np.nan_to_num(values, nan=np.inf)

    sample = qmc.Sobol(len(BOUNDS), rng=0).random(QUICK_SAMPLE if quick else SAMPLE)
    start = sample[np.argsort(evaluate(sample.T), kind="stable")[:MEMBERS]]
    found = differential_evolution(
        evaluate, [(0.0, 1.0)] * len(BOUNDS), init=start, maxiter=QUICK_GENERATIONS if quick else GENERATIONS,
        vectorized=True, updating="deferred", polish=False, tol=0.0, rng=0,
    )  # fmt: skip
    where = {k: float(v[0]) for k, v in _variables(found.x[:, None], fixed or {}).items()}
    worst = float(-found.fun)
    at = ", ".join(f"{k} {v:.3g}" for k, v in where.items())
    return Finding(max(worst, 0.0), (("worst point", worst),), remark=f"worst at {at}")
