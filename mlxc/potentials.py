"""Electrostatic potentials of Gaussian basis functions on a grid.

A shell r^l Y_lm exp(-alpha r^2) at the origin has the potential (2 pi / alpha) r^l Y_lm F_l(alpha r^2) with the Boys
function F_l (the Coulomb integral of an s function with a point charge, differentiated l times: McMurchie, Davidson,
J. Comput. Phys. 26, 218 (1978)).  It is a function of one centre, so no two-centre integrals are needed.  The
long-range potential erf(omega r)/r replaces it by (2 pi / alpha) theta^(l + 1/2) r^l Y_lm F_l(theta alpha r^2) with
theta = omega^2 / (omega^2 + alpha).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.special
from pyscf import gto

#: Beyond this argument the Boys function is its asymptotic form, to relative 1e-13 for l <= 6.
FAR = 42.0
#: Spacing of the table of Boys functions, and number of terms of the Taylor expansion between its nodes.
STEP, TERMS = 1 / 16, 6


@lru_cache
def _boys_table(order: int) -> np.ndarray:
    """F_order+k / k! at multiples of STEP up to FAR + STEP, (TERMS, nodes)."""
    x = np.arange(0, FAR + 1.5 * STEP, STEP)
    x[0] = 1.0  # a placeholder: the closed form has no value at 0
    rows = []
    for k in range(TERMS):
        a = order + k + 0.5
        row = 0.5 * scipy.special.gamma(a) * scipy.special.gammainc(a, x) / x**a
        row[0] = 0.5 / a
        rows.append(row / math.factorial(k))
    return np.array(rows)


def _boys_far(order: int, x: np.ndarray) -> np.ndarray:
    return 0.5 * scipy.special.gamma(order + 0.5) / (x**order * np.sqrt(x))


def boys(order: int, x: np.ndarray) -> np.ndarray:
    """F_order(x) = integral_0^1 t^(2 order) exp(-x t^2) dt for x >= 0, to about 1e-12."""
    table = _boys_table(order)
    node = (np.minimum(x, FAR) / STEP + 0.5).astype(np.intp)
    step = node * STEP - x
    out = table[-1][node]
    for row in table[-2::-1]:
        out *= step
        out += row[node]
    far = x > FAR
    if far.any():
        out[far] = _boys_far(order, x[far])
    return out


@lru_cache
def _harmonics_mole(lmax: int) -> gto.Mole:
    """One atom whose basis functions are the solid harmonics r^l Y_lm, in PySCF's order and normalisation."""
    mol = gto.M(atom="H 0 0 0", basis={"H": [[l, [1.0, 1.0]] for l in range(lmax + 1)]}, spin=1, verbose=0)
    for shell in range(mol.nbas):
        mol._env[mol._bas[shell, gto.PTR_EXP]] = 0.0
        mol._env[mol._bas[shell, gto.PTR_COEFF]] = 1.0
    return mol


class _Contraction(NamedTuple):
    """One contracted shell: sum_p c_p r^l Y_lm exp(-alpha_p r^2), its first function, c_p and alpha_p."""

    l: int
    first: int
    coefficients: np.ndarray
    exponents: np.ndarray

    @property
    def functions(self) -> slice:
        return slice(self.first, self.first + 2 * self.l + 1)

    @property
    def harmonics(self) -> slice:
        return slice(self.l**2, (self.l + 1) ** 2)


class AuxiliaryPotentials:
    """V_P(g), the potentials of the basis functions P of a molecule, or of their long-range part.

    Cartesian functions are left to PySCF's two-centre integrals.

    mol : pyscf.gto.Mole whose basis functions are meant (an auxiliary one)
    omega : range separation, Bohr^-1, for erf(omega r)/r; 0 for 1/r
    """

    def __init__(self, mol: gto.Mole, omega: float = 0.0):
        self.mol, self.omega = mol, omega
        self.lmax = max(mol.bas_angular(b) for b in range(mol.nbas))
        loc = mol.ao_loc_nr()
        self._atoms: list[list[_Contraction]] = [[] for _ in range(mol.natm)]
        for b in range(mol.nbas):
            l = mol.bas_angular(b)
            for k, c in enumerate(mol._libcint_ctr_coeff(b).T):
                contraction = _Contraction(l, loc[b] + k * (2 * l + 1), c, mol.bas_exp(b))
                self._atoms[mol.bas_atom(b)].append(contraction)

    def _libcint(self, name: str, coords: np.ndarray) -> np.ndarray:
        with self.mol.with_range_coulomb(self.omega):
            return gto.intor_cross(name, self.mol, gto.fakemol_for_charges(coords))

    def _effective(self, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """theta and theta alpha of exponents."""
        theta = self.omega**2 / (self.omega**2 + alpha) if self.omega else np.ones_like(alpha)
        return theta, theta * alpha

    def _radial(self, shell: _Contraction, r2: np.ndarray, raised: int = 0) -> np.ndarray:
        """sum_p c_p (2 pi / alpha_p) theta_p^(m + 1/2) (-2 alpha_p)^raised F_m(theta_p alpha_p r^2), m = l + raised."""
        order, (theta, effective) = shell.l + raised, self._effective(shell.exponents)
        front = shell.coefficients * 2 * np.pi / shell.exponents * theta ** (order + 0.5)
        front *= (-2 * shell.exponents) ** raised
        return sum(f * boys(order, a * r2) for f, a in zip(front, effective, strict=True))

    def _charge(self, shell: _Contraction) -> float:
        """q where the radial function is q / r^(2 l + 1) far out."""
        theta, effective = self._effective(shell.exponents)
        front = shell.coefficients * 2 * np.pi / shell.exponents * theta ** (shell.l + 0.5)
        return float(front @ _boys_far(shell.l, effective))

    def _centred(self, coords: np.ndarray, kind: str):
        """Per atom: its contractions, r (g, 3), r^2 (g,) and solid harmonics (1 or 4, (lmax + 1)^2, g)."""
        harmonics = _harmonics_mole(self.lmax)
        for atom, shells in enumerate(self._atoms):
            r = coords - self.mol.atom_coord(atom)
            angular = harmonics.eval_gto(kind, r).reshape(-1, len(r), (self.lmax + 1) ** 2)
            yield shells, r, np.einsum("gx,gx->g", r, r), np.ascontiguousarray(angular.transpose(0, 2, 1))

    def reduced(self, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rows (m, g), source (naux,), factor (naux,) with V_P(g) = factor_P rows[source_P, g], coords (g, 3) in Bohr.

        Functions of one centre and l that are far from all points share their rows, the potentials of a multipole.
        """
        if self.mol.cart:
            table = self._libcint("int2c2e", coords)
            return table, np.arange(len(table)), np.ones(len(table))
        rows: list[np.ndarray] = []
        source, factor = np.empty(self.mol.nao, dtype=np.intp), np.ones(self.mol.nao)
        for shells, _, r2, (angular,) in self._centred(coords, "GTOval_sph"):
            nearest = r2.min()
            multipoles: dict[int, list[_Contraction]] = {}
            for shell in shells:
                if self._effective(shell.exponents)[1].min() * nearest > FAR:
                    multipoles.setdefault(shell.l, []).append(shell)
                else:
                    source[shell.functions] = range(len(rows), len(rows) + 2 * shell.l + 1)
                    rows.extend(angular[shell.harmonics] * self._radial(shell, r2))
            for l, far in multipoles.items():
                charges = np.array([self._charge(s) for s in far])
                norm = np.linalg.norm(charges)
                for shell, q in zip(far, charges, strict=True):
                    source[shell.functions] = range(len(rows), len(rows) + 2 * l + 1)
                    factor[shell.functions] = q / norm
                rows.extend(angular[far[0].harmonics] * (norm / (r2**l * np.sqrt(r2))))
        return np.array(rows), source, factor

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        """V_P(g), (naux, g), at coords (g, 3) in Bohr."""
        rows, source, factor = self.reduced(coords)
        return rows[source] * factor[:, None]

    def gradient(self, coords: np.ndarray) -> np.ndarray:
        """dV_P(g)/dg, (3, naux, g), at coords (g, 3) in Bohr."""
        if self.mol.cart:
            return self._libcint("int2c2e_ip1", coords)
        out = np.empty((3, self.mol.nao, len(coords)))
        for shells, r, r2, angular in self._centred(coords, "GTOval_sph_deriv1"):
            for shell in shells:
                y = angular[:, shell.harmonics]
                # dF_l(alpha r^2) / dr = -2 alpha r F_l+1(alpha r^2)
                value, slope = self._radial(shell, r2), self._radial(shell, r2, 1)
                out[:, shell.functions] = y[1:] * value + y[0] * (slope * r.T)[:, None]
        return out
