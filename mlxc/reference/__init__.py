"""Reference densities and energies: recipes, the builder, and HDF5 files that check themselves.

from mlxc.reference import read

library = read("small.h5")     # name -> Reference
library["H2O"].dm1                      # (2, nao, nao), in the basis of library["H2O"].mole()
"""

from mlxc.reference.ensembles import fractional_charge, fractional_spin
from mlxc.reference.schema import Reference
from mlxc.reference.store import read, write

__all__ = ["Reference", "fractional_charge", "fractional_spin", "read", "write"]
