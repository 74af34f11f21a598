"""What solving a system gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlxc.reference.schema import CONVERGED


@dataclass
class Solution:
    """Energies (Eh) by method, dm1 (2, nao, nao) of the last of them, diagnostics, and what came of it."""

    energies: dict[str, float] = field(default_factory=dict)
    dm1: np.ndarray | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)
    outcome: str = CONVERGED

    @property
    def total(self) -> float:
        """The energy of the highest method that there is, Eh: for one electron Hartree-Fock, which is exact."""
        return list(self.energies.values())[-1]


def spins(dm: Any) -> np.ndarray:
    """(2, nao, nao) from a restricted total or a pair, symmetric."""
    dm = np.asarray(dm)
    dm = np.array([dm / 2, dm / 2]) if dm.ndim == 2 else dm
    return (dm + dm.swapaxes(1, 2)) / 2
