"""Plain networks: nothing physical in here."""

from __future__ import annotations

from itertools import pairwise

import torch


class MLP(torch.nn.Module):
    """A fully connected network on the leading axis: (n_in, ...) -> (...), zero everywhere when new.

    tanh units keep it smooth to all orders, which second and third derivatives of the energy need.
    """

    def __init__(self, n_in: int, width: int, depth: int):
        super().__init__()
        sizes = [n_in] + [width] * depth
        self.hidden = torch.nn.ModuleList(torch.nn.Linear(a, b, dtype=torch.float64) for a, b in pairwise(sizes))
        self.out = torch.nn.Linear(width, 1, dtype=torch.float64)
        torch.nn.init.zeros_(self.out.weight)
        torch.nn.init.zeros_(self.out.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(1).T
        for layer in self.hidden:
            y = torch.tanh(layer(y))
        return self.out(y)[:, 0].reshape(x.shape[1:])
