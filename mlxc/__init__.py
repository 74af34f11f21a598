"""mlxc: machine-learned exchange-correlation functionals for PySCF.

mf = mlxc.KS(mol)        a Kohn-Sham object with the shipped functional
mlxc.attach(mf, xc)      the same for an object that exists
mlxc.polarizability(mf)  of a converged object, with any functional
mlxc.load(name)          a shipped model or a model folder as a torch module
"""

from mlxc.models import load
from mlxc.properties import polarizability
from mlxc.scf import KS, attach, converge
from mlxc.version import __version__

__all__ = ["KS", "__version__", "attach", "converge", "load", "polarizability"]
