"""Energy, dipole moment and frontier orbitals of the molecule in a file: python energy.py [FILE.xyz]."""

import sys
from pathlib import Path

from pyscf import gto
from pyscf.data.nist import HARTREE2EV

import mlxc

path = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("water.xyz"))
mol = gto.M(atom=path, basis="def2-tzvp")
mf = mlxc.converge(mlxc.KS(mol).density_fit())
if not mf.converged:
    sys.exit("the SCF did not converge")

homo, lumo = mf.mo_energy[mf.mo_occ > 0].max(), mf.mo_energy[mf.mo_occ == 0].min()
x, y, z = mf.dip_moment(verbose=0)
print(f"energy {mf.e_tot:.8f} Eh, of which dispersion {mf.scf_summary['dispersion']:.6f}")
print(f"dipole moment ({x:.4f}, {y:.4f}, {z:.4f}) Debye")
print(f"HOMO {homo * HARTREE2EV:.3f} eV, LUMO {lumo * HARTREE2EV:.3f} eV")
