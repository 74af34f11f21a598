"""Molecular dynamics at constant energy with ASE: python md.py [FILE.xyz]; the trajectory goes to md.traj."""

import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from mlxc.ase import MLXC

STEPS = 20
path = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("water.xyz"))
atoms = read(path)
atoms.calc = MLXC(basis="def2-svp")
spread = np.sqrt(atoms.get_masses() * units.kB * 300)  # of the momenta at 300 K
atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)) * spread[:, None])
Stationary(atoms)

dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs, trajectory="md.traj")
print("time / fs    potential      kinetic        total / eV")
for _ in range(STEPS):
    dynamics.run(1)
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    time = dynamics.get_time() / units.fs
    print(f"{time:9.1f} {potential:12.5f} {kinetic:12.5f} {potential + kinetic:14.6f}", flush=True)
