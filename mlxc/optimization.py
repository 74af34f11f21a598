"""Minima and transition states, found by geomeTRIC."""

from __future__ import annotations

import logging.config
from collections.abc import Callable
from typing import Any

import numpy as np
from pyscf import gto, lib

from mlxc.errors import ConvergenceError
from mlxc.extras import need
from mlxc.geometry import gradient_method
from mlxc.harmonic import detached
from mlxc.scf import solved


class Surface(lib.GradScanner):
    """Energy (Eh) and gradient (natm, 3), Eh/Bohr, of geometries, each SCF from the density of the one before.

    PySCF's own scanner goes on with energies of an SCF that has not converged; here the second-order solver takes over,
    and ConvergenceError is raised where that fails too.
    """

    def __init__(self, mf: Any) -> None:
        self.base, self.mol, self.verbose, self.stdout = mf, mf.mol, mf.verbose, mf.stdout

    def __call__(self, mol: gto.Mole) -> tuple[float, np.ndarray]:
        dm0 = self.base.make_rdm1() if self.base.mo_coeff is not None else None
        self.base = solved(self.base.reset(mol), dm0)
        return self.base.e_tot, gradient_method(self.base).kernel()


def optimize(
    mf: Any, callback: Callable[[dict], None] | None = None, transition: bool = False
) -> tuple[gto.Mole, bool]:
    """The molecule where its forces vanish, and whether that was reached in 100 steps.

    With `transition` that is a transition state: geomeTRIC takes second derivatives from differences of gradients, 6
    natm of them, and climbs along the mode of the lowest, so that it has to start near.
    `callback` is PySCF's: at each geometry it is given a dict with `energy` and `gradients` (Eh, Eh/Bohr).
    Raises InputError where geomeTRIC is missing, ConvergenceError where an SCF on the way does not converge or
    geomeTRIC gives up.
    """
    solved_there, done = search(mf, callback, transition)
    return solved_there.mol, done


def search(mf: Any, callback: Callable[[dict], None] | None = None, transition: bool = False) -> tuple[Any, bool]:
    """As `optimize`, but with the converged calculation of the last geometry in place of the molecule.

    It has the state that was followed; an SCF from a guess may find another one.
    """
    need("geometry optimisation", "optimize", "geometric")
    from geometric.errors import Error
    from pyscf.geomopt.geometric_solver import kernel

    gradient_method(mf)  # which refuses what has no gradients
    surface = Surface(detached(mf))
    # geomeTRIC would set up the logging of the whole process anew and write to the terminal.
    quiet = lib.temporary_env(logging.getLogger("geometric"), handlers=[logging.NullHandler()])
    try:
        with quiet, lib.temporary_env(logging.config, fileConfig=lambda *_, **__: None):
            done, _ = kernel(surface, callback=callback, maxsteps=100, transition=transition)
    except Error as err:
        reason = " ".join(str(err).split()) or type(err).__name__
        raise ConvergenceError(f"geomeTRIC gave up: {reason}; start from another geometry") from err
    return surface.base, bool(done)
