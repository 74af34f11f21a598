"""What a benchmark compares besides reaction energies: properties of one species, by the names of reference rows.

dipole_norm (debye), dipole_x, dipole_y, dipole_z (e*bohr)
ip_vertical_ev_expt, ip_adiabatic_ev_expt (eV): minus the energy of the highest occupied orbital
polarizability (bohr^3): isotropic
density_l1, density_l2 (per electron): int |n - n_ref| / N and (int |n - n_ref|^2)^1/2 / N
bond_I_J (angstrom), angle_I_J_K (degree), frequency_K (1/cm, harmonic, ascending): at the minimum; atoms from 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf.data.elements import COMMON_ISOTOPE_MASSES, charge
from pyscf.data.nist import AU2DEBYE, BOHR, HARTREE2EV
from pyscf.hessian import thermo
from pyscf.scf import uhf

from mlxc.errors import InputError
from mlxc.harmonic import hessian
from mlxc.ongrid import spin_densities
from mlxc.optimization import optimize
from mlxc.properties import polarizability
from mlxc.reference.benchmark import Property, System
from mlxc.reference.schema import Reference
from mlxc.scf import solved

Result = dict[str, Any]


@dataclass(frozen=True)
class Calculation:
    """A converged calculation, and what extra calculations start from.

    fresh : molecule -> a calculation with the same settings that has not been run and shares nothing with `mf`
    references : densities to compare with, by their ids
    """

    mf: Any
    fresh: Callable[[Any], Any]
    references: dict[str, Reference]

    def again(self, mol: Any) -> Any:
        """The same calculation of a molecule, carried to convergence from the density that is there.

        Raises ConvergenceError.
        """
        mf = self.fresh(mol)
        if isinstance(self.mf, uhf.UHF) and not isinstance(mf, uhf.UHF):  # of broken symmetry
            mf = mf.to_uks()
        return solved(mf, self.mf.make_rdm1())


def _polarizability(c: Calculation) -> Result:
    return {"polarizability": float(np.trace(polarizability(c.mf)) / 3)}


def _density(c: Calculation) -> Result:
    """Errors by the id of the reference."""
    mf, grids, ni = c.mf, c.mf.grids, c.mf._numint
    dms = spin_densities(mf)
    own = ni.get_rho(mf.mol, dms.sum(0) * (3 - len(dms)), grids, mf.max_memory)
    found = {}
    for id, reference in c.references.items():
        theirs = ni.get_rho(reference.mole(), np.asarray(reference.dm1).sum(0), grids, mf.max_memory)
        first = float(grids.weights @ abs(own - theirs)) / mf.mol.nelectron
        second = math.sqrt(grids.weights @ (own - theirs) ** 2) / mf.mol.nelectron
        found[id] = {"density_l1": first, "density_l2": second}
    return {"densities": found}


def _minimum(c: Calculation) -> Result:
    """Coordinates and frequencies of the nearest minimum, of the commonest isotopes, as those of experiment are."""
    mol, done = optimize(c.again(c.mf.mol))
    if not done:
        raise InputError("the geometry did not converge")
    masses = np.array([COMMON_ISOTOPE_MASSES[charge(mol.atom_pure_symbol(i))] for i in range(mol.natm)])
    found = thermo.harmonic_analysis(mol, hessian(c.again(mol)), imaginary_freq=False, mass=masses)
    waves = found["freq_wavenumber"]
    return {"coords_angstrom": (mol.atom_coords() * BOHR).tolist(), "frequencies_cm": sorted(map(float, waves))}


#: Calculations beyond the energy, which a species has to go through for some quantities.
EXTRAS: dict[str, Callable[[Calculation], Result]] = {
    "polarizability": _polarizability,
    "density": _density,
    "minimum": _minimum,
}


@dataclass(frozen=True)
class Quantity:
    """How a quantity follows from a result: (result, id, numbers) -> value, in `unit`.

    extra : calculation that it needs; numbers : how many of atoms or vibrations its name ends with
    """

    unit: str
    of: Callable[[Result, str, list[int]], float]
    extra: str | None = None
    numbers: int = 0


def _dipole(axis: int) -> Quantity:
    return Quantity("e*bohr", lambda r, *_: r["dipole_debye"][axis] / AU2DEBYE)


def _angle(result: Result, _: str, atoms: list[int]) -> float:
    i, j, k = (np.array(result["coords_angstrom"][a - 1]) for a in atoms)
    u, v = i - j, k - j
    return math.degrees(math.acos(np.clip(u @ v / math.sqrt((u @ u) * (v @ v)), -1, 1)))


_IONIZATION = Quantity("eV", lambda r, *_: -r["homo_hartree"] * HARTREE2EV)
#: By their names without the numbers at the end.
QUANTITIES = {
    "dipole_norm": Quantity("debye", lambda r, *_: float(np.linalg.norm(r["dipole_debye"]))),
    "dipole_x": _dipole(0),
    "dipole_y": _dipole(1),
    "dipole_z": _dipole(2),
    "ip_vertical_ev_expt": _IONIZATION,
    "ip_adiabatic_ev_expt": _IONIZATION,
    "polarizability": Quantity("bohr^3", lambda r, *_: r["polarizability"], "polarizability"),
    "density_l1": Quantity("per electron", lambda r, id, _: r["densities"][id]["density_l1"], "density"),
    "density_l2": Quantity("per electron", lambda r, id, _: r["densities"][id]["density_l2"], "density"),
    "bond": Quantity(
        "angstrom", lambda r, _, a: math.dist(*(r["coords_angstrom"][i - 1] for i in a)), "minimum", numbers=2
    ),
    "angle": Quantity("degree", _angle, "minimum", numbers=3),
    "frequency": Quantity("1/cm", lambda r, _, k: r["frequencies_cm"][k[0] - 1], "minimum", numbers=1),
}


def _parsed(row: Property) -> tuple[str, list[int]]:
    """Name and numbers of a quantity."""
    words = row.property.split("_")
    numbers = [w for w in words if w.isdecimal()]
    return "_".join(w for w in words if not w.isdecimal()), [int(n) for n in numbers]


def check(row: Property, system: System, references: Container[str]) -> None:
    """InputError for a row whose quantity is unknown, in another unit, of absent atoms, or without density."""
    name, numbers = _parsed(row)
    if name not in QUANTITIES:
        raise InputError(f"{row.set}: no quantity {row.property!r}. There are {', '.join(QUANTITIES)}")
    quantity = QUANTITIES[name]
    if row.unit != quantity.unit:
        raise InputError(f"{row.set}: {row.property} is in {quantity.unit}, not {row.unit}")
    most = 3 * len(system.symbols) if name == "frequency" else len(system.symbols)
    if len(numbers) != quantity.numbers or not all(1 <= n <= most for n in numbers):
        raise InputError(f"{row.set}, {row.id}: {row.property} does not name {quantity.numbers} of {most}")
    if quantity.extra == "density" and row.id not in references:
        raise InputError(f"{row.set}, {row.id}: density errors are for reference data, .h5")


def extra_of(row: Property) -> str | None:
    """Which of EXTRAS a row needs, None for one that the energy calculation gives."""
    return QUANTITIES[_parsed(row)[0]].extra


def group(row: Property) -> str:
    """The name under which a row is averaged: that of its quantity, components of dipoles together."""
    name = _parsed(row)[0]
    return "dipole components" if name in ("dipole_x", "dipole_y", "dipole_z") else name


def value(row: Property, result: Result) -> float | None:
    """What a species' result says of a row, in its unit; None where a calculation has failed."""
    name, numbers = _parsed(row)
    try:
        return QUANTITIES[name].of(result, row.id, numbers)
    except LookupError:
        return None


def error(row: Property, found: float) -> float:
    """Found minus reference; of dipoles as Hait and Head-Gordon define it, in percent.

    J. Chem. Theory Comput. 14, 1969 (2018): relative to the reference or to 1 Debye, whichever is larger.
    """
    if row.property.startswith("dipole"):
        return 100 * (found - row.value) / max(abs(row.value), 1.0 if row.unit == "debye" else 1.0 / AU2DEBYE)
    return found - row.value


def error_unit(row: Property) -> str:
    """The unit of `error`."""
    return "%" if row.property.startswith("dipole") else row.unit
