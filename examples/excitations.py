"""Excitation energies and oscillator strengths: singlets by TDDFT, and triplets in the Tamm-Dancoff approximation."""

from pyscf import gto
from pyscf.data.nist import HARTREE2EV

import mlxc

mol = gto.M(atom="C 0 0 -0.525; O 0 0 0.675; H 0 0.94 -1.11; H 0 -0.94 -1.11", basis="def2-svp", verbose=0)
mf = mlxc.KS(mol).density_fit().run()

singlets = mf.TDDFT().run(nstates=3)
for energy, strength in zip(singlets.e, singlets.oscillator_strength(), strict=True):
    print(f"singlet {energy * HARTREE2EV:7.3f} eV  f = {strength:.4f}")

triplets = mf.TDA().set(singlet=False).run(nstates=2)
for energy in triplets.e:
    print(f"triplet {energy * HARTREE2EV:7.3f} eV")
