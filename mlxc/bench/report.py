"""What `mlxc bench` found, in words: the lines of its table, what was chosen and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from mlxc.bench.statistics import GMTKN55

Report = dict[str, Any]
#: Mark of sets of train rows; weighted averages are shown of so many sets of GMTKN55 or more.
TRAIN, ENOUGH = "(train)", 10
WEIGHTED = {"wtmad1": "WTMAD-1", "wtmad2": "WTMAD-2", "wtmad4": "WTMAD-4"}
#: What was chosen of the rows, in words.
CHOICES = {
    "sets": "sets {}", "role": "role {}", "elements": "elements {}", "max_heavy": "heavy atoms up to {}",
    "min_heavy": "at least {} in the largest",
}  # fmt: skip
LEGEND = (
    "mean absolute error (mean error); in brackets the number of rows, of all that there are, and of those that "
    "failed; (train): rows that "
    "models of mlxc are trained on, to be compared with nothing that was not"
)


def weighted_of(functional: dict[str, Any]) -> dict[str, Any]:
    """Weighted averages of GMTKN55; empty over fewer than ENOUGH sets."""
    found = functional["summary"]["gmtkn55"]
    return found if found.get("sets", 0) >= ENOUGH else {}


def lines_of(report: Report) -> list[tuple[str, list[str], list[float | None]]]:
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
    weighted = [weighted_of(f) for f in functionals]
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
        if c := weighted_of(f):
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
    lines = lines_of(report)
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
