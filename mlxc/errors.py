"""Errors that a user can cause, each saying what to do next.

The command line turns every `MlxcError` into one line on standard error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class MlxcError(Exception):
    """Base of all errors that mlxc raises on purpose.

    result : what `mlxc.run.run` had found by then, as its result; None where nothing
    """

    result: dict[str, Any] | None = None


class InputError(MlxcError, ValueError):
    """The request cannot be carried out as written (geometry, spin, basis, option)."""


class UnknownFunctionalError(InputError):
    """A functional name that neither mlxc nor libxc knows."""


class ConvergenceError(MlxcError):
    """An SCF, or equations that follow it, that did not converge, where their result was needed."""


class ModelFileError(MlxcError):
    """A model folder is incomplete, truncated, altered, or of another format."""


class ReferenceFileError(MlxcError):
    """A file of reference data is unreadable, truncated, altered, or of another format."""


#: What reading a file can break off with: bytes that no parser of JSON, TOML, HDF5 or tensors knows, values of another
#: type, of another size, nested too deeply (RecursionError is a RuntimeError).
UNREADABLE = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
#: What a calculation can break off with: numbers that are not finite (numpy, scipy), memory, PySCF's own checks.
BREAKS = (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError)
#: What is an outcome of one calculation among many, where the others go on: memory would fail them as well.
FAILURES = (ConvergenceError, *(kind for kind in BREAKS if kind is not MemoryError))


@contextmanager
def run_by_pyscf(name: str, ours: bool) -> Iterator[None]:
    """Within, what PySCF cannot do with the functional `name` becomes an InputError that says so.

    No such derivative, no parameters of a dispersion correction, a package that is not there (ImportError,
    RuntimeError), no such correction (a ValueError).  Not if the functional is `ours`: then the fault is mlxc's, and
    its traceback is needed.
    """
    try:
        yield
    except (ImportError, RuntimeError, ValueError) as err:
        unknown_dispersion = str(err).startswith("Unknown dispersion version")
        if ours or (isinstance(err, ValueError) and not unknown_dispersion):
            raise
        more = "; dispersion corrections need pip install pyscf-dispersion" if "-d" in name.lower() else ""
        raise InputError(f"PySCF cannot run {name!r}: {str(err) or type(err).__name__}{more}") from err
