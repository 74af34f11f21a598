"""A self-consistent field that is meant to be found: rungs, each tried where the one before it has failed.

    diis            PySCF's default: DIIS from `first_density`
    level shift     on from there, unoccupied orbitals raised by LEVEL_SHIFT
    damping         again from the start, half of the old Fock matrix kept in the first DAMPED cycles
    second order    PySCF's second-order solver, from the orbitals of the lowest attempt
    other density   second order from the converged orbitals of another functional (OTHER)

What has converged may be a saddle point: `settled` follows the instabilities that PySCF's stability analysis finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mlxc.errors import FAILURES
from mlxc.occupations import LEVEL_SHIFT
from mlxc.scf import Cycles, converge, first_density, second_order

#: Share of the old Fock matrix on the rung "damping", and its last cycle, after which DIIS begins.
DAMPING, DAMPED = 0.5, 10
#: The functional whose orbitals the last rung starts from.
OTHER = "r2scan"
#: Instabilities that are followed before a calculation is given up as unstable.
DESCENTS = 4
#: Energies (Eh) that differ by less are of one solution.
SAME = 1e-6

Start = Callable[..., Any]


@dataclass
class Attempt:
    """One rung: energy (Eh; None where the calculation broke off), convergence, cycles."""

    rung: str
    energy: float | None
    converged: bool
    cycles: int


@dataclass
class Solution:
    """Where the ladder led: the calculation `mf`, the rung that it is from, and all attempts.

    rung : "none" where no attempt has converged
    stable : True, False, or None where it was not examined or the analysis broke off (`broken`)
    """

    mf: Any
    rung: str
    attempts: list[Attempt] = field(default_factory=list)
    stable: bool | None = None
    broken: str = ""

    def faults(self) -> list[str]:
        """What casts doubt on a converged result."""
        found = ["unstable"] if self.stable is False else []
        found += [f"stability not examined: {self.broken}"] if self.broken else []
        energies = [a.energy for a in self.attempts if a.energy is not None]
        if self.rung != "none" and min(energies) < self.mf.e_tot - SAME:
            found.append("an attempt came lower")
        return found


def _diis(fresh: Start, before: Any) -> Any:
    mf = fresh()
    mf.kernel(first_density(mf))
    return mf


def _level_shift(fresh: Start, before: Any) -> Any:
    mf = fresh()
    mf.level_shift = LEVEL_SHIFT
    mf.kernel(before.make_rdm1() if before is not None else first_density(mf))
    return mf


def _damping(fresh: Start, before: Any) -> Any:
    mf = fresh()
    mf.damp, mf.diis_start_cycle = DAMPING, DAMPED
    mf.kernel(first_density(mf))
    return mf


def _second_order(fresh: Start, before: Any) -> Any:
    mf = fresh()
    if before is not None:
        mf.mo_coeff, mf.mo_occ = before.mo_coeff, before.mo_occ
    return second_order(mf)


def _other_density(fresh: Start, before: Any) -> Any:
    return _second_order(fresh, converge(fresh(OTHER)))


#: Each from () -> a fresh calculation, or (xc) -> one with another functional, and the lowest attempt before it, None
#: where all have broken off.
RUNGS: dict[str, Callable[[Start, Any], Any]] = {
    "diis": _diis,
    "level shift": _level_shift,
    "damping": _damping,
    "second order": _second_order,
    "other density": _other_density,
}


def climb(start: Start) -> Solution:
    """Up the rungs until one converges.

    start : () -> a Kohn-Sham object that has not been run, or (xc) -> one with another functional

    Raises MemoryError, which would meet every rung, and what the first rung broke off with where all have broken off.
    """
    attempts: list[Attempt] = []
    broken: list[Exception] = []
    lowest: Any = None
    for rung, run in RUNGS.items():
        cycles = Cycles()

        def fresh(*xc: str, callback: Cycles = cycles) -> Any:
            mf = start(*xc)
            mf.callback = callback
            return mf

        try:
            mf = run(fresh, lowest)
        except FAILURES as err:
            broken.append(err)
            attempts.append(Attempt(rung, None, False, cycles.number))
            continue
        energy = float(mf.e_tot) if np.isfinite(mf.e_tot) else None
        attempts.append(Attempt(rung, energy, bool(mf.converged), cycles.number))
        if mf.converged:
            return Solution(mf, rung, attempts)
        if energy is not None and (lowest is None or energy < lowest.e_tot):
            lowest = mf
    if len(broken) == len(RUNGS):
        raise broken[0]
    return Solution(lowest, "none", attempts)


def parted(mf: Any) -> np.ndarray:
    """Orbitals of both spins (2, nao, nmo), of a restricted singlet whose last pair is torn apart.

    HOMO and LUMO are mixed half and half, with one sign for each spin: in a stretched bond one electron on either side.
    Lower solutions of broken symmetry can lie behind a barrier, which no analysis of stability looks over.
    """
    homo = int(np.flatnonzero(mf.mo_occ > 0)[-1])
    orbitals = np.array([mf.mo_coeff, mf.mo_coeff])
    pair = mf.mo_coeff[:, homo : homo + 2] / np.sqrt(2)
    for spin, sign in enumerate((1, -1)):
        orbitals[spin][:, homo] = pair[:, 0] + sign * pair[:, 1]
        orbitals[spin][:, homo + 1] = pair[:, 1] - sign * pair[:, 0]
    return orbitals


def settled(solution: Solution, broken_symmetry: bool = False) -> Solution:
    """The converged solution, or a lower one that its instabilities lead to; examined again until it is stable.

    With `broken_symmetry` a restricted solution may become an unrestricted one; of a singlet whose instabilities, if
    there are any, lead to nothing lower this is tried from the density of `parted` orbitals.  Where the analysis breaks
    off, as PySCF's does for functionals without second derivatives, the last solution stays as it is.
    """
    solution = replace(solution, attempts=list(solution.attempts))
    try:
        for _ in range(DESCENTS):
            lower, stable = _examined(solution, broken_symmetry)
            if lower is None:
                return replace(solution, stable=stable)
            solution = lower
    except FAILURES as err:
        return replace(solution, broken=" ".join(str(err).split()) or type(err).__name__)
    return replace(solution, stable=False)


def _from_density(mf: Any) -> Any:
    return converge(mf, mf.make_rdm1())


def _examined(solution: Solution, broken_symmetry: bool) -> tuple[Solution | None, bool]:
    """A lower solution that the instabilities lead to, None where there is none, and whether this one is stable then.

    All attempts are added to those of the solution, whose list the lower one shares.
    """
    mf = solution.mf
    restricted = np.ndim(mf.mo_occ) == 1
    inside, outside, stable, stable_outside = mf.stability(external=restricted and broken_symmetry, return_status=True)
    ways = [] if stable else [("stability", mf.copy(), inside, mf.mo_occ, second_order)]
    if restricted and broken_symmetry:
        occupations = np.array([mf.mo_occ > 0, mf.mo_occ > 1], dtype=float)
        if stable_outside is False:
            ways.append(("broken symmetry", mf.to_uks(), outside, occupations, second_order))
        if mf.mol.spin == 0:  # far from any solution, where the second-order solver can climb
            ways.append(("broken symmetry", mf.to_uks(), parted(mf), occupations, _from_density))
    settled_in = stable and stable_outside is not False
    for step, other, orbitals, occupations, solve in ways:
        other.mo_coeff, other.mo_occ = orbitals, occupations
        other.callback = cycles = Cycles()
        found = solve(other)
        solution.attempts.append(Attempt(step, float(found.e_tot), bool(found.converged), cycles.number))
        alike = found.converged and abs(found.e_tot - mf.e_tot) < SAME
        settled_in |= alike  # a rotation of an atom that the grid resists
        if found.converged and found.e_tot <= mf.e_tot and not alike:
            return Solution(found, step, solution.attempts), False
    return None, bool(settled_in)
