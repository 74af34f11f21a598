"""Wall time per SCF cycle of an mlxc functional over PySCF's r2SCAN, in one process and on the same grid.

    python benchmarks/speed.py [--xc default] [--out benchmarks/results/speed.json]

Each pair of calculations is repeated alternately and the fastest of each kind counts, so that a busy moment
of the machine hits neither.
"""

from __future__ import annotations

import argparse
import json
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


def alkane(n: int) -> list:
    """All-anti C_nH_(2n+2) from standard bond lengths and tetrahedral angles (Angstrom)."""
    dx, dz, hx, hy, hz = 1.257, 0.445, 0.0, 0.89, 0.629
    atoms = []
    for i in range(n):
        up = 1 if i % 2 else -1
        atoms.append(("C", (i * dx, 0, up * dz)))
        atoms += [("H", (i * dx + hx, sign * hy, up * (dz + hz))) for sign in (1, -1)]
    for end, sign in ((0, -1), (n - 1, 1)):
        up = 1 if end % 2 else -1
        atoms.append(("H", (end * dx + sign * 0.89, 0, up * (dz - 0.629))))
    return atoms


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
    parser.add_argument("--basis", default="def2-tzvp")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    args = parser.parse_args()
    torch.set_num_threads(lib.num_threads())
    rows = []
    for name, atoms, cycles in (("water", WATER, 8), ("benzene", BENZENE, 5), ("icosane", alkane(20), 3)):
        mol = gto.M(atom=atoms, basis=args.basis, verbose=0)
        for density_fit in (False, True):
            if name == "icosane" and not density_fit:
                continue
            repeats = 1 if name == "icosane" else args.repeats
            times: dict[str, list[float]] = {args.xc: [], "r2scan": []}
            for _ in range(repeats):
                for xc, seconds in times.items():
                    seconds.append(per_cycle(mol, xc, cycles, density_fit))
            row = {
                "molecule": name,
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
        "command": f"python benchmarks/speed.py --xc {args.xc} --basis {args.basis} --repeats {args.repeats}",
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
