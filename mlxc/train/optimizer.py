"""Adam and L-BFGS as the steps of a phase take them."""

from __future__ import annotations

import math
from typing import Any

import torch

from mlxc.train.config import Phase

#: Iterations of L-BFGS that make one step of the loop.
CHUNK = 50


def steps_of(phase: Phase) -> int:
    """Steps of the loop: those of Adam, and the chunks of L-BFGS."""
    return phase.adam + -(-phase.lbfgs // CHUNK)


def learning_rate(phase: Phase, step: int) -> float:
    """That of a step of Adam: from `rate` to `last_rate` times it, along a cosine."""
    return phase.rate * (phase.last_rate + (1 - phase.last_rate) * (1 + math.cos(math.pi * step / phase.adam)) / 2)


def new_optimizer(phase: Phase, step: int, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The one that a phase has at a step: Adam, and L-BFGS behind it."""
    if step < phase.adam:
        return torch.optim.Adam(parameters, lr=phase.rate)
    return torch.optim.LBFGS(
        parameters, max_iter=CHUNK, history_size=50, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )


def load_state(optimizer: torch.optim.Optimizer, tree: dict[str, Any]) -> None:
    """Put the state of a checkpoint back; its keys have become texts."""
    state = {int(k): v for k, v in tree["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": tree["param_groups"]})
