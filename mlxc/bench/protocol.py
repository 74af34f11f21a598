"""Named settings of a benchmark's calculations, frozen: a number belongs to the protocol that it was computed with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pyscf import gto

from mlxc.geometry import make_mole
from mlxc.scf import KS


@dataclass(frozen=True)
class Protocol:
    """How one species is computed; see PROTOCOLS.

    grid_level, nlc_level : PySCF's, for the functional and for VV10
    conv_tol : Eh, of the energy from cycle to cycle
    stability : which converged solutions are examined: "none"; "open", those of open shells and of closed ones that
        the first rung of the ladder did not reach; "all"
    broken_symmetry : whether a restricted solution that stability analysis finds unstable gives way to an unrestricted
    """

    name: str
    basis: str
    density_fit: bool
    grid_level: int
    nlc_level: int
    conv_tol: float
    stability: str
    broken_symmetry: bool = False

    def settings(self) -> dict[str, Any]:
        """All of it, for a record."""
        return asdict(self)

    def mole(self, atoms: list, charge: int, spin: int) -> gto.Mole:
        """As `mlxc.geometry.make_mole`, in the protocol's basis."""
        return make_mole(atoms, self.basis, charge, spin)

    def calculation(self, mol: gto.Mole, xc: str) -> Any:
        """A Kohn-Sham object with the protocol's settings, not yet run."""
        mf = KS(mol, xc)
        if self.density_fit:
            mf = mf.density_fit()
        mf.grids.level, mf.nlcgrids.level = self.grid_level, self.nlc_level
        mf.conv_tol, mf.max_cycle, mf.chkfile = self.conv_tol, MAX_CYCLE, None
        return mf


#: SCF cycles of every rung of the ladder.
MAX_CYCLE = 60
#: `tight` is without approximations beyond basis and grid, for comparison with other programs; `standard` is what
#: errors are quoted in; `fast` compares functionals with each other, atomization energies in it are several kcal/mol
#: from the limit of the basis.
PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("tight", "def2-qzvppd", False, 5, 3, 1e-9, "open"),
        Protocol("standard", "def2-qzvpp", True, 4, 1, 1e-8, "open"),
        Protocol("fast", "def2-tzvp", True, 3, 1, 1e-8, "none"),
    )
}
