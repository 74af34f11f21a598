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


def unseen(report: Path, sha256: str) -> list[tuple[str, float]]:
    """Set of each row, and the scale with which its uncertainty is its error."""
    (part,) = [f for f in json.loads(report.read_text())["functionals"] if f.get("sha256") == sha256]
    rows = [r for r in part["reactions"] if r["role"] == "dev" and r["group"] == r["set"] and "spread_kcal" in r]
    beyond = [max(r["error_kcal"] ** 2 - NOISE**2, 0.0) ** 0.5 for r in rows]
    return [(r["set"], x / max(r["spread_kcal"], 1e-6)) for r, x in zip(rows, beyond, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="its folder")
    parser.add_argument("report", type=Path)
    args = parser.parse_args()
    info = models.describe(args.model)
    rows = unseen(args.report, info["sha256"])
    ratios = {s: np.array([x for t, x in rows if t == s]) for s in sorted({s for s, _ in rows})}
    covered = []
    for name, mine in ratios.items():
        others = np.concatenate([r for s, r in ratios.items() if s != name])
        factor = np.quantile(others, SHARE)
        covered.append(np.stack([mine <= factor, mine <= 1.96 * factor]))
        print(f"{name:12s} {len(mine):4d} rows, scale from the others {factor:.2f}, {covered[-1].mean(1)}")
    within, twice = np.concatenate(covered, axis=1).mean(1)
    info["uncertainty_scale"] = round(float(np.quantile([x for _, x in rows], SHARE)), 3)
    info["uncertainty_coverage"] = {
        "of": f"{len(rows)} unseen rows of {len(ratios)} sets, each set with the scale that all others give",
        "within": round(float(within), 3),
        "within_twice": round(float(twice), 3),
    }
    write_atomic(args.model / "model.json", json.dumps(info, indent=2) + "\n")
    print(f"scale {info['uncertainty_scale']}; sets left out: {within:.0%} within it, {twice:.0%} within 1.96 times it")


if __name__ == "__main__":
    main()
