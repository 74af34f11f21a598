"""Named settings of a benchmark's calculations, frozen: a number belongs to the protocol that it was computed with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pyscf import gto

from mlxc.geometry import make_mole
from mlxc.reference.benchmark import System
from mlxc.scf import KS


@dataclass(frozen=True)
class Protocol:
    """How one species is computed; see PROTOCOLS.

    grid_level, nlc_level : PySCF's, for the functional and for VV10
    conv_tol : Eh, of the energy from cycle to cycle
    stability : whether converged solutions of open shells are examined, and of closed ones that the first rung of the
        ladder did not reach
    broken_symmetry : whether all are examined, and restricted ones may give way to lower unrestricted ones
    """

    name: str
    basis: str
    density_fit: bool
    grid_level: int
    nlc_level: int
    conv_tol: float
    stability: bool
    broken_symmetry: bool = False

    def settings(self) -> dict[str, Any]:
        """All of it, for a record."""
        return asdict(self)

    def examines(self, spin: int, rung: str) -> bool:
        """Whether the stability of a solution of spin = 2S from this rung is analysed."""
        return self.broken_symmetry or (self.stability and (spin > 0 or rung != "diis"))

    def mole(self, system: System) -> gto.Mole:
        """The molecule in the protocol's basis.  Raises InputError where that lacks an element."""
        atoms = zip(system.symbols, system.coords, strict=True)
        return make_mole(atoms, self.basis, system.charge, system.multiplicity - 1)

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
#: All have diffuse functions, without which anions, dipoles and densities are the basis's more than the functional's.
#: `tight` is without approximations beyond basis and grid, for comparison with other programs; `standard` is what
#: errors are quoted in; `fast` compares functionals with each other, atomization energies in it are several kcal/mol
#: from the limit of the basis.
PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("tight", "def2-qzvppd", False, 5, 3, 1e-9, True),
        Protocol("standard", "def2-qzvppd", True, 4, 1, 1e-8, True),
        Protocol("fast", "def2-tzvppd", True, 3, 1, 1e-8, False),
    )
}
