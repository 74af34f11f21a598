"""Rows with references and the cached densities of their molecules, as training sees them."""

from __future__ import annotations

import random
from pathlib import Path

import h5py
import torch
from pyscf.data import elements
from pyscf.data.nist import HARTREE2J
from scipy.constants import N_A, calorie, kilo

from mlxc.analytic import R2SCAN
from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.neural import NeuralMetaGGA
from mlxc.reference.benchmark import Reaction, System
from mlxc.train.compress import Condensed

KCAL = HARTREE2J * N_A / (kilo * calorie)
#: Exact nonrelativistic energies of neutral atoms, Eh: Chakravorty, Gwaltney, Davidson, Parpia, Froese Fischer,
#: Phys. Rev. A 47, 3649 (1993); Chakravorty, Davidson, J. Phys. Chem. 100, 6167 (1996).
ATOMS = {
    "H": -0.5, "He": -2.903724, "Li": -7.47806, "Be": -14.66736, "B": -24.65391, "C": -37.8450, "N": -54.5892,
    "O": -75.0673, "F": -99.7339, "Ne": -128.9376, "Na": -162.2546, "Mg": -200.053, "Al": -242.346, "Si": -289.359,
    "P": -341.259, "S": -398.110, "Cl": -460.148,
}  # fmt: skip
#: Elements of so few rows that none can be spared for validation.
METALS = frozenset({"Li", "Be", "Na", "Mg", "Al"})


def read_molecule(path: Path) -> tuple[Features, torch.Tensor]:
    """Features and weights (G,) on the grid of a cached molecule."""
    with h5py.File(path) as f:
        features = Features(*(torch.from_numpy(f[k][:]) for k in ("rho", "sigma", "tau", "ex")))
        return features, torch.from_numpy(f["weights"][:])


def correction(functional: Functional, features: Features, weights: torch.Tensor) -> float:
    """E_xc - E_xc^r2SCAN at the fixed density on the full grid, Eh."""
    with torch.no_grad():
        return float(weights @ (functional(features) - R2SCAN()(features)))


class Dataset:
    """Reactions whose molecules are all cached and converged, their total energies and their densities."""

    def __init__(self, reactions: list[Reaction], systems: dict[str, System], cache: Path):
        self.systems = systems
        paths = {systems[i].key: cache / f"{systems[i].key}.h5" for r in reactions for i in r.stoichiometry}
        present = {k for k, p in paths.items() if p.exists() and _attribute(p, "converged")}
        self.reactions = [r for r in reactions if all(systems[i].key in present for i in r.stoichiometry)]
        self.left_out = len(reactions) - len(self.reactions)
        used = sorted({systems[i].key for r in self.reactions for i in r.stoichiometry})
        self.paths = {k: paths[k] for k in used}
        self.index = {k: i for i, k in enumerate(self.paths)}
        self.e_r2scan, self.e_pbe0 = (
            torch.tensor([_attribute(p, k) for p in self.paths.values()], dtype=torch.float64)
            for k in ("e_r2scan", "e_pbe0")
        )

    def condensed(self, family: type[NeuralMetaGGA]) -> Condensed:
        """All molecules on their condensed points, for functionals of this family: minutes of work."""
        return Condensed(family, map(read_molecule, self.paths.values()))

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

    def full_grid(self, functional: Functional) -> torch.Tensor:
        """Total energies at the fixed densities, (M,) Eh, on all points."""
        corrections = [correction(functional, *read_molecule(p)) for p in self.paths.values()]
        return self.e_r2scan + torch.tensor(corrections, dtype=torch.float64)


def _attribute(path: Path, name: str) -> float:
    with h5py.File(path) as f:
        return float(f.attrs[name])


def split(reactions: list[Reaction], systems: dict[str, System], seed: int) -> tuple[list[Reaction], list[Reaction]]:
    """Training and validation rows: an eighth of the molecular graphs is kept out of training.

    Atoms occur in most rows and are always allowed, as are METALS; a row with any kept-out molecule is for validation.
    """

    def may_stay_out(system: System) -> bool:
        return len(system.symbols) > 1 and METALS.isdisjoint(system.symbols)

    members = [systems[i] for r in reactions for i in r.stoichiometry]
    graphs = sorted({s.graph_key for s in members if may_stay_out(s)})
    out = set(random.Random(seed).sample(graphs, len(graphs) // 8))
    inside = [r for r in reactions if not any(systems[i].graph_key in out for i in r.stoichiometry)]
    return inside, [r for r in reactions if r not in inside]
