"""How much larger than the spread of its ensemble a model's errors are, written into the model as `uncertainty_scale`.

`uncertainty_coverage` beside it is what the scale is worth elsewhere.

    python benchmarks/calibration.py MODEL REPORT.json

REPORT.json is of `mlxc bench --xc MODEL --role dev`.  The scale is the one with which 68% of the rows that training has
not seen are off by less than their uncertainty.  Whether it holds elsewhere is shown set by set: each is covered by the
scale that all others give.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mlxc import models
from mlxc.ensemble import NOISE
from mlxc.files import write_atomic

#: Share of a normal distribution within one standard deviation.
SHARE = 0.6827


def unseen(report: Path, sha256: str) -> dict[str, np.ndarray]:
    """Sizes of the errors and spreads of the rows of each set, (2, rows) kcal/mol."""
    parts = [f for f in json.loads(report.read_text())["functionals"] if f.get("sha256") == sha256]
    if len(parts) != 1:
        raise SystemExit(f"{report} has {len(parts)} functionals with these weights: one is needed, of the same D4")
    (part,) = parts
    rows = [r for r in part["reactions"] if r["role"] == "dev" and r["group"] == r["set"] and "spread_kcal" in r]
    found: dict[str, list[tuple[float, float]]] = {}
    for r in rows:
        found.setdefault(r["set"], []).append((abs(r["error_kcal"]), r["spread_kcal"]))
    if len(found) < 2:
        raise SystemExit(
            f"{report} has dev rows of {len(found)} sets with a spread: two are needed, of a model with members"
        )
    return {name: np.array(found[name]).T for name in sorted(found)}


def scale_of(sets: list[np.ndarray]) -> float:
    """The scale with which as many errors as should be are smaller than their uncertainty."""
    errors, spreads = np.concatenate(sets, axis=1)
    needed = np.sqrt(np.maximum(errors**2 - NOISE**2, 0.0)) / np.maximum(spreads, 1e-6)
    return float(np.quantile(needed, SHARE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="its folder")
    parser.add_argument("report", type=Path)
    args = parser.parse_args()
    info = models.describe(args.model)
    sets = unseen(args.report, info["sha256"])
    covered = []
    for name, (errors, spreads) in sets.items():
        factor = scale_of([x for s, x in sets.items() if s != name])
        ratios = errors / np.hypot(NOISE, factor * spreads)
        covered.append(np.stack([ratios <= 1, ratios <= 1.96]))
        print(f"{name:12s} {len(errors):4d} rows, scale from the others {factor:.2f}, {covered[-1].mean(1)}")
    together = np.concatenate(covered, axis=1)
    within, twice = together.mean(1)
    info["uncertainty_scale"] = round(scale_of(list(sets.values())), 3)
    info["uncertainty_coverage"] = {
        "of": f"{together.shape[1]} unseen rows of {len(sets)} sets, each set with the scale that all others give",
        "within": round(float(within), 3),
        "within_twice": round(float(twice), 3),
    }
    write_atomic(args.model / "model.json", json.dumps(info, indent=2) + "\n")
    print(f"scale {info['uncertainty_scale']}; sets left out: {within:.0%} within it, {twice:.0%} within 1.96 times it")


if __name__ == "__main__":
    main()
