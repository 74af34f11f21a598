"""The convergence accelerator of all calculations that mlxc makes."""

from __future__ import annotations

import numpy as np
from pyscf.scf.diis import CDIIS

from mlxc.backend import cpu_only


class Diis(CDIIS):
    """PySCF's, which goes on from the newest Fock matrix where its equations are singular.

    PySCF 2.14 has the SCF break off there, with an AttributeError: it catches an exception by a name that numpy 2 has
    not.
    """

    to_gpu = staticmethod(cpu_only)

    def extrapolate(self, nd: int | None = None) -> np.ndarray:
        """The next Fock matrix, flat, from those of `nd` cycles, by default all that are kept."""
        try:
            return super().extrapolate(nd)
        except (AttributeError, np.linalg.LinAlgError):
            return np.array(self.get_vec(self._head - 1))
