"""Does the SCF converge?  With DIIS from the guess of mlxc bench, and, where that fails, up its ladder.

    python benchmarks/robustness.py [--data FOLDER] [--xc X,Y] [--max-heavy N] [--jobs N] [--out FILE.json]

Counts how many species each rung of the ladder was needed for (mlxc.bench.ladder), of all systems of the reactions in
FOLDER and of a hard list: stretched bonds, atoms and monoxides of transition metals, open-shell singlets, anions and a
zwitterion.  The species of the hard list are examined for stability, and singlets among them may become unrestricted.
Protocol `fast` in def2-TZVP, the basis of mlxc run, and up to 60 cycles on each rung.  Interrupted runs go on where
they were, and what the record has of other functionals stays in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pyscf
import torch
from speed import begun

from mlxc import models
from mlxc.bench.protocol import PROTOCOLS
from mlxc.bench.species import Species, compute_all, identity_of
from mlxc.bench.suite import load
from mlxc.files import make_folder, write_atomic
from mlxc.geometry import parse_atoms
from mlxc.reference.benchmark import System, make_system


def _line(id: str, atoms: str, multiplicity: int = 1, charge: int = 0) -> System:
    symbols, coords = zip(*parse_atoms(atoms), strict=True)
    return make_system(id, charge, multiplicity, symbols, coords)


#: Bond lengths of the monoxides: about those of Huber, Herzberg (1979).
HARD = [
    *(_line(f"H2 {r} A", f"H 0 0 0; H 0 0 {r}") for r in (1.5, 2.5, 5.0)),
    *(_line(f"N2 {r} A", f"N 0 0 0; N 0 0 {r}") for r in (1.6, 2.2, 4.0)),
    _line("C", "C 0 0 0", 3),
    _line("C2", "C 0 0 0; C 0 0 1.2425"),
    _line("O2", "O 0 0 0; O 0 0 1.2075", 3),
    _line("O2 singlet", "O 0 0 0; O 0 0 1.2156"),
    _line("O3", "O 0 0 0; O 0 1.0885 0.6697; O 0 -1.0885 0.6697"),
    _line("NO", "N 0 0 0; O 0 0 1.1508", 2),
    _line("NO2", "N 0 0 0; O 0 1.0989 0.4653; O 0 -1.0989 0.4653", 2),
    *(
        _line(symbol, f"{symbol} 0 0 0", m)
        for symbol, m in (
            ("Sc", 2), ("Ti", 3), ("V", 4), ("Cr", 7), ("Mn", 6),
            ("Fe", 5), ("Co", 4), ("Ni", 3), ("Cu", 2), ("Zn", 1),
        )
    ),
    _line("TiO", "Ti 0 0 0; O 0 0 1.620", 3),
    _line("VO", "V 0 0 0; O 0 0 1.589", 4),
    _line("CrO", "Cr 0 0 0; O 0 0 1.615", 5),
    _line("MnO", "Mn 0 0 0; O 0 0 1.648", 6),
    _line("FeO", "Fe 0 0 0; O 0 0 1.616", 5),
    _line("NiO", "Ni 0 0 0; O 0 0 1.627", 3),
    _line("CuO", "Cu 0 0 0; O 0 0 1.724", 2),
    _line("Cr2", "Cr 0 0 0; Cr 0 0 1.679"),
    _line("CH2 singlet", "C 0 0 0; H 0 0.8616 0.6950; H 0 -0.8616 0.6950"),
    _line("twisted ethene", "C 0 0 0; C 0 0 1.48; H 0.93 0 -0.55; H -0.93 0 -0.55; H 0 0.93 2.03; H 0 -0.93 2.03"),
    _line("H-", "H 0 0 0", 1, -1),
    _line("F-", "F 0 0 0", 1, -1),
    _line("O2-", "O 0 0 0; O 0 0 1.35", 2, -1),
    _line("CN-", "C 0 0 0; N 0 0 1.177", 1, -1),
    _line("SO4 2-", "S 0 0 0; O 0.86 0.86 0.86; O -0.86 -0.86 0.86; O -0.86 0.86 -0.86; O 0.86 -0.86 -0.86", 1, -2),
    _line(
        "glycine zwitterion",
        "N -1.235 0.276 0.001; C 0.010 -0.556 -0.002; C 1.220 0.395 0.001; O 0.972 1.619 0.002; O 2.326 -0.187 0.000;"
        "H -1.186 1.303 0.002;H -1.795 0.027 -0.820;H -1.794 0.025 0.822; H 0.040 -1.196 -0.885; H 0.041 -1.199 0.879",
    ),
]  # fmt: skip


def summary(found: dict[str, dict]) -> dict:
    """Counts of rungs, and what did not go well, of results by species."""
    cycles = [r["cycles"] for r in found.values() if r["converged"]]
    return {
        "species": len(found),
        "first_rung": sum(bool(r.get("attempts")) and r["attempts"][0]["converged"] for r in found.values()),
        "rungs": dict(Counter(r["rung"] for r in found.values())),
        "cycles": round(mean(cycles), 1) if cycles else None,
        "not_found": sorted(i for i, r in found.items() if not r["converged"]),
        "faults": {i: r["faults"] for i, r in sorted(found.items()) if r["faults"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--xc", default="r2scan,pbe0,wb97m-v,default")
    parser.add_argument("--max-heavy", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path(".cache/robustness"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/robustness.json"))
    args = parser.parse_args()
    protocol = replace(PROTOCOLS["fast"], basis="def2-tzvp")
    protocols = {"hard": replace(protocol, stability=True, broken_symmetry=True), "sets": protocol}
    groups = {"hard": HARD}
    if args.data:
        suite = load(args.data).chosen(max_heavy=args.max_heavy)
        reacting = dict.fromkeys(i for r in suite.reactions for i in r.stoichiometry)
        unique = {suite.systems[i].key: suite.systems[i] for i in reacting}
        groups["sets"] = list(unique.values())
    make_folder(args.work)
    identities = {xc: identity_of(xc) for xc in args.xc.split(",")}
    asked = [(xc, group, s) for xc in identities for group, systems in groups.items() for s in systems]
    species = [Species(system, xc, identities[xc], protocols[group]) for xc, group, system in asked]
    results: dict[str, dict[str, dict]] = {xc: {group: {} for group in groups} for xc in identities}
    for (xc, group, system), found in zip(asked, compute_all(species, args.work, args.jobs), strict=True):
        results[xc][group][system.id] = found
    settings = {
        "settings": {group: of.settings() for group, of in protocols.items()},
        "machine": platform.machine(),
        "pyscf": pyscf.__version__,
        "torch": torch.__version__,
        "max_heavy": args.max_heavy,
        "models": {xc: sha for xc in identities if (sha := models.sha256(xc))},
    }
    record = begun(args.out, settings)
    before = record.get("results", {})
    summaries = {xc: {group: summary(found) for group, found in of.items()} for xc, of in results.items()}
    record |= {
        "command": f"python benchmarks/robustness.py{' --data FOLDER' if args.data else ''} --xc {args.xc} "
        f"--max-heavy {args.max_heavy}",
        "results": before | {xc: before.get(xc, {}) | of for xc, of in summaries.items()},
    }
    write_atomic(args.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["results"], indent=1))


if __name__ == "__main__":
    main()
