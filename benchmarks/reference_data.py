"""How good the shipped reference data are, against published dipoles and atomization energies.

    python benchmarks/reference_data.py --data FOLDER --files small [--out FILE.json]

FOLDER holds systems.jsonl, reactions.jsonl and properties.jsonl; molecules are matched by the graph of their bonds, and
of two files that hold one, the first counts.
Dipole norms: the set of Hait and Head-Gordon, J. Chem. Theory Comput. 14, 1969 (2018), CCSD(T) at the basis-set limit;
errors relative to the reference or to 1 Debye, whichever is larger, as defined there.  Atomization energies: W4-17,
Karton, Sylvetsky, Martin, J. Comput. Chem. 38, 2063 (2017), nonrelativistic, with all corrections up to and beyond
CCSDT(Q), which CCSD(T) does not have.  Electrons: the integral of every density on PySCF's grid of level 4; where that
is not the number of electrons, on a dense one too, which tells the density's fault from the grid's.
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
from pyscf import dft
from pyscf.data.nist import AU2DEBYE, BOHR

from mlxc.files import write_atomic
from mlxc.reference import Reference, shipped
from mlxc.reference.benchmark import System, graph_key
from mlxc.reference.folders import read_reactions, read_systems
from mlxc.units import KCAL

#: Electrons that a density's integral on a grid may lack.
ELECTRONS = 1e-5
#: Radial and angular points of every atom in the dense grid.
DENSE = (200, 974)


def key(r: Reference) -> str:
    return graph_key(r.symbols, r.coords * BOHR, r.charge, r.spin + 1)


@cache
def key_of(s: System) -> str:
    return graph_key(s.symbols, s.coords, s.charge, s.multiplicity)


def missing_electrons(r: Reference, dense: bool) -> float:
    """What the integral of a density on a grid of level 4, or a dense one, lacks or has too much."""
    mol = r.mole()
    grids = dft.gen_grid.Grids(mol)
    grids.level = 4
    if dense:
        grids.atom_grid, grids.prune = DENSE, None
    grids.build()
    rho = dft.numint.NumInt().get_rho(mol, r.dm1.sum(0), grids)
    return abs(float(grids.weights @ rho - r.nelectron))


def electrons(library: dict[str, Reference]) -> dict[str, Any]:
    """Largest deviation of an integral of a density from the number of electrons, and all beyond the tolerance."""
    errors = {r.name: missing_electrons(r, dense=False) for r in library.values() if r.dm1 is not None}
    beyond = {k: v for k, v in errors.items() if v > ELECTRONS}
    return {
        "systems": len(errors),
        "largest_within": max(v for v in errors.values() if v <= ELECTRONS),
        "beyond": {k: {"level 4": v, "dense": missing_electrons(library[k], dense=True)} for k, v in beyond.items()},
    }


def dipoles(library: dict[str, Reference], systems: dict[str, System], folder: Path) -> dict:
    """Errors (%) of the norms of the dipoles."""
    rows = [json.loads(line) for line in (folder / "properties.jsonl").read_text().splitlines()]
    known = {key(r): r for r in library.values() if r.dipole is not None and r.charge == 0}
    errors = {}
    for row in (r for r in rows if r["property"] == "dipole_norm"):
        reference = known.get(key_of(systems[row["id"]]))
        if reference is not None:
            norm = np.linalg.norm(reference.dipole) * AU2DEBYE
            errors[reference.name] = 100 * (norm - row["value"]) / max(row["value"], 1.0)
    return summary(errors, "percent")


def atomization(library: dict[str, Reference], systems: dict[str, System], folder: Path) -> dict:
    """Errors (kcal/mol) of the energies called `best`, and of those in the smaller of the two bases alone."""
    rows, out = [r for r in read_reactions(folder) if r.set == "W4-17"], {}
    for kind in ("best", "ccsd(t)/3"):
        known = {key(r): r for r in library.values() if kind in r.energies}
        errors = {}
        for row in rows:
            members = {i: known.get(key_of(systems[i])) for i in row.stoichiometry}
            if all(members.values()):
                energy = sum(c * members[i].energies[kind] for i, c in row.stoichiometry.items()) * KCAL
                molecule = next(m for i, m in members.items() if row.stoichiometry[i] < 0)
                errors[molecule.name] = energy - row.ref_kcal
        out[kind] = summary(errors, "kcal")
    return out


def summary(errors: dict[str, float], unit: str) -> dict:
    """Statistics and all errors, the largest first."""
    if not errors:
        return {"unit": unit, "molecules": 0}
    values = np.array(list(errors.values()))
    statistics = {"mae": abs(values).mean(), "me": values.mean(), "rms": np.sqrt((values**2).mean())}
    ordered = sorted(errors, key=lambda k: -abs(errors[k]))
    return {
        "unit": unit,
        "molecules": len(errors),
        **{k: round(float(v), 3) for k, v in statistics.items()},
        "errors": {k: round(float(errors[k]), 3) for k in ordered},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--files", required=True, help="shipped files A,B for dipoles and atomization energies")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reference_data.json"))
    args = parser.parse_args()
    library: dict[str, Reference] = {}
    for name in args.files.split(","):
        library = {**shipped.load(name), **library}
    systems = read_systems(args.data)
    record = {
        "command": f"python benchmarks/reference_data.py --data FOLDER --files {args.files}",
        "machine": platform.machine(),
        "pyscf": pyscf.__version__,
        "data": {name: entry["sha256"] for name, entry in shipped.manifest().items()},
        "electrons": {name: electrons(shipped.load(name)) for name in shipped.manifest()},
        "dipoles": dipoles(library, systems, args.data),
        "atomization": atomization(library, systems, args.data),
    }
    write_atomic(args.out, json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
