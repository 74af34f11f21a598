"""`mlxc check XC [XC ...]`: which exact conditions does a functional obey, and by how much does it fail?"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from pathlib import Path
from typing import Any

import pyscf

from mlxc import models
from mlxc.constraints import (
    asymptotics,
    bounds,
    fractional_spin,
    numerics,
    one_electron,
    scaling,
    self_interaction,
    spin,
    systems,
    uniform,
)
from mlxc.constraints.condition import Condition
from mlxc.constraints.report import html, table
from mlxc.constraints.subject import Subject
from mlxc.errors import UNREADABLE, InputError
from mlxc.extras import need
from mlxc.files import digest, make_folder, write_atomic
from mlxc.version import __version__

CONDITIONS: tuple[Condition, ...] = tuple(
    condition
    for module in (
        one_electron,
        self_interaction,
        fractional_spin,
        asymptotics,
        uniform,
        scaling,
        spin,
        bounds,
        systems,
        numerics,
    )
    for condition in module.CONDITIONS
)
FAMILIES = tuple(dict.fromkeys(c.family for c in CONDITIONS))


def chosen(only: str | None) -> list[Condition]:
    """The conditions of a family, or the one of this name; all by default.  Raises InputError."""
    if only is None:
        return list(CONDITIONS)
    found = [c for c in CONDITIONS if only.lower() in (c.family.lower(), c.name.lower())]
    if not found:
        conditions = "; ".join(f"{f}: {', '.join(c.name for c in CONDITIONS if c.family == f)}" for f in FAMILIES)
        raise InputError(f"no family or condition {only!r}. There are {conditions}")
    return found


class Outcomes:
    """What has been measured of a functional: in memory and, with a folder, in a file for each condition."""

    def __init__(self, xc: str, quick: bool, folder: Path | None):
        self.identity = {"xc": xc, "sha256": models.sha256(xc), "mlxc": __version__, "pyscf": pyscf.__version__,
                         "quick": quick}  # fmt: skip
        self.subject, self.folder = Subject(xc), folder
        self._found: dict[str, dict[str, Any]] = {}
        self.refresh()

    def _path(self, condition: Condition) -> Path:
        key = hashlib.sha256(json.dumps([self.identity, condition.name]).encode()).hexdigest()[:16]
        return (self.folder or Path()) / f"{key}.json"

    def _stored(self, condition: Condition) -> dict[str, Any] | None:
        """The outcome in the folder, if it is of the same functional and the same versions."""
        if not self.folder:
            return None
        try:
            content = json.loads(self._path(condition).read_text())
            whole = content["sha256"] == digest(content["outcome"])
            return content["outcome"] if whole and content["of"] == self.identity else None
        except UNREADABLE:
            return None

    def measure(self, condition: Condition) -> None:
        """Take up the outcome of a condition, unless it is there already."""
        if condition.name in self._found:
            return
        began = time.perf_counter()
        outcome = condition.check(self.subject, bool(self.identity["quick"]))
        outcome["wall_s"] = round(time.perf_counter() - began, 2)
        self._found[condition.name] = outcome
        if self.folder and outcome["status"] != "not measured":  # which may be mended, and is tried again
            content = {"of": self.identity, "outcome": outcome, "sha256": digest(outcome)}
            write_atomic(self._path(condition), json.dumps(content) + "\n")

    def refresh(self) -> None:
        """Take up what others have put into the folder since."""
        self._found |= {c.name: outcome for c in CONDITIONS if (outcome := self._stored(c))}

    def has(self, condition: Condition) -> bool:
        """Whether there is an outcome."""
        return condition.name in self._found

    def of(self, conditions: list[Condition]) -> dict[str, Any]:
        """The part of a report on this functional."""
        outcomes = [self._found.get(c.name) or c.unasked() for c in conditions]
        wall_s = round(sum(o.get("wall_s", 0.0) for o in outcomes), 1)
        return {"name": self.subject.name, **self.identity, "outcomes": outcomes, "wall_s": wall_s}


def check(xcs: list[str], only: str | None = None, quick: bool = False, out: Path | None = None) -> dict[str, Any]:
    """Measure, print the table, and write `report.json` and `report.html` into `out`; returns what the former holds.

    Outcomes are kept in `out`/outcomes, one file each, from which an interrupted check goes on; a report has all that
    are there of its functionals, those that `only` leaves out as well.  Raises InputError, UnknownFunctionalError and
    ModelFileError before anything is measured.
    """
    need("a check", "check", "tqdm", *(["matplotlib"] if out else []))
    from tqdm import tqdm

    asked = chosen(only)
    folder = out / "outcomes" if out else None
    found = [Outcomes(xc, quick, folder) for xc in dict.fromkeys(xcs)]
    if folder:
        make_folder(folder)
    with tqdm(total=len(found) * len(asked), unit="condition", smoothing=0) as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pyscf")
        for outcomes in found:
            for condition in asked:
                bar.set_postfix_str(f"{outcomes.subject.name}: {condition.name}")
                outcomes.measure(condition)
                bar.update()
    for outcomes in found:
        outcomes.refresh()
    conditions = [c for c in CONDITIONS if any(o.has(c) for o in found)]
    described = ("name", "family", "statement", "source", "method", "unit", "tolerance")
    report = {
        "mlxc": __version__,
        "pyscf": pyscf.__version__,
        "quick": quick,
        "conditions": [{k: getattr(c, k) for k in described} for c in conditions],
        "functionals": [outcomes.of(conditions) for outcomes in found],
    }
    print(table(report))
    if out:
        write_atomic(out / "report.json", json.dumps(report, indent=1) + "\n")
        write_atomic(out / "report.html", html(report))
        print(f"{out / 'report.json'}\n{out / 'report.html'}")
    return report
