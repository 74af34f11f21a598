"""The files of a report.

report.json and the tables, .csv, have no times in them, so that an interrupted run that goes on writes the same bytes
as one that does not stop; times are in timings.json and on the page.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from mlxc.bench.html import Times, html
from mlxc.bench.report import WEIGHTED, Report, weighted_of
from mlxc.files import write_atomic


def _rows(report: Report, part: str) -> list[dict[str, Any]]:
    return [{"functional": f["name"], **row} for f in report["functionals"] for row in f[part]]


def averages(report: Report) -> list[dict[str, Any]]:
    """A row for each functional and set or quantity."""
    return [
        {"functional": f["name"], **row}
        for f in report["functionals"]
        for w in [weighted_of(f)]
        for row in (
            *({"set": s, "unit": "kcal/mol", **a} for s, a in f["summary"]["sets"].items()),
            *f["summary"]["properties"],
            *({"set": WEIGHTED[k], "unit": "kcal/mol", "n": w["rows"], "mae": w[k]} for k in WEIGHTED if w),
        )
    ]


def _csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV; the columns are all that any of them has."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(k for row in rows for k in row)))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write(out: Path, report: Report, times: Times) -> list[Path]:
    """Write all files of a report into a folder; returns their paths.  Raises InputError where that is not possible."""
    contents = {
        "report.json": json.dumps(report, indent=1) + "\n",
        "averages.csv": _csv(averages(report)),
        "reactions.csv": _csv(_rows(report, "reactions")),
        "properties.csv": _csv(_rows(report, "properties")),
        "timings.json": json.dumps(times, indent=1) + "\n",
        "report.html": html(report, times),
    }
    for name, content in contents.items():
        write_atomic(out / name, content)
    return [out / name for name in contents]
