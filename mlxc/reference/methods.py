"""Wave functions by PySCF: Hartree-Fock, full CI, CCSD and CCSD(T), their energies and one-particle density matrices.

Coupled-cluster densities are those of the Lambda equations without the relaxation of the orbitals, as PySCF's
`make_rdm1`; that of (T) adds the perturbative triples (Watts, Gauss, Bartlett, J. Chem. Phys. 98, 8718 (1993)).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyscf import cc, fci, gto, mcscf, mp, scf
from pyscf.cc import ccsd_t_lambda, ccsd_t_rdm, uccsd_t_lambda, uccsd_t_rdm

from mlxc.errors import InputError
from mlxc.reference import two_electrons
from mlxc.reference.schema import CONVERGED

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
#: Arrays of the size of all triples that the density of (T) of an open shell holds at a time.
TRIPLES_ARRAYS = 10
#: Arrays of the size of all integrals over orbitals that PySCF holds to make those of an open shell in memory.
INTEGRAL_ARRAYS = 4


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


def solve(mol: gto.Mole, method: str, frozen_core: bool, density: bool = True) -> Solution:
    """Energy and, where asked for, density matrix of `method` (one of METHODS).

    What does not converge is an outcome.  Raises InputError for an unknown method, a full CI that is too large, and a
    frozen core that the electrons do not fill.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: take one of {', '.join(METHODS)}")
    core = core_orbitals(mol) if frozen_core else 0
    if min(mol.nelec) < core:
        raise InputError(f"{mol.nelec[0]} and {mol.nelec[1]} electrons do not fill {core} frozen orbitals: freeze none")
    found = Solution()
    mf = hartree_fock(mol, found)
    if found.outcome != CONVERGED:
        return found
    if method == "HF" or mol.nelectron - 2 * core < 2:  # exact for one electron above the frozen ones
        found.dm1 = _spins(mf.make_rdm1())
    elif method == "FCI":
        _full_ci(mf, core, found)
    else:
        _coupled_cluster(mf, core, method == "CCSD(T)", density, found)
    return found


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


def _spins(dm: Any) -> np.ndarray:
    """(2, nao, nao) from a restricted total or a pair, symmetric."""
    dm = np.asarray(dm)
    dm = np.array([dm / 2, dm / 2]) if dm.ndim == 2 else dm
    return (dm + dm.swapaxes(1, 2)) / 2


def _full_ci(mf: Any, core: int, found: Solution) -> None:
    """Full CI in the orbitals of `mf`, its lowest `core` orbitals doubly occupied in every determinant."""
    mol = mf.mol
    if mol.nelectron == 2:
        coefficients = mf.mo_coeff if mol.spin == 0 else mf.mo_coeff[0]
        done, found.energies["FCI"], dm1 = two_electrons.ground_state(mol, coefficients)
        found.dm1 = _spins(dm1)
        found.outcome = CONVERGED if done else "full CI did not converge"
        return
    orbitals = mf.mo_coeff.shape[-1] - core
    electrons = tuple(n - core for n in mol.nelec)
    size = np.prod([fci.cistring.num_strings(orbitals, n) for n in electrons], dtype=float)
    if size > DETERMINANTS:
        raise InputError(
            f"full CI of {electrons} electrons in {orbitals} orbitals has {size:.1e} determinants: too many"
        )
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
    found.dm1 = _spins(ci.make_rdm1s())


def _ccsd(mf: Any, frozen: Any, orbitals: Any = None) -> tuple[Any, Any]:
    """Tightly converged CCSD, which says itself whether it is, and its integrals."""
    mycc = cc.CCSD(mf, frozen=frozen, mo_coeff=orbitals)
    mycc.conv_tol, mycc.conv_tol_normt, mycc.max_cycle = 1e-9, 1e-6, 100
    if isinstance(mycc, cc.uccsd.UCCSD) and INTEGRAL_ARRAYS * 8e-6 * max(mycc.nmo) ** 4 > mycc.max_memory:
        mf._eri = None  # on disk, then: PySCF counts one of the arrays
    eris = mycc.ao2mo()
    mycc.kernel(eris=eris)
    return mycc, eris


def _coupled_cluster(mf: Any, core: int, triples: bool, density: bool, found: Solution) -> None:
    """CCSD and, with `triples`, CCSD(T)."""
    mycc, eris = _ccsd(mf, core or None)
    if not mycc.converged:
        found.outcome = "CCSD did not converge"
        return
    found.energies["CCSD"] = float(mycc.e_tot)
    found.diagnostics["t1"] = _t1(mycc)
    some_triples = triples and mf.mol.nelectron - 2 * core > 2
    if triples:
        found.energies["CCSD(T)"] = float(mycc.e_tot + (mycc.ccsd_t(eris=eris) if some_triples else 0.0))
    if not density:
        return
    keep = triples_room(mycc) if some_triples else None
    found.dm1 = _density(mycc, eris, some_triples and keep is None, found)
    if keep is not None:
        del eris
        change = _triples_change(mf, core, keep, found)
        if found.dm1 is not None and change is not None:
            found.dm1 = found.dm1 + change


def _triples_change(mf: Any, core: int, keep: int, found: Solution) -> np.ndarray | None:
    """What the triples change in the density matrix, (2, nao, nao), in `keep` natural virtual orbitals of MP2.

    Of their change of the dipole of NH in cc-pVTZ, 15 and 30 of 39 virtual orbitals give 60 and 80%.
    """
    frozen, orbitals = mp.MP2(mf, frozen=core or None).run().make_fno(nvir_act=keep)
    small, eris = _ccsd(mf, frozen, orbitals)
    if not small.converged:
        found.outcome = "CCSD in natural orbitals did not converge"
        return None
    found.diagnostics["triples_virtuals"] = keep
    with_triples, without = (_density(small, eris, triples, found) for triples in (True, False))
    return None if with_triples is None or without is None else with_triples - without


def triples_room(mycc: Any) -> int | None:
    """Virtual orbitals of each spin that memory allows the density of (T); None where all of them.

    PySCF's code for closed shells works in blocks, the one for open shells holds all triples.
    """
    if not isinstance(mycc, cc.uccsd.UCCSD):
        return None
    occupied = max(mycc.nocc)
    virtual = max(n - o for n, o in zip(mycc.nmo, mycc.nocc, strict=True))
    room = int((mycc.max_memory * 1e6 / 8 / TRIPLES_ARRAYS / occupied**3) ** (1 / 3))
    return None if room >= virtual else room


def _t1(mycc: Any) -> float:
    """The T1 diagnostic; of open shells by the mean square over both spins, by which closed ones keep theirs."""
    if isinstance(mycc, cc.uccsd.UCCSD):
        return float(np.sqrt(sum(np.linalg.norm(t) ** 2 for t in mycc.t1) / 2 / sum(mycc.nocc)))
    return float(np.linalg.norm(mycc.t1) / np.sqrt(2 * mycc.nocc))


def _density(mycc: Any, eris: Any, triples: bool, found: Solution) -> np.ndarray | None:
    """The density matrix in atomic orbitals, (2, nao, nao); None, and the outcome, where Lambda does not converge."""
    open_shell = isinstance(mycc, cc.uccsd.UCCSD)
    if triples:
        equations, rdm = (uccsd_t_lambda, uccsd_t_rdm) if open_shell else (ccsd_t_lambda, ccsd_t_rdm)
        done, l1, l2 = equations.kernel(mycc, eris, mycc.t1, mycc.t2, max_cycle=100, tol=1e-7, verbose=0)
        dm = rdm.make_rdm1(mycc, mycc.t1, mycc.t2, l1, l2, eris=eris)
    else:
        mycc.solve_lambda(eris=eris)
        done, dm = mycc.converged_lambda, mycc.make_rdm1()
    if not done:
        found.outcome = "the Lambda equations did not converge"
        return None
    pairs = [dm, dm] if not open_shell else dm
    orbitals = mycc.mo_coeff if open_shell else [mycc.mo_coeff] * 2
    scale = 1.0 if open_shell else 0.5
    return _spins(np.array([scale * c @ d @ c.T for c, d in zip(orbitals, pairs, strict=True)]))


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
