"""One calculation from the command line: an energy and what its task asks for, for people and as JSON."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyscf.data.elements import ELEMENTS
from pyscf.data.nist import BOHR

from mlxc import models, printout
from mlxc.bench.ladder import Solution, settled
from mlxc.calculation import ensemble, strange
from mlxc.errors import InputError, MlxcError, run_by_pyscf
from mlxc.excited import Excitations, excitations
from mlxc.extras import need
from mlxc.files import check_writable, write_atomic
from mlxc.geometry import gradient_method, make_mole, read_xyz
from mlxc.harmonic import Vibrations, vibrations
from mlxc.optimization import search
from mlxc.properties import highest_occupied
from mlxc.scf import KS, Cycles, converge
from mlxc.workers import DASK

#: What `run` can do with a molecule.
TASKS = ("energy", "gradient", "optimize", "ts", "frequencies", "excitations")
#: Where optimisations write: FILE.opt.xyz, FILE.ts.xyz.
SEARCHES = {"optimize": "opt", "ts": "ts"}


class Progress(Cycles):
    """SCF callback that counts cycles and prints a line for each."""

    def __init__(self) -> None:
        super().__init__()
        self.start = time.perf_counter()
        self.second_order = False

    def __call__(self, envs: dict[str, Any]) -> bool:
        ended = super().__call__(envs)
        if not ended:
            return False
        if "imacro" in envs and not self.second_order:
            self.second_order = True
            print("  DIIS has not converged: on with PySCF's second-order solver")
        change = envs["e_tot"] - envs.get("last_hf_e", envs["e_tot"])
        spent = time.perf_counter() - self.start
        print(
            f"  {self.number:3d} {envs['e_tot']:18.9f} {change:12.2e} {envs['norm_gorb']:12.2e} {spent:8.1f} s",
            flush=True,
        )
        return True


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write the result; the file appears complete.  Raises InputError where that fails."""
    write_atomic(path, json.dumps(result, indent=2) + "\n")


def _xyz_text(mol: Any, comment: str) -> str:
    coords = mol.atom_coords() * BOHR
    rows = [f"{mol.atom_pure_symbol(i):2s} {x:14.8f} {y:14.8f} {z:14.8f}" for i, (x, y, z) in enumerate(coords)]
    return "\n".join([str(mol.natm), comment, *rows]) + "\n"


def run(
    path: Path,
    xc: str = "default",
    basis: str = "def2-tzvp",
    charge: int = 0,
    spin: int | None = None,
    task: str = "energy",
    max_cycle: int = 50,
    states: int = 5,
    jobs: int = 1,
    density_fit: bool = False,
    unrestricted: bool = False,
    stability: bool = False,
) -> dict[str, Any]:
    """Carry out one calculation, printing as it goes; returns the JSON content (units in the key names).

    Raises InputError and its kin for what cannot be done.  An SCF that does not converge is an outcome:
    `converged` is False and nothing beyond the energy is attempted; `geometry_converged` likewise.  ConvergenceError
    where an SCF fails on the way to a geometry, the last one before it being kept, or among displaced atoms.  An error
    after the SCF has what is known as its `result`.
    `states` are those of the task excitations, `jobs` the processes of the task frequencies; `density_fit` fits the
    Coulomb part, and the exact exchange of libxc's hybrids, which is faster in all but the smallest molecules (exact
    exchange of local hybrids is fitted always).  `unrestricted` gives each spin orbitals of its own in singlets too,
    from PySCF's guess of broken symmetry.  `stability` looks whether the solution is a minimum, among unrestricted
    ones as well, and goes on with a lower one that is found.
    """
    if task not in TASKS:
        raise InputError(f"no task {task!r}: there are {', '.join(TASKS)}")
    progress = Progress()
    path = Path(path)
    atoms = read_xyz(path)
    ending = SEARCHES.get(task)
    optimised = path.with_name(f"{path.stem}.{ending}.xyz")
    if ending:
        if len(atoms) < 2:
            raise InputError(f"{path} has a single atom: there is no geometry to optimise")
        need("geometry optimisation", "optimize", "geometric")
        check_writable(optimised)
    if task == "frequencies" and jobs > 1:
        need("work on several processes", "bench", *DASK)
    functional = models.resolve(xc)
    mol = make_mole(atoms, basis, charge, spin)
    name = xc if functional is None else functional.name
    kind = "libxc" if functional is None else "functional of mlxc"
    formula = "".join(s + (str(k) if k > 1 else "") for s in ELEMENTS if (k := sum(a == s for a, _ in atoms)))
    fitted = ", density fitting" if density_fit else ""
    print(f"{formula}  charge {charge}  unpaired electrons {mol.spin}  |  {name} ({kind})  |  {basis}{fitted}")
    print("  SCF         energy / Eh  change / Eh orb. gradient     time")
    mf = KS(mol, functional or xc, unrestricted)
    if density_fit:
        mf = mf.density_fit()
    mf.max_cycle = max_cycle
    mf.callback = progress
    with run_by_pyscf(name, ours=functional is not None):
        mf = converge(mf)
        settlement = _settled(mf, progress) if stability and mf.converged else None
        mf = settlement.mf if settlement else mf
    found = None
    if ending and mf.converged:
        mf, found = _optimize(mf, optimised, name, task == "ts", progress)
    result = {
        "energy_hartree": float(mf.e_tot),
        "converged": bool(mf.converged),
        "cycles": progress.number,
        "xc": name,
        "model_hash": models.sha256(xc),
        "basis": basis,
        "density_fit": density_fit,
        "grid_level": int(mf.grids.level),
        "nelectron": int(mol.nelectron),
        "mo_homo_hartree": highest_occupied(mf),
        "s2": float(mf.spin_square()[0]),
        "dipole_debye": [float(x) for x in mf.dip_moment(verbose=0)],
    }
    lines: list[str] = []
    if settlement:
        result["stable"] = settlement.stable
        lines = printout.stability(settlement)
    if mf.converged:
        if ending:
            result["geometry_converged"] = found
            result["symbols"] = [mf.mol.atom_pure_symbol(i) for i in range(mf.mol.natm)]
            result["coords_angstrom"] = (mf.mol.atom_coords() * BOHR).tolist()
        try:
            if found_ensemble := ensemble(mf):
                result["energy_uncertainty_kcal"] = found_ensemble[1]
            if (reasons := strange(mf)) is not None:
                result["novelty"] = reasons
            if ending or task == "gradient":
                result["gradient_hartree_per_bohr"] = gradient_method(mf).kernel().tolist()
            if task == "frequencies":
                lines += _frequencies(vibrations(mf, jobs, _displaced), result)
            if task == "excitations":
                lines += _excitations(excitations(mf, states), result)
        except MlxcError as err:
            err.result = result
            raise
    result["wall_s"] = time.perf_counter() - progress.start
    printout.report(result, charge, mol.spin)
    for line in lines:
        print(line)
    return result


def _settled(mf: Any, progress: Progress) -> Solution:
    """The converged `mf`, or a lower solution that its instabilities lead to, with the cycles of its ways counted."""
    print("  is it stable?", flush=True)
    found = settled(Solution(mf, "diis"), broken_symmetry=True)
    found.mf.callback = progress
    for attempt in found.attempts:
        progress.number += attempt.cycles
        end = "" if attempt.converged else ", NOT converged"
        print(f"  {attempt.rung}: {attempt.energy:.9f} Eh in {attempt.cycles} cycles{end}", flush=True)
    return found


def _displaced(done: int, of: int) -> None:
    print(f"  displacement {done} of {of}", flush=True)


def _frequencies(found: Vibrations, result: dict[str, Any]) -> list[str]:
    """Adds vibrations and thermochemistry to the result; returns what to print of them."""
    gas = found.thermochemistry()
    result |= {
        "frequencies_cm": found.frequencies_cm.tolist(),
        "ir_intensities_km_mol": found.ir_intensities_km_mol.tolist(),
        "reduced_masses_amu": found.reduced_masses_amu.tolist(),
        "modes": found.modes.tolist(),
        "hessian_hartree_per_bohr2": found.hessian.tolist(),
        "largest_force_hartree_per_bohr": found.largest_force,
        "zero_point_hartree": found.zero_point_hartree,
        "thermochemistry": asdict(gas),
    }
    return printout.frequencies(found, gas)


def _excitations(found: Excitations, result: dict[str, Any]) -> list[str]:
    """Adds excitations to the result; returns what to print of them."""
    result |= {
        "excitation_energies_ev": found.energies_ev.tolist(),
        "excitation_wavelengths_nm": found.wavelengths_nm.tolist(),
        "oscillator_strengths": found.oscillator_strengths.tolist(),
        "excitations_converged": found.converged.tolist(),
    }
    return printout.excitations(found)


def _optimize(mf: Any, out: Path, name: str, transition: bool, progress: Progress) -> tuple[Any, bool]:
    """The calculation at the minimum or transition state, written to `out`, and whether that was reached."""

    last = 0

    def step(envs: dict[str, Any]) -> None:
        nonlocal last
        last, progress.number = progress.number, 0
        write_atomic(out, _xyz_text(envs["mol"], f"{name}: a step of an optimisation (Angstrom)"))
        print(f"  geometry: energy {envs['energy']:.9f} Eh, largest force {abs(envs['gradients']).max():.2e} Eh/Bohr")

    mf, done = search(mf, step, transition)
    progress.number = last
    comment = (
        f"{name} {'transition state' if transition else 'minimum'} (Angstrom)"
        if done
        else f"{name}: optimisation did NOT converge (Angstrom)"
    )
    write_atomic(out, _xyz_text(mf.mol, comment))
    print(f"  geometry {'converged' if done else 'NOT converged in 100 steps'}: {out}")
    if transition and done:
        print(f"  whether it has one imaginary frequency is for --task frequencies to show, with {out}")
    return mf, done
