"""What training costs: time and memory of both phases, and how they grow with molecules and grid points.

    OMP_NUM_THREADS=1 python benchmarks/training.py [--work FOLDER] [--out FILE.json]

Molecules of ASE's g2 collection in def2-SVP, their atomization energies as data; a neural local hybrid of 16 x 2 units.
Fixed phase: the time to make and condense the features of one molecule, and that of one evaluation of the objective
with its gradient, with LOSSES.  Self-consistent phase: one step with all molecules, from the densities of the step
before, per species, with and without the densities of five references.  Peaks of memory are those of a process of its
own.  FOLDER has to be empty: features that are there already take no time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from pathlib import Path
from typing import Any

import pyscf
import torch
from learning import TRAINED, row, system
from pyscf import lib
from speed import peak_memory

from mlxc.files import write_atomic
from mlxc.network import MLP
from mlxc.neural import NeuralLocalHybrid
from mlxc.reference import shipped
from mlxc.reference.benchmark import Reaction
from mlxc.train.cache import fill
from mlxc.train.config import Config, Data, Phase
from mlxc.train.dataset import Dataset
from mlxc.train.densities import FixedDensities
from mlxc.train.fixed import FixedPhase
from mlxc.train.objective import Objective
from mlxc.train.ranks import Ranks
from mlxc.train.selfconsistent import SelfConsistentPhase

#: Molecules and levels of the grid of every measurement.
FIXED = ((7, 2), (14, 2), (28, 2), (14, 1), (14, 3))
SELF_CONSISTENT = ((4, 1), (8, 1), (8, 2), (8, 3))
#: Losses of the fixed phase, whose networks are in single precision.
LOSSES = {"reactions": 1.0, "grids": 100.0, "mass": 10.0, "size": 0.1, "slope": 0.02, "decay": 1e-5}
#: Evaluations that are averaged.
REPEATS = 10
TARGETS = ("He", "H2 R=0.7414", "H2 R=2.0", "HeH+ R=0.774", "Be2+")


def data_set(molecules: int, references: bool = False) -> Dataset:
    """Atomization energies of so many molecules, whose reference energies do not matter for the cost."""
    names = TRAINED[:molecules]
    rows = [Reaction("any", n, row(n, dict.fromkeys((n, *system(n).symbols), 0.0))[0], 100.0, "train") for n in names]
    library = shipped.load("two_electron") if references else {}
    return Dataset({i: system(i) for r in rows for i in r.stoichiometry}, rows, references=library, only=TARGETS)


def prepare(molecules: int, level: int, work: Path) -> dict[str, Any]:
    """Seconds per molecule to make the cached features that are not there yet."""
    cache = work / f"level{level}"
    data = data_set(molecules)
    missing = [s for s in data.species if not (cache / f"{s.key}.h5").exists()]
    start = time.perf_counter()
    fill(data.species, Data(basis="def2-svp", grid_level=level, cache=cache), lambda line: None)
    seconds = time.perf_counter() - start
    return {"features_s_per_species": round(seconds / len(missing), 2) if missing else None}


def fixed(molecules: int, level: int, work: Path) -> dict[str, Any]:
    """Seconds per molecule to condense and per evaluation with LOSSES, and the peak of memory."""
    cache = work / f"level{level}"
    data, ranks = data_set(molecules), Ranks()
    functional = NeuralLocalHybrid(16, 2)
    for network in functional.modules():
        if isinstance(network, MLP):
            network.precision = torch.float32
    objective = Objective(Config("x", [Phase("fixed", 1)], losses=LOSSES), functional, data, ranks)
    start = time.perf_counter()
    phase = FixedPhase(functional, FixedDensities(data.species, cache), ranks)
    condensed = time.perf_counter()
    for _ in range(REPEATS):
        objective(phase.observe())
    done = time.perf_counter()
    return {
        "molecules": molecules,
        "species": len(data.species),
        "grid_level": level,
        "grid_points": sum(len(w) for _, w in phase.densities.molecules()),
        "condense_s_per_species": round((condensed - start) / len(data.species), 3),
        "epoch_s": round((done - condensed) / REPEATS, 4),
        "peak_mb": round(peak_memory()),
    }


def self_consistent(molecules: int, level: int, references: bool) -> dict[str, Any]:
    """Seconds per species of a step, and the peak of memory."""
    settings = Data(basis="def2-svp", grid_level=level)
    data, ranks = data_set(molecules, references), Ranks()
    functional = NeuralLocalHybrid(16, 2)
    kinds = {"density", "dipole"} if references else set()
    phase = SelfConsistentPhase(functional, data, settings, kinds, ranks, batch=10**6)
    phase.observe()
    with torch.no_grad():
        for p in functional.parameters():
            p += 1e-3 * torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    phase.observe()
    return {
        "molecules": molecules,
        "species": len(data.species),
        "references": len(data.targets),
        "grid_level": level,
        "step_s_per_species": round((time.perf_counter() - start) / len(data.species), 3),
        "failures": len(phase.failures),
        "peak_mb": round(peak_memory()),
    }


def alone(function: Any, *arguments: Any) -> dict[str, Any]:
    """The result of a function in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply(function, arguments)
    print(result, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".cache/training"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.json"))
    args = parser.parse_args()
    record = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/training.py",
        "machine": platform.machine(),
        "threads": lib.num_threads(),
        "pyscf": pyscf.__version__,
        "torch": torch.__version__,
        "losses": LOSSES,
        "fixed": [alone(prepare, *case, args.work) | alone(fixed, *case, args.work) for case in FIXED],
        "self_consistent": [
            *(alone(self_consistent, *case, False) for case in SELF_CONSISTENT),
            alone(self_consistent, 8, 2, True),
        ],
    }
    write_atomic(args.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
