"""Electrons that see themselves: energies between whole numbers of electrons, and charges that spread too far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from pyscf.data.nist import HARTREE2EV

from mlxc.constraints.condition import Condition, Curve, Finding, worst
from mlxc.constraints.fractional import (
    MOLECULES,
    SECOND_ROW,
    THIRD_ROW,
    Occupations,
    atom,
    fractional_charges,
    occupations_between,
)
from mlxc.constraints.subject import Subject
from mlxc.geometry import parse_atoms
from mlxc.reference.benchmark import Reaction, System, make_system
from mlxc.units import KCAL

BASIS = "def2-tzvppd"
#: Atoms and molecules with --quick.
QUICK = ("H", "He", "Li", "F")
#: Atoms whose energies between whole numbers are drawn.
DRAWN = ("H", "He", "C", "F")
#: Atoms with bound anions and the atoms that these are like; the electrons added to see the slope above whole numbers.
ANIONS, ADDED = {"Li": "Be", "C": "N", "O": "F", "F": "Ne", "Na": "Mg", "Cl": "Ar"}, 0.01
QUICK_ANIONS = {"Li": "Be", "F": "Ne"}
#: Energy of H-, Eh, and the basis that can hold it (Pekeris, Phys. Rev. 126, 1470 (1962)).
HYDRIDE, HYDRIDE_BASIS = -0.527751, "aug-cc-pvqz"
#: Points along each side of the flat plane.
PLANE, QUICK_PLANE = 11, 5
#: Distance of the halves of He2+ and (H2O)2+, Angstrom.
FAR = 10.0
PPLB = "Perdew, Parr, Levy, Balduz, Phys. Rev. Lett. 49, 1691 (1982)"
FLAT_PLANE = "Mori-Sanchez, Cohen, Yang, Phys. Rev. Lett. 102, 066403 (2009)"


def errors(subject: Subject, systems: dict[str, System], rows: list[Reaction]) -> dict[str, float]:
    """Errors of reactions by name, kcal/mol; nan where an SCF does not converge."""
    return {
        r.name: sum(c * subject.energy(systems[i], BASIS) for i, c in r.stoichiometry.items()) * KCAL - r.ref_kcal
        for r in rows
    }


def _between(subject: Subject, symbol: str) -> Curve:
    """E(N - 1 + x) minus the straight line, kcal/mol."""
    whole, cation, _ = atom(symbol)
    ends = [subject.energy(cation, BASIS) if cation else 0.0, subject.energy(whole, BASIS)]
    x = np.linspace(0, 1, 5)
    y = [0.0]
    for share in x[1:-1].tolist():
        part = replace(whole, id=f"{symbol} {share}", occupations=atom(symbol, share)[2])
        energy = subject.energy(part, BASIS)
        y.append((energy - (1 - share) * ends[0] - share * ends[1]) * KCAL)
    return Curve(symbol, tuple(x), (*y, 0.0))


def _straight(subject: Subject, quick: bool) -> Finding:
    systems, rows = fractional_charges(SECOND_ROW | ({} if quick else THIRD_ROW), {} if quick else MOLECULES)
    rows = [r for r in rows if not quick or r.name in QUICK]
    # The row has 2 E(N - 1/2): half of it is the distance from the line.
    cases = {name: e / 2 for name, e in errors(subject, systems, rows).items()}
    curves = () if quick else tuple(_between(subject, symbol) for symbol in DRAWN)
    return worst(cases, curves=curves, axis="x of E(N - 1 + x) - line, kcal/mol")


def _frontier(subject: Subject, symbol: str, spins: Occupations) -> float:
    """Energy of the orbital of an atom that is occupied last, eV, nan where the SCF does not converge."""
    mf = subject.solve(atom(symbol)[0].mole(BASIS), spins)
    return float(mf.mo_energy[mf.mo_occ > 0].max()) * HARTREE2EV if mf.converged else np.nan


def _jump(subject: Subject, quick: bool) -> Finding:
    states = SECOND_ROW | THIRD_ROW
    cases = {}
    for symbol, following in QUICK_ANIONS.items() if quick else ANIONS.items():
        neutral, anion = states[symbol], states[following]  # of which the anion has as many electrons
        filled, added, whole_anion = (occupations_between(neutral, anion, share) for share in (0.0, ADDED, 1.0))
        whole, cation, _ = atom(symbol)
        more = replace(whole, id=f"{symbol}-", occupations=whole_anion)
        energies = [subject.energy(s, BASIS) if s else 0.0 for s in (cation, whole, more)]
        gap = (energies[0] - 2 * energies[1] + energies[2]) * HARTREE2EV
        cases[symbol] = _frontier(subject, symbol, added) - _frontier(subject, symbol, filled) - gap
    return worst(cases)


def _far_apart(atoms: Iterable) -> list[System]:
    """X, X+ and two X with one charge, FAR apart."""
    symbols, coords = zip(*atoms, strict=True)
    twice = [*coords, *((x + FAR, y, z) for x, y, z in coords)]
    return [
        make_system("X", 0, 1, symbols, coords),
        make_system("X+", 1, 2, symbols, coords),
        make_system("X X+", 1, 2, symbols * 2, twice),
    ]


def _delocalised(subject: Subject, quick: bool) -> Finding:
    cases = {}
    pairs = {"He2+": "He 0 0 0"} | ({} if quick else {"(H2O)2+": MOLECULES["H2O"]})
    for name, atoms in pairs.items():
        one, cation, pair = (subject.energy(s, BASIS, symmetry=True) for s in _far_apart(parse_atoms(atoms)))
        cases[name] = (pair - one - cation) * KCAL
    return worst(cases)


def _plane(subject: Subject, quick: bool) -> Finding:
    points = np.linspace(0, 1, QUICK_PLANE if quick else PLANE)
    whole = atom("H")[0]
    cases = {}
    for i, up in enumerate(points):
        for down in points[: i + 1]:
            n = up + down
            if n == 0:
                continue
            exact = -0.5 * n if n <= 1 else -0.5 + (n - 1) * (HYDRIDE + 0.5)
            spins = ((float(up),), (float(down),) if down else ())
            energy = subject.energy(replace(whole, id=f"H {up} {down}", occupations=spins), HYDRIDE_BASIS)
            cases[f"{up:.2g} {down:.2g}"] = (energy - exact) * KCAL
    return worst(cases, remark=f"mean {np.mean(np.abs(list(cases.values()))):.2f} kcal/mol")


CONDITIONS = (
    Condition(
        "straight line", "self-interaction", "E(N - 1 + x) = (1 - x) E(N - 1) + x E(N)", PPLB,
        "E(N - 1/2) minus the mean of E(N) and E(N - 1), SCF, def2-TZVPPD, H to Ar, H2, LiH, HF, H2O, N2; negative: "
        "electrons spread too far", "kcal/mol", 1.0, _straight,
    ),
    Condition(
        "derivative discontinuity", "self-interaction", "slopes of E(N) jump by IP - EA at whole numbers",
        "Perdew, Levy, Phys. Rev. Lett. 51, 1884 (1983)",
        f"energy of the frontier orbital with {ADDED} electrons more minus that of the highest one, against IP - EA of "
        f"the same functional; {', '.join(ANIONS)}", "eV", 0.1, _jump,
    ),
    Condition(
        "one charge on two molecules", "self-interaction", "E(X ... X+) = E(X) + E(X+)",
        "Zhang, Yang, J. Chem. Phys. 109, 2604 (1998)",
        f"He2+ and (H2O)2+ {FAR:g} Angstrom apart, SCF with symmetry: the charge on both; def2-TZVPPD",
        "kcal/mol", 0.5, _delocalised,
    ),
    Condition(
        "flat plane", "self-interaction", "E(n_a, n_b) of H is two planes that meet where n_a + n_b = 1", FLAT_PLANE,
        f"SCF of n_a, n_b from 0 to 1, {HYDRIDE_BASIS}; largest deviation", "kcal/mol", 1.0, _plane,
    ),
)  # fmt: skip
