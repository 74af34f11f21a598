"""Pictures: of runs and models, and of what functionals make of molecules and atoms.

Calculations come first and are saved; every picture is drawn from a file, again at any time.  One module for each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlxc.errors import UNREADABLE, InputError, MlxcError


def drawings() -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    """What draws the figures of saved results, by their `picture`."""
    from mlxc.plots import charge, density, dissociation, plane

    return {"plane": plane.draw, "density": density.draw, "charge": charge.draw, "dissociation": dissociation.draw}


def plot(path: Path, out: Path | None = None) -> list[Path]:
    """Draw what there is in the folder of a run or a model, or in a file of saved results, as PNG and SVG files.

    They go to `out`, by default where the folder or the file is.  Raises InputError where matplotlib or anything to
    draw is missing, ModelFileError for a damaged model.
    """
    from mlxc.plots import figures

    with figures.style():
        if path.is_dir():
            return figures.write(_from_folder(path), out or path)
        return figures.write(_from_file(path), out or path.parent)


def _from_folder(path: Path) -> dict[str, Any]:
    """Figures of a run or a model by the names of their files."""
    from mlxc.plots import model

    try:
        return model.draw(path)
    except MlxcError:
        raise
    except UNREADABLE as err:
        raise InputError(f"{path} does not hold a run or a model as mlxc writes them ({err!r})") from err


def _from_file(path: Path) -> dict[str, Any]:
    """Figures of saved results by the names of their files."""
    from mlxc.plots.saved import load

    content = load(path)
    draw = drawings().get(content["picture"])
    if draw is None:
        raise InputError(f"{path} is for a picture {content['picture']!r}: there are {', '.join(drawings())}")
    try:
        return {f"{path.stem}{suffix}": figure for suffix, figure in draw(content).items()}
    except UNREADABLE as err:
        raise InputError(f"{path} does not hold what its picture needs ({err!r}): compute it again") from err
