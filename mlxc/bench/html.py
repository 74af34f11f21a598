"""What `mlxc bench` found as one HTML page without anything outside it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

from mlxc.bench.report import LEGEND, Report, left_out, lines_of, settings
from mlxc.page import page, svg

#: Rows of largest error that the page lists of each functional.
WORST = 10
#: Seconds of each species, by functional.
Times = dict[str, dict[str, float]]


def _errors(functional: dict[str, Any]) -> np.ndarray:
    return np.array([r["error_kcal"] for r in functional["reactions"] if r["converged"]])


def figures(report: Report, times: Times) -> Iterable[tuple[str, Any]]:
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
    if quantities := functionals[0]["summary"]["properties"]:
        yield "Errors of properties", _panels(quantities, functionals)
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [sum(times[f["xc"]].values()) / 60 for f in functionals])
    axes.invert_yaxis()
    axes.set_xlabel("time of all calculations / min")
    yield "Times", figure


def _panels(quantities: list[dict[str, Any]], functionals: list[dict[str, Any]]) -> Any:
    """A figure of the mean absolute errors of properties: each in its own unit, side by side."""
    from matplotlib.figure import Figure

    columns = min(3, len(quantities))
    lines = -(-len(quantities) // columns)
    figure = Figure(figsize=(9, lines * (0.9 + 0.2 * len(functionals))), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for i, (axes, quantity) in enumerate(zip(panels, quantities, strict=False)):
        maes = [f["summary"]["properties"][i].get("mae", np.nan) for f in functionals]
        axes.barh([f["name"] for f in functionals], maes)
        axes.invert_yaxis()
        axes.tick_params(labelsize="x-small")
        axes.set_title(f"{quantity['set']}, {quantity['quantity']}", fontsize="small")
        axes.set_xlabel(f"MAE / {quantity['unit']}", fontsize="x-small")
    for axes in panels[len(quantities) :]:
        axes.set_axis_off()
    return figure


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
    for label, cells, values in lines_of(report):
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
    drawn = "".join(f"<section><h2>{title}</h2>{svg(figure)}</section>" for title, figure in figures(report, times))
    return page(
        "Benchmark",
        f'<p>{escape(settings(report))}.</p><table><tr><th></th>{names}</tr>{"".join(rows)}</table><p class="small">'
        f"{LEGEND[0].upper()}{LEGEND[1:]}. Green: the smallest.</p><ul>{notes}</ul>"
        f"<h2>How the SCF was found (species)</h2><ul>{rungs}</ul>{drawn}"
        f"<section><h2>Largest errors</h2>{''.join(map(_worst, report['functionals']))}</section>",
    )
