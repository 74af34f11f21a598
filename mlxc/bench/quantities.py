"""What a benchmark compares besides reaction energies: properties of one species, by the names of reference rows.

dipole_norm (debye), dipole_x, dipole_y, dipole_z (e*bohr)
ip_vertical_ev_expt, ip_adiabatic_ev_expt (eV): minus the energy of the highest occupied orbital
polarizability (bohr^3): isotropic
density_l1, density_l2 (per electron): int |n - n_ref| / N and (int |n - n_ref|^2)^1/2 / N
bond_I_J (angstrom), angle_I_J_K (degree), frequency_K (1/cm, harmonic, ascending): at the minimum; atoms from 1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from pyscf.data.nist import AU2DEBYE, BOHR, HARTREE2EV
from pyscf.hessian import thermo

from mlxc.errors import InputError
from mlxc.geometry import optimize
from mlxc.ongrid import spin_densities
from mlxc.properties import hessian, polarizability
from mlxc.reference.benchmark import Property
from mlxc.reference.schema import Reference

Result = dict[str, Any]


def _polarizability(mf: Any, reference: Reference | None) -> Result:
    return {"polarizability": float(np.trace(polarizability(mf)) / 3)}


def _density(mf: Any, reference: Reference | None) -> Result:
    if reference is None:
        raise InputError("density errors need a reference density")
    mol, grids, ni = reference.mole(), mf.grids, mf._numint
    dms = spin_densities(mf)
    own = ni.get_rho(mf.mol, dms.sum(0) * (3 - len(dms)), grids, mf.max_memory)
    change = own - ni.get_rho(mol, np.asarray(reference.dm1).sum(0), grids, mf.max_memory)
    return {
        "density_l1": float(grids.weights @ abs(change) / mol.nelectron),
        "density_l2": float(math.sqrt(grids.weights @ change**2) / mol.nelectron),
    }


def _minimum(mf: Any, reference: Reference | None) -> Result:
    """Coordinates and frequencies of the nearest minimum."""
    mol, done = optimize(mf)
    if not done:
        raise InputError("the geometry did not converge")
    mf = mf.reset(mol)
    mf.kernel()
    waves = thermo.harmonic_analysis(mol, hessian(mf), imaginary_freq=False)["freq_wavenumber"]
    return {"coords_angstrom": (mol.atom_coords() * BOHR).tolist(), "frequencies_cm": sorted(map(float, waves))}


#: Calculations beyond the energy, which a species has to go through for some quantities.
EXTRAS: dict[str, Callable[[Any, Reference | None], Result]] = {
    "polarizability": _polarizability,
    "density": _density,
    "minimum": _minimum,
}


def _dipole(axis: int) -> Callable[[Result, list[int]], float]:
    return lambda result, _: result["dipole_debye"][axis] / AU2DEBYE


def _ionization(result: Result, _: list[int]) -> float:
    return -result["homo_hartree"] * HARTREE2EV


def _angle(result: Result, atoms: list[int]) -> float:
    i, j, k = (np.array(result["coords_angstrom"][a - 1]) for a in atoms)
    u, v = i - j, k - j
    return math.degrees(math.acos(np.clip(u @ v / math.sqrt((u @ u) * (v @ v)), -1, 1)))


#: Quantity (without the numbers at its end): extra calculation, unit, and value from a result and these numbers.
QUANTITIES: dict[str, tuple[str | None, str, Callable[[Result, list[int]], float]]] = {
    "dipole_norm": (None, "debye", lambda r, _: float(np.linalg.norm(r["dipole_debye"]))),
    "dipole_x": (None, "e*bohr", _dipole(0)),
    "dipole_y": (None, "e*bohr", _dipole(1)),
    "dipole_z": (None, "e*bohr", _dipole(2)),
    "ip_vertical_ev_expt": (None, "eV", _ionization),
    "ip_adiabatic_ev_expt": (None, "eV", _ionization),
    "polarizability": ("polarizability", "bohr^3", lambda r, _: r["polarizability"]),
    "density_l1": ("density", "per electron", lambda r, _: r["density_l1"]),
    "density_l2": ("density", "per electron", lambda r, _: r["density_l2"]),
    "bond": ("minimum", "angstrom", lambda r, a: math.dist(*(r["coords_angstrom"][i - 1] for i in a))),
    "angle": ("minimum", "degree", _angle),
    "frequency": ("minimum", "1/cm", lambda r, a: r["frequencies_cm"][a[0] - 1]),
}


def _parsed(row: Property) -> tuple[str, list[int]]:
    """Name and numbers of a quantity.  Raises InputError for one that is not known or in another unit."""
    words = row.property.split("_")
    while words and words[-1].isdecimal():
        words.pop()
    name, numbers = "_".join(words), [int(n) for n in row.property.split("_")[len(words) :]]
    if name not in QUANTITIES:
        raise InputError(f"{row.set}: no quantity {row.property!r}. There are {', '.join(QUANTITIES)}")
    if row.unit != QUANTITIES[name][1]:
        raise InputError(f"{row.set}: {row.property} is in {QUANTITIES[name][1]}, not {row.unit}")
    return name, numbers


def quantity(row: Property) -> str:
    """The name of a row's quantity, without the numbers of atoms or of a vibration.  Raises InputError as above."""
    return _parsed(row)[0]


def extra_of(row: Property) -> str | None:
    """Which of EXTRAS a row needs, None for one that the energy calculation gives.  Raises InputError as above."""
    return QUANTITIES[quantity(row)][0]


def value(row: Property, result: Result) -> float | None:
    """What a species' result says of a row, in its unit; None where a calculation has failed."""
    name, numbers = _parsed(row)
    try:
        return QUANTITIES[name][2](result, numbers)
    except LookupError:
        return None


def error(row: Property, found: float) -> float:
    """Found minus reference; of dipoles (norms) as defined by Hait and Head-Gordon, in percent.

    J. Chem. Theory Comput. 14, 1969 (2018): relative to the reference or to 1 Debye, whichever is larger.
    """
    if row.property == "dipole_norm":
        return 100 * (found - row.value) / max(abs(row.value), 1.0)
    return found - row.value


def error_unit(row: Property) -> str:
    """The unit of `error`."""
    return "%" if row.property == "dipole_norm" else row.unit
