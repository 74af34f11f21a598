"""A reaction energy and how sure the model is of it; and what it says of a molecule unlike those it was trained on."""

from pyscf import gto

import mlxc
from mlxc.ensemble import uncertainty_kcal
from mlxc.units import KCAL

GEOMETRIES = {
    "N2": "N 0 0 0; N 0 0 1.0977",
    "H2": "H 0 0 0; H 0 0 0.7414",
    "NH3": "N 0 0 0; H 0.9377 0 0.3816; H -0.46885 0.81207 0.3816; H -0.46885 -0.81207 0.3816",
}
REACTION = {"NH3": 2, "N2": -1, "H2": -3}  # N2 + 3 H2 -> 2 NH3

energy, members = 0.0, 0.0
for name, coefficient in REACTION.items():
    mf = mlxc.KS(gto.M(atom=GEOMETRIES[name], basis="def2-tzvp", verbose=0)).density_fit().run()
    energy += coefficient * mf.e_tot
    members = members + coefficient * mlxc.ensemble_energies(mf)  # errors that molecules share cancel
print(f"reaction energy {energy * KCAL:.1f} +- {uncertainty_kcal(members, 'default'):.1f} kcal/mol")

krypton = gto.M(atom="Kr 0 0 0", basis="def2-svp", verbose=0)
for reason in mlxc.novelty(mlxc.KS(krypton).density_fit().run()):
    print("krypton is unlike the training set:", reason)
