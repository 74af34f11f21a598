"""What `mlxc check` found, as a table of text and as one HTML page without anything outside it."""

from __future__ import annotations

from html import escape
from typing import Any

from mlxc.page import page, svg

MARKS = {"pass": "+", "fail": "-", "not applicable": ".", "not measured": "?", "not asked": ""}
LEGEND = (
    "what was measured (of violations their size) and the largest that passes; + obeyed, * by construction, - broken, "
    ". not applicable, ? not measured"
)
#: What a quick check says of itself.
QUICK = "quick: of the systems and points that a condition names, some"
#: Panels of curves beside each other.
ABREAST = 3
#: Cases of a condition that the page lists, the largest first.
LISTED = 8


def cell(outcome: dict[str, Any]) -> str:
    """The violation of one condition, and whether it passes."""
    if outcome["violation"] is None:
        return MARKS[outcome["status"]]
    mark = MARKS[outcome["status"]] + ("*" if outcome["by_construction"] else "")
    return f"{outcome['violation']:.3g} {mark}"


def table(report: dict[str, Any]) -> str:
    """One line for each condition, one column for each functional."""
    functionals = report["functionals"]
    columns = [[cell(o) for o in f["outcomes"]] for f in functionals]
    widths = [max(len(f["name"]), *map(len, column)) for f, column in zip(functionals, columns, strict=True)]
    head = max(len(f"  {c['name']}, {c['unit']}") for c in report["conditions"])
    lines, family = [], ""
    names = "  ".join(f"{f['name']:>{w}}" for f, w in zip(functionals, widths, strict=True))
    lines.append(f"{'':{head}}  {'passes':>7s}  {names}")
    for i, c in enumerate(report["conditions"]):
        if c["family"] != family:
            family = c["family"]
            lines.append(family)
        label = f"  {c['name']}" + (f", {c['unit']}" if c["unit"] else "")
        cells = "  ".join(f"{column[i]:>{w}}" for column, w in zip(columns, widths, strict=True))
        lines.append(f"{label:{head}}  {c['tolerance']:>7.3g}  {cells}".rstrip())
    counts = [sum(o["status"] == "pass" for o in f["outcomes"]) for f in functionals]
    asked = [sum(o["status"] in ("pass", "fail") for o in f["outcomes"]) for f in functionals]
    passed = "  ".join(f"{f'{n} of {m}':>{w}}" for n, m, w in zip(counts, asked, widths, strict=True))
    lines.append(f"{'obeyed, of those that apply':{head}}  {'':7s}  {passed}")
    lines.append(LEGEND)
    return "\n".join([*lines, QUICK] if report["quick"] else lines)


def _plot(panels: list[tuple[str, list[dict[str, Any]]]], axis: str) -> str:
    """Curves of several functionals, one panel each, as SVG."""
    from matplotlib.figure import Figure

    rows, columns = -(-len(panels) // ABREAST), min(len(panels), ABREAST)
    figure = Figure(figsize=(4.2 * columns, 3 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places[len(panels) :]:
        axes.remove()
    for axes, (name, curves) in zip(places, panels, strict=False):
        for curve in curves:
            axes.plot(curve["x"], curve["y"], label=curve["label"])
            if curve["x"][0] > 0 and curve["x"][-1] / curve["x"][0] > 50:
                axes.set_xscale("log")
        axes.set(title=name, xlabel=axis)
        axes.legend(fontsize="x-small")
    return svg(figure)


def _cases(outcome: dict[str, Any]) -> str:
    """The largest cases of a condition, in words."""
    known = sorted((c for c in outcome["cases"] if c[1] is not None), key=lambda c: -abs(c[1]))[:LISTED]
    text = "; ".join(f"{name} {value:.4g}" for name, value in known)
    return " ".join(filter(None, [text, f"({outcome['remark']})" if outcome["remark"] else ""]))


def html(report: dict[str, Any]) -> str:
    """The page."""
    functionals = report["functionals"]
    colours = {"pass": "pass", "fail": "fail", "not applicable": "not", "not measured": "unknown", "not asked": "not"}
    rows, sections, family = [], [], ""
    for i, c in enumerate(report["conditions"]):
        if c["family"] != family:
            family = c["family"]
            rows.append(f'<tr><th colspan="{len(functionals) + 2}">{escape(family)}</th></tr>')
        outcomes = [f["outcomes"][i] for f in functionals]
        cells = "".join(f'<td class="{colours[o["status"]]}">{escape(cell(o))}</td>' for o in outcomes)
        unit = f" / {c['unit']}" if c["unit"] else ""
        label = f'<a href="#c{i}">{escape(c["name"] + unit)}</a>'
        rows.append(f"<tr><td>{label}</td><td>{c['tolerance']:g}</td>{cells}</tr>")
        details = "".join(
            f"<tr><td>{escape(f['name'])}</td><td>{escape(o['status'])}</td><td>{escape(_cases(o))}</td></tr>"
            for f, o in zip(functionals, outcomes, strict=True)
        )
        panels = [(f["name"], o["curves"]) for f, o in zip(functionals, outcomes, strict=True) if o["curves"]]
        axis = next((o["axis"] for o in outcomes if o["axis"]), "")
        sections.append(
            f'<section id="c{i}"><h2>{escape(c["name"])}</h2><p><b>{escape(c["statement"])}</b></p>'
            f'<p class="small">{escape(c["source"])}<br>Measured: {escape(c["method"])}. '
            f"Tolerance {c['tolerance']:g} {escape(c['unit'])}.</p><table>{details}</table>"
            f"{_plot(panels, axis) if panels else ''}</section>"
        )
    names = "".join(f"<th>{escape(f['name'])}</th>" for f in functionals)
    settings = f"mlxc {report['mlxc']}, PySCF {report['pyscf']}{', ' + QUICK if report['quick'] else ''}"
    return page(
        "Exact conditions",
        f"<p>{escape(settings)}. {LEGEND[0].upper()}{LEGEND[1:]}.</p><table><tr><th></th><th>passes</th>{names}</tr>"
        f"{''.join(rows)}</table>{''.join(sections)}",
    )
