"""D4 energies with the published damping parameters of a functional.

Caldeweyher et al., J. Chem. Phys. 150, 154122 (2019), with three-body terms, from the library pyscf-dispersion.
"""

from __future__ import annotations

from importlib.util import find_spec

from pyscf import gto

from mlxc.errors import InputError


def need_library(what: str) -> None:
    """Raises InputError where the D4 library is missing."""
    if not find_spec("pyscf.dispersion"):
        raise InputError(f"{what} needs the D4 library: pip install pyscf-dispersion")


def d4_energy(mol: gto.Mole, parameters: str) -> float:
    """D4 energy, Eh, with the damping parameters of a functional, by its name.

    The same as `mf.disp = "d4:NAME"` gives.  Raises InputError without the library and for a name unknown to it.
    """
    need_library("this model")
    from pyscf.dispersion.dftd4 import DFTD4Dispersion

    try:
        return float(DFTD4Dispersion(mol, xc=parameters, atm=True).get_dispersion()["energy"])
    except RuntimeError as err:
        raise InputError(f"there are no published D4 parameters for {parameters!r}: give another functional") from err
