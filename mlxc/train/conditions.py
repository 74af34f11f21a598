"""Exact conditions on total energies, as rows like those of a benchmark: reactions that cost nothing.

Between whole numbers of electrons the energy is a straight line (Perdew, Parr, Levy, Balduz, Phys. Rev. Lett. 49, 1691
(1982)), and it is the same for every mixture of the spin states of one multiplet (Cohen, Mori-Sanchez, Yang, Science
321, 792 (2008)).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pyscf.data.elements import charge

from mlxc.reference.benchmark import Reaction, System, make_system

FRACTIONAL_CHARGE, FRACTIONAL_SPIN = "fractional charge", "fractional spin"
#: Numbers of electrons of both spins in the ground states of the atoms H to Ne.
GROUND_STATES = {
    "H": (1, 0), "He": (1, 1), "Li": (2, 1), "Be": (2, 2), "B": (3, 2), "C": (4, 2), "N": (5, 2), "O": (5, 3),
    "F": (5, 4), "Ne": (5, 5),
}  # fmt: skip


#: Closed-shell molecules: atoms and Cartesian coordinates (Angstrom) near their minima.
MOLECULES = {
    "H2": "H 0 0 0; H 0 0 0.741",
    "LiH": "Li 0 0 0; H 0 0 1.596",
    "HF": "H 0 0 0; F 0 0 0.917",
    "H2O": "O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587",
    "N2": "N 0 0 0; N 0 0 1.098",
}


def _species(name: str, atoms: str, up: int, down: int) -> System:
    """The molecule or ion with so many electrons of each spin."""
    words = [line.split() for line in atoms.split(";")]
    symbols = [w[0] for w in words]
    coords = [(float(x), float(y), float(z)) for _, x, y, z in words]
    nuclei = sum(charge(s) for s in symbols)
    return make_system(f"{name} {up} {down}", nuclei - up - down, up - down + 1, symbols, coords)


def _ground_states() -> Iterator[tuple[str, str, int, int]]:
    """Names, atoms and electrons of both spins of all that is asked for straight lines."""
    for symbol, (up, down) in GROUND_STATES.items():
        yield symbol, f"{symbol} 0 0 0", up, down
    for name, atoms in MOLECULES.items():
        pairs = sum(charge(line.split()[0]) for line in atoms.split(";")) // 2
        yield name, atoms, pairs, pairs


def _occupied(system: System, name: str, up: list[float], down: list[float]) -> System:
    """A system with other occupations; its graph key is that of the atom, so that both stay on one side of a split."""
    return replace(system, id=f"{system.id} {name}", occupations=(tuple(up), tuple(down)))


def fractional_charges() -> tuple[dict[str, System], list[Reaction]]:
    """2 E(N - 1/2) = E(N) + E(N - 1) of the atoms H to Ne and MOLECULES, with their cations."""
    systems: dict[str, System] = {}
    rows = []
    for name, atoms, up, down in _ground_states():
        whole = _species(name, atoms, up, down)
        # Hund: closed shells and p shells more than half full lose an electron of the second spin.
        minority = up == down or down > 2
        ion = (up, down - 1) if minority else (up - 1, down)
        occupations = [[1.0] * n for n in (up, down)]
        occupations[minority][-1] = 0.5
        half = _occupied(whole, "half", *occupations)
        members = {half.id: 2, whole.id: -1}
        systems |= {half.id: half, whole.id: whole}
        if sum(ion):
            cation = _species(name, atoms, *ion)
            systems[cation.id] = cation
            members[cation.id] = -1
        rows.append(Reaction(FRACTIONAL_CHARGE, name, members, 0.0, "train"))
    return systems, rows


def fractional_spins() -> tuple[dict[str, System], list[Reaction]]:
    """E of the open shells from H to F with both spins in equal parts = E of the ground state."""
    systems: dict[str, System] = {}
    rows = []
    for symbol, (up, down) in GROUND_STATES.items():
        if up == down:
            continue
        whole = _species(symbol, f"{symbol} 0 0 0", up, down)
        occupations = [1.0] * down + [0.5] * (up - down)
        mixed = _occupied(whole, "mixed", occupations, occupations)
        systems |= {mixed.id: mixed, whole.id: whole}
        rows.append(Reaction(FRACTIONAL_SPIN, symbol, {mixed.id: 1, whole.id: -1}, 0.0, "train"))
    return systems, rows
