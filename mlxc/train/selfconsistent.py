"""The self-consistent phase: energies and densities of a batch with the present parameters, and their gradients.

Every calculation starts from the density that the same species had last.  One that does not converge is an outcome
with a reason: its species is unknown in that step, and the loop counts it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import torch
from pyscf.data.nist import AU2DEBYE, HARTREE2EV
from torch.nn.utils import parameters_to_vector

from mlxc.errors import FAILURES, ConvergenceError, InputError
from mlxc.neural import NeuralMetaGGA
from mlxc.reference import Reference
from mlxc.reference.benchmark import Reaction
from mlxc.scf import converge
from mlxc.train.adjoint import energy_gradient, response_gradient
from mlxc.train.cache import kohn_sham
from mlxc.train.config import Data
from mlxc.train.dataset import Dataset, Target
from mlxc.train.losses import OF_REFERENCES, State
from mlxc.train.ranks import Ranks

#: Convergence of the energy, Eh, and of the orbital gradient.
CONV_TOL, CONV_TOL_GRAD = 1e-9, 1e-5
#: Grid points at which densities are compared at a time.
BLOCK = 20000


#: A value and its gradient with respect to the parameters (P,), or None.
Solved = tuple[float, torch.Tensor | None]


class Slopes(NamedTuple):
    """A result, and its derivatives with respect to the density matrix or to orbital energies."""

    value: float
    density: np.ndarray | None = None
    orbital_energies: np.ndarray | None = None


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
        self,
        functional: NeuralMetaGGA,
        data: Dataset,
        settings: Data,
        kinds: Collection[str],
        ranks: Ranks,
        seed: int = 0,
        batch: int = 16,
        gains: torch.Tensor | None = None,
    ):
        self.functional, self.data, self.settings, self.ranks, self.seed = functional, data, settings, ranks, seed
        self.size = batch
        #: What is added to the energies of the species, (M,) Eh; nan where it is not known, nor the energy then.
        self.gains = torch.zeros(len(data.species), dtype=torch.float64) if gains is None else gains
        #: Kinds of results that are asked for, in a fixed order.
        self.kinds = [k for k in OF_REFERENCES if k in kinds]
        #: The last density matrix of every species that this process has worked on.
        self.densities: dict[int, np.ndarray] = {}
        #: Why species did not converge in the last step of all processes, by their ids.
        self.failures: dict[str, str] = {}

    def batch(self, step: int) -> tuple[list[Reaction], list[Target]]:
        """Rows of each kind, and references: all are seen once before one is seen again, in an order of the seed's."""
        rows = [r for kind in self.data.kinds().values() for r in self._drawn(kind, step)]
        return rows, self._drawn(self.data.targets if self.kinds else [], step)

    def _drawn(self, items: list, step: int) -> list:
        if not items:
            return []
        size = min(self.size, len(items))
        passes, start = divmod(step * size, len(items))
        orders = [np.random.default_rng([self.seed, passes + k]).permutation(len(items)) for k in (0, 1)]
        return [items[i] for i in np.concatenate(orders)[start : start + size]]

    def observe(self, step: int = 0) -> State:
        """Energies and results of this process's share of a batch, zero for those of others."""
        return self.solve(*self.batch(step))

    def look(self) -> State:
        """The same without gradients for what does not change from look to look: rows kept out, and the first batch of
        references and conditions; without rows kept out the first batch of the rows to train on."""
        rows, targets = self.batch(0)
        if self.data.outside:
            rows = [r for r in rows if r.set not in self.data.weights] + self.data.outside
        return self.solve(rows, targets, gradients=False)

    def solve(self, rows: list[Reaction], targets: list[Target], gradients: bool = True) -> State:
        """Energies and results of these rows and references, from this process's share of their species."""
        members = {self.data.index[self.data.systems[i].key] for r in rows for i in r.stoichiometry}
        wanted = sorted(members | {t.species for t in targets})
        parameters = parameters_to_vector(self.functional.parameters())
        moved = parameters - parameters.detach()  # zero, but it carries gradients
        energies = torch.zeros(len(self.data.species), dtype=torch.float64)
        known = torch.zeros(len(self.data.species), dtype=torch.uint8)
        results = {k: torch.zeros(len(targets), dtype=torch.float64) for k in self.kinds}
        there = {k: torch.zeros(len(targets), dtype=torch.uint8) for k in self.kinds}
        failures: dict[int, str] = {}

        def carrying(value: float, gradient: torch.Tensor | None) -> torch.Tensor:
            plain = torch.tensor([value], dtype=torch.float64)
            return plain if gradient is None else plain + moved @ gradient

        for i in (i for i in wanted if i % self.ranks.world == self.ranks.rank):
            try:
                mf = self._converged(i)
                if not self.gains[i].isnan():
                    energy = carrying(float(mf.e_tot + self.gains[i]), energy_gradient(mf) if gradients else None)
                    energies = energies.index_add(0, torch.tensor([i]), energy)
                    known[i] = 1
            except InputError:  # of the settings: no other species would fare better
                raise
            except FAILURES as err:
                failures[i] = str(err)
                continue
            for k in (k for k, t in enumerate(targets) if t.species == i):
                try:
                    found = self._solve_target(mf, targets[k], gradients)
                except FAILURES as err:
                    failures[i] = str(err)
                    continue
                for kind, result in found.items():
                    results[kind] = results[kind].index_add(0, torch.tensor([k]), carrying(*result))
                    there[kind][k] = 1
        failures = self.ranks.union(failures)
        self.failures = {self.data.species[i].id: why for i, why in sorted(failures.items())}
        kept = {k: self.ranks.total(t) > 0 for k, t in there.items()}
        return State(
            self.functional,
            energies,
            self.ranks.total(known) > 0,
            {k: results[k][kept[k]] for k in self.kinds},
            rows=rows,
            failed=len(failures),
        )

    def _solve_target(self, mf: Any, target: Target, gradients: bool) -> dict[str, Solved]:
        """Results of one reference by kind, each with its gradient or None.  Raises ConvergenceError."""
        return {
            kind: (r.value, response_gradient(mf, r.density, r.orbital_energies) if gradients else None)
            for kind, r in self.results(mf, target).items()
        }

    def results(self, mf: Any, target: Target) -> dict[str, Slopes]:
        """What is asked for of one reference."""
        out: dict[str, Slopes] = {}
        if {"density", "density_l1"} & set(self.kinds) and not target.turns:
            out["density"], out["density_l1"] = density_errors(mf, target.reference)
        if target.reference.dipole is not None:
            out["dipole"] = dipole_error(mf, target.reference)
        if target.ionization is not None:
            out["ionization"] = ionization_error(mf, target.ionization)
        return {k: out[k] for k in self.kinds if k in out}

    def _converged(self, i: int) -> Any:
        """The converged calculation of species i, from its last density or, where that fails, from scratch."""
        for start in ([self.densities[i]] if i in self.densities else []) + [None]:
            mf = kohn_sham(self.data.species[i], self.functional, self.settings)
            mf.conv_tol, mf.conv_tol_grad = CONV_TOL, CONV_TOL_GRAD
            try:
                mf = converge(mf, start)
            except InputError:  # of the settings: no other start would fare better
                raise
            except FAILURES as err:
                why = repr(err)
                continue
            if mf.converged and np.isfinite(mf.e_tot):
                self.densities[i] = np.asarray(mf.make_rdm1())
                return mf
            why = "the SCF did not converge"
        raise ConvergenceError(why)

    def memory(self) -> dict[str, Any]:
        """What a checkpoint has to hold: the densities that the next calculations start from."""
        return {str(i): torch.from_numpy(d) for i, d in self.ranks.union(self.densities).items()}

    def remember(self, memory: dict[str, Any]) -> None:
        """Take up what `memory` gave, of the species that this process works on: others would never be renewed here."""
        self.densities = {int(i): d.numpy() for i, d in memory.items() if int(i) % self.ranks.world == self.ranks.rank}
