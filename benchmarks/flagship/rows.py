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

    energies : of the systems by their ids.  `out`/energies.json has them with the keys of the systems, so that another
        geometry is computed anew.
    """

    def __init__(self, name: str, out: Path, energy: Callable[[Atoms, int], float]):
        self.name, self.out, self.energy = name, out, energy
        make_folder(out)
        self.energies: dict[str, float] = {}
        self._file = out / "energies.json"
        self._known: dict[str, float] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._systems: dict[str, System] = {}
        self._reactions: list[Reaction] = []

    def add_system(self, id: str, atoms: Atoms, charge: int, multiplicity: int = 1) -> None:
        """A system, and its energy where that is not known."""
        symbols, coords = zip(*atoms, strict=True)
        system = self._systems[id] = make_system(id, charge, multiplicity, symbols, coords)
        if system.key not in self._known:
            self._known[system.key] = self.energy(atoms, charge)
            write_atomic(self._file, json.dumps(self._known, indent=1) + "\n")
        self.energies[id] = self._known[system.key]

    def add_reaction(self, name: str, stoichiometry: dict[str, int]) -> None:
        """A row to train on, of systems that are there."""
        value = sum(c * self.energies[id] for id, c in stoichiometry.items()) * KCAL
        self._reactions.append(Reaction(self.name, name, stoichiometry, round(value, 3), "train"))
        print(f"{name:20s} {value:8.2f} kcal/mol", flush=True)

    def write(self) -> None:
        """The files of the folder."""
        write_folder(self.out, self._systems, self._reactions)
