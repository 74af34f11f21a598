"""Calculations on many workers: local processes or a Dask cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from pyscf import lib
from threadpoolctl import threadpool_limits

from mlxc.errors import InputError, MlxcError
from mlxc.extras import need

#: Times that Dask starts a task again that has failed; for workers that die it has a rule of its own.
RETRIES = 2
#: The modules that it needs.
DASK = ("distributed", "tqdm")
#: What a script has to have that starts processes, each of which runs its first lines again.
GUARD = 'in a script, several processes are started below the line `if __name__ == "__main__":`'


class Work(Protocol):
    """A calculation: its name, and its cost in any unit, by which the longest are started first."""

    @property
    def name(self) -> str: ...
    @property
    def cost(self) -> float: ...


W = TypeVar("W", bound=Work)


@contextmanager
def on_threads(number: int | None) -> Iterator[None]:
    """PySCF, torch and BLAS on so many threads, where they do not share them; None: on those that they have."""
    before = torch.get_num_threads()
    with lib.with_omp_threads(number), threadpool_limits(number, user_api="blas"):
        if number:
            torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _kept(function: Callable[[W], Any], threads: int | None, task: W) -> Any:
    """function(task) on so many threads; an error of mlxc, which trying again would not change, is a result."""
    with on_threads(threads):
        try:
            return function(task)
        except MlxcError as err:
            return err


def results(
    function: Callable[[W], Any],
    tasks: Sequence[W],
    jobs: int = 1,
    scheduler: str | None = None,
    already: int = 0,
    extra: str = "reference",
) -> Iterator[tuple[W, Any]]:
    """Each task with function(task), or with the exception that it has ended with, as they finish.

    On `jobs` local processes, which share the threads (OMP_NUM_THREADS, or the cores), or on the workers of the Dask
    cluster at the address `scheduler`, each with as many threads as OMP_NUM_THREADS gives it.  A progress bar shows the
    time left and counts `already` tasks that are done.  Raises InputError where Dask is missing (it comes with the
    `extra` of mlxc), cannot be reached, or is lost, and where a script lacks its GUARD.
    """
    need("work on several processes", extra, *DASK)
    from distributed import Client, LocalCluster, as_completed
    from tqdm import tqdm

    if getattr(multiprocessing.current_process(), "_inheriting", False):  # this is a process that is being started
        raise InputError(GUARD)
    threads = None if scheduler else max(1, lib.num_threads() // jobs)
    work = partial(_kept, function, threads)
    with ExitStack() as stack:
        local = None
        if scheduler is None:
            try:
                local = LocalCluster(n_workers=jobs, threads_per_worker=1, memory_limit=None, dashboard_address=":0")
            except RuntimeError as err:
                raise InputError(f"processes cannot be started ({err}); {GUARD}") from err
            stack.callback(local.close)
        try:
            client = Client(local or scheduler, timeout="20s")
        except (OSError, ValueError, TimeoutError) as err:
            raise InputError(f"no Dask scheduler at {scheduler}: {err}") from err
        stack.callback(client.close)
        futures = {client.submit(work, t, pure=False, retries=RETRIES, priority=t.cost): t for t in tasks}
        # Of what is left, in units of the costs: the longest come first, and numbers would promise too long a time.
        whole = sum(t.cost for t in tasks)
        with tqdm(
            total=whole, bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}", smoothing=0
        ) as bar:
            for number, future in enumerate(as_completed(futures), start=already + 1):
                task, error = futures[future], future.exception()
                bar.set_postfix_str(f"{number} of {already + len(tasks)}: {task.name} is done")
                bar.update(task.cost)
                if future.cancelled():
                    raise InputError("the Dask scheduler is lost; finished systems are kept: start again")
                yield task, error or future.result()
                future.release()
