"""Threads over blocks of grid points, each on one core.

A pass over the grid is many products and elementwise operations of middling size.  Shared out one by one among the
threads of several libraries they run no faster than on one core, because these threads wait for each other; whole
blocks do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from pyscf import lib
from threadpoolctl import ThreadpoolController

T = TypeVar("T")
#: Kernels that OpenBLAS takes for a processor that it does not know.
UNKNOWN = "Prescott"
#: Kernels of newer libraries, and the nearest that OpenBLAS 0.3.3 has: it takes UNKNOWN for what it has not.
OLDER = {"Cooperlake": "SkylakeX", "SapphireRapids": "SkylakeX"}


@lru_cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def slow_kernels() -> str | None:
    """What the environment variable OPENBLAS_CORETYPE should be, where PySCF multiplies matrices with UNKNOWN kernels.

    PySCF's wheels have OpenBLAS 0.3.3 of 2018, which does not know younger processors.  The answer is what numpy's
    own, newer OpenBLAS has found; None where it knows no better, or one of the two has another library.
    """
    kernels: dict[bool, str] = {
        "pyscf" in Path(library["filepath"]).parts: library["architecture"]
        for library in _libraries().info()
        if library["internal_api"] == "openblas" and {"pyscf", "numpy.libs"} & set(Path(library["filepath"]).parts)
    }
    best = kernels.get(False, UNKNOWN)
    return OLDER.get(best, best) if kernels.get(True) == UNKNOWN != best else None


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
