"""Kohn-Sham calculations with an mlxc functional: `KS(mol)`, `attach(mf)`, `converge(mf)`."""

from __future__ import annotations

import copy
from typing import Any

from pyscf import lib
from pyscf.dft import gks, libxc, numint
from pyscf.scf.hf import KohnShamDFT

from mlxc import models
from mlxc.errors import InputError, UnknownFunctionalError
from mlxc.functional import Functional
from mlxc.integrate import LocalHybridNumInt
from mlxc.numint import Backend, Label


class LocalHybridSCF:
    """What `attach` adds to the class of a Kohn-Sham object that is to use a local hybrid."""

    __name_mixin__ = "LocalHybrid"
    _numint: Any
    get_fock: Any
    make_rdm1: Any
    canonicalize: Any
    mo_coeff: Any
    mo_occ: Any

    def scf(self, dm0: Any = None, **kwargs: Any) -> float:
        """PySCF's, with Fock matrices for the occupied orbitals; the unoccupied ones follow once at the end."""
        ni = self._numint
        self._numint = ni.occupied()
        try:
            energy = super().scf(dm0, **kwargs)  # type: ignore[misc]
        finally:
            ni._tables = self._numint._tables
            self._numint = ni
        fock = self.get_fock(dm=self.make_rdm1())
        self.mo_energy, self.mo_coeff = self.canonicalize(self.mo_coeff, self.mo_occ, fock)
        return energy


def resolve(xc: str | Functional) -> Functional | None:
    """The functional that `xc` names: itself, a shipped model, a model folder; None for a name that libxc knows.

    Raises UnknownFunctionalError for a name that nobody knows and ModelFileError for a damaged model.
    """
    if isinstance(xc, Functional):
        return xc
    if models.exists(xc):
        return models.load(xc)
    try:
        libxc.parse_xc(xc)
        libxc.xc_type(xc)
        known = bool(xc.strip())
    except Exception:  # PySCF raises KeyError, ValueError or bare exceptions, by version and by name
        known = False
    if not known:
        raise UnknownFunctionalError(
            f"unknown functional {xc!r}: neither a libxc name nor a model folder nor one of {', '.join(models.names())}"
        )
    return None


def attach(mf: Any, xc: str | Functional = "default") -> Any:
    """Make an existing Kohn-Sham object (RKS, UKS, ROKS, GKS; molecular or periodic) use `xc`; returns it.

    Nothing else of the object changes, so density fitting, solvent, second-order solvers, gradients and response
    properties are PySCF's own.  Names that mlxc does not know go to libxc.  What an earlier run left in
    the object (energy, orbitals) stays there until the next `kernel()`.
    Raises UnknownFunctionalError, ModelFileError, and InputError for an object that is not Kohn-Sham.
    """
    functional = resolve(xc)
    if not isinstance(mf, KohnShamDFT):
        raise InputError(f"{type(mf).__name__} is not a Kohn-Sham object: make one with mol.KS() or mlxc.KS(mol)")
    if isinstance(mf, LocalHybridSCF):
        mf.__class__ = lib.drop_class(type(mf), LocalHybridSCF)
        mf._numint = numint.NumInt()
    if functional is not None and functional.exx_omega is not None:
        if not isinstance(mf, KohnShamDFT) or isinstance(mf, gks.GKS) or hasattr(mf, "cell"):
            raise InputError(f"{functional.name} is a local hybrid: it runs in molecular RKS, UKS and ROKS only")
        ni: Any = LocalHybridNumInt(functional)
        lib.set_class(mf, (LocalHybridSCF, type(mf)))
    else:
        ni = copy.copy(mf._numint)
        for name in [k for k in vars(ni) if callable(getattr(type(ni), k, None))]:
            delattr(ni, name)  # a method that define_xc_ has replaced
        ni.libxc = libxc if functional is None else Backend(functional)
    mf.xc = xc if functional is None else Label(functional.name)
    mf._numint = ni
    if hasattr(mf, "_scf"):  # a second-order solver works on the object that it was made of
        mf._scf = attach(mf._scf, functional or xc)
    return mf


def KS(mol: Any, xc: str | Functional = "default") -> Any:
    """A PySCF Kohn-Sham object for a Mole (RKS or UKS by its spin) or a Cell, using `xc` as in `attach`."""
    return attach(mol.KS(), xc)


def converge(mf: Any, dm0: Any = None) -> Any:
    """Run an SCF; where DIIS fails, go on from its orbitals with PySCF's second-order solver.

    Returns the object that holds the result: `mf`, or an equal one from the second-order solver.
    Its `converged` says whether it worked.
    """
    mf.kernel(dm0)
    return mf if mf.converged or mf.max_cycle < 2 else second_order(mf)


def second_order(mf: Any) -> Any:
    """Go on from the orbitals of `mf` with PySCF's second-order solver; returns an equal object with the result."""
    second = mf.newton()
    second.kernel(mf.mo_coeff, mf.mo_occ)
    return second.undo_soscf()
