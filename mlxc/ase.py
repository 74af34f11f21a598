"""A calculator for ASE: `atoms.calc = mlxc.ase.MLXC(basis="def2-tzvp")`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pyscf.data.nist import BOHR

from mlxc.calculation import SETTINGS, check_names, ensemble, prepare, solve
from mlxc.errors import ConvergenceError, InputError
from mlxc.geometry import gradient_method, make_mole

try:
    from ase import units
    from ase.calculators.calculator import Calculator, CalculatorSetupError, SCFError, all_changes
except ImportError as err:
    raise InputError("mlxc.ase needs ASE: pip install 'mlxc[ase]'") from err


#: Charges from other programs are rounded, so that their sum is whole only to this.
SMALL = 0.05


class NotPossible(InputError, CalculatorSetupError):
    """The calculation cannot be carried out as it was asked for."""


class NotConverged(ConvergenceError, SCFError):
    """The SCF did not converge."""


class MLXC(Calculator):
    """Energies, forces and dipoles of molecules with any functional that mlxc knows, in ASE's units.

    Parameters are

    xc : "default", a model's name or folder, or a name of libxc
    basis : any basis of PySCF
    charge : of the molecule; None: the sum of the atoms' initial charges
    spin : number of unpaired electrons, 2S; None: the sum of the atoms' initial magnetic moments, without its sign and
        rounded, and where all of them are zero, the lowest that is possible
    density_fit, grid_level, conv_tol, unrestricted : see `mlxc.calculation.SETTINGS`; conv_tol in Eh; unrestricted
        also where initial magnetic moments cancel each other, which say so but not on which atoms spins go up

    Results are `energy` and `free_energy` (eV), `dipole` (e Angstrom; of an ion about the origin), on request `forces`
    (eV/Angstrom; the derivative of the energy, with the motion of the grid and D4) and, for models with an ensemble,
    `energy_uncertainty` (eV): atoms.calc.get_property("energy_uncertainty", atoms).  `mf` is PySCF's object of the
    last calculation.  Each SCF starts from its density where the atoms are the same ones.

    Raises NotPossible for periodic boundary conditions, initial charges whose sum is not whole and other input, and
    NotConverged, which are errors of ASE and of mlxc alike.
    """

    implemented_properties: ClassVar = ["energy", "free_energy", "dipole", "forces", "energy_uncertainty"]
    default_parameters: ClassVar = {"xc": "default", "basis": "def2-tzvp", "charge": None, "spin": None, **SETTINGS}
    #: The energy of a molecule does not depend on the box around it.
    ignored_changes: ClassVar = frozenset({"cell"})
    discard_results_on_any_change = True
    mf: Any = None
    results: dict[str, Any]

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters; returns those that have changed.  Raises NotPossible for a name that is none."""
        try:
            check_names(kwargs, self.default_parameters)
        except InputError as err:
            raise NotPossible(str(err)) from err
        changed = super().set(**kwargs)
        if changed:
            self.mf = None
        return changed

    def calculate(
        self, atoms: Any = None, properties: Sequence[str] = ("energy",), system_changes: Sequence[str] = all_changes
    ) -> None:
        """ASE's: fills `results`."""
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results = {}
        try:
            if system_changes or self.mf is None:
                self._solve()
            self._collect(properties)
        except InputError as err:
            raise NotPossible(str(err)) from err
        except ConvergenceError as err:
            raise NotConverged(str(err)) from err

    def _collect(self, properties: Sequence[str]) -> None:
        """Fill `results` from `mf`."""
        mf = self.mf
        self.results |= {
            "energy": mf.e_tot * units.Hartree,
            "free_energy": mf.e_tot * units.Hartree,
            "dipole": mf.dip_moment(unit="AU", verbose=0) * BOHR,
        }
        if "forces" in properties:
            # PySCF's Bohr, which the coordinates were converted with, and not ASE's
            self.results["forces"] = -gradient_method(mf).kernel() * (units.Hartree / BOHR)
        if "energy_uncertainty" in properties and (found := ensemble(mf)):
            self.results["energy_uncertainty"] = found[1] * units.kcal / units.mol

    def _solve(self) -> None:
        """Bring `mf` to self-consistency for the present atoms; None where that fails."""
        atoms, given = self.atoms, self.parameters
        last, self.mf = self.mf, None
        if atoms.pbc.any():
            raise InputError("MLXC is for molecules: set atoms.pbc = False, or take PySCF's pbc.dft and mlxc.attach")
        charge, spin = given["charge"], given["spin"]
        if charge is None:
            charge = float(atoms.get_initial_charges().sum())
            if abs(charge - round(charge)) < SMALL:
                charge = round(charge)
        moments = atoms.get_initial_magnetic_moments()
        if spin is None and moments.any():
            spin = abs(round(moments.sum()))
        symbols = atoms.get_chemical_symbols()
        molecule = make_mole(zip(symbols, atoms.positions, strict=True), given["basis"], charge, spin)
        settings = {k: given[k] for k in SETTINGS}
        settings["unrestricted"] = settings["unrestricted"] or (molecule.spin == 0 and bool(moments.any()))
        both = last is not None and np.ndim(last.mo_occ) == 2
        if (
            last is not None
            and (last.mol.elements, last.mol.nelec) == (molecule.elements, molecule.nelec)
            and both == (settings["unrestricted"] or molecule.spin > 0)
        ):
            density = last.make_rdm1()
            self.mf = solve(last.reset(molecule), density)
        else:
            self.mf = solve(prepare(molecule, given["xc"], settings))

    def __getstate__(self) -> dict[str, Any]:
        """For other processes and copies: without PySCF's object, which cannot go there."""
        return self.__dict__ | {"mf": None}
