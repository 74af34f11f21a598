"""The interface of every mlxc functional: Features in, energy per volume out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlxc.errors import InputError
from mlxc.features import Features
from mlxc.numint import eval_xc


class Functional(torch.nn.Module):
    """An exchange-correlation functional.

    Subclasses set `name` and what they need: `xctype` ("LDA", "GGA" or "MGGA") and, for a local hybrid, `exx_omega`,
    the range separation of the exact-exchange energy density (Bohr^-1; 0 for the full range).
    They write `parts` or, where exchange and correlation are one, `energy_density`: the energy is the only hand-written
    truth, potentials and kernels come from automatic differentiation.
    """

    name: str = "custom"
    xctype: str = "MGGA"
    exx_omega: float | None = None
    #: Exact conditions that hold for every choice of its parameters, by their names in `mlxc check`.
    built_in: frozenset[str] = frozenset()
    #: Dispersion correction that belongs to it, as PySCF's `mf.disp`.
    disp: str | None = None
    #: What it keeps of the molecules that it was trained on (mlxc.domain).
    domain: dict[str, Any] | None = None
    #: Folder of the model that this one was loaded from, and the hash of its weights or of its file.
    source: Path | None = None
    sha256: str | None = None

    @property
    def separable(self) -> bool:
        """Whether `parts` tells exchange from correlation."""
        return type(self).parts is not Functional.parts

    def parts(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """Exchange and correlation energy per volume, Eh Bohr^-3, (G,) each.  InputError where they are one."""
        raise InputError(f"{self.name} does not tell exchange from correlation")

    def local_mixing(self, features: Features) -> torch.Tensor:
        """The mixing function a_s of a local hybrid, (S, G).  InputError of any other functional."""
        raise InputError(f"{self.name} has no local mixing function")

    def energy_density(self, features: Features) -> torch.Tensor:
        """Exchange-correlation energy per volume, Eh Bohr^-3, shape (G,)."""
        exchange, correlation = self.parts(features)
        return exchange + correlation

    def forward(self, features: Features) -> torch.Tensor:
        return self.energy_density(features)

    def eval_xc(
        self,
        xc_code: str,
        rho: np.ndarray,
        spin: int = 0,
        relativity: int = 0,
        deriv: int = 1,
        omega: float | None = None,
        verbose: Any = None,
    ) -> tuple:
        """PySCF's custom-functional hook: `mf.define_xc_(functional.eval_xc, functional.xctype)`.

        Takes and returns what `pyscf.dft.libxc.eval_xc` does (energy per particle, libxc's derivative layout).
        `xc_code`, `relativity`, `omega` and `verbose` belong to the signature and have no effect.
        """
        return eval_xc(self, rho, spin, deriv)
