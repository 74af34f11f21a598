"""Kohn-Sham calculations with an mlxc functional: `KS(mol)`, `attach(mf)`, `converge(mf)`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from pyscf import lib, tdscf
from pyscf.dft import gks, libxc, numint, uks
from pyscf.scf.hf import KohnShamDFT

from mlxc import models
from mlxc.errors import InputError, UnknownFunctionalError
from mlxc.exx import factorize
from mlxc.functional import Functional
from mlxc.gradient import LocalHybridGradients
from mlxc.integrate import LocalHybridNumInt
from mlxc.localhybrid import FIXED_FORMS
from mlxc.numint import Backend, Label
from mlxc.response import Response

#: Up to so many basis functions the whole Fock matrix of a local hybrid costs little more than its occupied part, and
#: atoms and small radicals, whose degenerate orbitals are the hard cases, converge in fewer cycles with it.
WHOLE_FOCK = 100


class LocalHybridSCF:
    """What `attach` adds to the class of a Kohn-Sham object that is to use a local hybrid."""

    __name_mixin__ = "LocalHybrid"
    _numint: Any
    mol: Any
    grids: Any
    max_memory: Any
    max_cycle: Any
    get_j: Any
    get_fock: Any
    make_rdm1: Any
    canonicalize: Any
    mo_coeff: Any
    mo_occ: Any

    def scf(self, dm0: Any = None, **kwargs: Any) -> float:
        """PySCF's; large molecules get Fock matrices for the occupied orbitals, and the others' once at the end."""
        ni = self._numint
        if self.mol.nao <= WHOLE_FOCK or self.max_cycle < 1:
            return super().scf(dm0, **kwargs)  # type: ignore[misc]
        self._numint = ni.occupied()
        try:
            energy = super().scf(dm0, **kwargs)  # type: ignore[misc]
        finally:
            self._numint = ni
        fock = self.get_fock(dm=self.make_rdm1())
        self.mo_energy, self.mo_coeff = self.canonicalize(self.mo_coeff, self.mo_occ, fock)
        return energy

    def density_fit(self, *args: Any, **kwargs: Any) -> Any:
        """PySCF's, which goes behind this class: its gradients know nothing of local hybrids."""
        mf = super().density_fit(*args, **kwargs)  # type: ignore[misc]
        mf.__class__ = lib.drop_class(type(mf), LocalHybridSCF)
        return lib.set_class(mf, (LocalHybridSCF, type(mf)))

    def nuc_grad_method(self) -> Any:
        """PySCF's object for nuclear gradients, made one for local hybrids."""
        gradients = super().nuc_grad_method()  # type: ignore[misc]
        return lib.set_class(gradients, (LocalHybridGradients, type(gradients)))

    Gradients = nuc_grad_method

    def TDDFT(self, *args: Any, **kwargs: Any) -> Any:
        """PySCF's TDDFT object in the form that hybrids need."""
        kind = tdscf.uks if isinstance(self, uks.UKS) else tdscf.rks
        return kind.TDDFT(self, *args, **kwargs)

    def CasidaTDDFT(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: Casida's form of TDDFT holds for functionals without exact exchange only."""
        raise InputError("Casida's equation does not hold for a local hybrid: use TDDFT()")

    def gen_response(
        self, mo_coeff=None, mo_occ=None, singlet=None, with_j=True, hermi=0, max_memory=None, with_nlc=True
    ) -> Any:
        """As PySCF's: the function dm1 -> change of the Fock matrix.  `singlet` is for restricted objects."""
        mo_coeff = self.mo_coeff if mo_coeff is None else mo_coeff
        mo_occ = self.mo_occ if mo_occ is None else mo_occ
        dm = np.asarray(self.make_rdm1(mo_coeff, mo_occ))
        restricted = dm.ndim == 2
        spins = [dm / 2] * (2 if singlet is False else 1) if restricted else list(dm)
        occupied = [factorize(d)[0] for d in spins]
        response = Response(self._numint, self.mol, self.grids, occupied, max_memory or self.max_memory)

        def changed(dm1: np.ndarray) -> np.ndarray:
            dm1 = np.asarray(dm1)
            if restricted:
                signs = np.array([0.5, -0.5][: len(spins)])
                sets = signs[:, None, None] * dm1.reshape(-1, 1, *dm.shape)
                v1 = response(sets)[:, 0].reshape(dm1.shape)
            else:
                sets = dm1.reshape(2, -1, *dm.shape[1:]).swapaxes(0, 1)
                v1 = response(sets).swapaxes(0, 1).reshape(dm1.shape)
            if with_j and hermi != 2 and singlet is not False:
                vj = self.get_j(self.mol, dm1, hermi=hermi)
                v1 += vj if restricted else vj[0] + vj[1]
            return v1

        return changed


def resolve(xc: str | Functional) -> Functional | None:
    """The functional that `xc` names: itself, one of FIXED_FORMS, a model or its folder; None for a name of libxc.

    Raises UnknownFunctionalError for a name that nobody knows and ModelFileError for a damaged model.
    """
    if isinstance(xc, Functional):
        return xc
    if xc in FIXED_FORMS:
        return FIXED_FORMS[xc]()
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
            f"unknown functional {xc!r}: neither a libxc name nor a model folder nor one of "
            + ", ".join([*models.names(), *FIXED_FORMS])
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
        if isinstance(mf, gks.GKS) or hasattr(mf, "cell"):
            raise InputError(
                f"{functional.name} is a local hybrid: it runs in molecular RKS, UKS and ROKS only; for "
                f'{type(mf).__name__} take a semilocal model: mlxc.attach(mf, "mlxc-mgga1")'
            )
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
