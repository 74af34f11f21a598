"""One calculation as other programs ask for it, through ASE or QCSchema: the object, its result, its uncertainty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlxc import models
from mlxc.domain import novelty
from mlxc.ensemble import ensemble_energies, uncertainty_kcal
from mlxc.errors import InputError, run_by_pyscf
from mlxc.ongrid import attached
from mlxc.scf import KS, solved

#: What such programs can set besides functional, basis, charge and spin: density fitting, PySCF's level of the grid,
#: the change of the energy (Eh) at which the SCF ends, and whether singlets have orbitals for each spin (`mlxc.KS`).
SETTINGS: dict[str, Any] = {"density_fit": True, "grid_level": 3, "conv_tol": 1e-9, "unrestricted": False}


def prepare(mol: Any, xc: str, settings: dict[str, Any]) -> Any:
    """A Kohn-Sham object for a molecule, by SETTINGS and what differs from them.

    Raises InputError for a setting that is not there or has no such value, and as `mlxc.KS`.
    """
    check_names(settings, SETTINGS)
    values = SETTINGS | settings
    density_fit, level, conv_tol, unrestricted = (values[k] for k in SETTINGS)
    for name, value in (("density_fit", density_fit), ("unrestricted", unrestricted)):
        if not isinstance(value, bool):
            raise InputError(f"{name} is true or false, not {value!r}")
    if level not in range(10):
        raise InputError(f"grid_level is a whole number from 0 to 9, not {level!r}")
    if not isinstance(conv_tol, float | int) or not 0 < conv_tol < math.inf:
        raise InputError(f"conv_tol is a positive number (Eh), not {conv_tol!r}")
    mf = KS(mol, xc, unrestricted)
    if density_fit:
        mf = mf.density_fit()
    mf.grids.level = int(level)
    mf.conv_tol = conv_tol
    return mf


def check_names(given: Any, known: Any) -> None:
    """InputError where one of the names `given` is not among those `known`."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"there is no setting {', '.join(unknown)}: there are {', '.join(known)}")


def solve(mf: Any, dm0: Any = None) -> Any:
    """The converged calculation, from the density matrix `dm0` or from PySCF's guess.

    As `mlxc.scf.solved`; raises InputError for what PySCF cannot run.
    """
    with run_by_pyscf(mf.xc, ours=attached(mf) is not None):
        return solved(mf, dm0)


def strange(mf: Any) -> list[str] | None:
    """In what the molecule of a converged calculation is unlike those that its model was trained on
    (`mlxc.novelty`); None for a functional that does not know what these were.
    """
    functional = attached(mf)
    return novelty(mf) if functional is not None and functional.domain else None


def ensemble(mf: Any) -> tuple[np.ndarray, float] | None:
    """Total energies (n,), Eh, of the members of the model that a converged calculation uses, and how far the energy
    is likely to be off, kcal/mol; None for a functional without members.
    """
    functional = attached(mf)
    if functional is None or functional.source is None:
        return None
    members = models.load_members(functional.source)
    if not members:
        return None
    energies = ensemble_energies(mf, members)
    return energies, uncertainty_kcal(energies, functional.source)
