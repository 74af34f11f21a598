"""What is refused of a local hybrid, or of any functional, because PySCF would do it wrongly or not at all."""

from __future__ import annotations

from typing import Any

from mlxc.backend import cpu_only
from mlxc.errors import InputError
from mlxc.functional import Functional
from mlxc.ongrid import has_spin_channels


class Refused:
    """Methods of PySCF's Kohn-Sham objects that are not there for local hybrids: InputError says what is."""

    _numint: Any

    def CasidaTDDFT(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: Casida's form of TDDFT holds for functionals without exact exchange only."""
        raise InputError("Casida's equation does not hold for a local hybrid: use TDDFT()")

    TDDFTNoHybrid = CasidaTDDFT

    def dRPA(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: PySCF takes the kernel away by the name of the functional, which a local hybrid does not go by."""
        raise InputError("direct response is not available with a local hybrid: use TDDFT() or TDA()")

    dTDA = TDH = dRPA

    def NMR(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: with a given gauge origin pyscf-properties would leave out the response of exchange."""
        raise InputError(
            f"magnetic properties are not available with {self._numint.functional.name}, a local hybrid: "
            "pyscf-properties would leave out how its exchange responds to the field"
        )

    NSR = RotationalGTensor = NMR

    def to_gpu(self) -> Any:
        """Refused, as `cpu_only` says."""
        cpu_only()

    def to_gks(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: generalised objects have orbitals without a spin, which a local hybrid cannot take."""
        raise InputError(molecular_only(self._numint.functional.name, "GKS"))


def molecular_only(name: str, kind: str) -> str:
    """Why a local hybrid cannot be used in an object of this kind, and what can."""
    return (
        f"{name} is a local hybrid: it runs in molecular RKS, UKS and ROKS only; for {kind} take a semilocal model: "
        'mlxc.attach(mf, "mlxc-mgga3-d4")'
    )


def refuse_solvent(mf: Any, step: str) -> None:
    """InputError where a solvent is there already: it has to know of local hybrids and of fitted integrals."""
    if hasattr(mf, "with_solvent"):
        raise InputError(f"{step} has to come before the solvent: mlxc.KS(mol).density_fit().PCM()")


def check_molecular(mf: Any, functional: Functional) -> None:
    """InputError for a generalised or periodic object and for one that has a solvent already."""
    refuse_solvent(mf, f"attaching {functional.name}, a local hybrid,")
    if not has_spin_channels(mf):
        raise InputError(molecular_only(functional.name, type(mf).__name__))


def refuse_late_fit(mf: Any) -> None:
    """InputError where densities were fitted after a solvent or point charges had been added.

    PySCF's gradients then leave these out, or stop.
    """
    if hasattr(mf, "with_solvent") or hasattr(mf, "mm_mol"):
        from pyscf.df.df_jk import _DFHF
        from pyscf.qmmm.itrf import QMMM
        from pyscf.solvent._attach_solvent import SCFWithSolvent

        layers = [c for c in type(mf).__mro__ if c in (_DFHF, SCFWithSolvent, QMMM)]
        if _DFHF in layers[:-1]:
            raise InputError(
                "no gradients where density_fit() comes after the solvent or the charges: "
                "mlxc.KS(mol).density_fit().PCM()"
            )
