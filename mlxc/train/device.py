"""Moving data to the device where torch is to compute with them."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch

from mlxc.features import Features


def moved(thing: Any, device: str | torch.device) -> Any:
    """A copy of an object of mlxc, or a collection of them, with all tensors on the device; the rest is shared."""
    if isinstance(thing, torch.Tensor):
        return thing.to(device)
    if isinstance(thing, list | tuple):
        return type(thing)(moved(x, device) for x in thing)
    if isinstance(thing, dict):
        return {k: moved(x, device) for k, x in thing.items()}
    if isinstance(thing, Features | SimpleNamespace) or type(thing).__module__.startswith("mlxc."):
        copied = copy.copy(thing)
        vars(copied).update(moved(vars(thing), device))
        return copied
    return thing
