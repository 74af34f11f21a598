"""The minimum of a molecule and its harmonic frequencies.  Needs geomeTRIC: pip install 'mlxc[optimize]'."""

from pyscf import gto
from pyscf.data.nist import BOHR
from pyscf.hessian import thermo

import mlxc
from mlxc.geometry import optimize
from mlxc.properties import hessian

mol = gto.M(atom="O 0 0 0; H 0 0.80 0.60; H 0 -0.80 0.60", basis="def2-svp", verbose=0)
minimum, done = optimize(mlxc.KS(mol).density_fit())
if not done:
    raise SystemExit("the optimisation did not converge")

for symbol, position in zip(minimum.elements, minimum.atom_coords() * BOHR, strict=True):
    print(f"{symbol:2s} {position[0]:10.5f} {position[1]:10.5f} {position[2]:10.5f}  Angstrom")

mf = mlxc.KS(minimum).density_fit().run()
modes = thermo.harmonic_analysis(minimum, hessian(mf))
print("frequencies", *(f"{k:.0f}" for k in modes["freq_wavenumber"].real), "1/cm")
