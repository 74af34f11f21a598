"""Properties that PySCF's core does not have, for molecular RKS, UKS, RHF and UHF."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from pyscf import lib
from pyscf.scf.rohf import ROHF

from mlxc.errors import ConvergenceError, InputError
from mlxc.hybridscf import need_unoccupied
from mlxc.occupations import need_whole
from mlxc.ongrid import has_spin_channels, need_converged

#: <S^2> that exceeds S(S + 1) by more tells that other spins are mixed in.
CONTAMINATION = 0.3
#: Changes of the orbitals are converged to this.
TOLERANCE = 1e-8
#: What may be left of the equations: more has not converged.
LEFT = 1e-4


def pure_spin(unpaired: int) -> float:
    """<S^2> of so many unpaired electrons, S(S + 1)."""
    return unpaired / 2 * (unpaired / 2 + 1)


def contaminated(s2: float, unpaired: int) -> bool:
    """Whether an <S^2> tells that states of other spins are mixed in."""
    return s2 - pure_spin(unpaired) > CONTAMINATION


def highest_occupied(mf: Any, more: np.ndarray | None = None) -> float:
    """Energy (Eh) of the highest orbital of either spin that is occupied.

    more : an operator (nao, nao) that the Fock matrix lacks and that is added in first order
    """
    energies = np.asarray(mf.mo_energy)
    if more is not None:
        energies = energies + np.einsum("...mi,mn,...ni->...i", mf.mo_coeff, more, mf.mo_coeff)
    return float(energies[np.asarray(mf.mo_occ) > 0].max())


def polarizability(mf: Any) -> np.ndarray:
    """Static dipole polarizability (3, 3), Bohr^3, of a converged RKS, UKS, RHF or UHF object.

    From coupled-perturbed equations (Gerratt, Mills, J. Chem. Phys. 49, 1719 (1968)): the field's change of the
    orbitals, U_ai = -(r_ai + v_ai[U]) / (e_a - e_i) with v the change of the Fock matrix that `mf.gen_response` gives,
    changes the dipole.  A solvent follows, unless it is frozen.  Raises InputError for ROKS and ROHF, for
    generalised, relativistic and periodic objects, and for one that is not converged or has fractional occupations;
    ConvergenceError where the equations do not converge.
    """
    if not has_spin_channels(mf):
        raise InputError(f"polarizabilities are for molecules in RKS, UKS, RHF or UHF, not {type(mf).__name__}")
    if isinstance(mf, ROHF):
        raise InputError("polarizabilities of restricted open shells are not available: use mf.to_uks().run()")
    need_unoccupied(mf, "polarizabilities")
    need_converged(mf, "polarizabilities need")
    need_whole(mf, "polarizabilities")
    restricted = np.ndim(mf.mo_occ) == 1
    coefficients, energies, occupations = (
        [x] if restricted else list(x) for x in (mf.mo_coeff, mf.mo_energy, mf.mo_occ)
    )
    spaces = [(c[:, n == 0], c[:, n > 0]) for c, n in zip(coefficients, occupations, strict=True)]
    gaps = np.concatenate([(e[n == 0, None] - e[n > 0]).ravel() for e, n in zip(energies, occupations, strict=True)])
    electrons = 2 if restricted else 1
    response = mf.gen_response(hermi=1)

    def excitations(fock: list[np.ndarray]) -> np.ndarray:
        """Matrix elements (k, N) between unoccupied and occupied orbitals of operators (k, nao, nao) of each spin."""
        blocks = [(v.T @ f @ o).reshape(len(f), -1) for f, (v, o) in zip(fock, spaces, strict=True)]
        return np.concatenate(blocks, axis=1)

    def induced(x: np.ndarray) -> np.ndarray:
        """v[U] over gaps, (k, N)."""
        x = x.reshape(-1, len(gaps))
        dm1, start = [], 0
        for v, o in spaces:
            end = start + v.shape[1] * o.shape[1]
            half = electrons * v @ x[:, start:end].reshape(len(x), v.shape[1], o.shape[1]) @ o.T
            dm1.append(half + half.transpose(0, 2, 1))
            start = end
        changed = [response(dm1[0])] if restricted else list(response(np.array(dm1)))
        return excitations(changed) / gaps

    dipole = excitations([mf.mol.intor_symmetric("int1e_r")] * len(spaces))
    solvent = getattr(mf, "with_solvent", None)
    following = (
        nullcontext() if solvent is None else lib.temporary_env(solvent, equilibrium_solvation=not solvent.frozen)
    )
    try:
        with following:
            change = lib.krylov(induced, -dipole / gaps, tol=TOLERANCE, max_cycle=50)
            left = abs(change + induced(change) + dipole / gaps).max()
    except NotImplementedError as err:  # a RuntimeError as well
        raise InputError(f"PySCF has no polarizabilities with {mf.xc}: {err}") from err
    except RuntimeError as err:
        raise ConvergenceError(f"the response of the orbitals to a field did not converge: {err}") from err
    if not left < LEFT:  # before PySCF 2.14 krylov went on with what it had
        raise ConvergenceError(f"the response of the orbitals to a field did not converge: {left:.0e} is left of it")
    return -2 * electrons * dipole @ change.T
