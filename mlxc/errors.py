"""Errors that a user can cause, each saying what to do next.

The command line turns every `MlxcError` into one line on standard error.
"""


class MlxcError(Exception):
    """Base of all errors that mlxc raises on purpose."""


class InputError(MlxcError, ValueError):
    """The request cannot be carried out as written (geometry, spin, basis, option)."""


class UnknownFunctionalError(InputError):
    """A functional name that neither mlxc nor libxc knows."""


class ConvergenceError(MlxcError):
    """An SCF that did not converge, where its result was needed."""


class ModelFileError(MlxcError):
    """A model folder is incomplete, truncated, altered, or of another format."""


class ReferenceFileError(MlxcError):
    """A file of reference data is unreadable, truncated, altered, or of another format."""


#: What reading a file can break off with: bytes that no parser of JSON, TOML, HDF5 or tensors knows, values of another
#: type, of another size, nested too deeply (RecursionError is a RuntimeError).
UNREADABLE = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
#: What a calculation can break off with: numbers that are not finite (numpy, scipy), memory, PySCF's own checks.
BREAKS = (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError)
