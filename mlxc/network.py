"""Plain networks: nothing physical in here."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch.nn.functional import linear

#: Size of the weights of a new first layer, times the square root of the number of inputs.
STEEPNESS = 4.0


class MLP(torch.nn.Module):
    """A fully connected network on the leading axis: (n_in, ...) -> (...), zero everywhere when new.

    tanh units keep it smooth to all orders, which second and third derivatives of the energy need.  Those of the first
    layer bend within the unit cube, where the inputs are: training from nearly linear units takes many times longer.
    Weights, input and output are in double precision; `precision` is that of the arithmetic between them, which is done
    where the input is.
    """

    precision = torch.float64

    def __init__(self, n_in: int, width: int, depth: int):
        super().__init__()
        sizes = [n_in] + [width] * depth
        self.hidden = torch.nn.ModuleList()
        for a, b in pairwise(sizes):
            layer = torch.nn.Linear(a, b, dtype=torch.float64)
            if not self.hidden:
                torch.nn.init.normal_(layer.weight, std=STEEPNESS / a**0.5)
                centres = torch.rand(b, a, dtype=torch.float64)
                layer.bias.data = -(layer.weight.detach() * centres).sum(1)
            else:
                torch.nn.init.normal_(layer.weight, std=1.5 / a**0.5)
                torch.nn.init.normal_(layer.bias, std=0.3)
            self.hidden.append(layer)
        self.out = torch.nn.Linear(width, 1, dtype=torch.float64)
        torch.nn.init.zeros_(self.out.weight)
        torch.nn.init.zeros_(self.out.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(1).T.to(self.precision)
        for layer in (*self.hidden, self.out):
            weight, bias = (p.to(y.device, y.dtype) for p in (layer.weight, layer.bias))
            y = linear(y, weight, bias)
            if layer is not self.out:
                y = torch.tanh(y)
        return y[:, 0].to(x.dtype).reshape(x.shape[1:])
