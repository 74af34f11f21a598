"""Signs and bounds of exchange and correlation energies, of known densities and at every point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mlxc.analytic import LDA_X
from mlxc.constraints.condition import (
    Condition,
    Finding,
    Measure,
    correlation_apart,
    exchange_apart,
    semilocal,
    without_nonlocal,
    worst,
)
from mlxc.constraints.penalties import LIEB_OXFORD
from mlxc.constraints.points import features_of_points, search, slater
from mlxc.constraints.scaling import densities
from mlxc.constraints.subject import Subject, determinant
from mlxc.units import KCAL

#: Bound on F_x of two electrons (Perdew, Ruzsinszky, Sun, Burke, J. Chem. Phys. 140, 18A533 (2014)).
TWO_ELECTRONS = 1.174
#: Singlets of two electrons, whose exchange is half of their self-repulsion.
SINGLETS = ("He", "Be2+", "H2 R=0.7414", "H2 R=2.0", "HeH+ R=0.774")


def _sign(part: int, apart: Callable[[Subject], None]) -> Measure:
    def measure(subject: Subject, quick: bool) -> Finding:
        apart(subject)
        return worst({d.name: subject.integrals(d)[part] for d in densities(quick)}, 0.0)

    return measure


def _exchange_at_points(subject: Subject) -> None:
    exchange_apart(subject)
    semilocal(subject)


def _local_sign(part: int, apart: Callable[[Subject], None]) -> Measure:
    def measure(subject: Subject, quick: bool) -> Finding:
        apart(subject)

        def violation(x: dict[str, np.ndarray]) -> torch.Tensor:
            f = features_of_points(subject.mixed, x)
            return subject.functional.parts(f)[part] / -slater(f)

        return search(violation, quick)

    return measure


def _global_bound(subject: Subject, quick: bool) -> Finding:
    values = {}
    for d in densities(quick):
        n = float(d.weights @ subject.features(d).total_rho.numpy() ** (4 / 3))
        values[d.name] = -subject.energy_xc(d) / n
    return worst(values, LIEB_OXFORD, remark="cases: -E_xc / int n^4/3")


def _local_bound(subject: Subject, quick: bool) -> Finding:
    semilocal(subject)
    without_nonlocal(subject)
    limit = LIEB_OXFORD / -LDA_X

    def violation(x: dict[str, np.ndarray]) -> torch.Tensor:
        f = features_of_points(subject.mixed, x)
        return subject.functional(f) / slater(f) - limit

    return search(violation, quick)


def _monotonic(subject: Subject, quick: bool) -> Finding:
    correlation_apart(subject)

    def violation(x: dict[str, np.ndarray]) -> torch.Tensor:
        below, above = (features_of_points(subject.mixed, x | {"rs": x["rs"] * k}) for k in (1.0, 1.01))
        fc = [subject.functional.parts(f)[1] / slater(f) for f in (below, above)]
        return (fc[0] - fc[1]) / 0.01

    return search(violation, quick)


def _two_electron_bound(subject: Subject, quick: bool) -> Finding:
    _exchange_at_points(subject)

    def violation(x: dict[str, np.ndarray]) -> torch.Tensor:
        f = features_of_points(subject.mixed, x | {"s_b": x["s_a"]})
        return subject.functional.parts(f)[0] / slater(f) - TWO_ELECTRONS

    return search(violation, quick, {"zeta": 0.0, "alpha_a": 0.0, "alpha_b": 0.0, "cosine": 1.0})


def _two_electron_exchange(subject: Subject, quick: bool) -> Finding:
    exchange_apart(subject)
    singlets = [determinant("two_electron", name) for name in SINGLETS]
    return worst({d.name: (subject.integrals(d)[0] + d.coulomb / 2) * KCAL for d in singlets})


_BURKE = "Pederson, Burke, J. Chem. Phys. 159, 214113 (2023): sufficient, not necessary"
CONDITIONS = (
    Condition("exchange is negative", "bounds", "E_x[n] <= 0", "definition", "the densities of `scaling`; largest E_x",
              "Eh", 0.0, _sign(0, exchange_apart)),
    Condition("correlation is not positive", "bounds", "E_c[n] <= 0", "definition",
              "the densities of `scaling`; largest E_c", "Eh", 0.0, _sign(1, correlation_apart)),
    Condition("exchange is negative at every point", "bounds", "e_x <= 0", _BURKE,
              "largest e_x over |e_x| of the uniform gas at any point", "", 1e-9, _local_sign(0, _exchange_at_points)),
    Condition("correlation is not positive at every point", "bounds", "e_c <= 0", _BURKE,
              "largest e_c over |e_x| of the uniform gas at any point", "", 1e-9, _local_sign(1, correlation_apart)),
    Condition("correlation scales at every point", "bounds", "dF_c/dr_s >= 0 at fixed s, alpha, zeta; F_c = e_c / e_x",
              _BURKE, "most negative slope of F_c over ln r_s at any point", "", 1e-6, _monotonic),
    Condition("Lieb-Oxford", "bounds", f"E_xc >= -{LIEB_OXFORD} int n^(4/3)",
              "Lewin, Lieb, Seiringer, Lett. Math. Phys. 112, 92 (2022)",
              "the densities of `scaling`; excess of -E_xc / int n^(4/3)", "", 0.0, _global_bound),
    Condition("Lieb-Oxford at every point", "bounds", f"e_xc >= -{LIEB_OXFORD} n^(4/3)",
              "sufficient: Perdew, Burke, Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996)",
              f"largest excess of F_xc over {LIEB_OXFORD / -LDA_X:.3f} at any point; PBE is built for an earlier "
              "bound, 2.273", "", 1e-6, _local_bound),
    Condition("exchange of one orbital is bounded", "bounds", f"F_x <= {TWO_ELECTRONS} for densities of two electrons",
              "Perdew, Ruzsinszky, Sun, Burke, J. Chem. Phys. 140, 18A533 (2014): sufficient",
              "largest excess of F_x where alpha = 0, zeta = 0", "", 1e-6, _two_electron_bound),
    Condition("exchange of two electrons", "bounds", "E_x = -J/2 of a singlet of two electrons", "definition",
              "Hartree-Fock densities of He, Be2+, H2 and HeH+; largest deviation", "kcal/mol", 0.1,
              _two_electron_exchange),
)  # fmt: skip
