"""How time and memory of a whole SCF grow with the molecule, of several functionals in one process.

    python benchmarks/scaling.py [--xc X,Y] [--series alkanes,water,acenes] [--limit SECONDS] [--max-memory MB] ...

Every functional goes up a series until its SCF takes longer than the limit, or memory does not suffice.  Basis
def2-TZVP, PySCF's default grid and, unless --max-memory says otherwise, its max_memory, beyond which it puts integrals
on the disk; density fitting unless --no-fit; VV10 on a grid of level 1.  The exponents are those of
fits of the time per cycle, of the whole SCF, and of the memory on top of what there was before, to a nao^b, over
molecules with more than five heavy atoms whose SCF converged.  The machine has to be idle.  Interrupted runs go on
where they were, with another --xc or --limit as well; a calculation that was killed, as systems do for memory, or that
memory did not suffice for ends its series, and is in the record as {"ended": ...}: without this it is tried again.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from pyscf import gto, lib
from speed import acene, begun, conditions, exponents, measure

from mlxc.files import write_atomic

BASIS = "def2-tzvp"


def alkane(carbons: int) -> list:
    """A straight chain: C-C 1.53, C-H 1.09 Angstrom, tetrahedral angles."""
    half = math.radians(109.47) / 2
    along, across = 1.53 * math.sin(half), 1.53 * math.cos(half)
    up, out = 1.09 * math.cos(half), 1.09 * math.sin(half)
    places = [np.array([k * along, across * (k % 2), 0.0]) for k in range(carbons)]
    atoms = [("C", tuple(p)) for p in places]
    for k, p in enumerate(places):
        sign = 1 if k % 2 else -1
        atoms += [("H", tuple(p + np.array([0.0, sign * up, z]))) for z in (out, -out)]
    for p, direction in ((places[0], places[0] - places[1]), (places[-1], places[-1] - places[-2])):
        turned = direction * (1, -1, 1)  # the third hydrogen of the end, where the chain would go on
        atoms.append(("H", tuple(p + 1.09 * turned / np.linalg.norm(turned))))
    return atoms


def water(molecules: int) -> list:
    """Molecules at the corners of a cubic lattice of 3 Angstrom, nearest to the origin first."""
    corners = sorted(np.ndindex(4, 4, 4), key=lambda c: (sum(c), c))[:molecules]
    shape = [("O", (0, 0, 0)), ("H", (0, 0.757, 0.587)), ("H", (0, -0.757, 0.587))]
    return [(s, tuple(3.0 * np.array(c) + x)) for c in corners for s, x in shape]


SERIES = {
    "alkanes": [(f"C{n}H{2 * n + 2}", alkane(n)) for n in (2, 4, 6, 8, 12, 16, 24)],
    "water": [(f"(H2O){n}", water(n)) for n in (1, 2, 4, 6, 8, 12, 16, 24)],
    "acenes": [(f"{n} rings", acene(n)) for n in (1, 2, 3, 4, 5, 6, 7)],
}


#: What exponents are fitted to.
QUANTITIES = ("cycle_s", "scf_s", "own_mb")


def converged(rows: list[dict]) -> list[dict]:
    """The rows, with the calculations alone that converged."""
    return [r | {"functionals": {xc: f for xc, f in r["functionals"].items() if f.get("converged")}} for r in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xc", default="r2scan,pbe0,b3lyp,wb97m-v,default")
    parser.add_argument("--series", default=",".join(SERIES))
    parser.add_argument("--limit", type=float, default=300.0, help="seconds of one SCF after which a series ends")
    parser.add_argument("--max-memory", type=int, default=lib.param.MAX_MEMORY, metavar="MB")
    parser.add_argument("--no-fit", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(lib.num_threads())
    lib.param.MAX_MEMORY = args.max_memory
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    out = args.out or Path(f"benchmarks/results/scaling{'-no-fit' if args.no_fit else ''}.json")
    settings = {
        "settings": f"{BASIS}, PySCF's default grid, {'no ' if args.no_fit else ''}density fitting",
        "max_memory_mb": args.max_memory,
        **conditions(args.xc.split(",")),
    }
    command = (
        f"python benchmarks/scaling.py --xc {args.xc} --series {args.series} --limit {args.limit:g} --max-memory "
        f"{args.max_memory}{' --no-fit' * args.no_fit}"
    )
    record = {"series": {}, "exponents": {}} | begun(out, settings) | {"command": command}
    for series in args.series.split(","):
        rows = record["series"].setdefault(series, [])
        slow = {xc for r in rows for xc, f in r["functionals"].items() if f.get("scf_s", math.inf) > args.limit}
        for name, atoms in SERIES[series]:
            mol = gto.M(atom=atoms, basis=BASIS, verbose=0)
            row = next((r for r in rows if r["molecule"] == name), None)
            if row is None:
                heavy = sum(mol.atom_charge(i) > 1 for i in range(mol.natm))
                row = {"molecule": name, "heavy_atoms": heavy, "nao": int(mol.nao), "functionals": {}}
            for xc in args.xc.split(","):
                if xc in slow or xc in row["functionals"]:
                    continue
                if row not in rows:
                    rows.append(row)
                row["functionals"][xc] = {"ended": "killed"}  # stays where the system kills this process
                write_atomic(out, json.dumps(record, indent=1) + "\n")
                try:
                    row["functionals"][xc] = found = measure(mol, xc, fit=not args.no_fit)
                    print(f"{name:12s} {mol.nao:5d} AOs {xc:10s} {found['scf_s']:8.1f} s", flush=True)
                except MemoryError:
                    row["functionals"][xc] = {"ended": "memory"}
                except BaseException:  # stopped, or a fault: to be tried again
                    del row["functionals"][xc]
                    raise
                finally:
                    record["exponents"][series] = {k: exponents(converged(rows), k) for k in QUANTITIES}
                    write_atomic(out, json.dumps(record, indent=1) + "\n")
                if row["functionals"][xc].get("scf_s", math.inf) > args.limit:
                    slow.add(xc)
    print(json.dumps(record["exponents"], indent=1))


if __name__ == "__main__":
    main()
