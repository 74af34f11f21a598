"""What training makes small.  Each entry of LOSSES makes one loss for a data set: a function of a State, () >= 0.

reactions          Huber loss of reaction energies, kcal/mol; a set counts by its weight, whatever its number of rows
atoms              squared errors of total energies of neutral atoms per electron, kcal/mol
fractional_charge  Huber loss of 2 E(N - 1/2) - E(N) - E(N - 1) of the atoms H to Ne and five molecules, kcal/mol
fractional_spin    Huber loss of what equal shares of both spins cost the open shells from H to F, kcal/mol
density            int (n - n_ref)^2 / N of the references, Bohr^-3; self-consistent phase
density_l1         int |n - n_ref| / N of the references; self-consistent phase
dipole             squared error of the dipole vector of the references, Debye^2; self-consistent phase
ionization         (e_HOMO + IP)^2 of references that have a cation at the same geometry, eV^2; self-consistent phase
one_electron       squared E_xc + J of one-electron densities, (kcal/mol)^2
uniform_gas        squared relative error of E_xc of the uniform gas
tail               squared relative error of the energy density -n / (2 r) of density tails
potential_tail     squared deviation from 1 of c, where the potential on the highest orbital tends to -c / r
lieb_oxford        square of what the energy density exceeds the Lieb-Oxford bound by, relative to it, at every point
grids              squared errors of PySCF's radial grids, (kcal/mol)^2
coarse_grids       the same of level 1, whose errors are a hundred times as large
spheres            squared errors of PySCF's angular grids, (kcal/mol)^2
mass               squares of effective masses of electrons that are too negative
size               mean square of the shifts that the networks make; fixed-density phase
slope              mean square slopes of the corrections; fixed-density phase
decay              sum of the squares of all parameters
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from mlxc.constraints.angular import AngularGrids
from mlxc.constraints.fractional import FRACTIONAL_CHARGE, FRACTIONAL_SPIN
from mlxc.constraints.mass import effective_mass
from mlxc.constraints.penalties import LiebOxford, OneElectron, PotentialTail, Tail, UniformGas
from mlxc.constraints.radial import RadialGrids
from mlxc.functional import Functional
from mlxc.neural import NeuralMetaGGA
from mlxc.reference.benchmark import Reaction
from mlxc.train.compress import Condensed
from mlxc.train.dataset import Dataset
from mlxc.units import KCAL

#: Errors of reactions beyond this many kcal/mol count linearly, so that a few multireference species do not dominate.
HUBER = 2.0
#: Losses of results that need the self-consistent field of references.
OF_REFERENCES = ("density", "density_l1", "dipole", "ionization")


@dataclass
class State:
    """What a step of training knows.

    functional  with the present parameters
    energies    total energies of the species of the data set, (M,) Eh; known (M,) says of which
    results     of the references that were worked on, by kind, one number each (mlxc.train.selfconsistent)
    condensed   all molecules at fixed densities, in that phase, and size, the mean square of the shifts there
    rows        the rows that were asked for; None: all
    failed      how many calculations failed
    """

    functional: NeuralMetaGGA
    energies: torch.Tensor
    known: torch.Tensor
    results: dict[str, torch.Tensor] = field(default_factory=dict)
    condensed: Condensed | None = None
    size: torch.Tensor | None = None
    rows: list[Reaction] | None = None
    failed: int = 0


Loss = Callable[[State], torch.Tensor]
_NOTHING = torch.zeros((), dtype=torch.float64)


class Rows:
    """Huber loss of the rows that were asked for and whose molecules are all known; sets count by their weights."""

    def __init__(self, data: Dataset, rows: list[Reaction], weights: dict[str, float]) -> None:
        self.rows = rows
        self.matrix, self.references = data.matrix(rows)
        self.sets = [r.set for r in rows]
        shares = [weights[s] / self.sets.count(s) for s in self.sets]
        #: Their mean is 1: the mean over a batch is that over all rows, whichever sets it is of.
        self.weights = torch.tensor(shares, dtype=torch.float64) * (len(rows) / max(sum(shares), 1e-300))

    def errors(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """Errors in kcal/mol of the rows that were asked for and are known, and which these are."""
        there = ((self.matrix != 0) & ~state.known).sum(1) == 0
        if state.rows is not None:  # molecules of some may be known from others
            asked = {id(r) for r in state.rows}
            there &= torch.tensor([id(r) in asked for r in self.rows], dtype=torch.bool)
        return self.matrix[there] @ state.energies * KCAL - self.references[there], there

    def __call__(self, state: State) -> torch.Tensor:
        errors, there = self.errors(state)
        if not len(errors):
            return _NOTHING
        terms = torch.nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=HUBER)
        return (terms * self.weights[there]).mean()


class Atoms:
    """Squared errors of total energies of neutral atoms."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __call__(self, state: State) -> torch.Tensor:
        errors = self.data.atom_errors(state.energies, state.known)
        return errors.square().mean() if len(errors) else _NOTHING


class OfReferences:
    """Mean of the squares of one kind of result."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, state: State) -> torch.Tensor:
        values = state.results.get(self.kind)
        return _NOTHING if values is None or not len(values) else values.mean()


def _of_references(kind: str) -> Callable[[Dataset], Loss]:
    return lambda data: OfReferences(kind)


def _conditions(name: str) -> Callable[[Dataset], Loss]:
    return lambda data: Rows(data, [r for r in data.inside if r.set == name], {name: 1.0})


class Penalty:
    """What depends on the functional alone: from an object that knows the points to look at."""

    def __init__(self, penalty: Callable[[Functional], torch.Tensor]) -> None:
        self.penalty = penalty

    def __call__(self, state: State) -> torch.Tensor:
        return self.penalty(state.functional)


def _penalty(make: Callable[[], Callable[[Functional], torch.Tensor]]) -> Callable[[Dataset], Loss]:
    return lambda data: Penalty(make())


def _decay(functional: Functional) -> torch.Tensor:
    return torch.stack([p.square().sum() for p in functional.parameters()]).sum()


def _size(state: State) -> torch.Tensor:
    return _NOTHING if state.size is None else state.size


def _slope(state: State) -> torch.Tensor:
    return state.condensed.slope(state.functional) if state.condensed else _NOTHING


#: Losses that depend on energies and results, by name: from the data set.
OF_RESULTS: dict[str, Callable[[Dataset], Loss]] = {
    "reactions": lambda data: Rows(data, [r for r in data.inside if r.set in data.weights], data.weights),
    "atoms": Atoms,
    "fractional_charge": _conditions(FRACTIONAL_CHARGE),
    "fractional_spin": _conditions(FRACTIONAL_SPIN),
    **{kind: _of_references(kind) for kind in OF_REFERENCES},
}
#: Losses that depend on the functional alone.
OF_FUNCTIONAL: dict[str, Callable[[Dataset], Loss]] = {
    "one_electron": _penalty(OneElectron),
    "uniform_gas": _penalty(UniformGas),
    "tail": _penalty(Tail),
    "potential_tail": _penalty(PotentialTail),
    "lieb_oxford": _penalty(lambda: LiebOxford(effective_mass().closed_shells)),
    "grids": _penalty(lambda: RadialGrids(closed=True)),
    "coarse_grids": _penalty(lambda: RadialGrids(closed=True, level=1)),
    "spheres": _penalty(AngularGrids),
    "mass": _penalty(effective_mass),
    "decay": _penalty(lambda: _decay),
}
#: Losses of the condensed molecules.
OF_CONDENSED: dict[str, Callable[[Dataset], Loss]] = {"size": lambda data: _size, "slope": lambda data: _slope}
LOSSES = OF_RESULTS | OF_FUNCTIONAL | OF_CONDENSED
