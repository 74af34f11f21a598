"""Wall time per SCF cycle of functionals over PySCF's r2SCAN, in one process and on the same grid.

    python benchmarks/speed.py [--xc default,pbe0,b3lyp,wb97m-v] [--cases water,benzene] [--no-fit] [--out FILE.json]

Cases that the record has of the same models, versions and machine and that are not measured again stay in it.
All with density fitting unless --no-fit.  The calculations of a case are repeated alternately and the fastest of each
counts, so that a busy moment of the machine hits none.  Besides the time of a cycle, from one potential to the next,
stand the time up to the first potential (with all tables) and that after the last; the peak of memory is that of the
process during the calculation (Linux only).  PySCF's wheels have an old OpenBLAS that runs slow kernels on processors
younger than itself, which OPENBLAS_CORETYPE mends (docs/troubles.md): records say how it was set.
wB97M-V runs its VV10 part on a grid of level 1, which costs it no accuracy (1e-7 Eh on water).
"""

from __future__ import annotations

import argparse
import cmath
import gc
import json
import math
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
import torch
from pyscf import gto, lib

import mlxc
from mlxc import models
from mlxc.files import write_atomic

WATER = "O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587"
REFERENCE = "r2scan"
#: Energy (Eh) to which a whole SCF is converged.
CONVERGED = 1e-8


def fused_rings(*centres: complex) -> list:
    """A polycyclic aromatic molecule from regular hexagons at these centres (Angstrom): C-C 1.41, C-H 1.09 Angstrom."""
    corners = [r + 1.41 * cmath.exp(1j * math.radians(60 * k)) for r in centres for k in range(6)]
    carbons = list({(round(z.real, 6) + 0.0, round(z.imag, 6) + 0.0): z for z in corners}.values())
    atoms = [("C", (z.real, z.imag, 0)) for z in carbons]
    for z in carbons:
        bonds = [x - z for x in carbons if 0.1 < abs(x - z) < 1.5]
        if len(bonds) == 2:
            h = z - 1.09 * sum(bonds) / abs(sum(bonds))
            atoms.append(("H", (h.real, h.imag, 0)))
    return atoms


def acene(rings: int) -> list:
    """Rings in a row: benzene, naphthalene, ... heptacene."""
    return fused_rings(*[1.41 * 3**0.5 * 1j * k for k in range(rings)])


PERYLENE = fused_rings(0, *[1.41 * 3**0.5 * cmath.exp(1j * math.radians(a)) for a in (-30, 30, 150, 210)])
#: Atoms, basis and SCF cycles of each case.
CASES: dict[str, tuple] = {
    "water": (WATER, "def2-tzvp", 5),
    "water-qz": (WATER, "def2-qzvp", 5),
    "benzene": (acene(1), "def2-tzvp", 3),
    "benzene-qz": (acene(1), "def2-qzvp", 2),
    "naphthalene": (acene(2), "def2-tzvp", 2),
    "perylene": (PERYLENE, "def2-tzvp", 1),
    "heptacene": (acene(7), "def2-tzvp", 1),
}


def memory(what: str = "VmRSS") -> float:
    """This process's memory in MB; nan where the system does not tell."""
    try:
        return int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0]) / 1024
    except OSError:
        return math.nan


def peak_memory(reset: bool = False) -> float:
    """Peak of this process's memory in MB since the last reset; nan where the system does not tell."""
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return memory("VmHWM")


def conditions(functionals: list[str]) -> dict[str, Any]:
    """What times depend on beside the molecules and settings, for a record."""
    return {
        "threads": lib.num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", "not set"),
        "pyscf": pyscf.__version__,
        "torch": torch.__version__,
        "models": {xc: sha256 for xc in functionals if (sha256 := models.sha256(xc))},
    }


def measure(mol: gto.Mole, xc: str, cycles: int | None = None, fit: bool = True) -> dict[str, float]:
    """Seconds per SCF cycle, before the first potential and after the last, and the peak of memory.

    Of so many cycles, or of a whole SCF (to CONVERGED) without their number; with density fitting or without.
    """
    gc.collect()  # PySCF makes do with what memory earlier calculations have left
    mf = mlxc.KS(mol, xc)
    if fit:
        mf = mf.density_fit()
    if cycles:
        mf.max_cycle, mf.conv_tol = cycles, 1e-14
    else:
        mf.conv_tol = CONVERGED
    mf.nlcgrids.level = 1
    mf.grids.build()
    stamps: list[float] = []
    potential = mf.get_veff

    def get_veff(*args, **kwargs):
        result = potential(*args, **kwargs)
        stamps.append(time.perf_counter())
        return result

    before = memory()
    peak_memory(reset=True)
    start = time.perf_counter()
    # Single cycles start from the same density for all, so that they are alike; a whole SCF from that of its own.
    dm = mf.init_guess_by_minao() if cycles else mf.get_init_guess()
    mf.get_veff = get_veff
    mf.kernel(dm)
    end = time.perf_counter()
    done = cycles or mf.cycles
    return {
        "cycle_s": (stamps[done] - stamps[0]) / done,
        "before_s": stamps[0] - start,
        "after_s": end - stamps[done],
        "scf_s": end - start,
        "cycles": done,
        "converged": bool(mf.converged),
        "peak_mb": peak_memory(),
        "own_mb": peak_memory() - before,
    }


def run_case(name: str, functionals: list[str], repeats: int, fit: bool) -> dict:
    """One case: molecule, and per functional its best times and their ratio to the reference."""
    atoms, basis, cycles = CASES[name]
    mol = gto.M(atom=atoms, basis=basis, verbose=0)
    runs: dict[str, list[dict]] = {xc: [] for xc in (REFERENCE, *functionals)}
    for _ in range(repeats):
        for xc, results in runs.items():
            results.append(measure(mol, xc, cycles, fit))
    best = {xc: {k: min(r[k] for r in results) for k in results[0]} for xc, results in runs.items()}
    for result in best.values():
        result["ratio"] = result["cycle_s"] / best[REFERENCE]["cycle_s"]
    heavy = sum(mol.atom_charge(i) > 1 for i in range(mol.natm))
    row = {"case": name, "basis": basis, "heavy_atoms": heavy, "nao": int(mol.nao), "functionals": best}
    shown = "  ".join(f"{xc} {r['ratio']:.2f} ({r['cycle_s']:.2f} s)" for xc, r in best.items())
    print(f"{name:12s} {basis} {mol.nao:5d} AOs  {shown}", flush=True)
    return row


def exponents(rows: list[dict], quantity: str = "cycle_s") -> dict[str, float]:
    """b of a fit of a measured quantity to a nao^b, by functional, over molecules with more than five heavy atoms."""
    out = {}
    for xc in sorted({xc for r in rows for xc in r["functionals"]}):
        large = [(r["nao"], r["functionals"].get(xc)) for r in rows if r["heavy_atoms"] > 5]
        points = [(nao, f[quantity]) for nao, f in large if f and f[quantity] > 0]  # not nan
        if len(points) > 2:
            out[xc] = round(float(np.polyfit(*np.log(points).T, 1)[0]), 2)
    return out


def begun(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The record to go on with: that of `path`, if it is of these settings, and of the same models where it has them.

    Otherwise one that has the settings alone.  settings : what the results depend on, the hashes of `models` among them
    """
    record = json.loads(path.read_text()) if path.exists() else {}
    known = record.get("models", {})
    alike = all(record.get(k) == v for k, v in settings.items() if k != "models")
    if not alike or any(known.get(xc, sha256) != sha256 for xc, sha256 in settings["models"].items()):
        return dict(settings)
    return record | {"models": known | settings["models"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xc", default="default,pbe0,b3lyp,wb97m-v")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-fit", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(lib.num_threads())
    functionals, cases, unfitted = args.xc.split(","), args.cases.split(","), " --no-fit" if args.no_fit else ""
    out = args.out or Path(f"benchmarks/results/speed{unfitted.strip()[1:]}.json")
    settings = {
        "settings": f"{'no ' * args.no_fit}density fitting, PySCF's default grid (level 3) and max_memory; VV10 on "
        "grid level 1",
        **conditions(functionals),
    }
    record = begun(out, settings)
    for name in cases:
        row = run_case(name, functionals, args.repeats, not args.no_fit)
        command = f"python benchmarks/speed.py --xc {args.xc} --cases {name} --repeats {args.repeats}{unfitted}"
        rows = [*(r for r in record.get("rows", []) if r["case"] != name), {"command": command, **row}]
        record |= {"exponents": exponents([r for r in rows if r["basis"] == "def2-tzvp"]), "rows": rows}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
