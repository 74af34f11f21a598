"""How far the total energy drifts in molecular dynamics at constant energy (velocity Verlet), in Eh/atom/ps.

    python benchmarks/md.py FILE.xyz --steps 2000 --out FOLDER [--xc default] [--basis def2-svp] ...

FOLDER gets the trajectory, one frame for each step, and md.json, which is also printed.  The same command goes on where
it was stopped, or further with more steps; the SCF of the first step is then from scratch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
from ase import Atoms, units
from ase.io.trajectory import Trajectory
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from mlxc import models
from mlxc.ase import MLXC
from mlxc.errors import InputError
from mlxc.files import make_folder, write_atomic
from mlxc.geometry import read_xyz

#: What of the command makes the trajectory.
SETTINGS = ("xc", "basis", "charge", "spin", "grid_level", "conv_tol", "timestep", "temperature", "seed")


def drift(times: np.ndarray, energies: np.ndarray, natoms: int) -> tuple[float, float]:
    """Slope of the straight line through the total energies per atom, and what remains about it (RMS)."""
    line = np.polynomial.Polynomial.fit(times, energies / natoms, 1).convert()
    return float(line.coef[1]), float(np.sqrt(np.mean((energies / natoms - line(times)) ** 2)))


def started(path: Path, settings: dict[str, Any]) -> Atoms:
    """The molecule with velocities of a Maxwell-Boltzmann distribution, at rest as a whole."""
    symbols, positions = zip(*read_xyz(path), strict=True)
    atoms = Atoms(symbols, positions)
    rng = np.random.default_rng(settings["seed"])
    spread = np.sqrt(atoms.get_masses() * units.kB * settings["temperature"])
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread[:, None])
    Stationary(atoms)
    return atoms


def run(path: Path, folder: Path, steps: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Carry the trajectory in `folder` to so many steps; returns the record."""
    make_folder(folder)
    file = folder / "md.traj"
    frames = list(Trajectory(file)) if file.exists() else []
    if frames and Trajectory(file).description != settings:
        raise InputError(f"{file} has other settings, {Trajectory(file).description}: choose another folder")
    atoms = started(path, settings)
    if frames:
        if list(frames[0].symbols) != list(atoms.symbols):
            raise InputError(f"{file} is of {frames[0].symbols}, not of {atoms.symbols}: choose another folder")
        atoms = frames[-1].copy()
    chosen = ("xc", "basis", "charge", "spin", "grid_level", "conv_tol")
    atoms.calc = MLXC(**{k: settings[k] for k in chosen})
    dynamics = VelocityVerlet(atoms, timestep=settings["timestep"] * units.fs)
    begin, done = time.perf_counter(), len(frames) - 1
    with Trajectory(file, "a" if frames else "w") as out:
        out.set_description(settings)
        if not frames:
            atoms.get_forces()
            out.write(atoms)
            done = 0
        for _ in range(done, steps):
            dynamics.run(1)
            out.write(atoms)
    spent = time.perf_counter() - begin
    return record(path, list(Trajectory(file))[: steps + 1], settings) | {
        "seconds_per_step": round(spent / max(1, steps - done), 3)
    }


def record(path: Path, frames: list[Atoms], settings: dict[str, Any]) -> dict[str, Any]:
    """What the frames of a trajectory say; energies in Eh, times in ps."""
    times = np.arange(len(frames)) * settings["timestep"] * 1e-3
    energies = np.array([x.get_total_energy() for x in frames]) / units.Hartree
    slope, scatter = drift(times, energies, len(frames[0]))
    return {
        "molecule": path.stem,
        "settings": settings,
        "pyscf": pyscf.__version__,
        "model_sha256": models.sha256(settings["xc"]),
        "steps": len(frames) - 1,
        "picoseconds": float(times[-1]),
        "mean_temperature_K": float(np.mean([x.get_temperature() for x in frames])),
        "drift_hartree_per_atom_per_ps": slope,
        "rms_hartree_per_atom": scatter,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.xyz")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--xc", default="default")
    parser.add_argument("--basis", default="def2-svp")
    parser.add_argument("--charge", type=int, default=0)
    parser.add_argument("--spin", type=int, help="unpaired electrons (default: lowest possible)")
    parser.add_argument("--grid-level", type=int, default=3)
    parser.add_argument("--conv-tol", type=float, default=1e-10, help="of the SCF, Eh")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--temperature", type=float, default=300.0, help="K, of the first velocities")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error("--steps is a positive number")
    out = run(args.file, args.out, args.steps, {k: getattr(args, k) for k in SETTINGS})
    text = json.dumps(out, indent=2)
    write_atomic(args.out / "md.json", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
