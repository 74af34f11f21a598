"""What an exact condition is, and what looking for violations of it gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlxc.constraints.subject import Subject


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
        return {
            "name": self.name,
            "family": self.family,
            "status": status,
            "violation": finding.violation if math.isfinite(finding.violation) else None,
            "unit": self.unit,
            "tolerance": self.tolerance,
            "by_construction": self.name in subject.functional.built_in,
            "cases": [[case, value if math.isfinite(value) else None] for case, value in finding.cases],
            "curves": [{"label": c.label, "x": list(c.x), "y": list(c.y)} for c in finding.curves],
            "axis": finding.axis,
            "remark": finding.remark,
        }


def worst(cases: dict[str, float], **more: Any) -> Finding:
    """The Finding whose violation is the largest magnitude of all cases; nan where one is unknown."""
    found = {name: float(v) for name, v in cases.items()}
    unknown = [name for name, v in found.items() if not math.isfinite(v)]
    if unknown:
        more["remark"] = f"the SCF did not converge: {', '.join(unknown)}"
    return Finding(math.nan if unknown else max(map(abs, found.values()), default=0.0), tuple(found.items()), **more)
