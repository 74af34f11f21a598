"""What PySCF asks about a functional of mlxc, in the place of `pyscf.dft.libxc`, and the name it goes by in `mf.xc`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from pyscf.dft import libxc

from mlxc.errors import InputError
from mlxc.numint import MAX_DERIV, derivatives, eval_xc, semilocal_variables

if TYPE_CHECKING:
    from mlxc.functional import Functional


class Label(tuple):
    """What `mf.xc` holds for a functional of mlxc: its name to read, an empty combination of functionals to libxc.

    Some of PySCF's modules ask libxc itself whether `mf.xc` is a hybrid: no part of this is.  Where PySCF makes a new
    NumInt and so loses the functional, libxc refuses the label, and nothing runs silently without a functional.
    """

    def __new__(cls, name: str) -> Label:
        label = super().__new__(cls)
        label.name = name
        return label

    name: str

    def __getnewargs__(self) -> tuple[str]:
        return (self.name,)

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        """As names are: PySCF keeps dispersion settings by them."""
        return isinstance(other, Label) and self.name == other.name

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.name)

    def upper(self) -> str:
        """No libxc functional's name is part of this one, which is what PySCF asks of its capitals."""
        return ""

    def lower(self) -> str:
        """The name up to a dispersion correction, which PySCF looks for there and finds in `mf.disp`."""
        return re.split("-d[34]", self.name.lower())[0]

    __repr__ = __str__


def cpu_only() -> None:
    """In place of PySCF's `to_gpu`: InputError, because gpu4pyscf's integrator knows functionals of libxc alone."""
    raise InputError(
        "objects that mlxc has prepared run on the CPU: for gpu4pyscf make another one with a functional of libxc, "
        'mol.KS(xc="r2scan").to_gpu()'
    )


class Backend:
    """Stands in for `pyscf.dft.libxc` inside one NumInt object, for one functional.

    PySCF's numerical integrators ask an exchangeable module, `ni.libxc`, everything that they need to know about a
    functional, for molecules and crystals, restricted, unrestricted and generalised alike.

    No exact exchange, range separation or non-local correlation is claimed, because there is none (`mf.nlc = "vv10"`
    adds PySCF's).  `mf.xc` is a `Label`.
    """

    __version__ = "1"
    __reference__ = "mlxc"

    def __init__(self, functional: Functional):
        self.functional = functional
        self.__name__ = f"mlxc functional {functional.name}"

    def eval_xc(
        self,
        xc_code: str,
        rho: np.ndarray,
        spin: int = 0,
        relativity: int = 0,
        deriv: int = 1,
        omega=None,
        verbose=None,
    ) -> tuple:
        return eval_xc(self.functional, rho, spin, deriv)

    def eval_xc1(self, xc_code: str, rho: np.ndarray, spin: int = 0, deriv: int = 1, omega=None) -> np.ndarray:
        return derivatives(self.functional, semilocal_variables(self.functional, rho, spin), spin, deriv)

    @staticmethod
    def define_xc_(ni: Any, *args, **kwargs) -> Any:
        """PySCF's way to register another functional on `ni`, which is then libxc's again."""
        ni.libxc = libxc
        return libxc.define_xc_(ni, *args, **kwargs)

    def xc_type(self, xc_code: str) -> str:
        """The functional's type; InputError where `mf.xc` was changed and would otherwise be ignored."""
        if not isinstance(xc_code, Label):
            raise InputError(
                f"mf.xc = {xc_code!r} was set on an object that uses {self.functional.name}: "
                f"change functionals with mlxc.attach(mf, {xc_code!r})"
            )
        return self.functional.xctype

    def is_hybrid_xc(self, xc_code: str) -> bool:
        return False

    def is_nlc(self, xc_code: str) -> bool:
        """Only where the user has set `mf.nlc` to a name of libxc's."""
        return not isinstance(xc_code, Label) and bool(libxc.is_nlc(xc_code))

    def hybrid_coeff(self, xc_code: str, spin: int = 0) -> float:
        return 0.0

    def rsh_coeff(self, xc_code: str) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0

    def nlc_coeff(self, xc_code: str) -> tuple:
        return () if isinstance(xc_code, Label) else libxc.nlc_coeff(xc_code)

    def max_deriv_order(self, xc_code: str) -> int:
        return MAX_DERIV

    def test_deriv_order(self, xc_code: str, deriv: int, raise_error: bool = False) -> bool:
        if deriv > MAX_DERIV and raise_error:
            raise InputError(f"mlxc functionals have derivatives up to order {MAX_DERIV}, {deriv} was asked for")
        return deriv <= MAX_DERIV

    def parse_xc(self, description: str) -> tuple:
        """(hybrid and range-separation parameters, functionals): none of libxc's is in use."""
        return (0.0, 0.0, 0.0), ()

    def xc_reference(self, xc_code: str) -> list[str]:
        return [self.__name__]

    @staticmethod
    def needs_laplacian(xc_code: str) -> bool:
        return False
