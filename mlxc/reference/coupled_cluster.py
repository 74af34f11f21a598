"""CCSD and CCSD(T) by PySCF.

Densities are those of the Lambda equations without the relaxation of the orbitals, as PySCF's `make_rdm1`; that of (T)
adds the perturbative triples (Watts, Gauss, Bartlett, J. Chem. Phys. 98, 8718 (1993)).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import cc, mp
from pyscf.cc import ccsd_t_lambda, ccsd_t_rdm, uccsd_t_lambda, uccsd_t_rdm

from mlxc.reference.solution import Solution, spins

#: Arrays of the size of all triples that the density of (T) of an open shell holds at a time.
TRIPLES_ARRAYS = 10
#: Arrays of the size of all integrals over orbitals that PySCF holds to make those of an open shell in memory.
INTEGRAL_ARRAYS = 4


def _ccsd(mf: Any, frozen: Any, orbitals: Any = None) -> tuple[Any, Any]:
    """Tightly converged CCSD, which says itself whether it is, and its integrals."""
    mycc = cc.CCSD(mf, frozen=frozen, mo_coeff=orbitals)
    mycc.conv_tol, mycc.conv_tol_normt, mycc.max_cycle = 1e-9, 1e-6, 100
    if isinstance(mycc, cc.uccsd.UCCSD) and INTEGRAL_ARRAYS * 8e-6 * max(mycc.nmo) ** 4 > mycc.max_memory:
        mf._eri = None  # on disk, then: PySCF counts one of the arrays
    eris = mycc.ao2mo()
    mycc.kernel(eris=eris)
    return mycc, eris


def coupled_cluster(mf: Any, core: int, triples: bool, density: bool, found: Solution) -> None:
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
    return spins(np.array([scale * c @ d @ c.T for c, d in zip(orbitals, pairs, strict=True)]))
