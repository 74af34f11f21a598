"""How well PySCF's angular grids integrate a functional, so that training can penalise what they cannot resolve.

Between the shells of an open-shell atom the variables of the spin with a hole change fast with the direction: a steep
correction makes the energy depend on how the atom is turned against the grid.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.polynomial import legendre
from pyscf import dft, gto

from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.ongrid import features_at
from mlxc.scf import fractional, solved
from mlxc.units import KCAL

#: Unpaired electrons of atoms with a partly filled p shell, how many there are of one spin along and across the axis,
#: and of which spin, when the other has a full shell or none.
ATOMS = {
    "B": (1, "along", 0), "C": (2, "across", 0), "O": (2, "along", 1), "F": (1, "across", 1),
    "Al": (1, "along", 0), "Si": (2, "across", 0), "S": (2, "along", 1), "Cl": (1, "across", 1),
}  # fmt: skip
BASIS = "def2-tzvp"
#: PySCF's level of the grid.
LEVEL = 3
#: Angles between a pole and the equator at which the energy density is looked at, and the highest Legendre polynomial
#: that it is developed in.
ANGLES, ORDER = 32, 60
#: How many axes, the grid's own beside random ones.
AXES = 6


def axial_density(symbol: str) -> tuple[gto.Mole, np.ndarray]:
    """An atom whose open p shell has its axis along z, and its spin density matrices (2, nao, nao).

    The orbitals are those of r2SCAN with the shell filled evenly, so that none of their shapes has an axis.
    """
    spin, where, open_spin = ATOMS[symbol]
    mol = gto.M(atom=symbol, spin=spin, basis=BASIS, verbose=0)
    electrons = {"along": 1, "across": 2}[where]
    inner = mol.nelec[open_spin] - electrons
    filled = [[1.0] * n for n in mol.nelec]
    filled[open_spin] = [1.0] * inner + [electrons / 3] * 3
    mf = solved(fractional(mol, filled, "r2scan"))
    occupied = [c[:, n > 0] for c, n in zip(mf.mo_coeff, mf.mo_occ, strict=True)]
    shell = occupied[open_spin][:, inner:]
    zz = mol.intor("int1e_rr").reshape(3, 3, mol.nao, mol.nao)[2, 2]
    shell = shell @ np.linalg.eigh(shell.T @ zz @ shell)[1]  # the orbital along z is the last one
    chosen = shell[:, 2:] if where == "along" else shell[:, :2]
    occupied[open_spin] = np.hstack([occupied[open_spin][:, :inner], chosen])
    return mol, np.array([c @ c.T for c in occupied])


def axes() -> np.ndarray:
    """Directions of a hole as the grid sees them, (AXES, 3)."""
    random = np.random.default_rng(0).normal(size=(AXES - 1, 3))
    return np.vstack([[0.0, 0.0, 1.0], random / np.linalg.norm(random, axis=1)[:, None]])


class AngularGrids:
    """Densities of atoms with a hole in their p shell, on PySCF's radial grid and at angles from the axis of the hole.

    The energy density on a sphere is a sum of Legendre polynomials P_l of the cosine of the angle; what a Lebedev grid
    makes of it is known from the sums of P_l over its points, for every axis.
    """

    def __init__(self) -> None:
        cosines, shares = (x[ANGLES:] for x in legendre.leggauss(2 * ANGLES))
        degrees = np.arange(2, ORDER + 1, 2)
        # The coefficients of P_l from values on the upper half of the sphere, the lower one is the same.
        coefficients = (2 * degrees[:, None] + 1) * shares * _polynomials(cosines)[2::2]
        found, self.weights = [], []
        for symbol in ATOMS:
            mol, dms = axial_density(symbol)
            z = mol.atom_charge(0)
            r, dr = dft.radi.treutler_ahlrichs(dft.gen_grid._default_rad(z, LEVEL), z)
            sizes = dft.gen_grid.nwchem_prune(z, r, dft.gen_grid._default_ang(z, LEVEL))
            sums = {n: _sums(n)[:, degrees] for n in np.unique(sizes)}
            rows = [4 * np.pi * x**2 * dx * sums[n] @ coefficients for x, dx, n in zip(r, dr, sizes, strict=True)]
            self.weights.append(torch.from_numpy(np.concatenate(rows, axis=1)))
            across = np.sqrt(1 - cosines**2)
            directions = np.stack([across, np.zeros(ANGLES), cosines], axis=1)
            coords = (r[:, None, None] * directions).reshape(-1, 3)
            found.append(features_at(mol, coords, torch.from_numpy(dms)))
        self.features = Features.join(found)

    def errors(self, functional: Functional) -> torch.Tensor:
        """E_xc on PySCF's angular grids minus that on all directions, Eh, (atoms, AXES)."""
        parts = functional(self.features).split([w.shape[1] for w in self.weights])
        return torch.stack([w @ e for w, e in zip(self.weights, parts, strict=True)])

    def __call__(self, functional: Functional) -> torch.Tensor:
        """Mean square error, (kcal/mol)^2, ()."""
        return (KCAL * self.errors(functional)).square().mean()


def _polynomials(x: np.ndarray) -> np.ndarray:
    """P_l(x) of l up to ORDER, (ORDER + 1, ...)."""
    return np.moveaxis(legendre.legvander(x, ORDER), -1, 0)


def _sums(points: int) -> np.ndarray:
    """Weighted sums of P_l over a Lebedev grid of so many points, for every axis, (AXES, ORDER + 1)."""
    grid = np.array(dft.gen_grid.MakeAngularGrid(int(points)))
    return (_polynomials(axes() @ grid[:, :3].T) @ grid[:, 3]).T
