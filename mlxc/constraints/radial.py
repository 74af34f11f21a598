"""How well PySCF's default radial grids integrate a functional, so that training can penalise what they cannot resolve.

In the cores of atoms the variables of a functional change within hundredths of a Bohr, and most of the energy lies
there: corrections that look smooth as functions of their variables may still need far more points than r2SCAN does.
"""

from __future__ import annotations

import numpy as np
import torch
from pyscf import dft, gto

from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.ongrid import FULL_RANGE, Mixed, features_at
from mlxc.scf import solved
from mlxc.units import KCAL

#: Neutral atoms: charge and number of unpaired electrons.
ATOMS = {
    "H": (0, 1), "Li": (0, 1), "Be": (0, 0), "B": (0, 1), "C": (0, 2), "N": (0, 3), "O": (0, 2), "F": (0, 1),
    "Ne": (0, 0), "Na": (0, 1), "Mg": (0, 0), "Al": (0, 1), "Si": (0, 2), "P": (0, 3), "S": (0, 2), "Cl": (0, 1),
}  # fmt: skip
#: Closed shells of the same elements: their cores are those in molecules, where the spin density is zero.  Atoms alone
#: left water with an error of 0.03 kcal/mol.
CLOSED = {
    "C": (-4, 0), "N": (-3, 0), "O": (-2, 0), "F": (-1, 0), "Si": (-4, 0), "P": (-3, 0), "S": (-2, 0), "Cl": (-1, 0),
}  # fmt: skip
#: PySCF's level of the grid, and how many radial points its grids have more or less here, so that no special positions
#: are learned.
LEVEL, STEPS = 3, (-5, -2, 1)
#: Number of points of the grid to compare with.
FINE = 160
DIRECTIONS = ((1.0, 2.0, 3.0), (0.0, 0.0, 1.0))


class RadialGrids:
    """r2SCAN densities of atoms and ions along rays from the nucleus, on coarse and on fine radial grids."""

    def __init__(self, mixed: Mixed = FULL_RANGE, closed: bool = False, level: int = LEVEL) -> None:
        """With the interaction `mixed` of exact exchange (`mlxc.ongrid`); `closed`: with CLOSED; PySCF's `level`."""
        rays, weights = [], []
        for symbol, (charge, spin) in (*ATOMS.items(), *(CLOSED.items() if closed else ())):
            mol = gto.M(atom=symbol, charge=charge, spin=spin, basis="def2-svp", verbose=0)
            dm = np.asarray(solved(dft.UKS(mol, xc="r2scan")).make_rdm1())
            z = mol.atom_charge(0)
            usual = dft.gen_grid._default_rad(z, level)
            grids = [dft.radi.treutler_ahlrichs(n, z) for n in (FINE, *(usual + k for k in STEPS))]
            r, dr = (np.concatenate(x) for x in zip(*grids, strict=True))
            sizes = [len(x) for x, _ in grids]
            # One row per coarse grid: its weights, and minus those of the fine grid.
            rows = np.zeros((len(STEPS), len(r)))
            rows[:, : sizes[0]] = -1
            for row, end, size in zip(rows, np.cumsum(sizes)[1:], sizes[1:], strict=True):
                row[end - size : end] = 1
            for direction in np.array(DIRECTIONS):
                coords = r[:, None] * direction / np.linalg.norm(direction)
                rays.append(features_at(mol, coords, torch.from_numpy(dm), mixed))
                weights.append(torch.from_numpy(rows * 4 * np.pi * r**2 * dr))
        self.sizes = [w.shape[1] for w in weights]
        self.weights = weights
        self.features = Features.join(rays)

    def errors(self, functional: Functional) -> torch.Tensor:
        """Integrals of the energy density on coarse grids minus those on fine ones, Eh, (rays * len(STEPS),)."""
        parts = functional(self.features).split(self.sizes)
        return torch.cat([w @ e for w, e in zip(self.weights, parts, strict=True)])

    def __call__(self, functional: Functional) -> torch.Tensor:
        """Mean square error, (kcal/mol)^2, ()."""
        return (KCAL * self.errors(functional)).square().mean()
