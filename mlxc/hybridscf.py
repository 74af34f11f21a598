"""Kohn-Sham objects of PySCF that use a local hybrid: their SCF, density fitting, excitations, response."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from pyscf import df, dft, gto, lib, tdscf
from pyscf.df.addons import predefined_auxbasis
from pyscf.scf import rohf, uhf

from mlxc.dispersion import real_atoms
from mlxc.errors import InputError
from mlxc.exx import auxiliary_basis, auxiliary_mole
from mlxc.functional import Functional
from mlxc.gradient import LocalHybridGradients
from mlxc.guess import is_default, may_turn, semilocal, shaken
from mlxc.integrate import LocalHybridNumInt
from mlxc.occupations import FixedOccupations, canonical, outermost, smeared
from mlxc.refused import Refused, refuse_late_fit, refuse_solvent
from mlxc.response import Response

#: Up to so many basis functions the whole Fock matrix of a local hybrid costs little more than its occupied part, and
#: atoms and small radicals, whose degenerate orbitals are the hard cases, converge in fewer cycles with it.
WHOLE_FOCK = 100


class LocalHybridSCF(Refused):
    """What `use_local_hybrid` adds to the class of a Kohn-Sham object that is to use a local hybrid."""

    __name_mixin__ = "LocalHybrid"
    _numint: Any
    mol: Any
    grids: Any
    max_memory: Any
    max_cycle: Any
    get_j: Any
    get_fock: Any
    get_hcore: Any
    get_ovlp: Any
    get_veff: Any
    scf_summary: Any
    do_disp: Any
    e_free: Any
    e_zero: Any
    make_rdm1: Any
    canonicalize: Any
    do_nlc: Any
    xc: Any
    dump_chk: Any
    chkfile: Any
    _eri: Any
    mo_coeff: Any
    mo_occ: Any
    #: Whether a large molecule's unoccupied orbitals are worked out at the end of the SCF, which takes as long as
    #: several cycles.  Where it is False they and their energies mean nothing: they are those of a Fock matrix without
    #: their exact exchange.
    unoccupied = True
    #: Whether they have been left out of the last SCF.
    _without_unoccupied = False
    _keys = frozenset({"unoccupied"})

    def scf(self, dm0: Any = None, **kwargs: Any) -> float:
        """PySCF's; large molecules get Fock matrices for the occupied orbitals, and the others' once at the end."""
        self.scf_summary.pop("dispersion", None)  # that of the former `disp`, which PySCF would take
        if self.grids.mol is not self.mol:  # a scanner has taken the grid, which it shares, to its own geometry
            self.grids.reset(self.mol)
        ni = self._numint
        fitted = getattr(self, "with_df", None)
        if fitted is not None and not isinstance(fitted, df.DF):
            raise InputError("COSX is not available with a local hybrid, whose exchange is fitted: use density_fit()")
        if fitted is not None:
            ni.auxbasis = fitted.auxbasis
            if fitted._cderi is None:
                ni._tables.clear()
                auxiliary_mole(self.mol, fitted.auxbasis)  # which refuses one without all elements
                fitted.build()  # before the tables of exact exchange, while its memory is free
        whole = self.mol.nao <= WHOLE_FOCK or smeared(self)  # which occupies by the energies of all orbitals
        self._without_unoccupied = not whole and not self.unoccupied
        if smeared(self) and type(self).energy_tot is not LocalHybridSCF.energy_tot and self.do_disp():
            raise InputError("this way of smearing would leave dispersion out of the energy: use mf.smearing(...)")
        if whole or self.max_cycle < 1:
            return super().scf(dm0, **kwargs)  # type: ignore[misc]
        self._numint = ni.occupied()
        try:
            return super().scf(dm0, **kwargs)  # type: ignore[misc]
        finally:
            self._numint = ni

    def get_init_guess(self, mol: Any = None, key: str = "minao", **kwargs: Any) -> np.ndarray:
        """PySCF's; in place of its default one, "minao", what r2SCAN makes of it (`mlxc.guess`).

        "minao" puts half of the electrons of every atom into each spin.  From there a local hybrid that mixes by the
        spin density takes many cycles, or ends in another state.  Open shells are `shaken` first.  Closed shells that
        r2SCAN does not settle, for want of a gap, start from PySCF's: halves are right for them, and what r2SCAN
        wanders to may be another state (planar PCl3, 20 mEh too high).
        """
        dm = super().get_init_guess(mol, key, **kwargs)  # type: ignore[misc]
        if not is_default(key):
            return dm
        first: Any = getattr(self, "_scf", self)  # of a second-order solver that which it was made of
        first = without_local_hybrid(first.copy())
        found = semilocal(first, shaken(dm) if may_turn(self.mol) else dm)
        self._eri = first._eri  # integrals that were kept in memory
        return found if first.converged or self.mol.spin else dm

    def energy_tot(self, *args: Any, **kwargs: Any) -> float:
        """PySCF's; of a smeared object with the dispersion that PySCF forgets there."""
        energy = super().energy_tot(*args, **kwargs)  # type: ignore[misc]
        if smeared(self) and self.do_disp():
            dispersion = self.get_dispersion()
            energy += dispersion
            if self.e_free is not None:
                self.e_free += dispersion
                self.e_zero += dispersion
        return energy

    def get_dispersion(self, *args: Any, **kwargs: Any) -> float:
        """PySCF's, without ghost atoms (`mlxc.dispersion.real_atoms`)."""
        with lib.temporary_env(self, mol=real_atoms(self.mol)[0]):
            return super().get_dispersion(*args, **kwargs)  # type: ignore[misc]

    def smearing(self, *args: Any, **kwargs: Any) -> Any:
        """PySCF's, whose class would go before this one."""
        refuse_solvent(self, "smearing()")
        functional = self._numint.functional
        return use_local_hybrid(without_local_hybrid(super().smearing(*args, **kwargs)), functional)  # type: ignore[misc]

    def to_hf(self) -> Any:
        """PySCF's, without the functional's dispersion."""
        mf = super().to_hf()  # type: ignore[misc]
        mf.scf_summary = {}
        if mf.disp == self._numint.functional.disp:
            mf.disp = None
        return mf

    def _finalize(self) -> Any:
        """PySCF's last step of an SCF, which sorts orbitals by symmetry, on those of the whole Fock matrix."""
        if self.unoccupied and self._numint.original is not None:
            self._numint = self._numint.original
            dm = self.make_rdm1()
            # All arguments, because PySCF's dynamic level shift puts a function in its place that has no defaults.
            fock = self.get_fock(self.get_hcore(), self.get_ovlp(), self.get_veff(self.mol, dm), dm)
            if np.isin(self.mo_occ, (0, 1, 2)).all():
                self.mo_energy, self.mo_coeff = self.canonicalize(self.mo_coeff, self.mo_occ, fock)
            else:  # PySCF's mixes occupied orbitals of different occupations
                self.mo_energy, self.mo_coeff = canonical(self.mo_coeff, self.mo_occ, fock)
            if self.chkfile:
                self.dump_chk({k: getattr(self, k) for k in ("e_tot", "mo_energy", "mo_coeff", "mo_occ")})
        return super()._finalize()  # type: ignore[misc]

    def density_fit(self, auxbasis: Any = None, with_df: Any = None, **kwargs: Any) -> Any:
        """PySCF's, which goes behind this class: its gradients know nothing of local hybrids.

        Coulomb and exchange share one auxiliary basis, by default `mlxc.exx.auxiliary_basis`.
        """
        refuse_solvent(self, "density_fit()")
        if auxbasis is None and with_df is None:
            auxbasis = auxiliary_basis(self.mol)
        functional = self._numint.functional
        mf = super().density_fit(auxbasis, with_df, **kwargs)  # type: ignore[misc]
        return use_local_hybrid(without_local_hybrid(mf), functional)  # mf is self where that was fitted already

    def nuc_grad_method(self) -> Any:
        """PySCF's object for nuclear gradients, made one for local hybrids.  Raises InputError: `refuse_late_fit`."""
        refuse_late_fit(self)
        gradients = super().nuc_grad_method()  # type: ignore[misc]
        return lib.set_class(gradients, (LocalHybridGradients, type(gradients)))

    Gradients = nuc_grad_method

    def TDA(self, *args: Any, **kwargs: Any) -> Any:
        """PySCF's object for excitations without de-excitations."""
        return self._excitations().TDA(self, *args, **kwargs)

    def TDDFT(self, *args: Any, **kwargs: Any) -> Any:
        """PySCF's TDDFT object in the form that hybrids need."""
        return self._excitations().TDDFT(self, *args, **kwargs)

    def _excitations(self) -> Any:
        """PySCF's module of excitations for this object."""
        need_unoccupied(self, "excitations")
        if isinstance(self, rohf.ROHF):
            raise InputError("excitations of restricted open shells are not available: use mf.to_uks().run()")
        return tdscf.uks if isinstance(self, uhf.UHF) else tdscf.rks

    def gen_response(
        self, mo_coeff=None, mo_occ=None, singlet=None, with_j=True, hermi=0, max_memory=None, with_nlc=True
    ) -> Any:
        """As PySCF's: the function dm1 -> change of the Fock matrix.  `singlet` is for restricted objects.

        Right for changes that involve occupied orbitals, in the blocks between these and any others; the block between
        unoccupied orbitals is zero.  Raises InputError for spin flips, and for fractional occupations but those of
        `fractional`.
        """
        self._numint._xc_type(self.xc)
        coefficients = np.asarray(self.mo_coeff if mo_coeff is None else mo_coeff)
        occupations = np.asarray(self.mo_occ if mo_occ is None else mo_occ)
        restricted = occupations.ndim == 1 and not isinstance(self, rohf.ROHF)
        whole = (0, 2) if restricted else (0, 1, 2)
        if not (np.isin(occupations, whole).all() or isinstance(self, FixedOccupations)):
            raise InputError("the response of fractionally occupied orbitals is not available")
        if not restricted and not with_j and hermi == 0:
            raise InputError("stability against spin flips is not available: ask for mf.stability(external=False)")
        if restricted:
            orbitals = [coefficients[:, occupations > 0]] * (2 if singlet is False else 1)
        else:
            pairs = np.broadcast_to(coefficients, (2, *coefficients.shape[-2:]))
            filled = occupations > 0 if occupations.ndim == 2 else [occupations > 0, occupations == 2]
            orbitals = [c[:, n] for c, n in zip(pairs, filled, strict=True)]
            if isinstance(self, FixedOccupations):
                orbitals = [c * np.sqrt(n[n > 0]) for c, n in zip(orbitals, occupations, strict=True)]
        response = Response(self._numint, self.mol, self.grids, orbitals, max_memory or self.max_memory)
        nao = self.mol.nao

        def changed(dm1: np.ndarray) -> np.ndarray:
            dm1 = np.asarray(dm1)
            if restricted:
                signs = np.array([0.5, -0.5][: len(orbitals)])
                v1 = response(signs[:, None, None] * dm1.reshape(-1, 1, nao, nao))[:, 0].reshape(dm1.shape)
            else:
                v1 = response(dm1.reshape(2, -1, nao, nao).swapaxes(0, 1)).swapaxes(0, 1).reshape(dm1.shape)
            if hermi == 2 or singlet is False:
                return v1
            if with_j:
                vj = self.get_j(self.mol, dm1, hermi=hermi)
                v1 += vj if restricted else vj[0] + vj[1]
            if with_nlc and self.do_nlc():
                from pyscf.hessian.rks import get_vnlc_resp  # not there in PySCF 2.9

                total = dm1 if restricted else dm1[0] + dm1[1]
                v1 += get_vnlc_resp(self, self.mol, coefficients, occupations, total, max_memory or self.max_memory)
            return v1

        return changed


def need_unoccupied(mf: Any, what: str) -> None:
    """InputError for a calculation whose unoccupied orbitals have been left out, or will be."""
    if isinstance(mf, LocalHybridSCF) and (mf._without_unoccupied or not mf.unoccupied):
        raise InputError(f"{what} need the unoccupied orbitals: run with mf.unoccupied = True")


def use_local_hybrid(mf: Any, functional: Functional) -> Any:
    """Make an object of PySCF's own class use a local hybrid, which `check_molecular` allows it; returns it."""
    refit(mf, auxiliary_basis)
    mf._numint = LocalHybridNumInt(functional, getattr(getattr(mf, "with_df", None), "auxbasis", None))
    return outermost(lib.set_class(mf, (LocalHybridSCF, type(mf))))


def refit(mf: Any, auxbasis: Callable[[gto.Mole], Any]) -> None:
    """Give exact exchange `auxbasis(mol)` in place of what PySCF has chosen, maybe for the Coulomb part alone.

    In a copy of `with_df`, which a copied object shares with its original.
    """
    fitted = getattr(mf, "with_df", None)
    if not isinstance(fitted, df.DF):
        return
    if fitted.auxbasis in (None, *(predefined_auxbasis(mf.mol, mf.mol.basis, xc) for xc in ("pbe", mf.xc))):
        mf.with_df = copy.copy(fitted)
        mf.with_df.auxbasis = auxbasis(mf.mol)
        mf.with_df.reset()


def without_local_hybrid(mf: Any) -> Any:
    """Take back what `use_local_hybrid` has made of an object; returns it."""
    mf.__class__ = lib.drop_class(type(mf), LocalHybridSCF)
    mf._numint = dft.numint.NumInt()
    return mf
