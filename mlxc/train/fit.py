"""Fixed-density training of the neural meta-GGA, and its model folder.

    python -m mlxc.train.fit --data FOLDER --cache CACHE --out MODEL [--epochs 300] [--seed 0]

The energy of a molecule is E_r2SCAN[n] + E_xc[n] - E_xc^r2SCAN[n] at its r2SCAN density n (mlxc.train.cache).
One fifth of the molecules, chosen by graph, is kept for validation: it decides when to stop and nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from pyscf.data.nist import HARTREE2J
from scipy.constants import N_A, calorie, kilo

from mlxc import models
from mlxc.analytic import Channel, Total, r2scan_correlation, r2scan_enhancement
from mlxc.features import Features
from mlxc.neural import NeuralMetaGGA
from mlxc.train.cache import BASIS, ELEMENTS, GRID_LEVEL, SETS
from mlxc.train.data import Reaction, System, read_reactions, read_systems, select

KCAL = HARTREE2J * N_A / (kilo * calorie)
#: Errors beyond this many kcal/mol count linearly, so that a few multireference species do not dominate.
HUBER = 2.0
#: Smaller mean error a set has, the more a kcal/mol counts in it.
SET_WEIGHT = {"W4-17": 1.0, "BH76": 1.0, "G21IP": 1.0}


@dataclass
class Molecule:
    """One cached molecule: variables and r2SCAN parts on its grid, and total energies in Eh."""

    channel: Channel
    total: Total
    fx: torch.Tensor
    ec: torch.Tensor
    weights: torch.Tensor
    e_r2scan: float
    e_pbe0: float

    @classmethod
    def read(cls, path: Path) -> Molecule | None:
        """The molecule in a cache file; None where its SCF did not converge."""
        with h5py.File(path) as f:
            if not f.attrs["converged"]:
                return None
            features = Features(*(torch.from_numpy(f[k][:]) for k in ("rho", "sigma", "tau")))
            weights = torch.from_numpy(f["weights"][:])
            energies = float(f.attrs["e_r2scan"]), float(f.attrs["e_pbe0"])
        channel, total = Channel(features), Total(features)
        return cls(channel, total, r2scan_enhancement(channel), r2scan_correlation(total), weights, *energies)

    def __post_init__(self) -> None:
        self.exc_r2scan = float(self.weights @ (self.channel.energy(self.fx) + self.total.n_switched * self.ec))

    def energy(self, functional: NeuralMetaGGA) -> torch.Tensor:
        """Total energy at the fixed density, Eh."""
        density = functional.corrected(self.channel, self.total, self.fx, self.ec)
        return self.e_r2scan - self.exc_r2scan + self.weights @ density

    def size_of_correction(self, functional: NeuralMetaGGA) -> torch.Tensor:
        """Density-weighted mean of u_c^2 and u_x^2."""
        n = self.weights * self.total.n
        ux = functional.exchange_shift(self.channel).square().mean(0)
        return (n @ (ux + functional.correlation_shift(self.total).square())) / n.sum()


class Trainer:
    """Reactions, their molecules, and the loss."""

    def __init__(self, reactions: list[Reaction], systems: dict[str, System], cache: Path):
        self.molecules: dict[str, Molecule] = {}
        keys = {systems[i].key for r in reactions for i in r.stoichiometry}
        for key in sorted(keys):
            path = cache / f"{key}.h5"
            molecule = Molecule.read(path) if path.exists() else None
            if molecule:
                self.molecules[key] = molecule
        self.terms = {(r.set, r.name): [(systems[i].key, c) for i, c in r.stoichiometry.items()] for r in reactions}
        self.reactions = [r for r in reactions if all(k in self.molecules for k, _ in self.terms[r.set, r.name])]

    def errors(self, reactions: list[Reaction], energies: Mapping[str, torch.Tensor | float]) -> torch.Tensor:
        """Reaction energy minus reference, kcal/mol, (len(reactions),)."""
        return torch.stack(
            [
                torch.as_tensor(sum(c * energies[k] for k, c in self.terms[r.set, r.name]) * KCAL - r.ref_kcal)
                for r in reactions
            ]
        )

    def keys(self, reactions: list[Reaction]) -> set[str]:
        return {k for r in reactions for k, _ in self.terms[r.set, r.name]}

    def predict(self, functional: NeuralMetaGGA, reactions: list[Reaction]) -> torch.Tensor:
        """Errors of the functional without derivatives, kcal/mol."""
        with torch.no_grad():
            return self.errors(reactions, {k: self.molecules[k].energy(functional) for k in self.keys(reactions)})

    def step(self, functional: NeuralMetaGGA, batch: list[Reaction], size_weight: float) -> float:
        """Accumulate the gradient of the loss of one batch; one molecule's graph is held at a time."""
        keys = sorted(self.keys(batch))
        with torch.no_grad():
            values = {k: self.molecules[k].energy(functional) for k in keys}
        leaves = {k: v.clone().requires_grad_() for k, v in values.items()}
        errors = self.errors(batch, leaves)
        weight = torch.tensor([SET_WEIGHT[r.set] for r in batch])
        loss = (
            weight * torch.nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=HUBER)
        ).mean()
        slopes = torch.autograd.grad(loss, [leaves[k] for k in keys])
        for k, slope in zip(keys, slopes, strict=True):
            molecule = self.molecules[k]
            term = slope * molecule.energy(functional)
            (term + size_weight / len(keys) * molecule.size_of_correction(functional)).backward()
        return float(loss.detach())


def split(reactions: list[Reaction], systems: dict[str, System], seed: int) -> tuple[list[Reaction], list[Reaction]]:
    """Training and validation rows: a fifth of the molecular graphs is kept out of training.

    Atoms occur in most rows and are always allowed; a row with any kept-out molecule is for validation.
    """
    graphs = sorted({systems[i].graph_key for r in reactions for i in r.stoichiometry if len(systems[i].symbols) > 1})
    out = set(random.Random(seed).sample(graphs, len(graphs) // 8))
    inside = [r for r in reactions if not any(systems[i].graph_key in out for i in r.stoichiometry)]
    return inside, [r for r in reactions if r not in inside]


def by_set(reactions: list[Reaction], errors: torch.Tensor) -> dict[str, float]:
    """Mean absolute error per set, kcal/mol."""
    sets = sorted({r.set for r in reactions})
    return {s: round(float(errors[[r.set == s for r in reactions]].abs().mean()), 3) for s in sets}


def train(trainer: Trainer, inside: list[Reaction], outside: list[Reaction], args: argparse.Namespace) -> NeuralMetaGGA:
    """Adam with a cosine schedule; returns the functional with the best validation error."""
    torch.manual_seed(args.seed)
    shuffler = random.Random(args.seed)
    functional = NeuralMetaGGA(args.width, args.depth, name=args.out.name)
    optimizer = torch.optim.AdamW(functional.parameters(), lr=args.rate, weight_decay=args.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs, eta_min=args.rate / 100)
    best, best_state = float("inf"), copy.deepcopy(functional.state_dict())
    start = time.perf_counter()
    for epoch in range(args.epochs):
        rows = shuffler.sample(inside, len(inside))
        losses = []
        for i in range(0, len(rows), args.batch):
            optimizer.zero_grad()
            losses.append(trainer.step(functional, rows[i : i + args.batch], args.size_weight))
            optimizer.step()
        schedule.step()
        if epoch % 5 == 4 or epoch == args.epochs - 1:
            errors = by_set(outside, trainer.predict(functional, outside))
            score = float(np.mean(list(errors.values())))
            if score < best:
                best, best_state = score, copy.deepcopy(functional.state_dict())
            spent = time.perf_counter() - start
            print(f"{epoch + 1:4d} loss {np.mean(losses):.3f} validation {errors} {spent:.0f} s", flush=True)
    functional.load_state_dict(best_state)
    return functional


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-heavy", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--decay", type=float, default=1e-4)
    parser.add_argument("--size-weight", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    systems = read_systems(args.data)
    rows = select(read_reactions(args.data), systems, SETS, "train", ELEMENTS, args.max_heavy)
    trainer = Trainer(rows, systems, args.cache)
    inside, outside = split(trainer.reactions, systems, args.seed)
    print(
        f"{len(inside)} training rows, {len(outside)} validation rows, {len(trainer.molecules)} molecules", flush=True
    )
    functional = train(trainer, inside, outside, args)
    report = {}
    for label, part in (("training", inside), ("validation", outside)):
        report[label] = {
            "rows": len(part),
            "mae_kcal": by_set(part, trainer.predict(functional, part)),
            "mae_kcal_r2scan": by_set(
                part, trainer.errors(part, {k: m.e_r2scan for k, m in trainer.molecules.items()})
            ),
            "mae_kcal_pbe0": by_set(part, trainer.errors(part, {k: m.e_pbe0 for k, m in trainer.molecules.items()})),
        }
    card = {
        "trained_on": f"train rows of {', '.join(SETS)} with at most {args.max_heavy} heavy atoms",
        "protocol": f"fixed r2SCAN densities, {BASIS}, density fitting, grid level {GRID_LEVEL}",
        "command": f"python -m mlxc.train.fit --epochs {args.epochs} --batch {args.batch} --rate {args.rate} --decay "
        f"{args.decay} --size-weight {args.size_weight} --width {args.width} --depth {args.depth} --seed {args.seed}",
        "errors": report,
    }
    models.save(functional, args.out, card)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
