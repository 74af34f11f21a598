"""Exact conditions on total energies, as rows like those of a benchmark: reactions that cost nothing.

Between whole numbers of electrons the energy is a straight line (Perdew, Parr, Levy, Balduz, Phys. Rev. Lett. 49, 1691
(1982)), and it is the same for every mixture of the spin states of one multiplet (Cohen, Mori-Sanchez, Yang, Science
321, 792 (2008)).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pyscf.data.elements import charge

from mlxc.geometry import parse_atoms
from mlxc.reference.benchmark import Reaction, System, make_system

FRACTIONAL_CHARGE, FRACTIONAL_SPIN = "fractional charge", "fractional spin"
#: Numbers of electrons of both spins in the ground states of atoms.
SECOND_ROW = {
    "H": (1, 0), "He": (1, 1), "Li": (2, 1), "Be": (2, 2), "B": (3, 2), "C": (4, 2), "N": (5, 2), "O": (5, 3),
    "F": (5, 4), "Ne": (5, 5),
}  # fmt: skip
THIRD_ROW = {
    "Na": (6, 5), "Mg": (6, 6), "Al": (7, 6), "Si": (8, 6), "P": (9, 6), "S": (9, 7), "Cl": (9, 8), "Ar": (9, 9),
}  # fmt: skip
#: Closed-shell molecules: atoms and Cartesian coordinates (Angstrom) near their minima.
MOLECULES = {
    "H2": "H 0 0 0; H 0 0 0.741",
    "LiH": "Li 0 0 0; H 0 0 1.596",
    "HF": "H 0 0 0; F 0 0 0.917",
    "H2O": "O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587",
    "N2": "N 0 0 0; N 0 0 1.098",
}
Occupations = tuple[tuple[float, ...], tuple[float, ...]]


def _species(name: str, atoms: str, up: int, down: int) -> System:
    """The molecule or ion with so many electrons of each spin."""
    symbols, coords = zip(*parse_atoms(atoms), strict=True)
    nuclei = sum(charge(s) for s in symbols)
    return make_system(f"{name} {up} {down}", nuclei - up - down, up - down + 1, symbols, coords)


def _with_part(
    name: str, atoms: str, neutral: tuple[int, int], ion: tuple[int, int], share: float = 0.5
) -> tuple[System, System | None, Occupations]:
    """A molecule, its cation (None without electrons) and the occupations `share` of the way from this to that."""
    cation = _species(name, atoms, *ion) if sum(ion) else None
    return _species(name, atoms, *neutral), cation, occupations_between(ion, neutral, share)


def occupations_between(fewer: tuple[int, int], more: tuple[int, int], share: float) -> Occupations:
    """Occupations of both spins between two numbers of electrons of each, `share` of the way."""
    up, down = ((1.0,) * n + (share,) * (m - n) for n, m in zip(fewer, more, strict=True))
    return up, down


def atom(symbol: str, share: float = 0.5) -> tuple[System, System | None, Occupations]:
    """An atom, its cation, with the ground state of the element before, and occupations `share` of the way from it."""
    states = SECOND_ROW | THIRD_ROW
    before = [(0, 0), *states.values()][list(states).index(symbol)]
    return _with_part(symbol, f"{symbol} 0 0 0", states[symbol], before, share)


def molecule(name: str) -> tuple[System, System | None, Occupations]:
    """The same of one of MOLECULES, which loses an electron of the second spin."""
    pairs = sum(charge(symbol) for symbol, _ in parse_atoms(MOLECULES[name])) // 2
    return _with_part(name, MOLECULES[name], (pairs, pairs), (pairs, pairs - 1))


def _occupied(system: System, name: str, occupations: Occupations) -> System:
    """A system with other occupations; its graph key is that of the atom, so that both stay on one side of a split."""
    return replace(system, id=f"{system.id} {name}", occupations=occupations)


def fractional_charges(
    atoms: Iterable[str] = SECOND_ROW, molecules: Iterable[str] = MOLECULES
) -> tuple[dict[str, System], list[Reaction]]:
    """2 E(N - 1/2) = E(N) + E(N - 1) of atoms and of some of MOLECULES, with their cations."""
    systems: dict[str, System] = {}
    rows = []
    for name, (whole, cation, occupations) in [*((a, atom(a)) for a in atoms), *((m, molecule(m)) for m in molecules)]:
        half = _occupied(whole, "half", occupations)
        members = {half.id: 2, whole.id: -1}
        systems |= {half.id: half, whole.id: whole}
        if cation:
            systems[cation.id] = cation
            members[cation.id] = -1
        rows.append(Reaction(FRACTIONAL_CHARGE, name, members, 0.0, "train"))
    return systems, rows


def fractional_spins(
    atoms: dict[str, tuple[int, int]] = SECOND_ROW,
) -> tuple[dict[str, System], list[Reaction]]:
    """E of open shells with both spins in equal parts = E of the ground state."""
    systems: dict[str, System] = {}
    rows = []
    for symbol, (up, down) in atoms.items():
        if up == down:
            continue
        whole = atom(symbol)[0]
        spin = tuple([1.0] * down + [0.5] * (up - down))
        mixed = _occupied(whole, "mixed", (spin, spin))
        systems |= {mixed.id: mixed, whole.id: whole}
        rows.append(Reaction(FRACTIONAL_SPIN, symbol, {mixed.id: 1, whole.id: -1}, 0.0, "train"))
    return systems, rows
