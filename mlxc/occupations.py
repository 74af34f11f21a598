"""Self-consistent fields with occupation numbers that the user fixes, fractional ones among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyscf import gto, lib

from mlxc.errors import InputError

#: An orbital may lie so much (Eh) above one with fewer electrons: the splitting of a degenerate shell that is partly
#: occupied, of the size of an orbital's self-interaction.
DISORDER = 0.1
#: Level shift (Eh) with which an SCF that has not converged is tried again.
LEVEL_SHIFT = 0.3


class FixedOccupations:
    """What `mlxc.scf.fractional` adds to the class of an unrestricted object.

    The orbitals of each spin are occupied in the order of their energies by `occupations`, two sequences of numbers
    between 0 and 1, whatever the molecule's own number of electrons.

    held  orbitals (2, nao, nmo) and occupations (2, nmo) of the iteration before, where the occupations are to follow
          the orbitals instead: the order of nearly degenerate ones, some of them partly occupied and some empty, may
          change from iteration to iteration without end
    """

    __name_mixin__ = "FixedOccupations"
    _keys = frozenset({"occupations", "held"})
    occupations: tuple[np.ndarray, np.ndarray]
    held: tuple[np.ndarray, np.ndarray] | None = None

    def get_occ(self, mo_energy: Any = None, mo_coeff: Any = None) -> np.ndarray:
        """Occupation numbers (2, nmo) of orbitals with energies (2, nmo)."""
        energies = self.mo_energy if mo_energy is None else mo_energy  # type: ignore[attr-defined]
        orbitals = self.mo_coeff if mo_coeff is None else mo_coeff  # type: ignore[attr-defined]
        out = np.zeros_like(np.asarray(energies))
        if self.held is None:
            for row, e, n in zip(out, energies, self.occupations, strict=True):
                row[np.argsort(e, kind="stable")[: len(n)]] = n
            return out
        overlap = self.get_ovlp()  # type: ignore[attr-defined]
        for row, c, c_before, n_before, n in zip(out, orbitals, *self.held, self.occupations, strict=True):
            share = n_before @ (c_before.T @ overlap @ c) ** 2  # of the former occupation in each orbital
            row[np.argsort(-share, kind="stable")[: len(n)]] = np.sort(n)[::-1]
        self.held = np.array(orbitals), out
        return out

    def disorder(self) -> float:
        """How far (Eh) an orbital lies above one of its spin that has fewer electrons and was to lie above it."""
        found = 0.0
        for e, n, given in zip(self.mo_energy, self.mo_occ, self.occupations, strict=True):  # type: ignore[attr-defined]
            if (np.diff(given) <= 0).all():  # holes are asked for
                found = max(found, float(np.max((e[:, None] - e)[n[:, None] > n], initial=0.0)))
        return found

    def density_fit(self, *args: Any, **kwargs: Any) -> Any:
        """PySCF's, whose class would go before this one."""
        return outermost(super().density_fit(*args, **kwargs))  # type: ignore[misc]

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        """PySCF's methods that know of whole electrons only."""
        raise InputError("with fixed occupations there are energies, densities and orbitals, but not this")

    newton = stability = nuc_grad_method = Gradients = Hessian = _refuse
    TDA = TDDFT = CasidaTDDFT = TDDFTNoHybrid = dTDA = dRPA = TDHF = _refuse
    to_rhf = to_rks = to_ghf = to_gks = to_hf = _refuse


def smeared(mf: Any) -> bool:
    """Whether an object occupies its orbitals by their energies, fractionally, as PySCF's `smearing` makes it do."""
    return mf.istype("_SmearingSCF")


def need_whole(mf: Any, what: str) -> None:
    """InputError unless every orbital is full or empty: "`what` with fractional occupations are not available"."""
    if not np.isin(mf.mo_occ, (0, 2 if np.ndim(mf.mo_occ) == 1 else 1)).all():
        raise InputError(f"{what} with fractional occupations are not available: use integer ones")


def outermost(mf: Any) -> Any:
    """An object with the methods of FixedOccupations, if it has them, before those of all other classes; returns it."""
    if isinstance(mf, FixedOccupations):
        mf.__class__ = lib.drop_class(type(mf), FixedOccupations)
        lib.set_class(mf, (FixedOccupations, type(mf)))
    return mf


def checked_occupations(mol: gto.Mole, occupations: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """The occupations of both spins as arrays.  Raises InputError for what cannot be occupied so."""
    try:
        alpha, beta = (np.asarray(n, dtype=float) for n in occupations)
    except (TypeError, ValueError) as err:
        raise InputError(
            f"occupations are two lists of numbers, of spin up and down, not {occupations!r}: give ([1, 0.5], [1])"
        ) from err
    for n in (alpha, beta):
        if n.ndim != 1 or not ((n >= 0) & (n <= 1)).all():
            raise InputError(f"occupations of one spin are numbers from 0 to 1 in a row, not {n.tolist()}")
        if len(n) > mol.nao:
            raise InputError(f"{len(n)} occupations, but {mol.nao} orbitals in this basis")
    if alpha.sum() + beta.sum() == 0:
        raise InputError("no orbital is occupied")
    return alpha, beta


def canonical(mo_coeff: np.ndarray, mo_occ: np.ndarray, fock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies and orbitals that diagonalise `fock` among orbitals of one occupation, which may be mixed freely.

    Arrays are those of a restricted object, (nao, nmo), or of an unrestricted one, (2, nao, nmo).
    """
    if np.ndim(mo_occ) == 2:
        spins = [canonical(*x) for x in zip(mo_coeff, mo_occ, fock, strict=True)]
        energies, orbitals = (np.array(x) for x in zip(*spins, strict=True))
        return energies, orbitals
    energies, orbitals = np.empty(len(mo_occ)), np.array(mo_coeff)
    for n in np.unique(mo_occ):
        same = mo_occ == n
        energies[same], rotation = np.linalg.eigh(orbitals[:, same].T @ fock @ orbitals[:, same])
        orbitals[:, same] = orbitals[:, same] @ rotation
    return energies, orbitals
