"""Electronic excitations of molecules by time-dependent density-functional theory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf.data.nist import HARTREE2EV, HARTREE2WAVENUMBER
from pyscf.scf.rohf import ROHF
from scipy.constants import centi, nano

from mlxc.errors import ConvergenceError, InputError
from mlxc.occupations import need_whole
from mlxc.ongrid import has_spin_channels, need_converged


@dataclass(frozen=True, eq=False)
class Excitations:
    """Vertical excitations, in the order of their energies.

    energies_ev           (N,), eV
    wavelengths_nm        (N,), nm
    oscillator_strengths  (N,), in the length gauge
    converged             (N,)
    """

    energies_ev: np.ndarray
    wavelengths_nm: np.ndarray
    oscillator_strengths: np.ndarray
    converged: np.ndarray


def excitations(mf: Any, nstates: int = 5) -> Excitations:
    """The lowest excitations of a converged RKS object, to singlets, or UKS object, without change of spin.

    Full linear response, `mf.TDDFT()`; in a solvent, which follows with its electrons alone, as those of water do
    (PySCF's dielectric constant 1.78, whatever the solvent).  There are fewer than `nstates` where the molecule has no
    more, where its state is degenerate and can turn at no cost, and where it is unstable: `mf.stability()` tells.
    Raises InputError for ROKS, for generalised, relativistic and periodic objects, for one that is not converged and
    for functionals that PySCF lacks derivatives of, and ConvergenceError for a ground state that is seen to be a saddle
    point or has electrons above an empty orbital.
    """
    if not has_spin_channels(mf):
        raise InputError(f"excitations are for molecules in RKS or UKS, not {type(mf).__name__}")
    if isinstance(mf, ROHF):
        raise InputError("excitations of restricted open shells are not available: use mf.to_uks().run()")
    need_converged(mf, "excitations need")
    need_whole(mf, "excitations")
    if not any(0 < np.count_nonzero(n) < len(n) for n in np.atleast_2d(mf.mo_occ)):
        raise InputError("excitations need unoccupied orbitals, and this basis leaves none: take a larger one")
    td = mf.TDDFT().set(nstates=nstates)
    for energies, n in zip(np.atleast_2d(mf.mo_energy), np.atleast_2d(mf.mo_occ), strict=True):
        occupied, empty = energies[n > 0], energies[n == 0]
        if len(occupied) and len(empty) and occupied.max() > empty.min():
            raise ConvergenceError("no excitations: an empty orbital lies below an occupied one of its spin")
    try:
        td.kernel()
    except NotImplementedError as err:  # a RuntimeError as well
        raise InputError(f"PySCF has no excitations with {mf.xc}: {err}") from err
    except RuntimeError as err:
        raise ConvergenceError(f"no excitations: is the ground state a minimum? See mf.stability() ({err})") from err
    energies = np.asarray(td.e)
    return Excitations(
        energies_ev=energies * HARTREE2EV,
        wavelengths_nm=centi / nano / (energies * HARTREE2WAVENUMBER),
        oscillator_strengths=np.asarray(td.oscillator_strength()),
        converged=np.asarray(td.converged)[: len(energies)],
    )
