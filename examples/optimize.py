"""The minimum of a molecule and its harmonic frequencies.  Needs geomeTRIC: pip install 'mlxc[optimize]'."""

from pyscf import gto
from pyscf.data.nist import BOHR

import mlxc
from mlxc.optimization import optimize

mol = gto.M(atom="O 0 0 0; H 0 0.80 0.60; H 0 -0.80 0.60", basis="def2-svp", verbose=0)
minimum, done = optimize(mlxc.KS(mol).density_fit())
if not done:
    raise SystemExit("the optimisation did not converge")

for symbol, position in zip(minimum.elements, minimum.atom_coords() * BOHR, strict=True):
    print(f"{symbol:2s} {position[0]:10.5f} {position[1]:10.5f} {position[2]:10.5f}  Angstrom")

mf = mlxc.KS(minimum).density_fit().run()
print("frequencies", *(f"{k:.0f}" for k in mlxc.vibrations(mf).frequencies_cm), "1/cm")
