"""Does the SCF converge from PySCF's default guess and settings?  One line per species, and a record of the count.

    python benchmarks/convergence.py --data FOLDER [--xc default] [--sets W4-17] [--max-heavy 2] [--out FILE.json]

Each species leaves a file in --work, so that a killed run resumes.  Rungs: "diis" (PySCF's default settings),
"second-order" (PySCF's newton from there), "none".

With --cache FOLDER (mlxc.train.cache) the calculations are those of the cache, in its basis and with density fitting,
and the record compares, row by row, self-consistent errors with those at fixed r2SCAN densities and those of r2SCAN.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyscf
import torch
from pyscf import lib

import mlxc
from mlxc import models
from mlxc.bench.ladder import Cycles
from mlxc.bench.species import identity_of
from mlxc.files import digest, write_atomic
from mlxc.reference.benchmark import Reaction, System, select
from mlxc.reference.folders import read_reactions, read_systems
from mlxc.scf import second_order
from mlxc.train.cache import BASIS, ELEMENTS, SETS
from mlxc.train.dataset import Dataset, by_set, split
from mlxc.train.densities import FixedDensities
from mlxc.units import KCAL


def solve(system: System, xc: str, basis: str, density_fit: bool, work: Path) -> dict:
    """Converge one species, or read what an earlier run wrote."""
    path = work / f"{system.key}.json"
    if path.exists():
        return json.loads(path.read_text())
    lib.num_threads(1)
    torch.set_num_threads(1)
    mf = mlxc.KS(system.mole(basis), xc)
    if density_fit:
        mf = mf.density_fit()
        mf.conv_tol = 1e-8
    mf.callback = count = Cycles()
    mf.kernel()
    rung = "diis" if mf.converged else "none"
    cycles = count.number
    if not mf.converged:
        mf = second_order(mf)
        rung = "second-order" if mf.converged else "none"
    result = {"id": system.id, "rung": rung, "cycles": cycles, "energy_hartree": float(mf.e_tot)}
    write_atomic(path, json.dumps(result))
    print(f"{system.id:24s} {rung:12s} {cycles:3d} cycles", flush=True)
    return result


def compare(
    data: Dataset, densities: FixedDensities, reactions: list[Reaction], results: dict[str, dict], xc: str
) -> dict:
    """Errors (kcal/mol) of each row, and their mean absolute values per set, from `solve`'s results by key."""
    found = [results[k]["energy_hartree"] if k in results else 0.0 for k in data.index]
    energies = {
        "self_consistent": torch.tensor(found, dtype=torch.float64),
        "r2scan": densities.e_r2scan,
    }
    if models.exists(xc):
        energies["fixed_density"] = densities.full_grid(mlxc.load(xc))
    for name in models.names():
        if models.sha256(name) != models.sha256(xc):
            energies[f"{name}, fixed_density"] = densities.full_grid(mlxc.load(name))
    errors = {k: data.errors(reactions, e) for k, e in energies.items()}
    reactions = [replace(r, set=f"{r.set}, seen in training") if r.seen_in_training else r for r in reactions]
    rows = [
        {"set": r.set, "name": r.name, "role": r.role, **{k: round(float(e[i]), 3) for k, e in errors.items()}}
        for i, r in enumerate(reactions)
    ]
    return {"mae_kcal": {k: by_set([r.set for r in reactions], e) for k, e in errors.items()}, "errors_kcal": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--xc", default="default")
    parser.add_argument("--basis", help="def2-tzvp, or that of the cache")
    parser.add_argument("--sets", default="W4-17")
    parser.add_argument("--roles", default="train,dev")
    parser.add_argument("--held-out", type=int, metavar="SEED", help="of train rows those that this split validates on")
    parser.add_argument("--max-heavy", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/convergence.json"))
    args = parser.parse_args()
    basis = args.basis or (BASIS if args.cache else "def2-tzvp")
    sha256 = models.sha256(args.xc)
    known = digest(identity_of(args.xc))[:16]
    work = args.work or Path(".cache/convergence") / f"{known}-{basis}{'-df' if args.cache else ''}"
    work.mkdir(parents=True, exist_ok=True)
    systems, reactions = read_systems(args.data), read_reactions(args.data)
    sets, roles = args.sets.split(","), args.roles.split(",")
    rows = [
        r
        for r in reactions
        if r.set in sets
        and r.role in roles
        and all(i in systems and systems[i].nheavy <= args.max_heavy for i in r.stoichiometry)
    ]
    if args.held_out is not None:
        trained_on = select(reactions, systems, SETS, "train", ELEMENTS, args.max_heavy)
        validated = split(trained_on, systems, args.held_out)[1]
        rows = [r for r in rows if r.role == "dev" or r in validated]
    data = Dataset(systems, rows)
    densities = FixedDensities(data.species, args.cache) if args.cache else None
    left_out = len(rows)
    rows = data.complete(rows, densities.known) if densities else rows
    left_out -= len(rows)
    wanted = {systems[i].key: systems[i] for r in rows for i in r.stoichiometry}
    with ProcessPoolExecutor(args.jobs) as pool:
        n = len(wanted)
        settings = [[x] * n for x in (args.xc, basis, densities is not None, work)]
        results = dict(zip(wanted, pool.map(solve, wanted.values(), *settings), strict=True))
    whole = [r for r in rows if all(results[systems[i].key]["rung"] != "none" for i in r.stoichiometry)]
    if densities is None:
        errors: dict[str, list[float]] = {}
        for r in whole:
            value = sum(c * results[systems[i].key]["energy_hartree"] for i, c in r.stoichiometry.items()) * KCAL
            errors.setdefault(r.set, []).append(abs(value - r.ref_kcal))
        comparison: dict = {"self_consistent_mae_kcal": {s: round(sum(e) / len(e), 3) for s, e in errors.items()}}
    else:
        comparison = compare(data, densities, whole, results, args.xc)
        comparison["rows_not_in_cache"] = left_out
    fitted = "density fitting, conv_tol 1e-8" if args.cache else "no density fitting, conv_tol 1e-9"
    record = {
        "command": f"python benchmarks/convergence.py --data FOLDER {'--cache CACHE ' if args.cache else ''}"
        f"--xc {args.xc} --basis {basis} --sets {args.sets} --roles {args.roles} --max-heavy {args.max_heavy}"
        + (f" --held-out {args.held_out}" if args.held_out is not None else ""),
        "settings": f"PySCF's defaults: minao guess, DIIS, 50 cycles, grid level 3; {fitted}",
        "pyscf": pyscf.__version__,
        "model_sha256": sha256,
        "species": len(results),
        "rungs": dict(Counter(r["rung"] for r in results.values())),
        "not_by_diis": sorted(r["id"] for r in results.values() if r["rung"] != "diis"),
        "median_cycles": sorted(r["cycles"] for r in results.values())[len(results) // 2],
        "rows": len(rows),
        "rows_with_every_species_converged": len(whole),
        **comparison,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
