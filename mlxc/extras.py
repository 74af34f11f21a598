"""Libraries that only some installations of mlxc have."""

from __future__ import annotations

from importlib.util import find_spec

from mlxc.errors import InputError


def need(what: str, extra: str, *modules: str) -> None:
    """InputError where one of the modules that `what` needs is missing; they come with the `extra` of mlxc."""
    if missing := [m for m in modules if not find_spec(m)]:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'mlxc[{extra}]'")
