"""Benchmark folders of JSON lines: systems with geometries, reactions with reference energies.

`systems.jsonl` rows have id, charge, multiplicity, symbols, coords_angstrom, nheavy, graph_key;
`reactions.jsonl` rows have set, name, stoichiometry {id: coefficient}, ref_kcal = sum(coefficient * E), role.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pyscf import gto

from mlxc.errors import InputError


@dataclass(frozen=True)
class System:
    """One molecule: charge, multiplicity 2S + 1, symbols and coordinates (Angstrom)."""

    id: str
    charge: int
    multiplicity: int
    symbols: tuple[str, ...]
    coords: tuple[tuple[float, float, float], ...]
    nheavy: int
    graph_key: str

    @property
    def key(self) -> str:
        """Hash of what an SCF calculation depends on: equal for one geometry that occurs in several sets."""
        content = json.dumps([self.charge, self.multiplicity, self.symbols, self.coords])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def is_atom(self) -> bool:
        """Whether this is a neutral atom."""
        return len(self.symbols) == 1 and self.charge == 0

    def mole(self, basis: str) -> gto.Mole:
        """The PySCF molecule in the given basis."""
        atoms = list(zip(self.symbols, self.coords, strict=True))
        return gto.M(atom=atoms, basis=basis, charge=self.charge, spin=self.multiplicity - 1, verbose=0)


@dataclass(frozen=True)
class Reaction:
    """One reference energy: ref_kcal = sum(coefficient * E(system)), kcal/mol."""

    set: str
    name: str
    stoichiometry: dict[str, int]
    ref_kcal: float
    role: str
    seen_in_training: bool = False


def _rows(path: Path) -> list[dict]:
    try:
        lines = path.read_text().splitlines()
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}; give the folder that holds it") from err
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except json.JSONDecodeError as err:
        raise InputError(f"{path} is not JSON lines: {err}") from err


def read_systems(folder: Path) -> dict[str, System]:
    """All systems of a folder by id.  Raises InputError where the file is missing or broken."""
    return {
        r["id"]: System(
            r["id"],
            r["charge"],
            r["multiplicity"],
            tuple(r["symbols"]),
            tuple(tuple(x) for x in r["coords_angstrom"]),
            r["nheavy"],
            r["graph_key"],
        )
        for r in _rows(Path(folder) / "systems.jsonl")
    }


def read_reactions(folder: Path) -> list[Reaction]:
    """All reactions of a folder.  Raises InputError where the file is missing or broken."""
    return [
        Reaction(r["set"], r["name"], r["stoichiometry"], r["ref_kcal"], r["role"], r.get("seen_in_training", False))
        for r in _rows(Path(folder) / "reactions.jsonl")
    ]


def select(
    reactions: list[Reaction],
    systems: dict[str, System],
    sets: tuple[str, ...],
    role: str,
    elements: frozenset[str],
    max_heavy: int,
) -> list[Reaction]:
    """The reactions of these sets and role whose every molecule is known, small enough and made of these elements."""

    def fits(reaction: Reaction) -> bool:
        members = [systems.get(i) for i in reaction.stoichiometry]
        return all(m is not None and m.nheavy <= max_heavy and elements.issuperset(m.symbols) for m in members)

    return [r for r in reactions if r.set in sets and r.role == role and fits(r)]
