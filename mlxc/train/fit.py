"""Fixed-density training of the neural meta-GGA, and its model folder.

    python -m mlxc.train.fit --data FOLDER --cache CACHE --out MODEL [--steps 1500] [--seed 0]

The energy of a molecule is E_r2SCAN[n] + E_xc[n] - E_xc^r2SCAN[n] at its r2SCAN density n (mlxc.train.cache).
Fitted are reaction energies and, so that they do not drift, the total energies of neutral atoms; the size of the
correction is penalised.  One eighth of the molecular graphs is kept for validation: it decides when to stop and
nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch
from pyscf.data import elements
from pyscf.data.nist import HARTREE2J
from scipy.constants import N_A, calorie, kilo

from mlxc import models
from mlxc.analytic import Channel, Total, r2scan_correlation, r2scan_enhancement
from mlxc.errors import InputError
from mlxc.features import Features
from mlxc.neural import NeuralMetaGGA
from mlxc.train.cache import BASIS, DEV_SETS, ELEMENTS, GRID_LEVEL, SETS
from mlxc.train.compress import Condensed
from mlxc.train.data import Reaction, System, read_reactions, read_systems, select

KCAL = HARTREE2J * N_A / (kilo * calorie)
#: Errors beyond this many kcal/mol count linearly, so that a few multireference species do not dominate.
HUBER = 2.0
#: Iterations of L-BFGS between two lines of output.
CHUNK = 100
#: Atomization energies are the hardest to fit, and the widest in chemistry.
SET_WEIGHT = {"W4-17": 3.0, "BH76": 1.0, "G21IP": 1.0}


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
    def read(cls, path: Path) -> Molecule:
        """The molecule in a cache file."""
        with h5py.File(path) as f:
            features = Features(*(torch.from_numpy(f[k][:]) for k in ("rho", "sigma", "tau")))
            weights = torch.from_numpy(f["weights"][:])
            energies = float(f.attrs["e_r2scan"]), float(f.attrs["e_pbe0"])
        channel, total = Channel(features), Total(features)
        return cls(channel, total, r2scan_enhancement(channel), r2scan_correlation(total), weights, *energies)

    def correction(self, functional: NeuralMetaGGA) -> float:
        """E_xc - E_xc^r2SCAN at the fixed density on the full grid, Eh."""
        start = self.channel.energy(self.fx) + self.total.n_switched * self.ec
        with torch.no_grad():
            return float(self.weights @ (functional.corrected(self.channel, self.total, self.fx, self.ec) - start))


class Dataset:
    """Reactions whose molecules are all cached and converged, and these molecules condensed to a few points."""

    def __init__(self, reactions: list[Reaction], systems: dict[str, System], cache: Path):
        self.systems = systems
        paths = {systems[i].key: cache / f"{systems[i].key}.h5" for r in reactions for i in r.stoichiometry}
        self.paths = {k: p for k, p in sorted(paths.items()) if p.exists() and _converged(p)}
        self.reactions = [r for r in reactions if all(systems[i].key in self.paths for i in r.stoichiometry)]
        self.left_out = len(reactions) - len(self.reactions)
        self.index = {k: i for i, k in enumerate(self.paths)}
        energies = []

        def stream():
            for path in self.paths.values():
                m = Molecule.read(path)
                energies.append((m.e_r2scan, m.e_pbe0))
                yield m.channel, m.total, m.ec, m.weights

        self.condensed = Condensed(stream())
        self.e_r2scan, self.e_pbe0 = torch.tensor(energies, dtype=torch.float64).T

    def errors(self, reactions: list[Reaction], energies: torch.Tensor) -> torch.Tensor:
        """Reaction energy minus reference, kcal/mol, (len(reactions),), from total energies (M,) in Eh."""
        matrix = torch.zeros(len(reactions), len(self.index), dtype=torch.float64)
        for row, reaction in zip(matrix, reactions, strict=True):
            for i, c in reaction.stoichiometry.items():
                row[self.index[self.systems[i].key]] += c
        return matrix @ energies * KCAL - torch.tensor([r.ref_kcal for r in reactions], dtype=torch.float64)

    def atom_errors(self, energies: torch.Tensor) -> torch.Tensor:
        """Errors of the total energies of the neutral atoms per electron, kcal/mol."""
        atoms = {s.symbols[0]: self.index[s.key] for s in self.systems.values() if s.key in self.index and s.is_atom}
        known = [a for a in sorted(atoms) if a in ATOMS]
        exact = torch.tensor([ATOMS[a] for a in known], dtype=torch.float64)
        charges = torch.tensor([elements.charge(a) for a in known])
        return (energies[[atoms[a] for a in known]] - exact) * KCAL / charges

    def full_grid(self, functional: NeuralMetaGGA) -> torch.Tensor:
        """Total energies at the fixed densities, (M,) Eh, on all points."""
        corrections = [Molecule.read(p).correction(functional) for p in self.paths.values()]
        return self.e_r2scan + torch.tensor(corrections, dtype=torch.float64)


def _converged(path: Path) -> bool:
    with h5py.File(path) as f:
        return bool(f.attrs["converged"])


def split(reactions: list[Reaction], systems: dict[str, System], seed: int) -> tuple[list[Reaction], list[Reaction]]:
    """Training and validation rows: an eighth of the molecular graphs is kept out of training.

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


#: Exact nonrelativistic energies of neutral atoms, Eh: Chakravorty, Gwaltney, Davidson, Parpia, Froese Fischer,
#: Phys. Rev. A 47, 3649 (1993); Chakravorty, Davidson, J. Phys. Chem. 100, 6167 (1996).
ATOMS = {
    "H": -0.5, "He": -2.903724, "B": -24.65391, "C": -37.8450, "N": -54.5892, "O": -75.0673, "F": -99.7339,
    "Ne": -128.9376, "Si": -289.359, "P": -341.259, "S": -398.110, "Cl": -460.148,
}  # fmt: skip


def loss(errors: torch.Tensor, reactions: list[Reaction]) -> torch.Tensor:
    """Huber loss; a set counts by SET_WEIGHT, whatever its number of rows."""
    terms = torch.nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=HUBER)
    sets = [r.set for r in reactions]
    total = sum(SET_WEIGHT[s] for s in set(sets))
    return terms @ torch.tensor([SET_WEIGHT[s] / sets.count(s) / total for s in sets], dtype=torch.float64)


def train(data: Dataset, inside: list[Reaction], outside: list[Reaction], args: argparse.Namespace) -> NeuralMetaGGA:
    """Adam from the zero correction, then L-BFGS, on all rows at once; returns the best on the validation rows.

    Adam alone rests for thousands of steps on the plateau that L-BFGS leaves within hundreds.
    """
    torch.manual_seed(args.seed)
    functional = NeuralMetaGGA(args.width, args.depth, name=args.out.name)
    parameters = list(functional.parameters())
    best, best_state, validation = float("inf"), copy.deepcopy(functional.state_dict()), float("nan")

    def objective() -> torch.Tensor:
        nonlocal best, best_state, validation
        corrections, size = data.condensed.corrections(functional)
        energies = data.e_r2scan + corrections
        validation = float(loss(data.errors(outside, energies.detach()), outside))
        if validation < best:
            best, best_state = validation, copy.deepcopy(functional.state_dict())
        atoms = data.atom_errors(energies).square().mean()
        decay = sum(p.square().sum() for p in parameters)
        slope = data.condensed.slope(functional) if args.slope_weight else 0.0
        fit = loss(data.errors(inside, energies), inside)
        value = (
            fit + args.size_weight * size + args.slope_weight * slope + args.atom_weight * atoms + args.decay * decay
        )
        for p, grad in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
            p.grad = grad
        return value.detach()

    adam = torch.optim.Adam(parameters, lr=args.rate)
    for _ in range(args.adam_steps):
        objective()
        adam.step()
    print(f"Adam {args.adam_steps:5d} objective {objective():.3f} validation {validation:.3f}", flush=True)
    lbfgs = torch.optim.LBFGS(
        parameters, max_iter=CHUNK, history_size=50, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )
    for done in range(CHUNK, args.steps + 1, CHUNK):
        lbfgs.step(objective)
        print(f"L-BFGS {done:5d} objective {objective():.3f} validation {validation:.3f}, best {best:.3f}", flush=True)
    functional.load_state_dict(best_state)
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
    parser.add_argument("--max-heavy", type=int, default=3)
    parser.add_argument("--adam-steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate of Adam")
    parser.add_argument("--steps", type=int, default=1500, help="iterations of L-BFGS")
    parser.add_argument("--decay", type=float, default=1e-5, help="weight of the squares of all parameters")
    parser.add_argument("--size-weight", type=float, default=5.0)
    parser.add_argument("--slope-weight", type=float, default=0.0)
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
