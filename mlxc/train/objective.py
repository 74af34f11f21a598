"""What training minimises, worked out by one process or by several together."""

from __future__ import annotations

from dataclasses import replace

import torch

from mlxc.neural import NeuralMetaGGA
from mlxc.train.config import Config, active
from mlxc.train.dataset import Dataset, by_set
from mlxc.train.device import moved
from mlxc.train.losses import LOSSES, OF_FUNCTIONAL, OF_RESULTS, Rows, State
from mlxc.train.ranks import Ranks


class Objective:
    """The weighted sum of all losses and its gradient, from this process's share of the molecules and of the losses."""

    def __init__(self, config: Config, functional: NeuralMetaGGA, data: Dataset, ranks: Ranks):
        self.functional, self.ranks = functional, ranks
        self.parameters = list(functional.parameters())
        weights = active(config)
        self.of_results = {k: (w, LOSSES[k](data)) for k, w in weights.items() if k in OF_RESULTS}
        #: Losses that processes share out, and those of condensed molecules.
        self.others = [k for k in weights if k not in OF_RESULTS]
        alone = [k for k in self.others if k in OF_FUNCTIONAL][ranks.share]
        self.mine = {k: (weights[k], LOSSES[k](data)) for k in alone}
        self.of_condensed = {k: (weights[k], LOSSES[k](data)) for k in self.others if k not in OF_FUNCTIONAL}
        #: The rows kept out or, where there are none, those trained on.
        rows = data.outside or [r for r in data.inside if r.set in data.weights]
        self.judged = Rows(data, rows, data.weights)
        #: Rows kept out tell by themselves which parameters are too large or too rough.
        self.kept_out = bool(data.outside)

    def move_to(self, device: str) -> None:
        """Put the points of losses that depend on the functional alone onto a device."""
        self.mine = moved(self.mine, device)

    def _everywhere(self, local: dict[str, torch.Tensor]) -> dict[str, float]:
        """Losses that processes share out, of all of them."""
        values = [local.get(k, torch.zeros(())).detach().double() for k in self.others]
        return {k: float(self.ranks.total(v)) for k, v in zip(self.others, values, strict=True)}

    def __call__(self, observed: State) -> dict[str, float]:
        """Every weighted loss; sets the parameters' gradients to those of their sum."""
        total = self.ranks.total
        energies = total(observed.energies).requires_grad_()
        results = {k: total(v).requires_grad_() for k, v in observed.results.items()}
        state = replace(observed, energies=energies, results=results)
        shared = {k: w * loss(state) for k, (w, loss) in self.of_results.items()}
        leaves, own = [energies, *results.values()], [observed.energies, *observed.results.values()]
        value = torch.stack([*shared.values(), 0 * energies.sum()]).sum()
        slopes = torch.autograd.grad(value, leaves, allow_unused=True)
        local = {k: w * loss(state).cpu() for k, (w, loss) in (self.mine | self.of_condensed).items()}
        parts = [(g * x).sum() for g, x in zip(slopes, own, strict=True) if g is not None] + list(local.values())
        parts = [p for p in parts if p.requires_grad]
        gradients = torch.autograd.grad(torch.stack(parts).sum(), self.parameters, allow_unused=True) if parts else ()
        for p, g in zip(self.parameters, gradients or [None] * len(self.parameters), strict=True):
            p.grad = total(torch.zeros_like(p) if g is None else g)
        return {k: float(v.detach()) for k, v in shared.items()} | self._everywhere(local)

    def judge(self, observed: State) -> tuple[list[float], dict[str, float]]:
        """How good the present parameters are, the smaller the better, and mean absolute errors per set, kcal/mol.

        First counts the number of calculations that failed, then all losses; where rows are kept out, these take the
        place of those trained on, and losses that only keep parameters or shifts small do not count.  Errors are of the
        same rows.
        """
        results = {k: self.ranks.total(v) for k, v in observed.results.items()}
        state = replace(observed, energies=self.ranks.total(observed.energies), results=results)
        losses = dict(self.of_results)
        if "reactions" in losses:
            losses["reactions"] = (losses["reactions"][0], self.judged)
        value = sum(float(w * loss(state)) for w, loss in losses.values())
        asked = {k: v for k, v in self.mine.items() if k != "decay"} if self.kept_out else self.mine | self.of_condensed
        local = {k: w * loss(state).cpu() for k, (w, loss) in asked.items()}
        value += sum(self._everywhere(local).values())
        errors, there = self.judged.errors(state)
        sets = [s for s, t in zip(self.judged.sets, there.tolist(), strict=True) if t]
        return [float(observed.failed), value], by_set(sets, errors)
