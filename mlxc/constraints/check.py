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
from mlxc.errors import InputError
from mlxc.files import write_atomic
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
    found = [c for c in CONDITIONS if only in (None, c.family, c.name)]
    if not found:
        raise InputError(f"no family or condition {only!r}: families are {', '.join(FAMILIES)}")
    return found


def _stored(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The outcome in a file, if it is of the same functional and the same code."""
    try:
        content = json.loads(path.read_text())
        return content["outcome"] if content["of"] == identity else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def check(xcs: list[str], only: str | None = None, quick: bool = False, out: Path | None = None) -> dict[str, Any]:
    """Measure, print the table, and write `report.json` and `report.html` into `out`; returns what the former holds.

    Outcomes are kept in `out`/outcomes, one file each, from which an interrupted check goes on.  Raises InputError,
    UnknownFunctionalError and ModelFileError before anything is measured.
    """
    try:
        from tqdm import tqdm
    except ImportError as err:
        raise InputError("checks need tqdm and matplotlib: pip install 'mlxc[check]'") from err
    conditions = chosen(only)
    subjects = {xc: Subject(xc) for xc in dict.fromkeys(xcs)}
    if out:
        try:
            (out / "outcomes").mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InputError(f"cannot make the folder {out}: {err.strerror}") from err
    functionals = []
    with tqdm(total=len(subjects) * len(conditions), unit="condition", smoothing=0) as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pyscf")
        for xc, subject in subjects.items():
            start = time.perf_counter()
            identity = {"xc": xc, "sha256": models.sha256(xc), "mlxc": __version__, "pyscf": pyscf.__version__,
                        "quick": quick}  # fmt: skip
            outcomes = []
            for condition in conditions:
                bar.set_postfix_str(f"{subject.name}: {condition.name}")
                key = hashlib.sha256(json.dumps([identity, condition.name]).encode()).hexdigest()[:16]
                path = out / "outcomes" / f"{key}.json" if out else None
                outcome = _stored(path, identity) if path else None
                if outcome is None:
                    began = time.perf_counter()
                    outcome = condition.check(subject, quick)
                    outcome["wall_s"] = round(time.perf_counter() - began, 2)
                    if path:
                        write_atomic(path, json.dumps({"of": identity, "outcome": outcome}) + "\n")
                outcomes.append(outcome)
                bar.update()
            functionals.append({"name": subject.name, **identity, "outcomes": outcomes,
                                "wall_s": round(time.perf_counter() - start, 1)})  # fmt: skip
    described = ("name", "family", "statement", "source", "method", "unit", "tolerance")
    report = {
        "mlxc": __version__,
        "pyscf": pyscf.__version__,
        "quick": quick,
        "conditions": [{k: getattr(c, k) for k in described} for c in conditions],
        "functionals": functionals,
    }
    print(table(report))
    if out:
        write_atomic(out / "report.json", json.dumps(report, indent=1) + "\n")
        write_atomic(out / "report.html", html(report))
        print(f"{out / 'report.json'}\n{out / 'report.html'}")
    return report
