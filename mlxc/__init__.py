"""mlxc: machine-learned exchange-correlation functionals for PySCF.

mf = mlxc.KS(mol)        a Kohn-Sham object with the shipped functional
mlxc.attach(mf, xc)      the same for an object that exists
mlxc.polarizability(mf)  of a converged object, with any functional
mlxc.vibrations(mf)      frequencies, infrared intensities and thermochemistry; mlxc.hessian(mf) second derivatives
mlxc.excitations(mf)     energies and oscillator strengths
mlxc.ensemble_energies(mf)   of all members of a model's ensemble
mlxc.novelty(mf)         in what its molecule is unlike those that the model was trained on
mlxc.load(name)          a shipped model, a model folder or FILE.fun as a torch module
mlxc.export(functional, path)   a semilocal functional as TorchScript, for other programs
"""

from mlxc.domain import novelty
from mlxc.ensemble import ensemble_energies
from mlxc.excited import excitations
from mlxc.harmonic import hessian, vibrations
from mlxc.models import load
from mlxc.properties import polarizability
from mlxc.scf import KS, attach, converge
from mlxc.torchscript import export
from mlxc.version import __version__

__all__ = [
    "KS",
    "__version__",
    "attach",
    "converge",
    "ensemble_energies",
    "excitations",
    "export",
    "hessian",
    "load",
    "novelty",
    "polarizability",
    "vibrations",
]
