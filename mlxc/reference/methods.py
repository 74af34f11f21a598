"""Wave functions by PySCF, from Hartree-Fock to CCSD(T) and full CI: energies and one-particle density matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import fci, gto, mcscf, scf

from mlxc.errors import InputError
from mlxc.reference import two_electrons
from mlxc.reference.coupled_cluster import coupled_cluster
from mlxc.reference.schema import CONVERGED
from mlxc.reference.solution import Solution, spins

METHODS = ("HF", "FCI", "CCSD", "CCSD(T)")
#: Times that an unstable Hartree-Fock solution is followed downhill.
DESCENTS = 6
#: T1 diagnostic (norm of t1 over the root of the number of correlated electrons) above which one determinant is a poor
#: start: Lee, Taylor, Int. J. Quantum Chem. Symp. 23, 199 (1989).
T1_WARNING = 0.02
#: Electrons of the noble gases: an atom's core is the largest of them that is smaller than it.
NOBLE_GASES = (2, 10, 18, 36, 54, 86)
#: Rise of <S^2> that is too much for a lower Hartree-Fock energy.
CONTAMINATION = 0.1
#: Determinants beyond which full CI is refused.
DETERMINANTS = 20_000_000
#: PySCF numbers strings of orbitals with 64 bits.
FCI_ORBITALS = 63


def solve(mol: gto.Mole, method: str, frozen_core: bool, density: bool = True) -> Solution:
    """Energy and, where asked for, density matrix of `method` (one of METHODS).

    What does not converge is an outcome.  Raises InputError as `check_possible`.
    """
    core = check_possible(mol, method, frozen_core)
    found = Solution()
    mf = hartree_fock(mol, found)
    if found.outcome != CONVERGED:
        return found
    if method == "HF" or mol.nelectron - 2 * core < 2:  # exact for one electron above the frozen ones
        found.dm1 = spins(mf.make_rdm1())
    elif method == "FCI":
        _full_ci(mf, core, found)
    else:
        coupled_cluster(mf, core, method == "CCSD(T)", density, found)
    return found


def check_possible(mol: gto.Mole, method: str, frozen_core: bool) -> int:
    """The number of frozen orbitals.

    Raises InputError for an unknown method, a full CI that is too large, and a frozen core that the electrons do not
    fill.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: take one of {', '.join(METHODS)}")
    core = core_orbitals(mol) if frozen_core else 0
    if min(mol.nelec) < core:
        raise InputError(f"{mol.nelec[0]} and {mol.nelec[1]} electrons do not fill {core} frozen orbitals: freeze none")
    if method == "FCI" and mol.nelectron > 2:
        orbitals, electrons = mol.nao - core, tuple(n - core for n in mol.nelec)
        size = np.prod([fci.cistring.num_strings(orbitals, n) for n in electrons], dtype=float)
        if orbitals > FCI_ORBITALS:
            raise InputError(
                f"full CI takes at most {FCI_ORBITALS} orbitals, not {orbitals}: take CCSD(T) or a smaller basis"
            )
        if size > DETERMINANTS:
            raise InputError(
                f"full CI of {electrons} electrons in {orbitals} orbitals has {size:.1e} determinants, and "
                f"{DETERMINANTS:.0e} are possible: take CCSD(T) or a smaller basis"
            )
    return core


def core_orbitals(mol: gto.Mole) -> int:
    """Number of orbitals in the noble-gas cores of the atoms, which correlation-consistent valence bases leave out.

    PySCF's `chemcore` correlates 1s of Li and Be and 2s, 2p of Na and Mg.
    """
    return sum(max((n for n in NOBLE_GASES if n < z), default=0) // 2 for z in map(int, mol.atom_charges()))


def hartree_fock(mol: gto.Mole, found: Solution) -> Any:
    """RHF of a singlet, UHF of any other spin, stable against real rotations of its orbitals within that form.

    But no step down is taken that breaks the symmetry of spin: coupled cluster on such a determinant is worse, by 2
    kcal/mol and 0.4 in <S^2> for N2+.  Then `spin_unstable` is 1 among the diagnostics.
    """
    mf = (scf.RHF if mol.spin == 0 else scf.UHF)(mol)
    mf.conv_tol, mf.conv_tol_grad, mf.max_cycle = 1e-11, 1e-6, 100
    mf.kernel()
    for _ in range(DESCENTS):
        if not mf.converged:
            mf = mf.newton().run(mf.mo_coeff, mf.mo_occ).undo_soscf()
        if mol.nelectron == 1:
            break  # of one electron, the lowest orbital is the solution
        orbitals, _, stable, _ = mf.stability(return_status=True)
        if stable or not mf.converged:
            break
        lower = mf.copy()
        lower.kernel(mf.make_rdm1(orbitals, mf.mo_occ))
        if lower.spin_square()[0] > mf.spin_square()[0] + CONTAMINATION:
            found.diagnostics["spin_unstable"] = 1.0
            break
        mf = lower
    else:
        found.outcome = f"Hartree-Fock still unstable after {DESCENTS} descents"
    if not mf.converged:
        found.outcome = "Hartree-Fock did not converge"
    found.energies["HF"] = float(mf.e_tot)
    found.diagnostics["s2_hf"] = float(mf.spin_square()[0])
    return mf


def _full_ci(mf: Any, core: int, found: Solution) -> None:
    """Full CI in the orbitals of `mf`, its lowest `core` orbitals doubly occupied in every determinant."""
    mol = mf.mol
    if mol.nelectron == 2:
        coefficients = mf.mo_coeff if mol.spin == 0 else mf.mo_coeff[0]
        done, found.energies["FCI"], dm1 = two_electrons.ground_state(mol, coefficients)
        found.dm1 = spins(dm1)
        found.outcome = CONVERGED if done else "full CI did not converge"
        return
    orbitals = mf.mo_coeff.shape[-1] - core
    electrons = tuple(n - core for n in mol.nelec)
    start = mf if mol.spin == 0 else scf.ROHF(mol).run(mf.make_rdm1(), conv_tol=1e-10)
    ci = mcscf.CASCI(start, orbitals, electrons)
    ci.fix_spin_(ss=mol.spin / 2 * (mol.spin / 2 + 1))
    ci.fcisolver.conv_tol, ci.fcisolver.max_cycle = 1e-11, 300
    ci.canonicalization = False
    ci.kernel()
    found.energies["FCI"] = float(ci.e_tot)
    if not ci.converged:
        found.outcome = "full CI did not converge"
        return
    found.dm1 = spins(ci.make_rdm1s())


def extrapolated(small: tuple[float, float], large: tuple[float, float], n: int) -> tuple[float, float]:
    """Limits of Hartree-Fock and correlation energy from those with bases of cardinal numbers n and n + 1, Eh.

    Hartree-Fock: E + A (n + 1) exp(-9 sqrt n) (Karton, Martin, Theor. Chem. Acc. 115, 330 (2006)).
    Correlation: E + A n^-3 (Helgaker, Klopper, Koch, Noga, J. Chem. Phys. 106, 9639 (1997)).
    """
    decays = [((k + 1) * np.exp(-9 * np.sqrt(k)), k**-3.0) for k in (n, n + 1)]
    hf, correlation = (y + (y - x) / (a / b - 1) for x, y, a, b in zip(small, large, *decays, strict=True))
    return float(hf), float(correlation)


def properties(mol: gto.Mole, dm1: np.ndarray) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Energies of dm1 (2, nao, nao) that need no wave function, Eh, dipole (3,) in e Bohr, natural occupations (nao,).

    one_electron: kinetic energy and attraction by the nuclei; coulomb: 1/2 int int n n / r; nuclear: repulsion.
    """
    total = dm1.sum(0)
    with mol.with_common_origin((0, 0, 0)):
        position = mol.intor_symmetric("int1e_r")
    dipole = mol.atom_charges() @ mol.atom_coords() - np.einsum("xmn,nm->x", position, total)
    coulomb = scf.hf.get_jk(mol, total, with_k=False)[0]
    energies = {
        "one_electron": float(np.einsum("mn,nm->", scf.hf.get_hcore(mol), total)),
        "coulomb": float(np.einsum("mn,nm->", coulomb, total) / 2),
        "nuclear": float(mol.energy_nuc()),
    }
    e, u = np.linalg.eigh(mol.intor_symmetric("int1e_ovlp"))
    root = (u * np.sqrt(e)) @ u.T
    return energies, dipole, np.linalg.eigvalsh(root @ total @ root)[::-1]
