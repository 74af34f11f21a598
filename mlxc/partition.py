"""The points of PySCF's grids atom by atom, and how their weights change with the positions of the atoms.

A point of atom A has the weight volume * P_A / sum_B P_B with Becke's cell functions P (J. Chem. Phys. 88, 2547
(1988)), whose boundaries are shifted by the sizes of the atoms.  Derivatives come from torch.autograd: PySCF's own
(`grids_response_cc`) take other sizes than its weights do for ghost atoms and atoms with a core potential.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pyscf import gto, lib
from pyscf.data.elements import _std_symbol_without_ghost
from pyscf.data.elements import charge as proton_number

from mlxc.errors import InputError


def nuclear_charges(mol: gto.Mole) -> np.ndarray:
    """Proton numbers (natm,), of atoms with a core potential and of ghost atoms too."""
    return np.array([proton_number(_std_symbol_without_ghost(symbol)) for symbol in mol.elements])


class ByProtons:
    """PySCF's grids for the gradients of its semilocal functionals: what these ask for sizes has its nuclear charges.

    PySCF shifts the boundaries between atoms by proton numbers in the weights, and by what core potentials leave of
    them, or by the zero of ghost atoms, in their derivatives.  Everything but `mol` is that of the grids themselves.
    """

    def __init__(self, grids: Any) -> None:
        self._grids = grids

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._grids, name)

    @property
    def mol(self) -> gto.Mole:
        """A copy of the molecule with proton numbers, for the sizes of atoms alone."""
        mol = self._grids.mol.copy()
        mol._atm[:, gto.CHARGE_OF] = nuclear_charges(mol)
        mol._atm[:, gto.NUC_MOD_OF] = gto.NUC_POINT  # those of core potentials count otherwise
        return mol


def partitioned_points(mol: gto.Mole, grids: Any, size: int) -> Iterator[tuple]:
    """The points of PySCF's grid by atom: (atom, coordinates (g, 3), volumes and weights (g,)), g <= size."""
    table = grids.gen_atomic_grids(mol, grids.atom_grid, grids.radi_method, grids.level, grids.prune)
    coords, weights = grids.get_partition(
        mol, table, grids.radii_adjust, grids.atomic_radii, grids.becke_scheme, concat=False
    )
    for atom in range(mol.natm):
        volume = table[mol.atom_symbol(atom)][1]
        for p0, p1 in lib.prange(0, len(volume), size):
            yield atom, coords[atom][p0:p1], volume[p0:p1], weights[atom][p0:p1]


def weight_gradient(
    mol: gto.Mole, grids: Any, atom: int, coords: np.ndarray, volume: np.ndarray, weight: np.ndarray, energy: np.ndarray
) -> np.ndarray:
    """sum_g energy_g dweight_g/dR, (natm, 3), for the points coords (g, 3) of one atom, which stay where they are.

    Raises InputError for weights that are not Becke's.
    """
    atoms, shift = range(mol.natm), np.zeros((mol.natm, mol.natm))
    if callable(grids.radii_adjust) and grids.atomic_radii is not None:
        adjusted = grids.radii_adjust(mol, grids.atomic_radii)
        shift = np.array([[adjusted(i, j, 0.0) for j in atoms] for i in atoms])
    centres = torch.tensor(mol.atom_coords(), requires_grad=True)
    r, between = (_distances(torch.as_tensor(x), centres) for x in (coords, centres))
    f = (r[:, :, None] - r[:, None, :]) / (between + torch.eye(mol.natm))
    f = f + torch.from_numpy(shift) * (1 - f * f)
    for _ in range(3):
        f = (3 - f * f) * f / 2
    # The factor 1/2 of every atom with itself cancels.
    cells = ((1 - f) / 2).prod(-1)
    becke = torch.from_numpy(volume) * cells[:, atom] / cells.sum(-1)
    if not np.allclose(becke.detach(), weight, rtol=1e-6, atol=1e-8):
        raise InputError("gradients of a local hybrid are there for grids with Becke's partition, PySCF's default")
    (out,) = torch.autograd.grad(becke @ torch.from_numpy(energy), centres)
    return out.numpy()


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
