"""What `mlxc bench` found: a table of text, JSON, CSV and one HTML page without anything outside it.

report.json, reactions.csv and properties.csv have no times in them, so that an interrupted run that goes on writes the
same bytes as one that does not stop; times are in timings.json and on the page.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
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
LEGEND = (
    "mean absolute error (mean error); in brackets the number of rows, and of those that failed; (train): rows that "
    "models of mlxc are trained on, to be compared with nothing that was not"
)


def _lines(report: Report) -> list[tuple[str, list[str], list[float | None]]]:
    """Label, cells and mean absolute errors of each line of the table."""
    functionals = report["functionals"]
    lines: list[tuple[str, list[str], list[float | None]]] = []

    def line(label: str, cells: list[str], values: list[float | None], rows: list[int | None]) -> None:
        # Values over fewer rows than others are of the easier ones: they are compared with nothing.
        lines.append((label, cells, values if len(set(rows)) == 1 else [None] * len(values)))

    def number(label: str, values: list[float | None], rows: list[int | None]) -> None:
        line(label, ["-" if v is None else f"{v:.3g}" for v in values], values, rows)

    def add(label: str, averages: list[dict[str, Any]]) -> None:
        cells = []
        for a in averages:
            failed = f" [{a['failed']} failed]" if a["failed"] else ""
            cells.append((f"{a['mae']:.3g} ({a['me']:+.3g})" if a["n"] else "-") + failed)
        rows = max(a["n"] + a["failed"] for a in averages)
        line(f"{label} [{rows}]", cells, [a.get("mae") for a in averages], [a["n"] for a in averages])

    first = functionals[0]["summary"]
    for s, of in first["sets"].items():
        mark = f" {TRAIN}" if "train" in of["roles"] else ""
        add(f"{s}{mark}, kcal/mol", [f["summary"]["sets"][s] for f in functionals])
    weighted = [f["summary"]["gmtkn55"] for f in functionals]
    for name in ("wtmad1", "wtmad2", "wtmad4") if max(w.get("sets", 0) for w in weighted) >= ENOUGH else ():
        number(f"WTMAD-{name[-1]}, kcal/mol", [w.get(name) for w in weighted], [w.get("rows") for w in weighted])
    for i, p in enumerate(first["properties"]):
        label = f"{p['set']}, {p['unit']}" if p["quantity"] in p["set"] else f"{p['set']}: {p['quantity']}, {p['unit']}"
        averages = [f["summary"]["properties"][i] for f in functionals]
        add(label, averages)
        if p["quantity"] == "dipole_norm":  # as this benchmark is usually quoted
            number(f"{p['set']}: RMS, {p['unit']}", [a.get("rmse") for a in averages], [a["n"] for a in averages])
    return lines


def left_out(report: Report) -> list[str]:
    """What the averages lack: sets and rows of GMTKN55, species that did not converge; what is doubtful; coverage."""
    out = []
    counts = {f["name"]: f["summary"]["gmtkn55"] for f in report["functionals"]}
    alike: dict[tuple[int, int], list[str]] = {}
    for name, c in counts.items():
        if c.get("sets", 0) >= ENOUGH:
            alike.setdefault((c["rows"], c["sets"]), []).append(name)
    for (rows, sets), names in alike.items():
        out.append(
            f"{', '.join(names)}: WTMADs over {rows} of {sum(w.rows for w in GMTKN55.values())} rows, in "
            f"{sets} of {len(GMTKN55)} sets of GMTKN55"
        )
    for f in report["functionals"]:
        if covered := f["summary"]["coverage"]:
            out.append(
                f"{f['name']}: of {covered['n']} unseen rows {covered['within']:.0%} are off by less than their "
                f"uncertainty and {covered['within_twice']:.0%} by less than 1.96 times it (ideally 68% and 95%)"
            )
        if f["failed"]:
            out.append(f"{f['name']}: no result for {', '.join(f['failed'])}; reactions with them are left out")
        if f["doubtful"]:
            cases = "; ".join(f"{id}: {', '.join(why)}" for id, why in list(f["doubtful"].items())[:5])
            more = f"; and {len(f['doubtful']) - 5} more" if len(f["doubtful"]) > 5 else ""
            out.append(f"{f['name']}: doubtful {cases}{more}")
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
    return "\n".join([*out, f"{LEGEND[0].upper()}{LEGEND[1:]}.", settings(report), *left_out(report)])


def settings(report: Report) -> str:
    """The protocol in a line."""
    p = report["protocol"]
    fit = "density fitting" if p["density_fit"] else "no density fitting"
    stability = "open shells examined for stability" if p["stability"] else "no stability analysis"
    symmetry = f"{stability}, singlets restricted"
    if p["broken_symmetry"]:
        symmetry = "all examined for stability, broken symmetry where lower"
    nlc = f"{p['nlc_level']}, after the SCF" if p["nlc_after"] else p["nlc_level"]
    return (
        f"{report['data']}; protocol {p['name']}: {p['basis']}, {fit}, grid level {p['grid_level']} (VV10: "
        f"{nlc}), converged to {p['conv_tol']:g} Eh, {symmetry}; "
        f"mlxc {report['mlxc']}, PySCF {report['pyscf']}"
    )


def _csv(report: Report, part: str) -> str:
    """Rows of all functionals as CSV."""
    rows = [{"functional": f["name"], **row} for f in report["functionals"] for row in f[part]]
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


def _worst(functional: dict[str, Any]) -> str:
    rows = sorted((r for r in functional["reactions"] if r["converged"]), key=lambda r: -abs(r["error_kcal"]))
    body = "".join(
        f"<tr><td>{escape(r['set'])}</td><td>{escape(r['name'])}</td><td class=number>{r['ref_kcal']:.2f}</td>"
        f"<td class=number>{r['error_kcal']:+.2f}</td></tr>"
        for r in rows[:WORST]
    )
    head = "<tr><th>set</th><th>reaction</th><th>reference</th><th>error / kcal/mol</th></tr>"
    return f"<h3>{escape(functional['name'])}</h3><table>{head}{body}</table>" if rows else ""


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
        "reactions.csv": _csv(report, "reactions"),
        "properties.csv": _csv(report, "properties"),
        "timings.json": json.dumps(times, indent=1) + "\n",
        "report.html": html(report, times),
    }
    for name, content in contents.items():
        write_atomic(out / name, content)
    return [out / name for name in contents]
