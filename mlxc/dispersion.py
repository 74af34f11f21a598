"""D4 energies with the published damping parameters of a functional.

Caldeweyher et al., J. Chem. Phys. 150, 154122 (2019), with three-body terms, from the library pyscf-dispersion.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from pyscf import gto

from mlxc.errors import InputError


def need_library(what: str) -> None:
    """Raises InputError where the D4 library is missing."""
    if not find_spec("pyscf.dispersion"):
        raise InputError(f"{what} needs the D4 library: pip install pyscf-dispersion")


def real_atoms(mol: gto.Mole) -> tuple[gto.Mole, np.ndarray]:
    """A molecule without its ghost atoms, for its atoms alone, and which atoms these are.

    The D4 library takes a ghost, of no nuclear charge, for an atom that polarises the others.
    """
    real = np.array([gto.charge(mol.atom_symbol(i)) > 0 for i in range(mol.natm)], dtype=bool)
    kept = np.flatnonzero(real)
    if len(kept) == mol.natm:
        return mol, kept
    out = mol.copy(deep=False)
    out._atom, out._atm = [mol._atom[i] for i in kept], mol._atm[kept]
    return out, kept


def d4_energy(mol: gto.Mole, parameters: str) -> float:
    """D4 energy, Eh, with the damping parameters of a functional, by its name.

    The same as `mf.disp = "d4:NAME"` gives.  Raises InputError without the library and for a name unknown to it.
    """
    need_library("this model")
    from pyscf.dispersion.dftd4 import DFTD4Dispersion

    try:
        return float(DFTD4Dispersion(real_atoms(mol)[0], xc=parameters, atm=True).get_dispersion()["energy"])
    except RuntimeError as err:
        raise InputError(f"there are no published D4 parameters for {parameters!r}: give another functional") from err
