"""Exact wave functions of two electrons in a basis: the lowest singlet or triplet.

psi(1, 2) = sum_pq C_pq phi_p(1) phi_q(2), C symmetric for a singlet and antisymmetric for a triplet, is the lowest
eigenvector of (H C)_pq = sum_r (h_pr C_rq + C_pr h_qr) + sum_rs (pr|qs) C_rs.  PySCF's full CI does not go beyond 63
orbitals with a given spin, starts from one determinant, and coupled cluster finds excited states of stretched bonds.
"""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
from pyscf import gto, lib, scf

#: The search starts from all configurations of so many of the lowest orbitals.
START = 6


def ground_state(mol: gto.Mole, orbitals: np.ndarray) -> tuple[bool, float, np.ndarray]:
    """Whether it converged, energy (Eh) and dm1 (2, nao, nao) of the lowest state of spin mol.spin, 0 or 2.

    orbitals : (nao, n), orthonormal, the lowest first
    """
    n, sign = orbitals.shape[1], 1 if mol.spin == 0 else -1
    h = orbitals.T @ scf.hf.get_hcore(mol) @ orbitals
    eri = mol.intor("int2e", aosym="s8")
    projectors = np.einsum("mp,np->pmn", orbitals, orbitals)
    coulomb = scf.hf.dot_eri_dm(eri, projectors, hermi=1, with_k=False)[0]
    energies = np.diagonal(h)
    diagonal = energies[:, None] + energies + np.einsum("mq,pmn,nq->pq", orbitals, coulomb, orbitals, optimize=True)

    def hamiltonian(vectors: list[np.ndarray]) -> list[np.ndarray]:
        c = np.reshape(vectors, (-1, n, n))
        repulsion = scf.hf.dot_eri_dm(eri, orbitals @ c @ orbitals.T, hermi=0, with_j=False)[1]
        return list((h @ c + c @ h + orbitals.T @ repulsion @ orbitals).reshape(len(c), -1))

    def start(p: int, q: int) -> np.ndarray:
        c = np.zeros((n, n))
        c[p, q] = 1
        return (c + sign * c.T).ravel() / np.linalg.norm(c + sign * c.T)

    def precondition(residual: np.ndarray, energy: float, *_: object) -> np.ndarray:
        gap = diagonal.ravel() - energy
        return residual / np.where(abs(gap) < 1e-4, 1e-4, gap)

    chosen = (combinations_with_replacement if sign > 0 else combinations)(range(min(n, START)), 2)
    guesses = [start(p, q) for p, q in chosen]
    done, energy, vector = lib.davidson1(
        hamiltonian, guesses, precondition, tol=1e-12, max_cycle=200, max_space=2 * len(guesses) + 20, verbose=0
    )
    c = vector[0].reshape(n, n)
    density = orbitals @ (c @ c.T / (c**2).sum()) @ orbitals.T
    spins = np.array([density, density] if sign > 0 else [2 * density, 0 * density])
    return bool(done[0]), float(energy[0] + mol.energy_nuc()), spins
