"""What an exact condition is, and what looking for violations of it gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlxc.constraints.subject import Subject
from mlxc.errors import BREAKS, ConvergenceError


@dataclass(frozen=True)
class Curve:
    """A line of a plot."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Finding:
    """What was measured.

    violation  how much the condition is broken by, in the condition's unit; nan where it could not be measured
    cases      what contributed: (case, value) in the same unit, of either sign
    curves     lines to plot, over `axis`
    remark     the reason where violation is nan, or what a reader should know
    """

    violation: float
    cases: tuple[tuple[str, float], ...] = ()
    curves: tuple[Curve, ...] = ()
    axis: str = ""
    remark: str = ""


class NotApplicable(Exception):
    """Why a condition says nothing about a functional."""


Measure = Callable[[Subject, bool], Finding]


@dataclass(frozen=True)
class Condition:
    """One exact condition.

    name       unique; family, the file that it is in
    statement  in symbols; source, where it comes from; method, how it is measured
    unit       of the violation; "" for a ratio
    tolerance  violations up to it pass: what numerical errors leave of an exact functional
    measure    (functional, quick?) -> Finding; raises NotApplicable
    """

    name: str
    family: str
    statement: str
    source: str
    method: str
    unit: str
    tolerance: float
    measure: Measure = field(repr=False)

    def check(self, subject: Subject, quick: bool = False) -> dict[str, Any]:
        """The outcome as JSON has it: status "pass", "fail", "not applicable" or "not measured"."""
        try:
            finding = self.measure(subject, quick)
            known = math.isfinite(finding.violation)
            status = ("pass" if finding.violation <= self.tolerance else "fail") if known else "not measured"
        except NotApplicable as why:
            finding, status = Finding(math.nan, remark=str(why)), "not applicable"
        except (ConvergenceError, *BREAKS) as err:  # the other conditions of a long check shall not be lost
            finding, status = Finding(math.nan, remark=f"broke off: {err!r}"), "not measured"
        return self._outcome(status, finding, self.name in subject.functional.built_in)

    def unasked(self) -> dict[str, Any]:
        """The outcome of a condition that was not looked at: status "not asked"."""
        return self._outcome("not asked", Finding(math.nan), False)

    def _outcome(self, status: str, finding: Finding, by_construction: bool) -> dict[str, Any]:
        return {
            "name": self.name,
            "family": self.family,
            "status": status,
            "violation": finding.violation if math.isfinite(finding.violation) else None,
            "unit": self.unit,
            "tolerance": self.tolerance,
            "by_construction": by_construction,
            "cases": [[case, value if math.isfinite(value) else None] for case, value in finding.cases],
            "curves": [{"label": c.label, "x": list(c.x), "y": list(c.y)} for c in finding.curves],
            "axis": finding.axis,
            "remark": finding.remark,
        }


def worst(cases: dict[str, float], limit: float | None = None, **more: Any) -> Finding:
    """The Finding whose violation is the largest magnitude of all cases, or what the largest exceeds `limit` by.

    It is nan where a case is unknown.
    """
    found = {name: float(v) for name, v in cases.items()}
    unknown = [name for name, v in found.items() if not math.isfinite(v)]
    if unknown:
        more["remark"] = f"no number for {', '.join(unknown)}: an SCF that does not converge, or a functional's nan"
        return Finding(math.nan, tuple(found.items()), **more)
    largest = max(map(abs, found.values())) if limit is None else max(0.0, max(found.values()) - limit)
    return Finding(largest, tuple(found.items()), **more)


def exchange_apart(subject: Subject) -> None:
    """NotApplicable where exchange cannot be told from correlation."""
    if not subject.functional.separable:
        raise NotApplicable(f"exchange and correlation of {subject.name} are not told apart")


def without_nonlocal(subject: Subject) -> None:
    """NotApplicable where VV10 would be missing."""
    if subject.with_nonlocal:
        raise NotApplicable(f"{subject.name} has VV10 in it, which is not a function of the point")


def correlation_apart(subject: Subject) -> None:
    """NotApplicable where correlation cannot be told from exchange, or lacks its VV10."""
    exchange_apart(subject)
    without_nonlocal(subject)


def semilocal(subject: Subject) -> None:
    """NotApplicable to functionals with exact exchange, whose energy density is no function of the point alone."""
    if subject.mixed:
        raise NotApplicable("the exact-exchange energy density is not bounded point by point")
