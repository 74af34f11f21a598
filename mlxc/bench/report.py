"""What `mlxc bench` found: a table of text, JSON, CSV and one HTML page without anything outside it.

report.json and the tables, .csv, have no times in them, so that an interrupted run that goes on writes the same bytes
as one that does not stop; times are in timings.json and on the page.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Hashable, Iterable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from mlxc.bench.statistics import GMTKN55
from mlxc.files import write_atomic
from mlxc.page import page, svg

#: Rows of largest error that the page lists of each functional.
WORST = 10
Report = dict[str, Any]
Times = dict[str, dict[str, float]]
#: Mark of sets of train rows; weighted averages are shown of so many sets of GMTKN55 or more.
TRAIN, ENOUGH = "(train)", 10
WEIGHTED = {"wtmad1": "WTMAD-1", "wtmad2": "WTMAD-2", "wtmad4": "WTMAD-4"}
#: What was chosen of the rows, in words.
CHOICES = {"sets": "sets {}", "role": "role {}", "elements": "elements {}", "max_heavy": "heavy atoms up to {}"}
LEGEND = (
    "mean absolute error (mean error); in brackets the number of rows, of all that there are, and of those that "
    "failed; (train): rows that "
    "models of mlxc are trained on, to be compared with nothing that was not"
)


def _weighted(functional: dict[str, Any]) -> dict[str, Any]:
    """Weighted averages of GMTKN55; empty over fewer than ENOUGH sets."""
    found = functional["summary"]["gmtkn55"]
    return found if found.get("sets", 0) >= ENOUGH else {}


def _lines(report: Report) -> list[tuple[str, list[str], list[float | None]]]:
    """Label, cells and mean absolute errors of each line of the table."""
    functionals = report["functionals"]
    lines: list[tuple[str, list[str], list[float | None]]] = []

    def line(label: str, cells: list[str], values: list[float | None], rows: list[Hashable]) -> None:
        # Values over other rows than those of others are compared with nothing: one may have the easier ones.
        lines.append((label, cells, values if len(set(rows)) == 1 else [None] * len(values)))

    def number(label: str, values: list[float | None], rows: list[Hashable]) -> None:
        line(label, ["-" if v is None else f"{v:.3g}" for v in values], values, rows)

    def add(label: str, averages: list[dict[str, Any]], rows: list[Hashable]) -> None:
        cells = []
        for a in averages:
            failed = f" [{a['failed']} failed]" if a["failed"] else ""
            cells.append((f"{a['mae']:.3g} ({a['me']:+.3g})" if a["n"] else "-") + failed)
        number_of_rows, of = max(a["n"] + a["failed"] for a in averages), averages[0]["of"]
        some = f" of {of}" if of > number_of_rows else ""
        line(f"{label} [{number_of_rows}{some}]", cells, [a.get("mae") for a in averages], rows)

    def known(part: str, belongs: Callable[[dict[str, Any]], bool]) -> list[Hashable]:
        """The rows of a part of the report that each functional has an error of, of those that belong to a line."""
        error = "error_kcal" if part == "reactions" else "error"
        return [frozenset(i for i, r in enumerate(f[part]) if belongs(r) and r[error] is not None) for f in functionals]

    first = functionals[0]["summary"]
    for s, of in first["sets"].items():
        mark = f" {TRAIN}" if "train" in of["roles"] else ""
        rows = known("reactions", lambda r, s=s: r["group"] == s)  # type: ignore[misc]
        add(f"{s}{mark}, kcal/mol", [f["summary"]["sets"][s] for f in functionals], rows)
    weighted = [_weighted(f) for f in functionals]
    for name in WEIGHTED if any(weighted) else ():
        values = [w.get(name) for w in weighted]
        number(f"{WEIGHTED[name]}, kcal/mol", values, known("reactions", lambda r: r["set"] in GMTKN55))
    for i, p in enumerate(first["properties"]):
        label = f"{p['set']}, {p['unit']}" if p["quantity"] in p["set"] else f"{p['set']}: {p['quantity']}, {p['unit']}"
        averages = [f["summary"]["properties"][i] for f in functionals]
        rows = known("properties", lambda r, p=p: (r["set"], r["group"]) == (p["set"], p["quantity"]))  # type: ignore[misc]
        add(label, averages, rows)
        if p["quantity"] in ("dipole_norm", "dipole components"):  # as these benchmarks are usually quoted
            number(f"{p['set']}: RMS, {p['unit']}", [a.get("rmse") for a in averages], rows)
    return lines


def left_out(report: Report, doubtful: int | None = None) -> list[str]:
    """What the averages lack: sets and rows of GMTKN55, species that did not converge; what is doubtful; coverage.

    doubtful : so many doubtful species of each functional at most; all by default
    """
    out = []
    alike: dict[tuple[int, ...], list[str]] = {}
    for f in report["functionals"]:
        if c := _weighted(f):
            rows = [r for r in f["reactions"] if r["converged"] and r["set"] in GMTKN55]
            seen = sum(r["role"] == "train" or r["group"] != r["set"] for r in rows)
            alike.setdefault((c["rows"], c["sets"], seen), []).append(f["name"])
    for (number, sets, seen), names in alike.items():
        out.append(
            f"{', '.join(names)}: WTMADs over {number} of {sum(w.rows for w in GMTKN55.values())} rows, in "
            f"{sets} of {len(GMTKN55)} sets of GMTKN55"
            + (f"; models of mlxc were trained on {seen} of these rows or on all their molecules" if seen else "")
        )
    for f in report["functionals"]:
        if covered := f["summary"]["coverage"]:
            out.append(
                f"{f['name']}: of {covered['n']} rows not marked as seen in training {covered['within']:.0%} are off "
                f"by less than their uncertainty, {covered['within_twice']:.0%} by less than 1.96 times it (ideally "
                "68% and 95%)"
            )
        if f["failed"]:
            lost = ", ".join(f"{r['set']} {r['name']}" for r in f["reactions"] if not r["converged"])
            out.append(f"{f['name']}: no result for {', '.join(f['failed'])}{'; left out: ' if lost else ''}{lost}")
        if f["doubtful"]:
            cases = [f"{id}: {', '.join(why)}" for id, why in f["doubtful"].items()]
            if doubtful and len(cases) > doubtful:
                cases[doubtful:] = [f"and {len(cases) - doubtful} more, which report.json has"]
            out.append(f"{f['name']}: doubtful {'; '.join(cases)}")
    return out


def table(report: Report) -> str:
    """One line for each set and quantity, one column for each functional."""
    names = [f["name"] for f in report["functionals"]]
    lines = _lines(report)
    head = max(len(label) for label, _, _ in lines)
    widths = [max(len(name), *(len(cells[i]) for _, cells, _ in lines)) for i, name in enumerate(names)]
    out = [" " * head + "".join(f"  {n:>{w}}" for n, w in zip(names, widths, strict=True))]
    for label, cells, _ in lines:
        out.append(f"{label:{head}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths, strict=True)))
    return "\n".join([*out, f"{LEGEND[0].upper()}{LEGEND[1:]}.", settings(report), *left_out(report, 5)])


def settings(report: Report) -> str:
    """The protocol in a line."""
    p = report["protocol"]
    fit = "density fitting" if p["density_fit"] else "no density fitting"
    stability = "open shells examined for stability" if p["stability"] else "no stability analysis"
    symmetry = f"{stability}, singlets restricted"
    if p["broken_symmetry"]:
        symmetry = "all examined for stability, broken symmetry where lower"
    nlc = f"{p['nlc_level']}, after the SCF" if p["nlc_after"] else p["nlc_level"]
    chosen = [CHOICES[k].format(", ".join(v) if isinstance(v, list) else v) for k, v in report["choice"].items()]
    rows = f"{report['data']} ({'; '.join(chosen)})" if chosen else report["data"]
    return (
        f"{rows}; protocol {p['name']}: {p['basis']}, {fit}, grid level {p['grid_level']} (VV10: "
        f"{nlc}), converged to {p['conv_tol']:g} Eh, {symmetry}; "
        f"mlxc {report['mlxc']}, PySCF {report['pyscf']}"
    )


def _rows(report: Report, part: str) -> list[dict[str, Any]]:
    return [{"functional": f["name"], **row} for f in report["functionals"] for row in f[part]]


def _averages(report: Report) -> list[dict[str, Any]]:
    """A row for each functional and set or quantity."""
    return [
        {"functional": f["name"], **row}
        for f in report["functionals"]
        for w in [_weighted(f)]
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


def _errors(functional: dict[str, Any]) -> np.ndarray:
    return np.array([r["error_kcal"] for r in functional["reactions"] if r["converged"]])


def _figures(report: Report, times: Times) -> Iterable[tuple[str, Any]]:
    """Titles and figures of matplotlib."""
    from matplotlib.figure import Figure

    functionals = report["functionals"]
    names = [f["name"] for f in functionals]
    sets = list(functionals[0]["summary"]["sets"])
    if sets:
        figure = Figure(figsize=(9, 1 + 0.18 * len(sets) * (len(names) + 1)), layout="constrained")
        axes = figure.subplots()
        for k, f in enumerate(functionals):
            maes = [f["summary"]["sets"][s].get("mae", np.nan) for s in sets]
            at = np.arange(len(sets)) + (k - (len(names) - 1) / 2) * 0.8 / len(names)
            axes.barh(at, maes, height=0.8 / len(names), label=f["name"])
        axes.set_yticks(np.arange(len(sets)), sets)
        axes.set_ylim(-0.6, len(sets) - 0.4)
        axes.invert_yaxis()
        axes.set_xlabel("mean absolute error / kcal/mol")
        axes.legend(fontsize="small")
        yield "Errors by set", figure
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        axes = figure.subplots()
        everything = np.concatenate([_errors(f) for f in functionals])
        if len(everything):
            reach = max(1.0, float(np.quantile(abs(everything), 0.98)))
            bins = np.linspace(-reach, reach, 41)
            for f in functionals:
                axes.hist(np.clip(_errors(f), -reach, reach).tolist(), bins.tolist(), histtype="step", label=f["name"])
            axes.set(xlabel="error / kcal/mol (the outermost bins have all beyond)", ylabel="reactions")
            axes.legend(fontsize="small")
            yield "Distribution of errors", figure
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [sum(times[f["xc"]].values()) / 60 for f in functionals])
    axes.invert_yaxis()
    axes.set_xlabel("time of all calculations / min")
    yield "Times", figure


def _largest(head: str, rows: Iterable[tuple[str, str, float, float, str]]) -> str:
    """The WORST of rows (set, name, reference, error, unit) as a table."""
    body = "".join(
        f"<tr><td>{escape(s)}</td><td>{escape(name)}</td><td class=number>{ref:.4g}</td>"
        f"<td class=number>{error:+.3g} {escape(unit)}</td></tr>"
        for s, name, ref, error, unit in sorted(rows, key=lambda r: -abs(r[3]))[:WORST]
    )
    head = f"<tr><th>set</th><th>{head}</th><th>reference</th><th>error</th></tr>"
    return f"<table>{head}{body}</table>" if body else ""


def _worst(functional: dict[str, Any]) -> str:
    """Largest errors of reactions, and of each quantity."""
    known = [p for p in functional["properties"] if p["error"] is not None]
    parts = [
        _largest(
            "reaction",
            ((r["set"], r["name"], r["ref_kcal"], r["error_kcal"], "kcal/mol")
             for r in functional["reactions"] if r["converged"]),
        ),
        *(
            _largest(
                quantity,
                ((p["set"], p["id"], p["ref"], p["error"], p["error_unit"]) for p in known if p["group"] == quantity),
            )
            for quantity in dict.fromkeys(p["group"] for p in known)
        ),
    ]  # fmt: skip
    return f"<h3>{escape(functional['name'])}</h3>{''.join(parts)}" if any(parts) else ""


def html(report: Report, times: Times) -> str:
    """The page."""
    rows = []
    for label, cells, values in _lines(report):
        best = min((v for v in values if v is not None), default=None)
        marks = ["number best" if v is not None and v == best else "number" for v in values]
        tds = "".join(f'<td class="{m}">{escape(c)}</td>' for m, c in zip(marks, cells, strict=True))
        rows.append(f"<tr><td>{escape(label)}</td>{tds}</tr>")
    names = "".join(f"<th>{escape(f['name'])}</th>" for f in report["functionals"])
    notes = "".join(f"<li>{escape(line)}</li>" for line in left_out(report))
    rungs = "".join(
        f"<li>{escape(f['name'])}: {', '.join(f'{r} {n}' for r, n in f['rungs'].items())}</li>"
        for f in report["functionals"]
    )
    figures = "".join(f"<section><h2>{title}</h2>{svg(figure)}</section>" for title, figure in _figures(report, times))
    return page(
        "Benchmark",
        f'<p>{escape(settings(report))}.</p><table><tr><th></th>{names}</tr>{"".join(rows)}</table><p class="small">'
        f"{LEGEND[0].upper()}{LEGEND[1:]}. Green: the smallest.</p><ul>{notes}</ul>"
        f"<h2>How the SCF was found (species)</h2><ul>{rungs}</ul>{figures}"
        f"<section><h2>Largest errors</h2>{''.join(map(_worst, report['functionals']))}</section>",
    )


def write(out: Path, report: Report, times: Times) -> list[Path]:
    """Write all files of a report into a folder; returns their paths.  Raises InputError where that is not possible."""
    contents = {
        "report.json": json.dumps(report, indent=1) + "\n",
        "averages.csv": _csv(_averages(report)),
        "reactions.csv": _csv(_rows(report, "reactions")),
        "properties.csv": _csv(_rows(report, "properties")),
        "timings.json": json.dumps(times, indent=1) + "\n",
        "report.html": html(report, times),
    }
    for name, content in contents.items():
        write_atomic(out / name, content)
    return [out / name for name in contents]
