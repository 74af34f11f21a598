"""Threads over blocks of grid points, each on one core.

A pass over the grid is many products and elementwise operations of middling size.  Shared out one by one among the
threads of several libraries they run no faster than on one core, because these threads wait for each other; whole
blocks do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import torch
from pyscf import lib
from threadpoolctl import ThreadpoolController

T = TypeVar("T")


@lru_cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _one_core() -> None:
    """Keep PySCF and torch to one core in the calling thread."""
    lib.num_threads(1)
    torch.set_num_threads(1)


def shared_out(work: Callable[[list], T], items: Iterable[Any], most: int | None = None) -> list[T]:
    """[work(share) for every thread's share of the items], at the same time.

    As many threads as PySCF uses (`lib.num_threads`, OMP_NUM_THREADS), but not more than `most`; thread k of n takes
    items k, k + n, k + 2 n, ...  Sums over the shares depend on the number of threads, by rounding alone, and not on
    which of them is the fastest.
    """
    items = list(items)
    threads = max(1, min(lib.num_threads(), len(items), lib.num_threads() if most is None else most))
    if threads == 1:
        return [work(items)]
    torch_threads = torch.get_num_threads()
    try:
        with _libraries().limit(limits=1), ThreadPoolExecutor(threads, initializer=_one_core) as pool:
            return list(pool.map(work, [items[k::threads] for k in range(threads)]))
    finally:
        torch.set_num_threads(torch_threads)


def each(function: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """[function(item) for every item], by the threads of `shared_out`."""
    items = list(items)
    shares = shared_out(lambda share: [function(i) for i in share], items)
    out: list[Any] = [None] * len(items)
    for k, share in enumerate(shares):
        out[k :: len(shares)] = share
    return out
