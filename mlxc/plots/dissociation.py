"""Curves of four diatomics along their bond, with the spin and symmetry of the molecule, against exact ones.

Both electrons of a bond stay in one orbital and a charge or an unpaired electron stays on both atoms, as in the exact
states: what is wrong far apart is the error of the functional alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import fci, gto, scf
from pyscf.data.nist import BOHR
from scipy.interpolate import PchipInterpolator

from mlxc.errors import ConvergenceError, InputError
from mlxc.geometry import CLOSEST, make_mole
from mlxc.plots import figures
from mlxc.plots.saved import energy, header, listed, subjects
from mlxc.reference import shipped
from mlxc.reference.benchmark import System, make_system
from mlxc.reference.methods import FCI_ORBITALS
from mlxc.units import KCAL


@dataclass(frozen=True)
class Molecule:
    """A diatomic: its two parts (charge, multiplicity), its multiplicity, and distances of its atoms, Angstrom."""

    symbol: str
    parts: tuple[tuple[int, int], tuple[int, int]]
    multiplicity: int
    distances: tuple[float, ...]

    def system(self, distance: float) -> System:
        charge = sum(q for q, _ in self.parts)
        coords = [(0.0, 0.0, 0.0), (0.0, 0.0, float(distance))]
        return make_system(f"R={distance:g}", charge, self.multiplicity, [self.symbol] * 2, coords)

    def part(self, k: int) -> System | None:
        """One of both separate parts; None for a bare proton."""
        charge, multiplicity = self.parts[k]
        if self.symbol == "H" and charge == 1:
            return None
        name = f"{self.symbol}{'+' if charge else ''}"
        return make_system(name, charge, multiplicity, [self.symbol], [(0.0, 0.0, 0.0)])


MOLECULES = {
    "H2+": Molecule("H", ((0, 2), (1, 1)), 2, (0.5, 0.7, 0.9, 1.057, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0)),
    "He2+": Molecule("He", ((0, 1), (1, 2)), 2, (0.7, 0.85, 1.0, 1.081, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)),
    "H2": Molecule(
        "H", ((0, 2), (0, 2)), 1, (0.5, 0.6, 0.7414, 0.9, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0)
    ),
    "N2": Molecule("N", ((0, 4), (0, 4)), 1, (0.9, 1.0, 1.0977, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5, 3.0, 4.0)),
}
#: Energy of N2 against two atoms, kcal/mol: a fit to the curve that Le Roy, Huang and Jary, J. Chem. Phys. 125, 164310
#: (2006), derived from spectra, the N2_LeRoy of github.com/simoneventuri/CoarseAIR.  Beyond about 1.5 Angstrom, where
#: the observed levels end, it is an extrapolation.
N2_SPECTRA = {
    0.9: -119.3, 1: -208.2, 1.0977: -228.3, 1.2: -214.7, 1.3: -186.3, 1.5: -120.5, 1.7: -66.8,
    2: -22.9, 2.5: -3.9, 3: -0.9, 4: -0.1,
}  # fmt: skip


def _full_ci(mol: gto.Mole) -> float:
    """Full CI energy, Eh, of the symmetry of the Hartree-Fock state where `mol` has symmetry, which makes it fast.

    Raises InputError where there are too many orbitals, ConvergenceError.
    """
    if mol.nao > FCI_ORBITALS:
        raise InputError(
            f"full CI of He2+ takes at most {FCI_ORBITALS} basis functions, not {mol.nao}: choose a smaller basis"
        )
    mf = (scf.UHF if mol.nelectron == 1 else scf.ROHF)(mol).run()
    energy, done = mf.e_tot, mf.converged
    if mol.nelectron > 1:
        solver = fci.FCI(mf)
        energy, done = solver.kernel()[0], np.all(solver.converged)
    if not done:
        raise ConvergenceError("full CI of He2+ did not converge: choose other distances or another basis")
    return float(energy)


def exact(name: str, basis: str, along: Sequence[float]) -> list[dict[str, Any]]:
    """Curves to compare with, the first of them the exact one: `label`, `distance_angstrom`, `energy_kcal`.

    Energies are those against the separate parts.  Of He2+ they are computed, at distances `along` and in this basis.
    """
    molecule = MOLECULES[name]
    if name == "He2+":
        pairs = {r: _full_ci(molecule.system(r).mole(basis, symmetry=True)) for r in along}
        parts = sum(_full_ci(s.mole(basis)) for k in (0, 1) if (s := molecule.part(k)))
        values = {r: (e - parts) * KCAL for r, e in pairs.items()}
        return [_curve(f"full CI in the same basis ({basis})", values)]
    if name == "N2":
        atoms = 2 * shipped.load("small")["N"].energies["best"]
        known = [r for f in ("small", "barriers") for r in shipped.load(f).values() if r.symbols == ("N", "N")]
        values = {_distance(r.coords): (r.energies["best"] - atoms) * KCAL for r in known}
        spectra = _curve("from spectra (Le Roy et al. 2006), extrapolated beyond 1.5 Å", N2_SPECTRA)
        return [spectra, _curve("CCSD(T), mlxc reference data", values)]
    file, method = ("one_electron", "exact") if name == "H2+" else ("two_electron", "full CI")
    parts = shipped.load("one_electron")["H"].energies["best"] * (1 if name == "H2+" else 2)
    known = [r for r in shipped.load(file).values() if r.name.startswith(f"{name} R=")]
    values = {_distance(r.coords): (r.energies["best"] - parts) * KCAL for r in known}
    return [_curve(f"{method}, mlxc reference data", values)]


def _distance(coords: np.ndarray) -> float:
    return round(float(np.linalg.norm(coords[1] - coords[0])) * BOHR, 4)


def _curve(label: str, values: dict[float, float]) -> dict[str, Any]:
    order = sorted(values)
    return {"label": label, "distance_angstrom": order, "energy_kcal": [values[r] for r in order]}


def compute(
    name: str, xcs: list[str], basis: str = "def2-tzvppd", distances: Sequence[float] | None = None
) -> dict[str, Any]:
    """Energies of one of MOLECULES against its parts, of the same functional, at distances in Angstrom.

    Raises InputError and its kin for what cannot be done; energies of calculations that do not converge are null.
    """
    if name not in MOLECULES:
        raise InputError(f"curves are drawn of {', '.join(MOLECULES)}, not of {name!r}")
    molecule = MOLECULES[name]
    along = sorted(set(distances or molecule.distances))
    if along[0] < CLOSEST or not np.isfinite(along).all():
        raise InputError(f"distances are Angstrom and at least {CLOSEST:g}, not {along[0]:g}")
    make_mole([(molecule.symbol, (0, 0, 0))], basis)  # refuses an unknown basis before anything is computed
    references = exact(name, basis, along)
    rows = []
    for subject, row in subjects(xcs):
        parts = [molecule.part(k) for k in (0, 1)]
        known = {s: energy(subject, s, basis) for s in parts if s}
        apart = sum(known[s] for s in parts if s)
        energies = [energy(subject, molecule.system(r), basis, symmetry=True) for r in along]
        relative = (np.array(energies) - apart) * KCAL
        row |= {"converged": bool(np.isfinite(relative).all()), "energy_hartree": listed(energies)}
        rows.append(row | {"parts_hartree": listed(apart), "energy_kcal": listed(relative)})
    found = {"molecule": name, "restricted": molecule.multiplicity == 1, "distance_angstrom": along}
    return header("dissociation", basis) | found | {"functionals": rows, "exact": references}


def _smooth(r: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve through the points that are there, monotonic between them: it invents no extremum."""
    there = np.isfinite(e)
    if there.sum() < 3:
        return r[there], e[there]
    fine = np.linspace(r[there][0], r[there][-1], 400)
    return fine, PchipInterpolator(r[there], e[there])(fine)


def draw(content: dict[str, Any]) -> dict[str, Any]:
    """The curves, and the errors of functionals where there is an exact value."""
    figure = figures.figure(7.0, 7.0)
    figure.suptitle(
        f"{content['molecule']} against its parts{', restricted' * content['restricted']}, {content['basis']}"
    )
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    first, *others = content["exact"]
    r_exact, e_exact = (np.array(first[k], dtype=float) for k in ("distance_angstrom", "energy_kcal"))
    upper.plot(*_smooth(r_exact, e_exact), label=first["label"], **figures.EXACT)
    for other in others:
        upper.plot(other["distance_angstrom"], other["energy_kcal"], "ko", fillstyle="none", label=other["label"])
    lower.axhline(0, **figures.EXACT)
    r = np.array(content["distance_angstrom"], dtype=float)
    bottom, top = e_exact.min(), 0.0
    there = dict(zip(r_exact, e_exact, strict=True))
    for k, functional in enumerate(content["functionals"]):
        look = figures.line(k)
        e = np.array(functional["energy_kcal"], dtype=float)
        upper.plot(*_smooth(r, e), label=functional["xc"], **look)
        upper.plot(r, e, "o", color=look["color"], markersize=figures.MARKER)
        lower.plot(
            r,
            [y - there.get(x, np.nan) for x, y in zip(r, e, strict=True)],
            marker="o",
            markersize=figures.MARKER,
            **look,
        )
        bottom = min(bottom, np.nanmin(e, initial=bottom))
        top = max(top, np.nanmax(e[r > r_exact[e_exact.argmin()]], initial=top))
    room = 0.1 * (top - bottom)
    upper.set(ylabel="$E(R) - E(\\mathrm{parts})$, kcal/mol", ylim=(bottom - room, top + 2 * room))
    upper.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    lower.set(xlabel="distance, Å", ylabel="error, kcal/mol")
    upper.legend()
    return {"": figure}
