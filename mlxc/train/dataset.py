"""Rows with references and the species that they consist of, as training sees them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pyscf.data import elements

from mlxc.constraints.fractional import SECOND_ROW, THIRD_ROW, fractional_charges, fractional_spins
from mlxc.errors import InputError
from mlxc.reference import Reference, shipped, store
from mlxc.reference.benchmark import Reaction, System, faults, select, system_of
from mlxc.reference.folders import read_reactions, read_systems
from mlxc.train.cache import ELEMENTS
from mlxc.train.config import Data
from mlxc.units import KCAL

#: Exact nonrelativistic energies of neutral atoms, Eh: Chakravorty, Gwaltney, Davidson, Parpia, Froese Fischer,
#: Phys. Rev. A 47, 3649 (1993); Chakravorty, Davidson, J. Phys. Chem. 100, 6167 (1996).
ATOMS = {
    "H": -0.5, "He": -2.903724, "Li": -7.47806, "Be": -14.66736, "B": -24.65391, "C": -37.8450, "N": -54.5892,
    "O": -75.0673, "F": -99.7339, "Ne": -128.9376, "Na": -162.2546, "Mg": -200.053, "Al": -242.346, "Si": -289.359,
    "P": -341.259, "S": -398.110, "Cl": -460.148,
}  # fmt: skip
#: Elements of so few rows that none can be spared for validation.
METALS = frozenset({"Li", "Be", "Na", "Mg", "Al"})


class Target(NamedTuple):
    """A reference of a self-consistent density.

    species     number of its species
    ionization  its ionization potential, Eh, or None
    turns       whether its density can turn at no cost (`Reference.can_turn`): not to be compared point by point
    """

    species: int
    reference: Reference
    ionization: float | None
    turns: bool


def by_set(sets: list[str], errors: torch.Tensor) -> dict[str, float]:
    """Mean absolute errors of rows, (rows,) in kcal/mol, by the sets that they are of."""
    return {s: round(float(errors[[x == s for x in sets]].abs().mean()), 3) for s in sorted(set(sets))}


class Dataset:
    """Rows, the species that they and the references consist of, and what training may look at.

    species  one System for each key, sorted by it; index: its number by the key
    inside   rows to train on; outside: rows kept out
    weights  of the sets of reactions
    targets  references to train on, `only` some of them where that is given, and none of a graph that is kept out
    spared   number of references that a graph kept out has cost
    """

    def __init__(
        self,
        systems: dict[str, System],
        inside: list[Reaction],
        outside: list[Reaction] | None = None,
        weights: dict[str, float] | None = None,
        references: dict[str, Reference] | None = None,
        only: Collection[str] = (),
    ):
        self.systems, self.inside, self.outside = systems, inside, outside or []
        self.weights = {r.set: 1.0 for r in inside} if weights is None else weights
        out = kept_out(systems, inside, self.outside)
        references = references or {}
        asked = {k: system_of(r) for k, r in references.items() if r.dm1 is not None and (not only or k in only)}
        made = {k: s for k, s in asked.items() if s.graph_key not in out}
        members = [systems[i] for r in (*inside, *self.outside) for i in r.stoichiometry]
        unique = {s.key: s for s in (*made.values(), *members)}
        self.species = [unique[k] for k in sorted(unique)]
        self.index = {s.key: i for i, s in enumerate(self.species)}
        self.targets = [
            Target(
                self.index[s.key],
                references[k],
                ionization_potential(references[k], _beside(k, references)),
                references[k].can_turn(),
            )
            for k, s in made.items()
        ]
        self.spared = len(asked) - len(made)

    def identity(self) -> list[Any]:
        """What makes this data set what it is, for JSON."""
        rows = [[r.set, r.name, sorted(r.stoichiometry.items()), r.ref_kcal] for r in (*self.inside, *self.outside)]
        targets = [
            [
                t.species,
                t.ionization,
                t.reference.energies,
                hashlib.sha256(np.asarray(t.reference.dm1).tobytes()).hexdigest(),
            ]
            for t in self.targets
        ]
        return [[s.key for s in self.species], len(self.inside), rows, targets]

    def kinds(self) -> dict[str, list[Reaction]]:
        """The rows to train on: "reactions", which are those of sets with weights, and conditions by their names."""
        out: dict[str, list[Reaction]] = {}
        for r in self.inside:
            out.setdefault("reactions" if r.set in self.weights else r.set, []).append(r)
        return out

    def matrix(self, rows: list[Reaction]) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients (N, M) of the species in rows, and their reference energies (N,) in kcal/mol."""
        matrix = torch.zeros(len(rows), len(self.species), dtype=torch.float64)
        for line, reaction in zip(matrix, rows, strict=True):
            for i, c in reaction.stoichiometry.items():
                line[self.index[self.systems[i].key]] += c
        return matrix, torch.tensor([r.ref_kcal for r in rows], dtype=torch.float64)

    def errors(self, rows: list[Reaction], energies: torch.Tensor) -> torch.Tensor:
        """Reaction energy minus reference, kcal/mol, (N,), from total energies (M,) in Eh."""
        matrix, references = self.matrix(rows)
        return matrix @ energies * KCAL - references

    def complete(self, rows: list[Reaction], known: torch.Tensor) -> list[Reaction]:
        """The rows all of whose species are known, (M,)."""
        return [r for r in rows if all(known[self.index[self.systems[i].key]] for i in r.stoichiometry)]

    def atom_errors(self, energies: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Errors of total energies (M,) Eh of the neutral atoms that are known, (M,), per electron, kcal/mol.

        In their ground states: excited ones may be among the species too.
        """
        atoms = {s.symbols[0]: i for i, s in enumerate(self.species) if known[i] and _has_exact_energy(s)}
        exact = torch.tensor([ATOMS[a] for a in atoms], dtype=torch.float64)
        charges = torch.tensor([elements.charge(a) for a in atoms])
        return (energies[list(atoms.values())] - exact) * KCAL / charges


def _has_exact_energy(system: System) -> bool:
    """Whether this is a neutral atom of ATOMS in its ground state."""
    if not system.is_atom or system.symbols[0] not in ATOMS:
        return False
    up, down = (SECOND_ROW | THIRD_ROW)[system.symbols[0]]
    return system.multiplicity == up - down + 1


def kept_out(systems: dict[str, System], inside: list[Reaction], outside: list[Reaction]) -> set[str]:
    """Graphs of the rows kept out that no row to train on has, but of those alone that `may_stay_out`."""
    inner, outer = ({systems[i] for r in rows for i in r.stoichiometry} for rows in (inside, outside))
    return {s.graph_key for s in outer if may_stay_out(s)} - {s.graph_key for s in inner}


def may_stay_out(system: System) -> bool:
    """Whether training can do without a species: not without atoms, which are in most rows, and METALS."""
    return len(system.symbols) > 1 and METALS.isdisjoint(system.symbols)


def _beside(name: str, references: dict[str, Reference]) -> dict[str, Reference]:
    """The references of the same file, which are of the same level of theory."""
    file = name.rpartition("/")[0]
    return {k: r for k, r in references.items() if k.rpartition("/")[0] == file}


def ionization_potential(reference: Reference, library: dict[str, Reference]) -> float | None:
    """Energy of the cation at the same geometry minus that of the system, Eh; None where the library lacks it."""
    for other in library.values():
        alike = other.symbols == reference.symbols and np.allclose(other.coords, reference.coords)
        cation = alike and other.charge == reference.charge + 1
        if cation and all("best" in r.energies for r in (other, reference)):
            return other.energies["best"] - reference.energies["best"]
    lone = reference.nelectron == 1 and len(reference.symbols) == 1 and "best" in reference.energies
    return -reference.energies["best"] if lone else None


def training_set(settings: Data, seed: int, losses: Iterable[str]) -> Dataset:
    """What a configuration describes.  Raises InputError where there is nothing to train on, or something is wrong.

    References are called FILE/NAME, of which `only` may give NAME alone.
    """
    systems: dict[str, System] = {}
    inside: list[Reaction] = []
    outside: list[Reaction] = []
    if settings.folder is not None:
        systems = read_systems(settings.folder)
        rows = read_reactions(settings.folder)
        unknown = settings.sets.keys() - {r.set for r in rows}
        if unknown:
            raise InputError(f"{settings.folder} has no set {', '.join(sorted(unknown))}")
        inside, outside = split(_selected(rows, systems, settings), systems, seed, settings.validation)
        if settings.bootstrap:
            # Copies: a row that was drawn twice is two rows, each of which batches draw by itself.
            inside = [replace(r) for r in random.Random(seed).choices(inside, k=len(inside))]
    out = kept_out(systems, inside, outside)
    for name, make in (("fractional_charge", fractional_charges), ("fractional_spin", fractional_spins)):
        if name in losses:
            more, rows = make()
            systems |= more
            inside += [r for r in rows if not any(more[i].graph_key in out for i in r.stoichiometry)]
    references: dict[str, Reference] = {}
    for file in settings.references:
        library = store.read(Path(file)) if Path(file).suffix else shipped.load(str(file))
        named = {f"{Path(file).stem}/{name}": r for name, r in library.items()}
        if named.keys() & references.keys():
            raise InputError(f"two files of references are called {Path(file).stem}: rename one of them")
        references |= named
    called = {name: [k for k in references if name in (k, k.split("/", 1)[1])] for name in settings.only}
    if missing := sorted(name for name, found in called.items() if not found):
        raise InputError(f"no reference is called {', '.join(missing)}")
    only = [k for found in called.values() for k in found]
    if bare := sorted(k for k in only if references[k].dm1 is None):
        raise InputError(f"{', '.join(bare)}: the file has no density of it, and `only` names those to train on")
    if broken := sorted(k for k, r in references.items() if r.fractional and (not only or k in only)):
        raise InputError(
            f"{', '.join(broken)}: densities of fractional electrons are not trained on; name the others in `only`, "
            "and take the losses fractional_charge and fractional_spin"
        )
    if not inside and not references:
        raise InputError(
            "nothing to train on: give [data] a folder and sets of it, or references, or [losses] fractional_charge or "
            "fractional_spin"
        )
    return Dataset(systems, inside, outside, settings.sets, references, only)


def _selected(rows: list[Reaction], systems: dict[str, System], settings: Data) -> list[Reaction]:
    """The rows that the settings ask for.  Raises InputError for a set that has none of them, and for a faulty row."""
    asked = [r for r in rows if r.set in settings.sets and r.role == settings.role]
    used = {i: systems[i] for r in asked for i in r.stoichiometry if i in systems}
    if wrong := faults(used, asked):
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise InputError(f"{settings.folder}: {wrong[0]}{more}; mlxc reference import DIR checks a folder")
    found = select(rows, systems, tuple(settings.sets), settings.role, ELEMENTS, settings.max_heavy)
    for name in settings.sets.keys() - {r.set for r in found}:
        roles = ", ".join(sorted({r.role for r in rows if r.set == name}))
        raise InputError(
            f"{name} has no rows of role {settings.role!r} with at most max_heavy = {settings.max_heavy} heavy atoms, "
            f"all of known elements and in systems.jsonl; it has roles {roles}: change role or max_heavy, or drop it"
        )
    return found


def split(
    reactions: list[Reaction], systems: dict[str, System], seed: int, one_of: int = 8
) -> tuple[list[Reaction], list[Reaction]]:
    """Training and validation rows: one of so many molecular graphs is kept out of training.

    A row with any kept-out molecule is for validation; which are never kept out, `may_stay_out` says.
    """
    members = [systems[i] for r in reactions for i in r.stoichiometry]
    graphs = sorted({s.graph_key for s in members if may_stay_out(s)})
    out = set(random.Random(seed).sample(graphs, len(graphs) // one_of if one_of else 0))
    inside = [r for r in reactions if not any(systems[i].graph_key in out for i in r.stoichiometry)]
    return inside, [r for r in reactions if any(systems[i].graph_key in out for i in r.stoichiometry)]
