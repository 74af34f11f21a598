"""The fixed-density phase: total energies E_r2SCAN[n] + E_xc[n] - E_xc^r2SCAN[n] at cached densities n."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parameters_to_vector

from mlxc.errors import InputError
from mlxc.neural import NeuralMetaGGA
from mlxc.train.compress import Condensed
from mlxc.train.densities import FixedDensities, correction
from mlxc.train.device import moved
from mlxc.train.losses import State
from mlxc.train.ranks import Ranks


class FixedPhase:
    """This process's share of the molecules on their condensed points: minutes of work to make, a second to use.

    Points are on `device`, energies on the processor.  Raises InputError where there are fewer known molecules than
    processes.
    """

    def __init__(self, functional: NeuralMetaGGA, densities: FixedDensities, ranks: Ranks, device: str = "cpu"):
        self.functional, self.densities, self.ranks = functional, densities, ranks
        self.known = self.densities.known
        #: Energies to which those of condensed points are added, (M,) Eh.
        self.base = self.densities.e_r2scan + self.densities.dispersion(functional)
        if int(self.known.sum()) < ranks.world:
            raise InputError(f"there are densities of {int(self.known.sum())} species: too few to train on")
        self.mine = self.known.nonzero()[ranks.share, 0]
        condensed = Condensed(type(functional), self.densities.molecules(ranks.share))
        points = torch.tensor([len(condensed.exchange.molecule), len(condensed.correlation.molecule)])
        condensed.shares = tuple((points / ranks.total(points)).tolist())
        self.condensed = moved(condensed, device)
        #: What condensing leaves out of the energies of these molecules, (m,) Eh, at some parameters (P,), and its
        #: derivatives with respect to them, (m, P).
        self.offset = torch.zeros(len(self.mine), dtype=torch.float64)
        self.origin = parameters_to_vector(functional.parameters()).detach()
        self.slopes = torch.zeros(len(self.mine), len(self.origin), dtype=torch.float64)
        #: Nothing can fail here.
        self.failures: dict[str, str] = {}

    def observe(self, step: int = 0) -> State:
        """Energies of this process's molecules, zero for those of others."""
        corrections, size = self.condensed.corrections(self.functional)
        away = parameters_to_vector(self.functional.parameters()) - self.origin
        energies = torch.zeros_like(self.base)
        energies = energies.index_add(0, self.mine, corrections + self.offset + self.slopes @ away)
        base = torch.zeros_like(energies)
        base[self.mine] = self.base[self.mine]
        return State(self.functional, energies + base, self.known, {}, self.condensed, size)

    def look(self) -> State:
        """What all grid points say; `observe` then agrees with them near the present parameters."""
        self.refresh()
        return self.observe()

    def refresh(self) -> None:
        """Take from all grid points what condensing leaves out of the energies near the present parameters.

        To first order in them: else an optimiser finds the functionals of which the condensed points tell least.
        """
        parameters = list(self.functional.parameters())
        self.origin = parameters_to_vector(parameters).detach()
        for k, molecule in enumerate(self.densities.molecules(self.ranks.share)):
            left_out = correction(self.functional, *molecule) - self.condensed.correction(self.functional, k)
            self.offset[k] = left_out.detach()
            self.slopes[k] = parameters_to_vector(torch.autograd.grad(left_out, parameters))

    def forget(self) -> None:
        """Go back to the condensed points alone, as an interrupted run does, until the next `refresh`."""
        self.offset.zero_()
        self.slopes.zero_()

    def memory(self) -> dict[str, Any]:
        """What a checkpoint has to hold: nothing, `refresh` comes before every use of the offset."""
        return {}

    def remember(self, memory: dict[str, Any]) -> None:
        """Take up what `memory` gave."""
