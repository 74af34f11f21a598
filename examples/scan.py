"""H2 stretched until it breaks: restricted, and unrestricted with its spin symmetry broken where that is lower."""

import numpy as np
from pyscf import gto

import mlxc
from mlxc.units import KCAL

DISTANCES = (0.74, 1.2, 1.8, 2.4, 3.0)  # Angstrom


def lowest(mf):
    """The unrestricted solution, followed down while it is unstable."""
    mf.kernel()
    for _ in range(3):
        orbitals, _, stable, _ = mf.stability(external=False, return_status=True)
        if stable:
            break
        second = mf.newton()
        second.kernel(orbitals, mf.mo_occ)
        mf = second.undo_soscf()
    return mf


atom = mlxc.KS(gto.M(atom="H 0 0 0", spin=1, basis="cc-pvdz", verbose=0)).density_fit().kernel()
print("R / A   restricted  unrestricted / kcal/mol   <S^2>")
for r in DISTANCES:
    mol = gto.M(atom=[("H", (0, 0, 0)), ("H", (0, 0, r))], basis="cc-pvdz", verbose=0)
    restricted = mlxc.KS(mol).density_fit().kernel()
    unrestricted = lowest(mlxc.attach(mol.UKS()).density_fit())
    energies = (np.array([restricted, unrestricted.e_tot]) - 2 * atom) * KCAL
    print(f"{r:5.2f} {energies[0]:12.2f} {energies[1]:12.2f} {unrestricted.spin_square()[0]:18.2f}")
