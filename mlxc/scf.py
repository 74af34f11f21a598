"""Kohn-Sham calculations with an mlxc functional: `KS(mol)`, `attach(mf)`, `converge(mf)`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from pyscf import lib
from pyscf.df.addons import predefined_auxbasis
from pyscf.dft import libxc
from pyscf.scf.diis import CDIIS
from pyscf.scf.hf import KohnShamDFT

from mlxc import models
from mlxc.backend import Backend, Label, cpu_only
from mlxc.diis import Diis
from mlxc.dispersion import need_library, real_atoms
from mlxc.errors import ConvergenceError, InputError
from mlxc.functional import Functional
from mlxc.guess import is_default, may_turn, shaken
from mlxc.hybridscf import LocalHybridSCF, refit, use_local_hybrid, without_local_hybrid
from mlxc.occupations import DISORDER, LEVEL_SHIFT, FixedOccupations, checked_occupations, smeared
from mlxc.ongrid import attached, mixes_spins
from mlxc.refused import check_molecular
from mlxc.scripted import ScriptFunctional


def attach(mf: Any, xc: str | Functional = "default") -> Any:
    """Make an existing Kohn-Sham object (RKS, UKS, ROKS; GKS and periodic for semilocal functionals) use `xc`.

    Returns the object.  Density fitting, solvents and second-order solvers are PySCF's own, as are the gradients and
    response properties of semilocal functionals; those of local hybrids take their place.  Names that mlxc does not
    know go to libxc.  What an earlier run left in the object (energy, orbitals) stays until the next `kernel()`, but it
    does not count as converged any more.
    Raises UnknownFunctionalError, ModelFileError, and InputError for an object that is not Kohn-Sham and, with a local
    hybrid, for a generalised or periodic one and one that has a solvent already.
    """
    functional = models.resolve(xc)
    former = attached(mf)
    if not isinstance(mf, KohnShamDFT):
        raise InputError(f"{type(mf).__name__} is not a Kohn-Sham object: make one with mol.KS() or mlxc.KS(mol)")
    if functional is not None:  # what is refused is refused before the object is changed
        _check_fits(functional, mf)
    if isinstance(mf, LocalHybridSCF):
        without_local_hybrid(mf)
    if functional is not None and functional.exx_omega is not None:
        use_local_hybrid(mf, functional)
    else:
        ni: Any = copy.copy(mf._numint)
        for name in [k for k in vars(ni) if callable(getattr(type(ni), k, None))]:
            delattr(ni, name)  # a method that define_xc_ has replaced
        ni.libxc = libxc if functional is None else Backend(functional)
        if isinstance(functional, ScriptFunctional):
            ni.eval_xc_eff = functional.eval_xc_eff
        if functional is not None:
            ni.to_gpu = cpu_only
        elif libxc.is_hybrid_xc(xc):
            refit(mf, lambda mol: predefined_auxbasis(mol, mol.basis, xc))
        mf._numint = ni
    mf.converged, mf.scf_summary = False, {}  # PySCF would take a former functional's dispersion energy from there
    mf.xc = xc if functional is None else Label(functional.name)
    if mf.DIIS is CDIIS:
        mf.DIIS = Diis
    if former is not None and former.disp and mf.disp == former.disp:
        mf.disp = None
    if functional is not None and functional.disp:
        mf.disp = functional.disp
    if hasattr(mf, "_scf"):  # a second-order solver works on the object that it was made of
        mf._scf = attach(mf._scf, functional or xc)
        mf.scf_summary = mf._scf.scf_summary
        if hasattr(mf, "with_df"):
            mf.with_df = mf._scf.with_df
    return mf


def _check_fits(functional: Functional, mf: Any) -> None:
    """InputError where a functional cannot be used in a Kohn-Sham object, or lacks a package."""
    if functional.disp:
        need_library(functional.name)
    if functional.exx_omega is not None:
        check_molecular(mf, functional)
    elif functional.disp and len(real_atoms(mf.mol)[1]) < mf.mol.natm:
        raise InputError(
            f"{functional.name}: PySCF's D4 takes ghost atoms for atoms; take the default, which leaves them out, or "
            "the model without -d4, and add mlxc.dispersion.d4_energy"
        )
    elif isinstance(functional, ScriptFunctional) and mixes_spins(mf):
        raise InputError(f"{functional.name} comes from TorchScript: {type(mf).__name__} is not for it, UKS is")


def KS(mol: Any, xc: str | Functional = "default", unrestricted: bool = False) -> Any:
    """A PySCF Kohn-Sham object for a Mole (RKS or UKS by its spin) or, with a semilocal `xc`, a Cell: see `attach`.

    With `unrestricted` UKS for singlets too, whose guess has HOMO and LUMO mixed, with one sign for each spin: for
    stretched bonds and coupled spins.  PySCF's default leads back to the restricted solution of H2 at 2 Angstrom.
    """
    if not unrestricted:
        return attach(mol.KS(), xc)
    mf = mol.UKS()
    mf.init_guess_breaksym = "mix"
    return attach(mf, xc)


def fractional(mol: Any, occupations: Sequence[Sequence[float]], xc: str | Functional = "default") -> Any:
    """A PySCF UKS object whose orbitals are occupied as `occupations` says: ([1, 1, 0.5], [1, 1]) for spin up and down.

    Within each spin the orbitals are occupied in the order of their energies, nearly degenerate ones in any order after
    `converge`.  The molecule's own charge and spin have no effect but on the initial guess, and the charge on D4, which
    is that of the whole number of electrons.  Energies, densities, orbitals and `gen_response` are available, with
    `.density_fit()` as well.  Raises InputError for occupations that are not between 0 and 1, and as `attach`.
    """
    mf = attach(mol.UKS(), xc)
    mf.occupations = checked_occupations(mol, occupations)
    return lib.set_class(mf, (FixedOccupations, type(mf)))


class Cycles:
    """SCF callback that counts cycles: `number` of them since it was set to 0."""

    def __init__(self) -> None:
        self.number, self._macro = 0, None

    def __call__(self, envs: dict[str, Any]) -> bool:
        """Whether this call ends a cycle: PySCF's second-order solver calls once more after its last one."""
        macro = envs.get("imacro")
        ended = "norm_gorb" in envs and (macro is None or macro != self._macro)
        self._macro = macro
        self.number += ended
        return ended


def first_density(mf: Any) -> np.ndarray | None:
    """The object's own initial guess, `shaken`; None, for its own, of local hybrids, which shake it themselves."""
    return None if isinstance(mf, LocalHybridSCF) else shaken(mf.get_init_guess())


def converge(mf: Any, dm0: Any = None) -> Any:
    """Run an SCF; where DIIS fails, go on from its orbitals with PySCF's second-order solver.

    Without a density matrix to start from, open shells start from PySCF's default guess after it was `shaken`.
    Fixed occupations, which that solver does not know, are tried again with a level shift and held to their orbitals;
    other fractional ones, smeared for example, are left as they are.
    Returns the object that holds the result: `mf`, or an equal one from the second-order solver.
    Its `converged` says whether it worked.
    """
    if dm0 is None and is_default(mf.init_guess) and may_turn(mf.mol) and not isinstance(mf, FixedOccupations):
        dm0 = first_density(mf)
    mf.kernel(dm0)
    if mf.converged or mf.max_cycle < 2:
        return mf
    if isinstance(mf, FixedOccupations):
        return shifted(mf)
    if smeared(mf) or not np.isin(mf.mo_occ, (0, 1, 2)).all():
        return mf
    return second_order(mf)


def solved(mf: Any, dm0: Any = None) -> Any:
    """As `converge`, where nothing goes on without a result.  Raises ConvergenceError."""
    mf = converge(mf, dm0)
    if not mf.converged:
        what = f"{''.join(mf.mol.elements)} with {getattr(mf, 'xc', 'Hartree-Fock')}"
        raise ConvergenceError(
            f"the SCF of {what} did not converge, nor did what is tried after DIIS: look at geometry, charge and spin"
        )
    return mf


def shifted(mf: Any) -> Any:
    """Go on from the orbitals of `mf`, with fixed occupations that follow them, with a level shift; returns it.

    Occupations that follow are those of the maximum overlap method (Gilbert, Besley, Gill, J. Phys. Chem. A 112, 13164
    (2008)), which may end in an excited state: that does not count as converged.
    """
    with lib.temporary_env(mf, level_shift=LEVEL_SHIFT, held=(mf.mo_coeff, mf.mo_occ)):
        mf.kernel(mf.make_rdm1())
    mf.converged = mf.converged and mf.disorder() < DISORDER
    return mf


def second_order(mf: Any) -> Any:
    """Go on from the orbitals of `mf` with PySCF's second-order solver; returns an equal object with the result."""
    second = mf.newton()
    second.kernel(mf.mo_coeff, mf.mo_occ)
    found = second.undo_soscf()
    found.scf_summary = second._scf.scf_summary  # which PySCF fills there
    return found
