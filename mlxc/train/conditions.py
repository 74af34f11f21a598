"""Exact conditions on total energies, as rows like those of a benchmark: reactions that cost nothing.

Between whole numbers of electrons the energy is a straight line (Perdew, Parr, Levy, Balduz, Phys. Rev. Lett. 49, 1691
(1982)), and it is the same for every mixture of the spin states of one multiplet (Cohen, Mori-Sanchez, Yang, Science
321, 792 (2008)).
"""

from __future__ import annotations

from dataclasses import replace

from pyscf.data.elements import charge

from mlxc.reference.benchmark import Reaction, System, make_system

FRACTIONAL_CHARGE, FRACTIONAL_SPIN = "fractional charge", "fractional spin"
#: Numbers of electrons of both spins in the ground states of the atoms H to Ne.
GROUND_STATES = {
    "H": (1, 0), "He": (1, 1), "Li": (2, 1), "Be": (2, 2), "B": (3, 2), "C": (4, 2), "N": (5, 2), "O": (5, 3),
    "F": (5, 4), "Ne": (5, 5),
}  # fmt: skip


def _atom(symbol: str, up: int, down: int) -> System:
    """The atom or ion with so many electrons of each spin."""
    return make_system(
        f"{symbol} {up} {down}", charge(symbol) - up - down, up - down + 1, (symbol,), ((0.0, 0.0, 0.0),)
    )


def _occupied(system: System, name: str, up: list[float], down: list[float]) -> System:
    """A system with other occupations; its graph key is that of the atom, so that both stay on one side of a split."""
    return replace(system, id=f"{system.id} {name}", occupations=(tuple(up), tuple(down)))


def fractional_charges() -> tuple[dict[str, System], list[Reaction]]:
    """2 E(N - 1/2) = E(N) + E(N - 1) of the atoms H to Ne and their cations."""
    systems: dict[str, System] = {}
    rows = []
    for symbol, (up, down) in GROUND_STATES.items():
        whole = _atom(symbol, up, down)
        # Hund: closed shells and p shells more than half full lose an electron of the second spin.
        minority = up == down or down > 2
        ion = (up, down - 1) if minority else (up - 1, down)
        occupations = [[1.0] * n for n in (up, down)]
        occupations[minority][-1] = 0.5
        half = _occupied(whole, "half", *occupations)
        members = {half.id: 2, whole.id: -1}
        systems |= {half.id: half, whole.id: whole}
        if sum(ion):
            cation = _atom(symbol, *ion)
            systems[cation.id] = cation
            members[cation.id] = -1
        rows.append(Reaction(FRACTIONAL_CHARGE, symbol, members, 0.0, "train"))
    return systems, rows


def fractional_spins() -> tuple[dict[str, System], list[Reaction]]:
    """E of the open shells from H to F with both spins in equal parts = E of the ground state."""
    systems: dict[str, System] = {}
    rows = []
    for symbol, (up, down) in GROUND_STATES.items():
        if up == down:
            continue
        whole = _atom(symbol, up, down)
        occupations = [1.0] * down + [0.5] * (up - down)
        mixed = _occupied(whole, "mixed", occupations, occupations)
        systems |= {mixed.id: mixed, whole.id: whole}
        rows.append(Reaction(FRACTIONAL_SPIN, symbol, {mixed.id: 1, whole.id: -1}, 0.0, "train"))
    return systems, rows
