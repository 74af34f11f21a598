"""Harmonic vibrations of molecules: second derivatives, frequencies, infrared intensities, thermochemistry.

Second derivatives are central differences of analytic gradients, for every functional alike: those of the energy on
its grid, with dispersion and solvents, and the same calculations give the derivatives of the dipole.  PySCF's analytic
ones, `mf.Hessian()`, cost a fraction, but leave out the motion of the grid: with r2SCAN on PySCF's default grid the
bending of water is off by 3 (6-31G) or 11 cm^-1 (STO-3G).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from pyscf import gto, lib, symm
from pyscf.data import nist
from scipy.constants import centi, e, epsilon_0, kilo

from mlxc.errors import ConvergenceError, InputError
from mlxc.geometry import gradient_method
from mlxc.ongrid import need_converged
from mlxc.scf import converge
from mlxc.workers import results

#: Energies (Eh) of displaced atoms: forces, of first order in what is missing, are to be good to 1e-6 Eh/Bohr.
DISPLACED = 1e-11
#: Displacement of the atoms, Bohr.
STEP = 0.005
#: Wavenumber (cm^-1) of force constants in Eh / (Bohr^2 amu).
WAVENUMBER = centi * math.sqrt(nist.HARTREE2J / nist.ATOMIC_MASS) / (2 * math.pi * nist.BOHR_SI * nist.LIGHT_SPEED_SI)
#: Integrated absorption (km/mol) of a vibration whose dipole changes by one electron charge / amu^(1/2).
#: Wilson, Decius, Cross, Molecular Vibrations (McGraw-Hill, 1955), chapter 7: pi N / (3 c^2 4 pi epsilon_0) |dmu/dQ|^2.
KM_MOL = nist.AVOGADRO * e**2 / (12 * epsilon_0 * nist.LIGHT_SPEED_SI**2 * nist.ATOMIC_MASS) / kilo
#: Positions that differ by less (Bohr) are equal for the symmetry number: no better are minima found.
SAME = 1e-3
#: A molecule whose atoms are all as near (Bohr) to one line is linear: CO2 bent by half a degree, no better are minima.
LINEAR = 0.01
#: Forces (Eh/Bohr) above this are not those of a stationary point, where alone harmonic vibrations mean something.
STATIONARY = 1e-3
#: Second derivatives (Eh/Bohr^2) that differ by more from those with their coordinates exchanged are not of one state:
#: those of one differ by up to 2e-4 (NO2 on a grid of level 1), and of bonds are 0.1 to 1.
ASYMMETRY = 5e-3
#: What resetting a calculation changes, and its copy shares with it.
_PARTS = ("grids", "nlcgrids", "with_df", "with_solvent", "with_x2c")


@dataclass(frozen=True)
class Displacement:
    """One coordinate moved by `step` Bohr: a task for mlxc.workers."""

    atom: int
    axis: int
    step: float
    cost: float = 1.0

    @property
    def name(self) -> str:
        return f"atom {self.atom + 1} along {'-' if self.step < 0 else ''}{'xyz'[self.axis]}"


def detached(mf: Any) -> Any:
    """A copy of a calculation with its own grids, integrals and surfaces, which it may make anew.

    Without a second-order solver, which would share them with the object that it was made of.
    """
    new = mf.undo_soscf() if hasattr(mf, "_scf") else mf.copy()
    for part in _PARTS:
        if getattr(new, part, None) is not None:
            setattr(new, part, copy.copy(getattr(new, part)))
    return new


def _moved(mf: Any, dm0: np.ndarray, task: Displacement) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (natm, 3), Eh/Bohr, and dipole (3,), e Bohr, of a calculation with one coordinate moved."""
    new = detached(mf)
    coords = mf.mol.atom_coords()
    coords[task.atom, task.axis] += task.step
    mol = mf.mol.copy()
    # A point group that was named need not be that of the displaced molecule, whose own PySCF then finds.
    mol.symmetry, mol.symmetry_subgroup = bool(mol.symmetry), None
    new.reset(mol.set_geom_(coords, unit="Bohr"))
    new = converge(new, dm0)
    if not new.converged:
        raise ConvergenceError(f"no second derivatives: the SCF with {task.name} moved did not converge")
    return gradient_method(new).kernel(), new.dip_moment(unit="AU", verbose=0)


def second_derivatives(
    mf: Any, jobs: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of the energy, (natm, natm, 3, 3) in Eh / Bohr^2, and dmu_y/dR_Ax of the dipole, (natm, 3, 3) in e.

    Laid out as PySCF's Hessian; symmetric.  Every one of the 6 natm SCF calculations starts from the density of `mf`
    and is converged to DISPLACED.  They run one after the other, `progress` being told how many of how many are done,
    or on so many processes as `jobs` says, which needs Dask, and in a script the line `if __name__ == "__main__":`.
    Raises ConvergenceError where one of them does not converge or finds another state; InputError where `mf` itself has
    not converged, and for what has no nuclear gradients, and where the system kills a process.
    """
    if hasattr(mf, "cell"):
        raise InputError("vibrations are for molecules, not for periodic objects")
    need_converged(mf, "second derivatives need")
    if getattr(mf, "irrep_nelec", None):
        raise InputError("displaced molecules lack the symmetry that irrep_nelec is of: use mol.symmetry = False")
    if not mf.mol.atom_mass_list().all():
        raise InputError("vibrations are for atoms with a mass: leave ghost atoms out")
    gradient_method(mf)  # which refuses what has no gradients
    natm, dm0 = mf.mol.natm, np.asarray(mf.make_rdm1())
    start = mf.copy().set(conv_tol=min(mf.conv_tol, DISPLACED), conv_tol_grad=None, callback=None, chkfile=None)
    tasks = [Displacement(i, x, s) for i in range(natm) for x in range(3) for s in (STEP, -STEP)]
    gradients, dipoles = np.empty((2, natm, 3, natm, 3)), np.empty((2, natm, 3, 3))
    done = _parallel(start, dm0, tasks, jobs) if jobs > 1 else ((t, _moved(start, dm0, t)) for t in tasks)
    for number, (task, result) in enumerate(done, start=1):
        if type(result).__name__ == "KilledWorker":  # Dask's, which need not be installed
            raise InputError(
                f"no second derivatives: the process that moved {task.name} was killed, perhaps for its memory: "
                "take fewer jobs"
            ) from result
        if isinstance(result, BaseException):
            raise result
        at = int(task.step < 0), task.atom, task.axis
        gradients[at], dipoles[at] = result
        if progress and jobs == 1:  # the other processes have a bar of their own
            progress(number, len(tasks))
    hessian = ((gradients[0] - gradients[1]) / (2 * STEP)).transpose(0, 2, 1, 3)
    exchanged = hessian.transpose(1, 0, 3, 2)
    if (asymmetry := abs(hessian - exchanged).max()) > ASYMMETRY:
        raise ConvergenceError(
            f"no second derivatives: they are not symmetric (by {asymmetry:.0e} Eh/Bohr^2): the SCF of a displaced "
            "molecule has found another state"
        )
    return (hessian + exchanged) / 2, (dipoles[0] - dipoles[1]) / (2 * STEP)


def _parallel(mf: Any, dm0: np.ndarray, tasks: list[Displacement], jobs: int) -> Any:
    """Each task with its result, or the exception that it ended with, on local processes."""
    mf = detached(mf)
    return results(partial(_moved, mf.reset(mf.mol), dm0), tasks, jobs, extra="bench")


def hessian(mf: Any, jobs: int = 1) -> np.ndarray:
    """Second derivatives (natm, natm, 3, 3) of the energy by coordinates, Eh / Bohr^2, as `second_derivatives`."""
    return second_derivatives(mf, jobs)[0]


@dataclass(frozen=True)
class Thermochemistry:
    """Ideal gas of rigid rotors and harmonic oscillators, as pyscf.hessian.thermo has it; Eh, Eh/K."""

    temperature_k: float
    pressure_pa: float
    symmetry_number: int
    internal_energy_hartree: float
    enthalpy_hartree: float
    entropy_hartree_per_k: float
    gibbs_hartree: float


@dataclass(frozen=True, eq=False)
class Vibrations:
    """Harmonic vibrations, in the order of their frequencies; N of them, rotations and translations taken out.

    frequencies_cm        (N,), cm^-1; imaginary ones negative
    ir_intensities_km_mol (N,), integrated absorption, km/mol
    reduced_masses_amu    (N,)
    modes                 (N, natm, 3), displacements of the atoms, normalised to 1
    hessian               (natm, natm, 3, 3), Eh / Bohr^2
    dipole_derivatives    dmu_y/dR_Ax, (natm, 3, 3), e
    energy_hartree        of the electrons and resting nuclei
    largest_force         Eh/Bohr: at a stationary point below STATIONARY
    """

    mol: gto.Mole
    energy_hartree: float
    largest_force: float
    hessian: np.ndarray
    dipole_derivatives: np.ndarray
    frequencies_cm: np.ndarray
    ir_intensities_km_mol: np.ndarray
    reduced_masses_amu: np.ndarray
    modes: np.ndarray

    @property
    def zero_point_hartree(self) -> float:
        """Half a quantum of every vibration that is not imaginary."""
        real = self.frequencies_cm[self.frequencies_cm > 0]
        return float(real.sum() * nist.LIGHT_SPEED_SI / centi * nist.PLANCK / nist.HARTREE2J / 2)

    def thermochemistry(self, temperature_k: float = 298.15, pressure_pa: float = 101325.0) -> Thermochemistry:
        """At a temperature and pressure; imaginary vibrations do not count.  Raises InputError unless both are > 0."""
        if not (0 < temperature_k < math.inf and 0 < pressure_pa < math.inf):
            raise InputError(f"no thermochemistry at {temperature_k} K and {pressure_pa} Pa: both have to be positive")
        from pyscf.hessian import thermo

        model = SimpleNamespace(mol=straightened(self.mol), e_tot=self.energy_hartree)
        with lib.temporary_env(symm.geom, TOLERANCE=SAME):
            found = thermo.thermo(model, self.frequencies_cm / WAVENUMBER, temperature_k, pressure_pa)
        energies = (float(found[k][0]) for k in ("E_tot", "H_tot", "S_tot", "G_tot"))
        return Thermochemistry(temperature_k, pressure_pa, int(found["sym_number"][0]), *energies)


def straightened(mol: gto.Mole) -> gto.Mole:
    """The molecule itself, or, of one that is nearly LINEAR, one that is linear to the last digit.

    PySCF counts vibrations and rotations of a molecule that is bent by a tenth of a degree as those of a bent one.
    """
    coords = mol.atom_coords()
    centre = coords.mean(0)
    axis = np.linalg.svd(coords - centre)[2][0]
    along = centre + np.outer((coords - centre) @ axis, axis)
    moved = np.linalg.norm(along - coords, axis=1).max()
    return mol.set_geom_(along, unit="Bohr", inplace=False) if 0 < moved < LINEAR else mol


def vibrations(mf: Any, jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> Vibrations:
    """Harmonic vibrations of a converged molecular calculation, with averaged isotopic masses.

    Meaningful where forces vanish: `Vibrations.largest_force` tells.  Options and errors as `second_derivatives`, and
    InputError for a molecule among point charges, which cannot turn and move freely.
    """
    if hasattr(mf, "mm_mol"):
        raise InputError(
            "no vibrations among point charges, where translations and rotations are vibrations too: take mlxc.hessian "
            "and pyscf.hessian.thermo.harmonic_analysis with exclude_trans=False, exclude_rot=False"
        )
    from pyscf.hessian import thermo  # with all of PySCF's Hessians, which `import mlxc` does without

    hessian, dipole = second_derivatives(mf, jobs, progress)
    found = thermo.harmonic_analysis(straightened(mf.mol), hessian, imaginary_freq=False)
    modes = np.asarray(found["norm_mode"]).reshape(-1, mf.mol.natm, 3)  # displacement / (amu^(1/2) Bohr)
    lengths = np.sqrt((modes**2).sum((1, 2), keepdims=True))
    return Vibrations(
        mol=mf.mol,
        energy_hartree=float(mf.e_tot),
        largest_force=float(abs(gradient_method(mf).kernel()).max()),
        hessian=hessian,
        dipole_derivatives=dipole,
        frequencies_cm=np.asarray(found["freq_wavenumber"]),
        ir_intensities_km_mol=KM_MOL * (np.einsum("kax,axy->ky", modes, dipole) ** 2).sum(1),
        reduced_masses_amu=np.asarray(found["reduced_mass"]),
        modes=modes / lengths,
    )
