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

import numpy as np
import scipy.linalg
import scipy.special
from pyscf import gto

#: Beyond this argument the Boys function is its asymptotic form, to relative 1e-11 for l <= 7.
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


class _Shells:
    """All shells of one atom that share l: sum_p c_p r^l Y_lm exp(-alpha_p r^2), one row of coefficients each."""

    def __init__(self, mol: gto.Mole, shells: list[int], omega: float):
        self.l = mol.bas_angular(shells[0])
        loc = mol.ao_loc_nr()
        blocks = [mol._libcint_ctr_coeff(b).T for b in shells]
        self.coefficients = scipy.linalg.block_diag(*blocks)
        self.exponents = np.concatenate([mol.bas_exp(b) for b in shells])
        self.theta = omega**2 / (omega**2 + self.exponents) if omega else np.ones_like(self.exponents)
        self.effective = self.theta * self.exponents
        #: Per contraction: the smallest effective exponent, and the first of its 2 l + 1 functions.
        self.diffuse = np.where(self.coefficients != 0, self.effective, np.inf).min(1)
        self.first = np.array([p for b in shells for p in range(loc[b], loc[b + 1], 2 * self.l + 1)])
        #: q where the radial function is q / r^(2 l + 1) far out.
        self.charge = self.coefficients @ (self._front(0) * _boys_far(self.l, self.effective))
        self.harmonics = slice(self.l**2, (self.l + 1) ** 2)

    def _front(self, raised: int) -> np.ndarray:
        """(2 pi / alpha) theta^(l + raised + 1/2) (-2 alpha)^raised per exponent."""
        front = 2 * np.pi / self.exponents * self.theta ** (self.l + raised + 0.5)
        return front * (-2 * self.exponents) ** raised

    def functions(self, which: np.ndarray) -> np.ndarray:
        """Numbers of the functions of these contractions, in order."""
        return (self.first[which, None] + np.arange(2 * self.l + 1)).ravel()

    def radial(self, which: np.ndarray, r2: np.ndarray, raised: int = 0) -> np.ndarray:
        """sum_p c_p front_p F_l+raised(theta_p alpha_p r^2) of these contractions, (n, g)."""
        used = (self.coefficients[which] != 0).any(0)
        values = boys(self.l + raised, self.effective[used, None] * r2)
        return (self.coefficients[which][:, used] * self._front(raised)[used]) @ values


class AuxiliaryPotentials:
    """V_P(g), the potentials of the basis functions P of a molecule, or of their long-range part.

    Cartesian functions are left to PySCF's two-centre integrals.

    mol : pyscf.gto.Mole whose basis functions are meant (an auxiliary one)
    omega : range separation, Bohr^-1, for erf(omega r)/r; 0 for 1/r
    """

    def __init__(self, mol: gto.Mole, omega: float = 0.0):
        self.mol = mol.copy()
        self.mol.set_range_coulomb(omega)
        self.lmax = max(mol.bas_angular(b) for b in range(mol.nbas))
        self._atoms: list[list[_Shells]] = []
        for atom in range(mol.natm):
            by_l: dict[int, list[int]] = {}
            for b in mol.atom_shell_ids(atom):
                by_l.setdefault(mol.bas_angular(b), []).append(b)
            self._atoms.append([_Shells(mol, shells, omega) for shells in by_l.values()])

    def _libcint(self, name: str, coords: np.ndarray) -> np.ndarray:
        return gto.intor_cross(name, self.mol, gto.fakemol_for_charges(coords))

    def _centred(self, coords: np.ndarray, kind: str):
        """Per atom: its shells, r (g, 3), r^2 (g,) and solid harmonics (1 or 4, (lmax + 1)^2, g)."""
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

        def add(radial: np.ndarray, angular: np.ndarray, functions: np.ndarray) -> None:
            start = sum(map(len, rows))
            rows.append((radial[:, None] * angular).reshape(-1, len(coords)))
            source[functions] = np.resize(np.arange(start, start + len(rows[-1])), len(functions))

        for atom, _, r2, (angular,) in self._centred(coords, "GTOval_sph"):
            for shells in atom:
                far = shells.diffuse * r2.min() > FAR
                if not far.all():
                    add(shells.radial(~far, r2), angular[shells.harmonics], shells.functions(~far))
                if far.any():
                    functions, norm = shells.functions(far), np.linalg.norm(shells.charge[far])
                    add(norm / (r2**shells.l * np.sqrt(r2))[None], angular[shells.harmonics], functions)
                    factor[functions] = np.repeat(shells.charge[far] / norm, 2 * shells.l + 1)
        return np.concatenate(rows), source, factor

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        """V_P(g), (naux, g), at coords (g, 3) in Bohr."""
        rows, source, factor = self.reduced(coords)
        return rows[source] * factor[:, None]

    def gradient(self, coords: np.ndarray) -> np.ndarray:
        """dV_P(g)/dg, (3, naux, g), at coords (g, 3) in Bohr."""
        if self.mol.cart:
            return self._libcint("int2c2e_ip1", coords)
        out = np.empty((3, self.mol.nao, len(coords)))
        for atom, r, r2, angular in self._centred(coords, "GTOval_sph_deriv1"):
            for shells in atom:
                which, y = np.ones(len(shells.first), dtype=bool), angular[:, shells.harmonics]
                # dF_l(alpha r^2) / dr = -2 alpha r F_l+1(alpha r^2)
                value, slope = shells.radial(which, r2), shells.radial(which, r2, 1)
                dv = value[:, None] * y[1:, None] + (slope[:, None] * y[0]) * r.T[:, None, None]
                out[:, shells.functions(which)] = dv.reshape(3, -1, len(coords))
        return out
