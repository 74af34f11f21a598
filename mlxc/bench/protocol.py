"""Named settings of a benchmark's calculations, frozen: a number belongs to the protocol that it was computed with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pyscf import gto
from pyscf.dft import libxc
from pyscf.scf.dispersion import parse_dft

from mlxc.localhybrid import FIXED_FORMS
from mlxc.scf import KS


@dataclass(frozen=True)
class Protocol:
    """How one species is computed; see PROTOCOLS.

    grid_level, nlc_level : PySCF's, for the functional and for VV10
    nlc_after : whether VV10 is added to the converged energy and orbital energies (`nonlocal_part`), instead of taking
        part in the SCF: densities and dipoles are without it
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
    nlc_after: bool
    conv_tol: float
    stability: bool
    broken_symmetry: bool = False

    def settings(self) -> dict[str, Any]:
        """All of it, for a record."""
        return asdict(self)

    def examines(self, spin: int, rung: str) -> bool:
        """Whether the stability of a solution of spin = 2S from this rung is analysed."""
        return self.broken_symmetry or (self.stability and (spin > 0 or rung != "diis"))

    def calculation(self, mol: gto.Mole, xc: str) -> Any:
        """A Kohn-Sham object with the protocol's settings, not yet run."""
        mf = KS(mol, xc)
        if self.density_fit:
            mf = mf.density_fit()
        mf.grids.level, mf.nlcgrids.level = self.grid_level, self.nlc_level
        mf.conv_tol, mf.max_cycle, mf.chkfile = self.conv_tol, MAX_CYCLE, None
        return mf

    def without_nonlocal(self, mf: Any) -> Any:
        """The object, its VV10 left out where it is to be added after the SCF."""
        if self.nlc_after and mf.do_nlc():
            mf.nlc = 0
        return mf


def has_nonlocal(xc: str) -> bool:
    """Whether VV10 belongs to a functional of libxc or of a fixed form, and no other dispersion stands in for it."""
    name, nlc, _ = parse_dft(xc)
    return xc not in FIXED_FORMS and nlc != 0 and bool(libxc.is_nlc(name))


def nonlocal_part(mf: Any) -> tuple[float, np.ndarray]:
    """VV10 energy (Eh) and potential (nao, nao) at the density of a calculation that left it out: now it has it."""
    mf.nlcgrids.build()
    dm = mf.make_rdm1()
    total = dm if np.ndim(dm) == 2 else dm[0] + dm[1]
    _, energy, potential = mf._numint.nr_nlc_vxc(mf.mol, mf.nlcgrids, mf.xc, total)
    mf.nlc = ""
    return float(energy), potential


#: SCF cycles of every rung of the ladder.
MAX_CYCLE = 60
#: All have diffuse functions, without which anions, dipoles and densities are the basis's more than the functional's.
#: `tight` is without approximations beyond basis and grid, for comparison with other programs; `standard` is what
#: errors are quoted in; `fast` compares functionals with each other, atomization energies in it are 0.4 kcal/mol on
#: average and up to 2.7 (SO3) from def2-QZVPPD.  VV10 in the SCF would be most of its cost, and changes densities so
#: little that energies hardly move (formaldehyde 0.002 kcal/mol; Najibi, Goerigk, J. Chem. Theory Comput. 14, 5725
#: (2018)).
PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("tight", "def2-qzvppd", False, 5, 3, False, 1e-9, True),
        Protocol("standard", "def2-qzvppd", True, 4, 1, False, 1e-8, True),
        Protocol("fast", "def2-tzvppd", True, 3, 1, True, 1e-8, False),
    )
}
