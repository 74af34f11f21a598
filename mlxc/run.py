"""One calculation from the command line: energy, gradient or optimised geometry, for people and as JSON."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from pyscf.data.elements import ELEMENTS
from pyscf.data.nist import BOHR, HARTREE2EV

from mlxc import models
from mlxc.domain import novelty
from mlxc.ensemble import ensemble_energies, uncertainty_kcal
from mlxc.errors import InputError
from mlxc.files import write_atomic
from mlxc.geometry import gradient_method, make_mole, optimize, read_xyz
from mlxc.properties import highest_occupied
from mlxc.scf import KS, converge


class Progress:
    """SCF callback: prints a line per cycle and remembers how many there were since the last reset."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.cycles = 0
        self.second_order = False

    def __call__(self, envs: dict[str, Any]) -> None:
        if "norm_gorb" not in envs:
            return
        self.cycles += 1
        if "imacro" in envs and not self.second_order:
            self.second_order = True
            print("  DIIS has not converged: on with PySCF's second-order solver")
        change = envs["e_tot"] - envs.get("last_hf_e", envs["e_tot"])
        spent = time.perf_counter() - self.start
        print(
            f"  {self.cycles:3d} {envs['e_tot']:18.9f} {change:12.2e} {envs['norm_gorb']:12.2e} {spent:8.1f} s",
            flush=True,
        )


def check_writable(path: Path) -> None:
    """InputError where a result could not be written to `path`, before hours are spent on it."""
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: {path.parent} is not a folder that can be written to")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")


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
) -> dict[str, Any]:
    """Carry out one calculation, printing as it goes; returns the JSON content (units in the key names).

    Raises InputError and its kin for what cannot be done.  An SCF that does not converge is an outcome:
    `converged` is False and neither gradient nor optimisation is attempted; `geometry_converged` likewise.
    """
    progress = Progress()
    atoms = read_xyz(path)
    search = {"optimize": "opt", "ts": "ts"}.get(task)
    optimised = path.with_name(f"{path.stem}.{search}.xyz")
    if search:
        if len(atoms) < 2:
            raise InputError(f"{path} has a single atom: there is no geometry to optimise")
        check_writable(optimised)
    functional = models.resolve(xc)
    mol = make_mole(atoms, basis, charge, spin)
    name = xc if functional is None else functional.name
    kind = "libxc" if functional is None else "functional of mlxc"
    formula = "".join(s + (str(k) if k > 1 else "") for s in ELEMENTS if (k := sum(a == s for a, _ in atoms)))
    print(f"{formula}  charge {charge}  unpaired electrons {mol.spin}  |  {name} ({kind})  |  {basis}")
    print("  SCF         energy / Eh  change / Eh orb. gradient     time")
    mf = KS(mol, functional or xc)
    mf.max_cycle = max_cycle
    mf.callback = progress
    try:
        mf = converge(mf)
    except (NotImplementedError, RuntimeError) as err:
        if functional is not None:
            raise
        raise InputError(f"PySCF cannot run {xc!r}: {err}") from err
    found = None
    if search and mf.converged:
        mf, found = _optimize(mf, optimised, name, task == "ts")
        progress.cycles = 0
        mf = converge(mf)
    result = {
        "energy_hartree": float(mf.e_tot),
        "converged": bool(mf.converged),
        "cycles": progress.cycles,
        "xc": name,
        "model_hash": models.sha256(xc),
        "basis": basis,
        "grid_level": int(mf.grids.level),
        "nelectron": int(mol.nelectron),
        "mo_homo_hartree": highest_occupied(mf),
        "s2": float(mf.spin_square()[0]),
        "dipole_debye": [float(x) for x in mf.dip_moment(verbose=0)],
    }
    members = models.load_members(functional.source) if functional is not None and functional.source else []
    if mf.converged and members:
        result["energy_uncertainty_kcal"] = uncertainty_kcal(ensemble_energies(mf, members), xc)
    if mf.converged and functional is not None and functional.domain:
        result["novelty"] = novelty(mf)
    if task != "energy" and mf.converged:
        result["gradient_hartree_per_bohr"] = gradient_method(mf).kernel().tolist()
    if search and mf.converged:
        result["geometry_converged"] = found
        result["symbols"] = [mf.mol.atom_pure_symbol(i) for i in range(mf.mol.natm)]
        result["coords_angstrom"] = (mf.mol.atom_coords() * BOHR).tolist()
    result["wall_s"] = time.perf_counter() - progress.start
    _report(result)
    return result


def _optimize(mf: Any, out: Path, name: str, transition: bool) -> tuple[Any, bool]:
    """The calculation at the minimum or transition state, written to `out`, and whether that was reached."""

    def step(envs: dict[str, Any]) -> None:
        print(f"  geometry: energy {envs['energy']:.9f} Eh, largest force {abs(envs['gradients']).max():.2e} Eh/Bohr")

    mol, done = optimize(mf, step, transition)
    comment = (
        f"{name} {'transition state' if transition else 'minimum'} (Angstrom)"
        if done
        else f"{name}: optimisation did NOT converge (Angstrom)"
    )
    write_atomic(out, _xyz_text(mol, comment))
    print(f"  geometry {'converged' if done else 'NOT converged in 100 steps'}: {out}")
    return mf.reset(mol), done


def _report(result: dict[str, Any]) -> None:
    if not result["converged"]:
        print("\nThe SCF did NOT converge: the numbers below are not a result.")
    homo = result["mo_homo_hartree"]
    print(f"\n  total energy       {result['energy_hartree']:.8f} Eh")
    if "energy_uncertainty_kcal" in result:
        print(f"  uncertain by       {result['energy_uncertainty_kcal']:.2f} kcal/mol, of which reactions keep a part")
    for reason in result.get("novelty", []):
        print(f"  UNLIKE the molecules that the functional was trained on: {reason}")
    print(f"  HOMO               {homo * HARTREE2EV:.3f} eV")
    print(f"  dipole moment      {np.linalg.norm(result['dipole_debye']):.3f} Debye")
    if result["s2"] > 1e-6:
        print(f"  <S^2>              {result['s2']:.4f}")
    if "gradient_hartree_per_bohr" in result:
        print(f"  largest force      {np.abs(result['gradient_hartree_per_bohr']).max():.2e} Eh/Bohr")
    print(f"  {result['cycles']} cycles, {result['wall_s']:.1f} s")
