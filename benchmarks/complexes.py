"""Geometries of noncovalent complexes: rigid monomers, placed by hand near the minimum, which they need not be.

Monomers have experimental equilibrium structures (Huber, Herzberg (1979); Herzberg, Electronic Spectra of Polyatomic
Molecules (1966)).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

Atoms = list[tuple[str, list[float]]]
RARE_GASES = ("Ne", "Ar")


def _top(symbol: str, bond: float, angle: float, hydrogens: int) -> Atoms:
    """XHn, X at the origin, the bonds at `angle` (degrees) from the axis +z; the first of them in the half plane +y."""
    polar, azimuths = np.radians(angle), 2 * np.pi * np.arange(hydrogens) / hydrogens
    directions = [(np.sin(polar) * np.sin(a), np.sin(polar) * np.cos(a), np.cos(polar)) for a in azimuths]
    return [(symbol, [0.0, 0.0, 0.0]), *(("H", [float(bond * x) for x in d]) for d in directions)]


def _line(*places: tuple[str, float]) -> Atoms:
    """Atoms along z."""
    return [(symbol, [0.0, 0.0, z]) for symbol, z in places]


#: Angstrom.  Rare gases at, and linear molecules along z through, the origin.
MONOMERS: dict[str, Atoms] = {
    **{symbol: _line((symbol, 0.0)) for symbol in RARE_GASES},
    "H2": _line(("H", 0.3707), ("H", -0.3707)),
    "N2": _line(("N", 0.5488), ("N", -0.5488)),
    "CO": _line(("C", 0.0), ("O", -1.1283)),
    "HCN": _line(("N", 0.0), ("C", -1.1530), ("H", -2.2187)),
    "Cl2": _line(("Cl", 0.0), ("Cl", 1.9879)),
    "HF": _top("F", 0.9168, 0, 1),
    "HCl": _top("Cl", 1.2746, 0, 1),
    "H2O": _top("O", 0.9572, 104.52 / 2, 2),
    "H2S": _top("S", 1.3356, 92.11 / 2, 2),
    "NH3": _top("N", 1.0116, 67.88, 3),
    "CH4": [*_top("C", 1.0870, 109.4712, 3), ("H", [0.0, 0.0, 1.0870])],
    "C2H2": _line(("C", 0.6013), ("C", -0.6013), ("H", 1.6634), ("H", -1.6634)),
    # C=C along x, plane xz
    "C2H4": [
        *(("C", [x, 0.0, 0.0]) for x in (0.6654, -0.6654)),
        *(("H", [x, 0.0, z]) for x in (1.2293, -1.2293) for z in (0.9220, -0.9220)),
    ],
}
#: What the distance of a complex is multiplied with.
NEAR, FAR, THREE = (1.0,), (1.0, 1.2), (1.0, 1.2, 0.9)
#: Monomer and its turns about fixed axes in degrees, the same of the other, which lies at the distance (Angstrom) on
#: +z, and the multiples of the distance.
COMPLEXES: dict[str, tuple[str, str, str, str, float, tuple[float, ...]]] = {
    "Ne2": ("Ne", "", "Ne", "", 3.09, THREE),
    "Ne-Ar": ("Ne", "", "Ar", "", 3.49, FAR),
    "Ar2": ("Ar", "", "Ar", "", 3.76, THREE),
    "Ar-HF": ("Ar", "", "HF", "x180", 3.45, NEAR),
    "(HF)2": ("HF", "x7", "HF", "x-68", 2.74, THREE),
    "Ne-CH4": ("Ne", "", "CH4", "", 3.50, FAR),
    "Ar-CH4": ("Ar", "", "CH4", "", 3.75, FAR),
    "(HCl)2": ("HCl", "x9", "HCl", "x-90", 3.80, FAR),
    "(H2O)2": ("H2O", "x52.26", "H2O", "z90 x-57", 2.91, THREE),
    "(H2S)2": ("H2S", "x46.06", "H2S", "z90 x-80", 4.10, FAR),
    "C2H4-HF": ("C2H4", "x90", "HF", "x180", 3.10, NEAR),
    "(NH3)2": ("NH3", "x67.88", "NH3", "", 3.28, FAR),
    "H2O-CH4": ("CH4", "y180", "H2O", "x232.26", 3.52, NEAR),
    "(CH4)2": ("CH4", "x180", "CH4", "", 3.63, THREE),
    "(H2)2": ("H2", "x90", "H2", "", 3.40, THREE),
    "Ne-H2": ("Ne", "", "H2", "", 3.30, NEAR),
    "Ar-HCl": ("Ar", "", "HCl", "x180", 4.00, NEAR),
    "Ar-H2O": ("Ar", "", "H2O", "x232.26", 3.65, NEAR),
    "Ar-NH3": ("Ar", "", "NH3", "x90", 3.75, NEAR),
    "Ar-N2": ("N2", "x90", "Ar", "", 3.70, FAR),
    "(N2)2": ("N2", "x90", "N2", "", 4.10, NEAR),
    "CO-HF": ("CO", "", "HF", "x180", 3.05, NEAR),
    "H2O-HF": ("H2O", "x135", "HF", "x180", 2.67, FAR),
    "NH3-HF": ("NH3", "x180", "HF", "x180", 2.70, FAR),
    "H2S-HF": ("H2S", "y90", "HF", "x180", 3.25, NEAR),
    "HCN-HF": ("HCN", "", "HF", "x180", 2.82, NEAR),
    "H2O-HCl": ("H2O", "x135", "HCl", "x180", 3.20, NEAR),
    "NH3-HCl": ("NH3", "x180", "HCl", "x180", 3.15, NEAR),
    "NH3-H2O": ("NH3", "x180", "H2O", "x232.26", 2.97, FAR),
    "(NH3)2 ring": ("NH3", "x26", "NH3", "x206", 3.25, NEAR),
    "H2S-H2O": ("H2S", "y90", "H2O", "x232.26", 3.50, NEAR),
    "C2H2-HF": ("C2H2", "x90", "HF", "x180", 3.10, NEAR),
    "H2O-C2H2": ("C2H2", "", "H2O", "", 3.85, NEAR),
    "H2O-HCN": ("H2O", "x180", "HCN", "", 4.32, NEAR),
    "(HCN)2": ("HCN", "", "HCN", "", 4.45, NEAR),
    "CH4-HF": ("CH4", "x180", "HF", "x180", 3.20, NEAR),
    "CH4-NH3": ("CH4", "", "NH3", "", 3.70, NEAR),
    "C2H4-H2O": ("C2H4", "x90", "H2O", "x232.26", 3.35, NEAR),
    "H2O-Cl2": ("H2O", "x135", "Cl2", "", 2.85, NEAR),
    "NH3-Cl2": ("NH3", "x180", "Cl2", "", 2.75, NEAR),
}


def turned(name: str, turns: str, distance: float = 0.0) -> Atoms:
    """A monomer turned, as in "z90 x-57", and moved along z; coordinates to 1e-6 Angstrom."""
    symbols, coords = zip(*MONOMERS[name], strict=True)
    positions = np.array(coords)
    for turn in turns.split():
        positions = Rotation.from_euler(turn[0], float(turn[1:]), degrees=True).apply(positions)
    positions = np.round(positions + np.array([0, 0, distance]), 6) + 0.0  # no negative zeros
    return list(zip(symbols, positions.tolist(), strict=True))


def complexes() -> dict[str, tuple[Atoms, Atoms]]:
    """Both monomers of each complex."""
    found = {}
    for name, (a, turns_a, b, turns_b, distance, factors) in COMPLEXES.items():
        for factor in factors:
            label = name if factor == 1 else f"{name} x{factor}"
            found[label] = turned(a, turns_a), turned(b, turns_b, factor * distance)
    return found
