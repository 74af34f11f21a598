"""Errors of a functional, row by row, and their averages, from the results of its species."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from mlxc.bench.quantities import Result, error, error_unit, group, value
from mlxc.bench.statistics import averages, weighted
from mlxc.bench.suite import Suite
from mlxc.ensemble import uncertainty_kcal
from mlxc.reference.benchmark import Property, Reaction
from mlxc.units import KCAL


def judged(suite: Suite, of: dict[str, Result], xc: str) -> dict[str, Any]:
    """The part of a report on a functional, from the results of all species by the ids of their systems.

    A reaction counts only where all its species have converged, and is listed as failed otherwise.
    """
    reactions = [_reaction(row, of, xc) for row in suite.reactions]
    properties = [_property(row, of[row.id]) for row in suite.properties]
    sets = dict.fromkeys(r["group"] for r in reactions)
    kinds = dict.fromkeys((p["set"], p["group"], p["error_unit"]) for p in properties)
    each = {suite.systems[id].key: id for id in sorted(of, reverse=True)}  # one id of those of equal systems
    errors: dict[str, list[float]] = {}
    for r in reactions:
        if r["converged"]:
            errors.setdefault(r["set"], []).append(r["error_kcal"])
    maes = {s: float(np.mean(np.abs(e))) for s, e in errors.items()}
    return {
        "summary": {
            "sets": {
                s: {"roles": sorted({r["role"] for r in reactions if r["group"] == s}), "of": suite.available[s]}
                | _averages([r for r in reactions if r["group"] == s], "error_kcal")
                for s in sets
            },
            "coverage": _coverage(reactions),
            "gmtkn55": weighted(maes, {s: len(e) for s, e in errors.items()}),
            "properties": [
                {"set": s, "quantity": q, "unit": unit, "of": suite.available[s, q]}
                | _averages([p for p in properties if (p["set"], p["group"]) == (s, q)], "error")
                for s, q, unit in kinds
            ],
        },
        "rungs": dict(sorted(Counter(of[id]["rung"] for id in each.values()).items())),
        "failed": sorted(id for id in each.values() if not of[id]["converged"]),
        "doubtful": {id: of[id]["faults"] for id in sorted(each.values()) if of[id]["faults"]},
        "reactions": reactions,
        "properties": properties,
    }


def _averages(rows: list[dict[str, Any]], key: str) -> dict[str, float | int]:
    known = [r[key] for r in rows if r[key] is not None]
    return averages(known) | {"failed": len(rows) - len(known)}


def _coverage(reactions: list[dict[str, Any]]) -> dict[str, float | int] | None:
    """Shares of errors within the uncertainty, and within 1.96 times it, of rows that training has not seen.

    Of a normal distribution 68% and 95% are.  None without uncertainties.
    """
    rows = [r for r in reactions if "uncertainty_kcal" in r and r["role"] != "train" and r["group"] == r["set"]]
    if not rows:
        return None
    ratios = np.array([abs(r["error_kcal"]) / r["uncertainty_kcal"] for r in rows])
    return {"n": len(rows), "within": float((ratios <= 1).mean()), "within_twice": float((ratios <= 1.96).mean())}


def _reaction(row: Reaction, of: dict[str, Result], xc: str) -> dict[str, Any]:
    """One row of a report: its value and error are None unless all its species have converged."""
    parts = [(c, of[id]) for id, c in row.stoichiometry.items()]
    out: dict[str, Any] = {"set": row.set, "group": row.group, "name": row.name, "role": row.role}
    out |= {"stoichiometry": row.stoichiometry, "ref_kcal": row.ref_kcal}
    if not all(r["converged"] for _, r in parts):
        return out | {"value_kcal": None, "error_kcal": None, "converged": False}
    found = KCAL * sum(c * r["energy_hartree"] for c, r in parts)
    out |= {"value_kcal": found, "error_kcal": found - row.ref_kcal, "converged": True}
    if all("member_hartree" in r for _, r in parts):
        members = np.sum([c * np.array(r["member_hartree"]) for c, r in parts], axis=0)
        out |= {"spread_kcal": float(KCAL * np.std(members, ddof=1)), "uncertainty_kcal": uncertainty_kcal(members, xc)}
    return out


def _property(row: Property, result: Result) -> dict[str, Any]:
    found = value(row, result)
    return {
        "set": row.set,
        "id": row.id,
        "property": row.property,
        "group": group(row),
        "unit": row.unit,
        "ref": row.value,
        "value": found,
        "error": None if found is None else error(row, found),
        "error_unit": error_unit(row),
    }
