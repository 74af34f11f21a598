"""The self-consistent phase: energies and densities of a batch with the present parameters, and their gradients.

Every calculation starts from the density that the same species had last.  One that does not converge is an outcome
with a reason: its species is unknown in that step, and the loop counts it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from pyscf.data.nist import AU2DEBYE, HARTREE2EV
from torch.nn.utils import parameters_to_vector

from mlxc.errors import InputError
from mlxc.neural import NeuralMetaGGA
from mlxc.reference import Reference
from mlxc.reference.benchmark import Reaction, System
from mlxc.scf import KS, converge, fractional
from mlxc.train.adjoint import energy_gradient, response_gradient
from mlxc.train.config import Data
from mlxc.train.dataset import Dataset, Target
from mlxc.train.losses import OF_REFERENCES, State
from mlxc.train.ranks import Ranks

#: Convergence of the energy, Eh, and of the orbital gradient.
CONV_TOL, CONV_TOL_GRAD = 1e-9, 1e-5
#: Grid points at which densities are compared at a time.
BLOCK = 20000


class Slopes(NamedTuple):
    """A result, and its derivatives with respect to the density matrix or to orbital energies."""

    value: float
    density: np.ndarray | None = None
    orbital_energies: np.ndarray | None = None


def kohn_sham(system: System, functional: NeuralMetaGGA, settings: Data) -> Any:
    """A density-fitted Kohn-Sham object of a species, not yet run."""
    mol = system.mole(settings.basis)
    mf = fractional(mol, system.occupations, functional) if system.occupations else KS(mol, functional)
    mf = mf.density_fit()
    mf.conv_tol, mf.conv_tol_grad, mf.grids.level = CONV_TOL, CONV_TOL_GRAD, settings.grid_level
    return mf


def density_errors(mf: Any, reference: Reference) -> tuple[Slopes, Slopes]:
    """int (n - n_ref)^2 / N and int |n - n_ref| / N on the grid of `mf`."""
    dm, other = np.asarray(mf.make_rdm1()), reference.mole()
    total, electrons = dm.reshape(-1, *dm.shape[-2:]).sum(0), reference.nelectron
    values, slopes = np.zeros(2), np.zeros((2, *total.shape))
    for i in range(0, len(mf.grids.coords), BLOCK):
        coords, w = mf.grids.coords[i : i + BLOCK], mf.grids.weights[i : i + BLOCK] / electrons
        ao, ao_ref = mf.mol.eval_gto("GTOval", coords), other.eval_gto("GTOval", coords)
        n, n_ref = (np.einsum("gm,gm->g", a @ d, a) for a, d in ((ao, total), (ao_ref, reference.dm1.sum(0))))  # type: ignore[union-attr]
        difference = n - n_ref
        values += w @ difference**2, w @ abs(difference)
        for slope, b in zip(slopes, (2 * w * difference, w * np.sign(difference)), strict=True):
            slope += ao.T @ (b[:, None] * ao)
    first, second = (Slopes(float(v), np.broadcast_to(s, dm.shape)) for v, s in zip(values, slopes, strict=True))
    return first, second


def dipole_error(mf: Any, reference: Reference) -> Slopes:
    """|mu - mu_ref|^2, Debye^2."""
    dm, mol = np.asarray(mf.make_rdm1()), mf.mol
    with mol.with_common_origin((0, 0, 0)):
        position = mol.intor_symmetric("int1e_r")
    total = dm.reshape(-1, *dm.shape[-2:]).sum(0)
    dipole = mol.atom_charges() @ mol.atom_coords() - np.einsum("xmn,nm->x", position, total)
    error = (dipole - reference.dipole) * AU2DEBYE
    slope = -2 * AU2DEBYE * np.einsum("x,xmn->mn", error, position)
    return Slopes(float(error @ error), np.broadcast_to(slope, dm.shape))


def ionization_error(mf: Any, potential: float) -> Slopes:
    """(e_HOMO + IP)^2, eV^2."""
    occupied = np.where(np.asarray(mf.mo_occ) > 0, mf.mo_energy, -np.inf)
    highest = np.unravel_index(occupied.argmax(), occupied.shape)
    error = (occupied[highest] + potential) * HARTREE2EV
    slope = np.zeros_like(occupied)
    slope[highest] = 2 * error * HARTREE2EV
    return Slopes(float(error**2), None, slope)


class SelfConsistentPhase:
    """Batches of rows and references, each carried to self-consistency by the processes together."""

    def __init__(
        self, functional: NeuralMetaGGA, data: Dataset, settings: Data, kinds: set[str], ranks: Ranks, seed: int
    ):
        self.functional, self.data, self.settings, self.ranks, self.seed = functional, data, settings, ranks, seed
        #: Kinds of results that are asked for, in a fixed order.
        self.kinds = [k for k in OF_REFERENCES if k in kinds]
        #: The last density matrix of every species that this process has worked on.
        self.densities: dict[int, np.ndarray] = {}
        #: Reasons of what did not converge in the last step, by the species' id.
        self.failures: dict[str, str] = {}

    def batch(self, step: int, size: int) -> tuple[list[Reaction], list[Target]]:
        """So many rows and references: all are seen once before one is seen again, in an order that depends on seed."""
        return self._drawn(self.data.inside, step, size), self._drawn(
            self.data.targets if self.kinds else [], step, size
        )

    def _drawn(self, items: list, step: int, size: int) -> list:
        if not items:
            return []
        size = min(size, len(items))
        passes, start = divmod(step * size, len(items))
        orders = [np.random.default_rng([self.seed, passes + k]).permutation(len(items)) for k in (0, 1)]
        return [items[i] for i in np.concatenate(orders)[start : start + size]]

    def observe(self, rows: list[Reaction], targets: list[Target]) -> State:
        """Energies and results of this process's share of the species, zero for those of others."""
        members = {self.data.index[self.data.systems[i].key] for r in rows for i in r.stoichiometry}
        species = sorted(members | {t.species for t in targets}, key=lambda i: -len(self.data.species[i].symbols))
        parameters = parameters_to_vector(self.functional.parameters())
        moved = parameters - parameters.detach()  # zero, but it carries gradients
        energies = torch.zeros(len(self.data.species), dtype=torch.float64)
        known = torch.zeros(len(self.data.species), dtype=torch.bool)
        results = {k: torch.zeros(len(targets), dtype=torch.float64) for k in self.kinds}
        there = {k: torch.zeros(len(targets), dtype=torch.bool) for k in self.kinds}
        self.failures = {}
        for i in species[self.ranks.share]:
            mf = self.solve(i)
            if mf is None:
                continue
            known[i] = True
            at = torch.tensor([i])
            energies = energies.index_add(0, at, (mf.e_tot + moved @ energy_gradient(mf))[None])
            for k, target in enumerate(targets):
                if target.species == i:
                    for kind, slopes in self.results(mf, target).items():
                        gradient = response_gradient(mf, slopes.density, slopes.orbital_energies)
                        value = slopes.value + moved @ gradient
                        results[kind] = results[kind].index_add(0, torch.tensor([k]), value[None])
                        there[kind][k] = True
        known = self.ranks.total(known.to(torch.uint8)) > 0
        kept = {k: self.ranks.total(t.to(torch.uint8)) > 0 for k, t in there.items()}
        return State(self.functional, energies, known, {k: results[k][kept[k]] for k in self.kinds})

    def results(self, mf: Any, target: Target) -> dict[str, Slopes]:
        """What is asked for of one reference."""
        out: dict[str, Slopes] = {}
        if {"density", "density_l1"} & set(self.kinds):
            out["density"], out["density_l1"] = density_errors(mf, target.reference)
        if target.reference.dipole is not None:
            out["dipole"] = dipole_error(mf, target.reference)
        if target.ionization is not None:
            out["ionization"] = ionization_error(mf, target.ionization)
        return {k: out[k] for k in self.kinds if k in out}

    def solve(self, i: int) -> Any:
        """The converged calculation of species i, or None with its reason among the failures."""
        system, reason = self.data.species[i], "did not converge"
        for start in ([self.densities[i]] if i in self.densities else []) + [None]:
            try:
                mf = converge(kohn_sham(system, self.functional, self.settings), start)
            except (InputError, np.linalg.LinAlgError) as err:
                reason = str(err)
                continue
            if mf.converged and np.isfinite(mf.e_tot):
                self.densities[i] = np.asarray(mf.make_rdm1())
                return mf
        self.failures[system.id] = reason
        return None
