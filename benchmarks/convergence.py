"""Does the SCF converge from PySCF's default guess and settings?  One line per species, and a record of the count.

    python benchmarks/convergence.py --data FOLDER [--xc default] [--sets W4-17] [--max-heavy 2] [--out FILE.json]

Each species leaves a file in --work, so that a killed run resumes.  Rungs: "diis" (PySCF's default settings),
"second-order" (PySCF's newton from there), "none".
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyscf
import torch
from pyscf import lib

import mlxc
from mlxc import models
from mlxc.files import write_atomic
from mlxc.run import Progress
from mlxc.scf import second_order
from mlxc.train.data import System, read_reactions, read_systems
from mlxc.train.dataset import KCAL


class Count(Progress):
    """Counts cycles and prints nothing."""

    def __call__(self, envs: dict) -> None:
        self.cycles += "norm_gorb" in envs


def solve(system: System, xc: str, basis: str, work: Path) -> dict:
    """Converge one species, or read what an earlier run wrote."""
    path = work / f"{system.key}.json"
    if path.exists():
        return json.loads(path.read_text())
    lib.num_threads(1)
    torch.set_num_threads(1)
    mf = mlxc.KS(system.mole(basis), xc)
    mf.callback = count = Count()
    mf.kernel()
    rung = "diis" if mf.converged else "none"
    cycles = count.cycles
    if not mf.converged:
        mf = second_order(mf)
        rung = "second-order" if mf.converged else "none"
    result = {"id": system.id, "rung": rung, "cycles": cycles, "energy_hartree": float(mf.e_tot)}
    write_atomic(path, json.dumps(result))
    print(f"{system.id:24s} {rung:12s} {cycles:3d} cycles", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--xc", default="default")
    parser.add_argument("--basis", default="def2-tzvp")
    parser.add_argument("--sets", default="W4-17")
    parser.add_argument("--max-heavy", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/convergence.json"))
    args = parser.parse_args()
    sha256 = models.describe(args.xc)["sha256"] if models.exists(args.xc) else None
    work = args.work or Path(".cache/convergence") / f"{sha256 or args.xc}-{args.basis}"
    work.mkdir(parents=True, exist_ok=True)
    systems, reactions = read_systems(args.data), read_reactions(args.data)
    sets = args.sets.split(",")
    rows = [
        r
        for r in reactions
        if r.set in sets and all(i in systems and systems[i].nheavy <= args.max_heavy for i in r.stoichiometry)
    ]
    wanted = {systems[i].key: systems[i] for r in rows for i in r.stoichiometry}
    with ProcessPoolExecutor(args.jobs) as pool:
        n = len(wanted)
        results = dict(
            zip(wanted, pool.map(solve, wanted.values(), [args.xc] * n, [args.basis] * n, [work] * n), strict=True)
        )
    whole = [r for r in rows if all(results[systems[i].key]["rung"] != "none" for i in r.stoichiometry)]
    errors: dict[str, list[float]] = {}
    for r in whole:
        value = sum(c * results[systems[i].key]["energy_hartree"] for i, c in r.stoichiometry.items()) * KCAL
        errors.setdefault(r.set, []).append(abs(value - r.ref_kcal))
    record = {
        "command": f"python benchmarks/convergence.py --data FOLDER --xc {args.xc} --basis {args.basis} "
        f"--sets {args.sets} --max-heavy {args.max_heavy}",
        "settings": "PySCF's defaults: minao guess, DIIS, conv_tol 1e-9, 50 cycles, grid level 3, no density fitting",
        "pyscf": pyscf.__version__,
        "model_sha256": sha256,
        "species": len(results),
        "rungs": dict(Counter(r["rung"] for r in results.values())),
        "not_by_diis": sorted(r["id"] for r in results.values() if r["rung"] != "diis"),
        "median_cycles": sorted(r["cycles"] for r in results.values())[len(results) // 2],
        "rows": len(rows),
        "rows_with_every_species_converged": len(whole),
        "self_consistent_mae_kcal": {s: round(sum(e) / len(e), 3) for s, e in errors.items()},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
