"""Benchmarks: systems with geometries, reactions with reference energies (files of them: mlxc.reference.folders)."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass

import networkx
import numpy as np
from pyscf import gto
from pyscf.data.elements import ELEMENTS
from pyscf.data.nist import BOHR
from pyscf.data.radii import COVALENT

from mlxc.geometry import FARTHEST, coinciding, count_electrons, make_mole, spin_is_possible
from mlxc.reference.schema import Reference

#: Atoms closer than so many times the sum of their covalent radii are bonded.
BOND = 1.3


@dataclass(frozen=True)
class System:
    """One molecule: charge, multiplicity 2S + 1, symbols and coordinates (Angstrom).

    `occupations` of the orbitals of both spins, where they are not those of charge and multiplicity
    (`mlxc.scf.fractional`).
    """

    id: str
    charge: int
    multiplicity: int
    symbols: tuple[str, ...]
    coords: tuple[tuple[float, float, float], ...]
    nheavy: int
    graph_key: str
    occupations: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def key(self) -> str:
        """Hash of what an SCF calculation depends on: equal for one geometry that occurs in several sets.

        Coordinates count to 1e-8 Angstrom, which a change of units does not reach.
        """
        fractional = [self.occupations] if self.occupations else []
        coords = [[round(x, 8) + 0.0 for x in atom] for atom in self.coords]
        content = json.dumps([self.charge, self.multiplicity, self.symbols, coords, *fractional])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def is_atom(self) -> bool:
        """Whether this is a neutral atom."""
        return len(self.symbols) == 1 and self.charge == 0 and self.occupations is None

    def mole(self, basis: str, symmetry: bool = False) -> gto.Mole:
        """The PySCF molecule in the given basis, `symmetry` as there, as `mlxc.geometry.make_mole`."""
        atoms = zip(self.symbols, self.coords, strict=True)
        return make_mole(atoms, basis, self.charge, self.multiplicity - 1, symmetry)


@dataclass(frozen=True)
class Reaction:
    """One reference energy: ref_kcal = sum(coefficient * E(system)), kcal/mol."""

    set: str
    name: str
    stoichiometry: dict[str, int]
    ref_kcal: float
    role: str
    seen_in_training: bool = False

    @property
    def group(self) -> str:
        """The set under which it is averaged: rows whose molecules all occur in training rows are apart."""
        return f"{self.set} (seen in training)" if self.seen_in_training else self.set


@dataclass(frozen=True)
class Property:
    """One reference value of one system; `property` says what it is and `unit` its unit (mlxc.bench.quantities)."""

    set: str
    id: str
    property: str
    value: float
    unit: str


def graph_key(symbols: Iterable[str], coords: Iterable, charge: int, multiplicity: int) -> str:
    """formula|charge|multiplicity|hash of the graph of bonds, which conformers share and isomers do not.

    coords : (natm, 3) in Angstrom.  The hash is Weisfeiler and Lehman's.
    """
    symbols, coords = list(symbols), np.array(list(coords), dtype=float)
    radii = BOHR * np.array([COVALENT[ELEMENTS.index(s)] for s in symbols])
    graph = networkx.Graph()
    graph.add_nodes_from((i, {"symbol": s}) for i, s in enumerate(symbols))
    distances = np.linalg.norm(coords[:, None] - coords, axis=-1)
    graph.add_edges_from(np.argwhere(np.triu(distances < BOND * (radii[:, None] + radii), 1)).tolist())
    counts = Counter(symbols)
    first = [s for s in ("C", "H") if "C" in counts and s in counts]
    formula = "".join(f"{s}{counts[s] if counts[s] > 1 else ''}" for s in first + sorted(counts.keys() - set(first)))
    bonds = networkx.weisfeiler_lehman_graph_hash(graph, node_attr="symbol")
    return f"{formula}|{charge}|{multiplicity}|{bonds[:8]}"


def make_system(
    id: str, charge: int, multiplicity: int, symbols: Iterable[str], coords: Iterable[tuple[float, float, float]]
) -> System:
    """A system, with nheavy and graph_key worked out.  Raises ValueError for what is no element."""
    symbols, coords = tuple(symbols), tuple(coords)
    nheavy = sum(s != "H" for s in symbols)
    return System(id, charge, multiplicity, symbols, coords, nheavy, graph_key(symbols, coords, charge, multiplicity))


def system_of(reference: Reference, id: str = "") -> System:
    """The system of a reference, by its name where no id is given."""
    coords = [(float(x), float(y), float(z)) for x, y, z in reference.coords * BOHR]
    return make_system(id or reference.name, reference.charge, reference.spin + 1, reference.symbols, coords)


def faults(systems: dict[str, System], reactions: list[Reaction]) -> list[str]:
    """What is wrong with a benchmark, one line each: impossible systems, unknown species, nuclei out of balance."""
    found = [f"{s.id}: {why}" for s in systems.values() if (why := _system_fault(s))]
    for r in reactions:
        unknown = [i for i in r.stoichiometry if i not in systems]
        nuclei: Counter[str] = Counter()
        for i, c in r.stoichiometry.items():
            for symbol in systems[i].symbols if i in systems else ():
                nuclei[symbol] += c
        unbalanced = sorted(s for s, n in nuclei.items() if n and not (s == "H" and _only_protons(r, systems, n)))
        if unknown:
            found.append(f"{r.set} {r.name}: no geometry of {', '.join(unknown)}")
        elif unbalanced:
            found.append(f"{r.set} {r.name}: nuclei of {', '.join(unbalanced)} on one side only")
        if not math.isfinite(r.ref_kcal):
            found.append(f"{r.set} {r.name}: the reference energy is {r.ref_kcal}")
    return found


def _only_protons(reaction: Reaction, systems: dict[str, System], hydrogens: int) -> bool:
    """Whether the hydrogens missing on one side are bare protons, which have no energy and are not listed."""
    charge = sum(c * systems[i].charge for i, c in reaction.stoichiometry.items() if i in systems)
    lone = [systems[i].symbols for i in reaction.stoichiometry if i in systems]
    return hydrogens == charge or lone == [("H",)]  # the latter: ionisation of the atom


def _system_fault(system: System) -> str:
    unknown = sorted(set(system.symbols) - set(ELEMENTS[1:]))
    if unknown or not system.symbols:
        return f"{', '.join(unknown) or 'nothing'} is not an element"
    if [len(x) for x in system.coords] != [3] * len(system.symbols) or not np.isfinite(system.coords).all():
        return "its coordinates are not three numbers for each atom"
    if np.abs(system.coords).max() > FARTHEST:
        return f"an atom is more than {FARTHEST:.0e} Angstrom from the origin"
    if coinciding(system.coords):
        return "two atoms lie on top of each other"
    electrons = count_electrons(system.symbols, system.charge)
    if not electrons or not spin_is_possible(electrons, system.multiplicity - 1):
        return f"{electrons} electrons cannot have multiplicity {system.multiplicity}"
    return ""


def select(
    reactions: list[Reaction],
    systems: dict[str, System],
    sets: Container[str],
    role: str | None,
    elements: frozenset[str] | None,
    max_heavy: int | None,
) -> list[Reaction]:
    """The reactions of these sets and role (None: any) whose every molecule is known and `fits`."""

    def possible(reaction: Reaction) -> bool:
        members = [systems.get(i) for i in reaction.stoichiometry]
        return all(m is not None and fits(m, elements, max_heavy) for m in members)

    return [r for r in reactions if r.set in sets and role in (None, r.role) and possible(r)]


def fits(system: System, elements: frozenset[str] | None, max_heavy: int | None) -> bool:
    """Whether a system is made of these elements and has at most so many heavy atoms (None: any)."""
    small = max_heavy is None or system.nheavy <= max_heavy
    return small and (elements is None or elements.issuperset(system.symbols))
