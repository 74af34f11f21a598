"""Rows of a benchmark folder from energies that take long: each is kept as soon as it is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mlxc.files import make_folder, write_atomic
from mlxc.reference.benchmark import Reaction, System, make_system
from mlxc.reference.folders import write_folder
from mlxc.units import KCAL

#: Symbols and coordinates in Angstrom.
Atoms = list[tuple[str, tuple[float, float, float]]]


class Rows:
    """Reactions of one set in the making; `energy` takes atoms and a charge and gives Eh.

    energies : those that are there by the ids of their systems, in `out`/energies.json
    """

    def __init__(self, name: str, out: Path, energy: Callable[[Atoms, int], float]):
        self.name, self.out, self.energy = name, out, energy
        make_folder(out)
        self._done = out / "energies.json"
        self.energies: dict[str, float] = json.loads(self._done.read_text()) if self._done.exists() else {}
        self._systems: dict[str, System] = {}
        self._reactions: list[Reaction] = []

    def add_system(self, id: str, atoms: Atoms, charge: int, multiplicity: int = 1) -> None:
        """A system, and its energy where that is not known."""
        symbols, coords = zip(*atoms, strict=True)
        self._systems[id] = make_system(id, charge, multiplicity, symbols, coords)
        if id not in self.energies:
            self.energies[id] = self.energy(atoms, charge)
            write_atomic(self._done, json.dumps(self.energies, indent=1) + "\n")

    def add_reaction(self, name: str, stoichiometry: dict[str, int]) -> None:
        """A row to train on, of systems that are there."""
        value = sum(c * self.energies[id] for id, c in stoichiometry.items()) * KCAL
        self._reactions.append(Reaction(self.name, name, stoichiometry, round(value, 3), "train"))
        print(f"{name:20s} {value:8.2f} kcal/mol", flush=True)

    def write(self) -> None:
        """The files of the folder."""
        write_folder(self.out, self._systems, self._reactions)
