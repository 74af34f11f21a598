"""What training minimises, worked out by one process or by several together."""

from __future__ import annotations

import torch

from mlxc.neural import NeuralMetaGGA
from mlxc.train.config import Config
from mlxc.train.dataset import Dataset
from mlxc.train.losses import LOSSES, OF_FUNCTIONAL, OF_RESULTS, State
from mlxc.train.ranks import Ranks


class Objective:
    """The weighted sum of all losses and its gradient, from this process's share of the molecules and of the losses."""

    def __init__(self, config: Config, functional: NeuralMetaGGA, data: Dataset, ranks: Ranks):
        self.functional, self.ranks = functional, ranks
        self.parameters = list(functional.parameters())
        weights = {k: w for k, w in config.losses.items() if w > 0}
        made = {k: LOSSES[k](data) for k in weights}
        self.of_results = {k: (weights[k], made[k]) for k in weights if k in OF_RESULTS}
        #: Losses that are not the same in every process.
        self.others = [k for k in weights if k not in OF_RESULTS]
        alone = [k for k in weights if k in OF_FUNCTIONAL][ranks.share]
        self.mine = {k: (weights[k], made[k]) for k in weights if k in alone}
        #: Means over this process's molecules: the mean over processes counts.
        self.of_condensed = {
            k: (weights[k] / ranks.world, made[k]) for k in weights if k not in OF_RESULTS and k not in OF_FUNCTIONAL
        }

    def __call__(self, observed: State) -> tuple[float, dict[str, float], torch.Tensor]:
        """The value, every weighted loss, and the energies of all species (M,); sets the parameters' gradients."""
        total = self.ranks.total
        energies = total(observed.energies).requires_grad_()
        results = {k: total(v).requires_grad_() for k, v in observed.results.items()}
        state = State(self.functional, energies, observed.known, results, observed.condensed, observed.size)
        shared = {k: w * loss(state) for k, (w, loss) in self.of_results.items()}
        leaves, own = [energies, *results.values()], [observed.energies, *observed.results.values()]
        value = torch.stack([*shared.values(), 0 * energies.sum()]).sum()
        slopes = torch.autograd.grad(value, leaves, allow_unused=True)
        local = {k: w * loss(state) for k, (w, loss) in (self.mine | self.of_condensed).items()}
        parts = [(g * x).sum() for g, x in zip(slopes, own, strict=True) if g is not None and x.requires_grad]
        parts += list(local.values())
        parts = [p for p in parts if p.requires_grad]
        gradients = torch.autograd.grad(torch.stack(parts).sum(), self.parameters, allow_unused=True) if parts else ()
        for p, g in zip(self.parameters, gradients or [None] * len(self.parameters), strict=True):
            p.grad = total(torch.zeros_like(p) if g is None else g)
        values = [local.get(k, torch.zeros(())).detach().double() for k in self.others]
        losses = {k: float(v.detach()) for k, v in shared.items()}
        losses |= {k: float(total(v)) for k, v in zip(self.others, values, strict=True)}
        return sum(losses.values()), losses, energies.detach()
