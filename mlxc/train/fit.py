"""Fixed-density training of a neural functional, and its model folder.

    python -m mlxc.train.fit --data FOLDER --cache CACHE --out MODEL [--family neural-local-hybrid] [--seed 0]

The energy of a molecule is E_r2SCAN[n] + E_xc[n] - E_xc^r2SCAN[n] at its r2SCAN density n (mlxc.train.cache).
Fitted are reaction energies and, so that they do not drift, the total energies of neutral atoms; the size of the
correction, its slopes, what radial grids cannot resolve of it and negative effective masses are penalised.  One eighth
of the molecular graphs is kept for validation: with the last two penalties it decides when to stop and nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch

from mlxc import models
from mlxc.errors import InputError
from mlxc.network import MLP
from mlxc.neural import NeuralMetaGGA
from mlxc.reference.benchmark import Reaction, select
from mlxc.reference.folders import read_reactions, read_systems
from mlxc.train.cache import BASIS, DEV_SETS, ELEMENTS, GRID_LEVEL, SETS
from mlxc.train.dataset import KCAL, Dataset, split
from mlxc.train.mass import EffectiveMass
from mlxc.train.radial import RadialGrids

#: Errors beyond this many kcal/mol count linearly, so that a few multireference species do not dominate.
HUBER = 2.0
#: Iterations of L-BFGS between two lines of output.
CHUNK = 100
#: Atomization energies are the hardest to fit, and the widest in chemistry.
SET_WEIGHT = {"W4-17": 3.0, "BH76": 1.0, "G21IP": 1.0}


def by_set(reactions: list[Reaction], errors: torch.Tensor) -> dict[str, float]:
    """Mean absolute error per set, kcal/mol."""
    sets = sorted({r.set for r in reactions})
    return {s: round(float(errors[[r.set == s for r in reactions]].abs().mean()), 3) for s in sets}


def loss(errors: torch.Tensor, reactions: list[Reaction]) -> torch.Tensor:
    """Huber loss; a set counts by SET_WEIGHT, whatever its number of rows."""
    terms = torch.nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=HUBER)
    sets = [r.set for r in reactions]
    total = sum(SET_WEIGHT[s] for s in set(sets))
    return terms @ torch.tensor([SET_WEIGHT[s] / sets.count(s) / total for s in sets], dtype=torch.float64)


def train(data: Dataset, inside: list[Reaction], outside: list[Reaction], args: argparse.Namespace) -> NeuralMetaGGA:
    """Adam from a new functional, then L-BFGS, on all rows at once; returns the best on the validation rows.

    Adam alone rests for thousands of steps on the plateau that L-BFGS leaves within hundreds.
    """
    torch.manual_seed(args.seed)
    functional = models.FAMILIES[args.family](args.width, args.depth, name=args.out.name)
    condensed, grids, mass = data.condensed(type(functional)), RadialGrids(), EffectiveMass()
    networks = [m for m in functional.modules() if isinstance(m, MLP)]
    for network in networks:
        network.precision = torch.float32  # twice as fast; errors of reaction energies below 0.001 kcal/mol
    parameters = list(functional.parameters())
    offset = torch.zeros_like(data.e_r2scan)
    best, best_state, validation = float("inf"), copy.deepcopy(functional.state_dict()), float("nan")

    def objective() -> torch.Tensor:
        nonlocal best, best_state, validation
        corrections, size = condensed.corrections(functional)
        energies = data.e_r2scan + corrections + offset
        # What no row shows, also no row of those kept out, must not be given up for their errors.
        behaviour = args.grid_weight * (KCAL * grids.errors(functional)).square().mean()
        behaviour = behaviour + args.mass_weight * mass.penalty(functional)
        validation = float(loss(data.errors(outside, energies.detach()), outside) + behaviour.detach())
        if validation < best:
            best, best_state = validation, copy.deepcopy(functional.state_dict())
        value = (
            loss(data.errors(inside, energies), inside)
            + behaviour
            + args.size_weight * size
            + args.slope_weight * condensed.slope(functional)
            + args.atom_weight * data.atom_errors(energies).square().mean()
            + args.decay * sum(p.square().sum() for p in parameters)
        )
        for p, grad in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
            p.grad = grad
        return value.detach()

    def left_out() -> torch.Tensor:
        """What condensing leaves out of the energies of the present functional, (M,) Eh."""
        with torch.no_grad():
            return data.full_grid(functional) - data.e_r2scan - condensed.corrections(functional)[0]

    adam = torch.optim.Adam(parameters, lr=args.rate)
    for _ in range(args.adam_steps):
        objective()
        adam.step()
    offset = left_out()
    print(f"Adam {args.adam_steps:5d} objective {objective():.3f} validation {validation:.3f}", flush=True)
    lbfgs = torch.optim.LBFGS(
        parameters, max_iter=CHUNK, history_size=50, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )
    for done in range(CHUNK, args.steps + 1, CHUNK):
        lbfgs.step(objective)
        offset = left_out()
        print(f"L-BFGS {done:5d} objective {objective():.3f} validation {validation:.3f}, best {best:.3f}", flush=True)
    functional.load_state_dict(best_state)
    for network in networks:
        network.precision = torch.float64
    return functional


def table(data: Dataset, reactions: list[Reaction], functional: NeuralMetaGGA) -> dict:
    """Number of rows and mean absolute errors per set (kcal/mol) of the functional, r2SCAN and PBE0."""
    energies = {"mlxc": data.full_grid(functional), "r2scan": data.e_r2scan, "pbe0": data.e_pbe0}
    maes = {xc: by_set(reactions, data.errors(reactions, e)) for xc, e in energies.items()}
    return {"rows": {s: sum(r.set == s for r in reactions) for s in maes["mlxc"]}, "mae_kcal": maes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", choices=sorted(models.FAMILIES), default="neural-mgga")
    parser.add_argument("--max-heavy", type=int, default=3)
    parser.add_argument("--adam-steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate of Adam")
    parser.add_argument("--steps", type=int, default=1500, help="iterations of L-BFGS")
    parser.add_argument("--decay", type=float, default=1e-5, help="weight of the squares of all parameters")
    parser.add_argument("--size-weight", type=float, default=5.0)
    parser.add_argument("--slope-weight", type=float, default=0.0)
    parser.add_argument("--grid-weight", type=float, default=100.0, help="per (kcal/mol)^2 of radial grids")
    parser.add_argument("--mass-weight", type=float, default=10.0, help="of negative effective masses in tails")
    parser.add_argument("--atom-weight", type=float, default=0.05)
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    systems, reactions = read_systems(args.data), read_reactions(args.data)
    rows = select(reactions, systems, SETS, "train", ELEMENTS, args.max_heavy)
    data = Dataset(rows, systems, args.cache)
    inside, outside = split(data.reactions, systems, args.seed)
    if not inside or not outside:
        raise InputError(f"{len(inside)} training and {len(outside)} validation rows with cached molecules: too few")
    print(f"{len(inside)} training and {len(outside)} validation rows, {data.left_out} left out", flush=True)
    functional = train(data, inside, outside, args)
    report = {"training": table(data, inside, functional), "validation": table(data, outside, functional)}
    dev = [r for r in select(reactions, systems, DEV_SETS, "dev", ELEMENTS, args.max_heavy) if not r.seen_in_training]
    if dev:
        unseen = Dataset(dev, systems, args.cache)
        report["dev, not seen in training"] = table(unseen, unseen.reactions, functional)
        report["dev, not seen in training"]["left_out"] = unseen.left_out
    settings = {k: v for k, v in vars(args).items() if k not in ("data", "cache", "out", "max_heavy")}
    card = {
        "trained_on": f"{len(inside)} train rows of {', '.join(SETS)} with at most {args.max_heavy} heavy atoms; "
        f"{data.left_out} rows left out because an SCF had not converged or was not there",
        "protocol": f"errors in kcal/mol at fixed r2SCAN densities, {BASIS}, density fitting, grid level {GRID_LEVEL}; "
        "r2SCAN and PBE0 self-consistent in the same basis and grid",
        "command": "python -m mlxc.train.fit " + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in settings.items()),
        "errors": report,
    }
    models.save(functional, args.out, card)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
