"""Several processes that train together, as `torchrun` starts them; one by itself needs nothing of this."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
#: How long a process waits for the others: shares of the work are as uneven as molecules are.
PATIENCE = timedelta(days=7)


class Ranks:
    """This process's number `rank` among `world`; sums over all of them are the same in each, to the last bit."""

    def __init__(self) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=PATIENCE)
            # Left to the interpreter's end, the group's threads can find it gone and abort the process.
            atexit.register(dist.destroy_process_group)
        self.rank = dist.get_rank() if self.world > 1 else 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """This process's part of a sequence that is dealt out in turn."""
        return slice(self.rank, None, self.world)

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of x over all processes."""
        if self.world == 1:
            return x.detach()
        out = x.detach().clone()
        dist.all_reduce(out)
        return out

    def union(self, x: dict[int, T]) -> dict[int, T]:
        """The entries that all processes together have."""
        if self.world == 1:
            return x
        parts: list[dict[int, T]] = [{} for _ in range(self.world)]
        dist.all_gather_object(parts, x)
        return {k: v for part in parts for k, v in part.items()}

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()
