"""Wall time per SCF cycle of an mlxc functional over PySCF's r2SCAN, in one process and on the same grid.

    python benchmarks/speed.py [--xc default] [--out benchmarks/results/speed.json]

Each pair of calculations is repeated alternately and the fastest of each kind counts, so that a busy moment
of the machine hits neither.
"""

from __future__ import annotations

import argparse
import cmath
import json
import math
import os
import platform
import time
from pathlib import Path

import pyscf
import torch
from pyscf import gto, lib

import mlxc

BENZENE = [
    (s, (r * x, r * y, 0))
    for s, r in (("C", 1.395), ("H", 2.482))
    for x, y in ((1, 0), (0.5, 0.75**0.5), (-0.5, 0.75**0.5), (-1, 0), (-0.5, -(0.75**0.5)), (0.5, -(0.75**0.5)))
]
WATER = "O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587"


def perylene() -> list:
    """C20H12 from regular hexagons: C-C 1.41, C-H 1.09 Angstrom."""
    rings = [0j] + [1.41 * 3**0.5 * cmath.exp(1j * math.radians(a)) for a in (-30, 30, 150, 210)]
    corners = [r + 1.41 * cmath.exp(1j * math.radians(60 * k)) for r in rings for k in range(6)]
    carbons = list({(round(z.real, 6), round(z.imag, 6)): z for z in corners}.values())
    atoms = [("C", (z.real, z.imag, 0)) for z in carbons]
    for z in carbons:
        bonds = [x - z for x in carbons if 0.1 < abs(x - z) < 1.5]
        if len(bonds) == 2:
            h = z - 1.09 * sum(bonds) / abs(sum(bonds))
            atoms.append(("H", (h.real, h.imag, 0)))
    return atoms


#: Name, atoms, basis, SCF cycles, with and without density fitting.
CASES = (
    ("water", WATER, "def2-tzvp", 8, (False, True)),
    ("benzene", BENZENE, "def2-tzvp", 5, (False, True)),
    ("perylene", perylene(), "def2-svp", 4, (True,)),
)


def per_cycle(mol: gto.Mole, xc: str, cycles: int, density_fit: bool) -> float:
    """Seconds per SCF cycle, grid set-up and first guess left out."""
    mf = mlxc.KS(mol, xc)
    if density_fit:
        mf = mf.density_fit()
    mf.verbose, mf.max_cycle, mf.conv_tol = 0, cycles, 1e-14
    stamps: list[float] = []
    mf.callback = lambda envs: stamps.append(time.perf_counter())
    mf.kernel()
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xc", default="default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    args = parser.parse_args()
    torch.set_num_threads(lib.num_threads())
    rows = []
    for name, atoms, basis, cycles, fitted in CASES:
        mol = gto.M(atom=atoms, basis=basis, verbose=0)
        for density_fit in fitted:
            times: dict[str, list[float]] = {args.xc: [], "r2scan": []}
            for _ in range(args.repeats):
                for xc, seconds in times.items():
                    seconds.append(per_cycle(mol, xc, cycles, density_fit))
            row = {
                "molecule": name,
                "basis": basis,
                "density_fit": density_fit,
                "nao": int(mol.nao),
                "ratio": min(times[args.xc]) / min(times["r2scan"]),
            }
            rows.append(row)
            print(
                f"{name:8s} {'DF' if density_fit else 'direct':7s} {mol.nao:5d} AOs  ratio {row['ratio']:.2f}",
                flush=True,
            )
    record = {
        "command": f"python benchmarks/speed.py --xc {args.xc} --repeats {args.repeats}",
        "reference": "PySCF r2scan, same process, PySCF's default grid (level 3)",
        "threads": lib.num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "pyscf": pyscf.__version__,
        "torch": torch.__version__,
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
