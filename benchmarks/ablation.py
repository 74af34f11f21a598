"""What each part of training is good for: one local hybrid trained with more and more of it, judged alike.

    python benchmarks/ablation.py --data FOLDER [--references small,ions] [--max-heavy 2] [--out FILE.json]

FOLDER has systems.jsonl and reactions.jsonl.  Trained on are the train rows of SETS and every second one of the
references, conditions for the atoms H to Ne.  Judged, self-consistent in def2-TZVP on grids of level 2, is what
training has not seen: the dev rows of DEV_SETS with a molecule whose graph is not among those trained on (kcal/mol),
densities and dipoles of the other references (int |n - n_ref| / N; Debye), 2 E(N - 1/2) - E(N) - E(N - 1) and
fractional spins of the atoms Na to Ar (kcal/mol), and SCF calculations that fail.  An interrupted run goes on where it
was; to repeat a complete one remove FILE.json and the folder of --work.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import pyscf
import torch

from mlxc import models
from mlxc.constraints.fractional import THIRD_ROW, fractional_charges, fractional_spins
from mlxc.files import write_atomic
from mlxc.reference import Reference, shipped
from mlxc.reference.benchmark import select, system_of
from mlxc.reference.folders import read_reactions, read_systems
from mlxc.train import checkpoint
from mlxc.train.cache import ELEMENTS
from mlxc.train.config import Data
from mlxc.train.dataset import Dataset, by_set
from mlxc.train.ranks import Ranks
from mlxc.train.run import train
from mlxc.train.selfconsistent import SelfConsistentPhase

SETS = {"W4-17": 3.0, "BH76": 1.0, "G21IP": 1.0}
DEV_SETS = ("G2-97", "DBH24", "G2RC", "PA26", "SIE4x4")
BASIS, LEVEL = "def2-tzvp", 2
SIZES = {"size": 1.0, "slope": 2.0, "decay": 1e-5}
CONDITIONS = {"fractional_charge": 0.02, "fractional_spin": 0.02, "grids": 400.0, "mass": 30.0}
DENSITIES = {"density": 1e4, "dipole": 5.0, "ionization": 0.1}
#: Losses of each stage, and whether it has a self-consistent phase.
STAGES: dict[str, tuple[dict[str, float], bool]] = {
    "energies": ({"reactions": 1.0}, False),
    "+ conditions": ({"reactions": 1.0, **CONDITIONS}, False),
    "+ self-consistent": ({"reactions": 1.0, **CONDITIONS}, True),
    "+ densities": ({"reactions": 1.0, **CONDITIONS, **DENSITIES}, True),
}


def library(names: str) -> dict[str, Reference]:
    """References with densities of some shipped files, the largest systems first."""
    found = {k: r for name in names.split(",") for k, r in shipped.load(name).items() if r.converged}
    return dict(sorted(found.items(), key=lambda item: (-item[1].nelectron, item[0])))


def trained_references(names: str) -> list[str]:
    """Every second reference: those that training may see."""
    return list(library(names))[::2]


def configuration(name: str, losses: dict[str, float], through_scf: bool, args: argparse.Namespace) -> str:
    """A configuration file."""
    references = args.references.split(",") if set(losses) & set(DENSITIES) else []
    phases = '[[phase]]\nkind = "fixed"\nadam = 200\nlbfgs = 800\n'
    if through_scf:
        phases += f'[[phase]]\nkind = "self-consistent"\nadam = {args.steps}\nrate = 5e-4\nbatch = 12\n'
    lines = [
        f'name = "{name}"',
        "width = 16",
        "[data]",
        f"folder = {json.dumps(str(args.data.resolve()))}",
        f"sets = {{{', '.join(f'{json.dumps(k)} = {w}' for k, w in SETS.items())}}}",
        f"references = {json.dumps(references)}",
        f"only = {json.dumps(trained_references(args.references) if references else [])}",
        f"cache = {json.dumps(str((args.work / 'cache').resolve()))}",
        f"max_heavy = {args.max_heavy}",
        f'basis = "{BASIS}"',
        f"grid_level = {LEVEL}",
        "[losses]",
        *(f"{k} = {w}" for k, w in {**losses, **SIZES}.items()),
    ]
    return "\n".join(lines) + "\n" + phases


def judged(model: Path, data: Dataset, dev: set[str]) -> dict[str, Any]:
    """All errors of one model."""
    functional = models.load(model)
    kinds = ("density_l1", "dipole")
    phase = SelfConsistentPhase(functional, data, Data(basis=BASIS, grid_level=LEVEL), kinds, Ranks())  # type: ignore[arg-type]
    state = phase.solve(data.inside, data.targets, gradients=False)
    rows = data.complete(data.inside, state.known)
    maes = by_set([r.set for r in rows], data.errors(rows, state.energies))
    return {
        "rows": {s: sum(r.set == s for r in rows) for s in maes},
        "dev_mae_kcal": {s: m for s, m in maes.items() if s in dev},
        "conditions_kcal": {s: m for s, m in maes.items() if s not in dev},
        "density_l1": round(float(state.results["density_l1"].mean()), 5),
        "dipole_rms_debye": round(float(state.results["dipole"].mean().sqrt()), 4),
        "scf_failures": phase.failures,
        "training_scf_failures": models.describe(model)["card"]["scf_failures"],
        "fixed_density_mae_kcal": models.describe(model)["card"]["errors"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--references", default="small,ions", help="shipped files A,B of densities")
    parser.add_argument("--max-heavy", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="of the self-consistent phases")
    parser.add_argument("--work", type=Path, default=Path(".cache/ablation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablation.json"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    systems, reactions = read_systems(args.data), read_reactions(args.data)
    trained = trained_references(args.references)
    references = library(args.references)
    seen = {systems[i].graph_key for r in select(reactions, systems, tuple(SETS), "train", ELEMENTS, args.max_heavy)
            for i in r.stoichiometry} | {system_of(references[k]).graph_key for k in trained}  # fmt: skip
    rows = [
        r
        for r in select(reactions, systems, DEV_SETS, "dev", ELEMENTS, args.max_heavy)
        if any(systems[i].graph_key not in seen for i in r.stoichiometry)
    ]
    for more, conditions in (fractional_charges(THIRD_ROW, ()), fractional_spins(THIRD_ROW)):
        systems |= more
        rows += conditions
    data = Dataset(systems, rows, references=references, only=references.keys() - set(trained))
    record: dict[str, Any] = {
        "command": f"python benchmarks/ablation.py --data FOLDER --references {args.references} "
        f"--max-heavy {args.max_heavy} --steps {args.steps}",
        "machine": platform.machine(),
        "pyscf": pyscf.__version__,
        "torch": torch.__version__,
        "stages": {},
    }
    if args.out.exists() and (known := json.loads(args.out.read_text()))["command"] == record["command"]:
        record = known
    for k, (title, (losses, through_scf)) in enumerate(STAGES.items()):
        if title in record["stages"]:
            continue
        config, out = args.work / f"stage{k}.toml", args.work / f"stage{k}"
        config.write_text(configuration(f"stage{k}", losses, through_scf, args))
        train(config, out, resume=checkpoint.exists(out))
        record["stages"][title] = judged(out, data, set(DEV_SETS))
        print(title, json.dumps(record["stages"][title]), flush=True)
        write_atomic(args.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
