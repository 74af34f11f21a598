"""Functionals of libxc behind the interface of mlxc's own, so that one piece of code can judge them all.

Energies only: calculations with them are PySCF's own (`mlxc.scf.KS`).
"""

from __future__ import annotations

import numpy as np
import torch
from pyscf.dft import libxc, numint

from mlxc.errors import InputError
from mlxc.features import Features
from mlxc.functional import Functional

#: Exchange and correlation of functionals that libxc has in one piece, without their exact exchange.
#: B3LYP: Stephens, Devlin, Chabalowski, Frisch, J. Phys. Chem. 98, 11623 (1994); the others as their names say.
SPLIT = {
    "HYB_GGA_XC_PBEH": ("0.75*GGA_X_PBE", "GGA_C_PBE"),
    "HYB_GGA_XC_B3LYP": ("0.08*LDA_X + 0.72*GGA_X_B88", "0.19*LDA_C_VWN_RPA + 0.81*GGA_C_LYP"),
    "HYB_MGGA_XC_TPSSH": ("0.9*MGGA_X_TPSS", "MGGA_C_TPSS"),
    "HYB_MGGA_XC_R2SCAN0": ("0.75*MGGA_X_R2SCAN", "MGGA_C_R2SCAN"),
}


def _names() -> dict[int, str]:
    """libxc's own name of each of its functionals, by number: with its kind, `_X_`, `_C_` or `_XC_`, in it."""
    kinds = ("LDA_", "GGA_", "MGGA_", "HYB_")
    return {int(k): name for name, k in libxc.XC_CODES.items() if str(k).isdecimal() and name.startswith(kinds)}


def _vectors(features: Features) -> np.ndarray:
    """Gradients (S, 2, G) of spin densities that have the given products."""
    s = features.sigma.detach().numpy()
    first = np.sqrt(np.maximum(s[0], 0))
    if features.multiplicity == 2:
        return np.stack([first, np.zeros_like(first)])[None]
    along = np.divide(s[1], first, out=np.zeros_like(first), where=first > 0)
    across = np.sqrt(np.maximum(s[2] - along**2, 0))
    return np.array([[first, np.zeros_like(first)], [along, across]])


class LibxcFunctional(Functional):
    """A functional by its libxc name, as a function of Features whose `ex` is exact exchange as it mixes it.

    mixed         shares of exact exchange: ((omega, coefficient), ...) of erf(omega r) / r, omega = 0 for 1 / r
    with_nonlocal whether VV10 belongs to it, which no function of the point can give and is left out here
    """

    def __init__(self, xc: str):
        super().__init__()
        self.name = xc
        omega, long, full = numint.NumInt().rsh_and_hybrid_coeff(xc)
        self.mixed = tuple((w, c) for w, c in ((0.0, full), (float(omega), long - full)) if abs(c) > 1e-12)
        kind = libxc.xc_type(xc)
        self.xctype = "LDA" if kind == "HF" else kind
        self.with_nonlocal = bool(libxc.is_nlc(xc))
        names = _names()
        self.pieces = [(names[int(k)], float(c)) for k, c in libxc.parse_xc(xc)[1]]

    def _energy(self, code: str, features: Features) -> torch.Tensor:
        """Energy per volume (G,) of a sum of functionals of libxc."""
        if not code:
            return torch.zeros_like(features.total_rho)
        scale = features.multiplicity
        spins = [x.detach().numpy() for x in (features.rho, features.tau)]
        grad = _vectors(features)
        zero = np.zeros_like(grad[:, :1])
        rho = np.concatenate([spins[0][:, None], grad, zero, spins[1][:, None]], axis=1) * scale
        rho = rho[:, : {"LDA": 1, "GGA": 4, "MGGA": 5}[libxc.xc_type(code)]]
        per_particle = libxc.eval_xc(code, rho[0] if scale == 2 else rho, spin=2 - scale, deriv=0)[0]
        return torch.from_numpy(np.asarray(per_particle).reshape(-1)) * features.total_rho

    def _exact(self, features: Features) -> torch.Tensor:
        if not self.mixed:
            return torch.zeros_like(features.total_rho)
        return features.multiplicity * features.exact_exchange.sum(0)

    @property
    def separable(self) -> bool:
        """Whether libxc, or SPLIT, has exchange and correlation apart."""
        return all(c == 1 if name in SPLIT else "_XC_" not in name for name, c in self.pieces)

    def _codes(self) -> tuple[str, str]:
        """What to ask libxc for exchange and for correlation.  InputError where it has them in one piece."""
        if not self.separable:
            raise InputError(f"libxc does not tell exchange from correlation of {self.name}")
        exchange, correlation = [], []
        for name, c in self.pieces:
            x, k = SPLIT.get(name, (f"{c:.15g}*{name}", "") if "_X_" in f"{name}_" else ("", f"{c:.15g}*{name}"))
            exchange.append(x)
            correlation.append(k)
        return " + ".join(filter(None, exchange)), " + ".join(filter(None, correlation))

    def parts(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """As Functional.parts, without VV10."""
        exchange, correlation = self._codes()
        return self._energy(exchange, features) + self._exact(features), self._energy(correlation, features)

    def energy_density(self, features: Features) -> torch.Tensor:
        """As Functional.energy_density, without VV10."""
        whole = " + ".join(f"{c:.15g}*{name}" for name, c in self.pieces)
        return self._energy(whole, features) + self._exact(features)
