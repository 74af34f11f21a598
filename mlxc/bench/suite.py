"""What a benchmark asks: systems, reactions and properties from a folder or from reference data, and a choice of them.

Without a folder it is the reference data that come with mlxc, with their best energies: atomization energies of
`small`, ionization energies and electron affinities of `atoms` and `metal_atoms`, dipoles, densities (but those that
can turn, `Reference.can_turn`), and the properties of `data/properties.jsonl`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pyscf.data.elements import ELEMENTS
from pyscf.data.nist import AU2DEBYE

from mlxc.bench.quantities import check, extra_of, group
from mlxc.errors import InputError
from mlxc.reference import Reference, shipped, store
from mlxc.reference.benchmark import Property, Reaction, System, fits, select, system_of
from mlxc.reference.folders import read_benchmark, read_properties
from mlxc.units import KCAL

#: Shipped files that the default benchmark is made of.
FILES = ("small", "atoms", "metal_atoms", "ions", "barriers")
#: Dipoles below (Debye) are zero by symmetry.
POLAR = 1e-6


@dataclass(frozen=True)
class Suite:
    """A benchmark; references : densities to compare with, by the id of the system.

    choice : what `chosen` was asked; whole : the suite that it was asked of
    """

    name: str
    systems: dict[str, System]
    reactions: list[Reaction]
    properties: list[Property]
    references: dict[str, Reference]
    choice: dict[str, Any] = field(default_factory=dict)
    whole: Suite | None = None

    def __post_init__(self) -> None:
        """Raises InputError for a property of a system that is not there, or that is not known or cannot be asked."""
        for p in self.properties:
            if p.id not in self.systems:
                raise InputError(f"{self.name}, {p.set}: no geometry of {p.id}")
            check(p, self.systems[p.id], self.references)

    @property
    def sets(self) -> list[str]:
        """Names of all sets, those of reactions first."""
        return list(dict.fromkeys([*(r.set for r in self.reactions), *(p.set for p in self.properties)]))

    @cached_property
    def available(self) -> Counter[str | tuple[str, str]]:
        """Numbers of rows before any were chosen: by the group of reactions, by set and quantity of properties."""
        suite = self.whole or self
        return Counter([*(r.group for r in suite.reactions), *((p.set, group(p)) for p in suite.properties)])

    def chosen(
        self,
        sets: Iterable[str] = (),
        role: str | None = None,
        elements: Iterable[str] = (),
        max_heavy: int | None = None,
        min_heavy: int = 0,
    ) -> Suite:
        """The rows of these sets and role whose systems are of these elements, the largest of so many heavy atoms.

        By default all sets, without properties that need geometry optimisations: they take far longer than all else.
        Properties have no role, and are left out where one is asked for.  Raises InputError for an unknown set or role,
        and where nothing is left.
        """
        known = {s.lower(): s for s in self.sets}
        if unknown := sorted(s for s in sets if s.lower() not in known):
            raise InputError(f"no set {', '.join(unknown)} in {self.name}. There are {', '.join(self.sets)}")
        named = [known[s.lower()] for s in sets]
        allowed = frozenset(e.capitalize() for e in elements) or None
        if strange := sorted((allowed or frozenset()) - set(ELEMENTS)):
            raise InputError(f"{', '.join(strange)} is not an element")
        roles = {r.role for r in self.reactions}
        if role is not None and role not in roles:
            raise InputError(f"no rows with the role {role!r} in {self.name}: there are {', '.join(sorted(roles))}")

        reactions = [
            r
            for r in select(self.reactions, self.systems, named or known.values(), role, allowed, max_heavy)
            if max(self.systems[i].nheavy for i in r.stoichiometry) >= min_heavy
        ]
        properties = [
            p
            for p in self.properties
            if (p.set in named if named else extra_of(p) != "minimum")
            and role is None
            and fits(self.systems[p.id], allowed, max_heavy)
            and self.systems[p.id].nheavy >= min_heavy
        ]
        if not reactions and not properties:
            raise InputError(f"nothing in {self.name} is of these sets, role, elements and size")
        choice = {
            "sets": named, "role": role, "elements": sorted(allowed or ()),
            "max_heavy": max_heavy, "min_heavy": min_heavy,
        }  # fmt: skip
        choice = {k: v for k, v in choice.items() if v}
        return replace(self, reactions=reactions, properties=properties, choice=choice, whole=self.whole or self)

    def needed(self) -> dict[str, set[str]]:
        """The ids of the systems of all rows, and the extra calculations that these need."""
        found: dict[str, set[str]] = {i: set() for r in self.reactions for i in r.stoichiometry}
        for p in self.properties:
            found.setdefault(p.id, set()).update(filter(None, [extra_of(p)]))
        return found


def load(data: Path | None) -> Suite:
    """The benchmark of a folder (JSON lines or GMTKN55's layout), of a file of reference data, or the shipped one.

    Raises InputError, ReferenceFileError.
    """
    if data is None:
        libraries = {name: shipped.load(name) for name in FILES}
        # Their rows are what mlxc's models were trained on.
        return _of_references("the shipped reference data", libraries, read_properties(shipped.folder()), "train")
    if data.is_file():
        role = "train" if shipped.is_shipped(data) else "dev"
        return _of_references(data.name, {data.stem: store.read(data)}, [], role)
    if not data.exists():
        raise InputError(f"there is no file or folder {data}")
    systems, reactions = read_benchmark(data)
    return Suite(data.resolve().name, systems, reactions, read_properties(data), {})


def _of_references(
    name: str, libraries: dict[str, dict[str, Reference]], properties: list[Property], role: str
) -> Suite:
    whole = ((file, k, r) for file, lib in libraries.items() for k, r in lib.items() if not r.fractional)
    references = {f"{file}/{k}": r for file, k, r in whole if r.converged}
    systems = {i: system_of(r, i) for i, r in references.items()}
    reactions = [row for file in libraries for row in _reactions(file, references, role)]
    densities = [
        Property(f"densities-{i.split('/')[0]}", i, kind, 0.0, "per electron")
        for i, r in references.items()
        if not r.can_turn()
        for kind in ("density_l1", "density_l2")
    ]
    dipoles = [
        Property(f"dipoles-{i.split('/')[0]}", i, "dipole_norm", norm, "debye")
        for i, r in references.items()
        if r.charge == 0 and (norm := float(np.linalg.norm(np.asarray(r.dipole))) * AU2DEBYE) > POLAR
    ]
    return Suite(name, systems, reactions, [*dipoles, *densities, *properties], references)


def _reactions(file: str, references: dict[str, Reference], role: str) -> list[Reaction]:
    """Atomization energies of neutral molecules and ionization energies and affinities of atoms, within one file."""
    best = {i: r.energies["best"] for i, r in references.items() if i.startswith(f"{file}/") and "best" in r.energies}
    atoms = {references[i].symbols[0]: i for i in best if _is_neutral_atom(references[i])}
    found = []
    for i in best:
        r = references[i]
        if _is_neutral_atom(r) or not atoms.keys() >= set(r.symbols):
            continue
        if len(r.symbols) > 1 and r.charge == 0:
            counts = {atoms[s]: r.symbols.count(s) for s in dict.fromkeys(r.symbols)}
            found.append(("atomization", i, {**counts, i: -1}))
        elif len(r.symbols) == 1 and r.charge == 1:
            found.append(("ionization", i, {i: 1, atoms[r.symbols[0]]: -1}))
        elif len(r.symbols) == 1 and r.charge == -1:
            found.append(("affinity", i, {atoms[r.symbols[0]]: 1, i: -1}))
    return [
        Reaction(kind, i.split("/")[1], row, KCAL * sum(c * best[k] for k, c in row.items()), role)
        for kind, i, row in found
    ]


def _is_neutral_atom(r: Reference) -> bool:
    return len(r.symbols) == 1 and r.charge == 0
