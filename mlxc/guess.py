"""Density matrices that an SCF starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import dft, gto, lib

#: Change of an initial density matrix, relative.
SHAKEN = 0.02
#: The functional that local hybrids start from: its level of the grid, the change of the energy (Eh) and the orbital
#: gradient at which it ends, and the cycles it may take.
FIRST, LEVEL, CONV_TOL, CONV_TOL_GRAD, CYCLES = "r2scan", 1, 1e-3, 3e-2, 10


def shaken(dm: np.ndarray) -> np.ndarray:
    """A density matrix, (..., nao, nao), with every orbital's share changed by up to SHAKEN, always in the same way.

    Otherwise the last bits of the machine would decide which of several degenerate states of an atom is found, whose
    energies differ by what the grid makes of them, or the SCF would wander between them.
    """
    dm = np.asarray(dm)
    scale: np.ndarray = 1 + SHAKEN * np.random.default_rng(0).uniform(-1, 1, size=dm.shape[-1:])
    return dm * scale[:, None] * scale


def is_default(key: Any) -> bool:
    """Whether an object's `init_guess` is PySCF's default; a density matrix may stand there as well."""
    return isinstance(key, str) and key.lower() == "minao"


def may_turn(mol: gto.Mole) -> bool:
    """Whether PySCF's default guess leaves it to rounding errors which of several degenerate states is found.

    A state that points anywhere but along an axis of the grid turns for tens of cycles, and DIIS may lose its way.
    """
    return bool(mol.spin and not mol.symmetry)


def semilocal(mf: Any, dm: np.ndarray) -> np.ndarray:
    """The density matrix after a few cycles of FIRST on a coarse grid, from another one.

    mf : a Kohn-Sham object of PySCF's own class, which is changed: give a copy
    """
    mf.xc, mf.nlc, mf.disp = FIRST, "", None
    mf.grids = dft.gen_grid.Grids(mf.mol)
    mf.grids.level = LEVEL
    mf.conv_tol, mf.conv_tol_grad, mf.max_cycle = CONV_TOL, CONV_TOL_GRAD, CYCLES
    mf.callback, mf.chkfile, mf.diis, mf.diis_file, mf.verbose = None, None, True, None, lib.logger.QUIET
    mf.kernel(dm)
    return mf.make_rdm1()
