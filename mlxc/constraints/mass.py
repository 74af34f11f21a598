"""How far a functional makes electrons fall into their own kinetic energy, so that training can forbid it.

The potential of a meta-GGA or local hybrid contains -1/2 div (1 + v_tau) grad with v_tau = dE_xc / dtau.  Where
1 + v_tau < 0 the kinetic energy counts negatively: unoccupied orbitals fall below occupied ones as soon as a basis can
describe it, and the SCF fails.  Tails of one or two orbitals, and those of the minority spin of open shells, are the
places where that happens, and they hold too little energy for reactions to notice.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from pyscf import dft, gto

from mlxc.constraints.fractional import SECOND_ROW, THIRD_ROW, fractional_spins
from mlxc.features import Features, GridMap
from mlxc.functional import Functional
from mlxc.ongrid import FULL_RANGE, Mixed, features_at
from mlxc.scf import fractional, solved

#: Closed shells of few orbitals with extended tails, and open shells, among them transition states and one electron
#: above a closed shell: with charges and numbers of unpaired electrons.
MOLECULES = (
    ("H 0 0 0; H 0 0 0.74", 0, 0), ("Be 0 0 0", 0, 0), ("Li 0 0 0; H 0 0 1.5957", 0, 0),
    ("Li 0 0 0; Li 0 0 2.673", 0, 0), ("Mg 0 0 0", 0, 0),
    ("B 0 0 0", 0, 1), ("C 0 0 0", 0, 2), ("N 0 0 0", 0, 3), ("O 0 0 0", 0, 2), ("F 0 0 0", 0, 1),
    ("H 0 0 -0.93; H 0 0 0; H 0 0 0.93", 0, 1), ("N 0 0 0; N 0 0 1.12; H 0 1.27 1.77", 0, 1),
    ("C 0 0 0; H 1.079 0 0; H -0.5395 0.9344 0; H -0.5395 -0.9344 0", 0, 1),
    ("S 0 0 0; H 0.96 0 -0.93; H 0 0 1.45; H 0 0 2.6", 0, 1),
    ("Na 0 0 0", 0, 1), ("Al 0 0 0", 0, 1), ("Si 0 0 0", 0, 2), ("S 0 0 0", 0, 2), ("Cl 0 0 0", 0, 1),
    ("Li 0 0 0", 0, 1), ("Be 0 0 0", 1, 1), ("B 0 0 0", 2, 1), ("Mg 0 0 0", 1, 1), ("N 0 0 0; N 0 0 2", 0, 0),
)  # fmt: skip
#: Atoms whose unpaired electrons are shared by both spins.  Without them a model got a v_tau of -1.5 all over such a
#: hydrogen atom, where no SCF converges.
SHARED = ("H", "Li", "B", "C", "N", "O", "F", "Na", "Al", "P", "Cl")
BASIS = "def2-tzvppd"
#: Points between these densities (Bohr^-3) are looked at: below, v_tau vanishes.
RHO = (1e-9, 1e3)
#: Points of each molecule.
POINTS = 700
#: v_tau may be as negative as this without penalty.
ALLOWED = -0.3


def kinetic_potential(functional: Functional, features: Features) -> torch.Tensor:
    """v_tau = dE_xc / dtau of each spin, (S, G); differentiable."""
    tau = features.tau.clone().requires_grad_()
    energy = functional(Features(features.rho, features.sigma, tau, features.ex))
    (v,) = torch.autograd.grad(energy.sum(), tau, create_graph=True)
    return v / features.multiplicity


def ground_state(atom: str, charge: int, spin: int, basis: str = BASIS, mixed: Mixed = FULL_RANGE) -> Features:
    """Features of both spins at random points of the r2SCAN density of a molecule (Angstrom), evenly in log n."""
    mol = gto.M(atom=atom, charge=charge, spin=spin, basis=basis, verbose=0)
    return _points(solved(dft.UKS(mol, xc="r2scan").density_fit()), mixed)


def shared_shell(symbol: str, basis: str = BASIS) -> Features:
    """The same of an atom whose unpaired electrons are half of either spin, as in a bond that is stretched far."""
    systems, _ = fractional_spins({symbol: (SECOND_ROW | THIRD_ROW)[symbol]})
    ((half, occupations),) = ((s, s.occupations) for s in systems.values() if s.occupations)
    return _points(solved(fractional(half.mole(basis), occupations, "r2scan").density_fit()), FULL_RANGE)


def _points(mf: Any, mixed: Mixed) -> Features:
    mol, dm = mf.mol, torch.from_numpy(np.asarray(mf.make_rdm1()))
    n = GridMap(mol, mf.grids.coords)(dm).total_rho.numpy()
    rng = np.random.default_rng(0)
    inside = np.flatnonzero((n > RHO[0]) & (n < RHO[1]))
    decades = np.floor(np.log10(n[inside])).astype(int)
    share = 1 / np.bincount(decades - decades.min())[decades - decades.min()]
    coords = mf.grids.coords[rng.choice(inside, min(POINTS, len(inside)), replace=False, p=share / share.sum())]
    return features_at(mol, coords, dm, mixed)


class EffectiveMass:
    """Points of small molecules and atoms, SHARED ones too, down into their tails, and the penalty there."""

    def __init__(self) -> None:
        found = [ground_state(*molecule) for molecule in MOLECULES]
        self.features = Features.join([*found, *map(shared_shell, SHARED)])
        self.closed_shells = Features.join([f for f, (*_, spin) in zip(found, MOLECULES, strict=True) if not spin])

    def __call__(self, functional: Functional) -> torch.Tensor:
        """Mean square of what v_tau falls below ALLOWED, ()."""
        return torch.relu(ALLOWED - kinetic_potential(functional, self.features)).square().mean()


@cache
def effective_mass() -> EffectiveMass:
    """One EffectiveMass for all losses that look at its points."""
    return EffectiveMass()
