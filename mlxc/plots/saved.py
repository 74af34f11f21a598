"""Results of calculations from which pictures are drawn: JSON files that are written whole.

All have `picture` (which one), `format`, `versions`, `grid_level`, `basis` and `functionals`, a list with `xc`,
`sha256` (of a model's weights), `converged` and what was computed with each; units are in the names.  Numbers that are
not there are null.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
import torch

from mlxc import models
from mlxc.constraints.subject import LEVEL, Subject
from mlxc.errors import BREAKS, UNREADABLE, InputError, MlxcError, run_by_pyscf
from mlxc.files import write_atomic
from mlxc.reference.benchmark import System
from mlxc.version import __version__, commit

FORMAT = 1
#: Significant digits of fields on points, of which there are many; energies have all.
DIGITS = 6


def path_of(out: Path, picture: str, name: str) -> Path:
    """Where the results of a picture of `name` belong."""
    return out / f"{picture}-{re.sub(r'[^A-Za-z0-9.+=-]+', '_', name)}.json"


def header(picture: str, basis: str) -> dict[str, Any]:
    """What all saved results have."""
    versions = {"mlxc": __version__, "commit": commit(), "pyscf": pyscf.__version__, "numpy": np.__version__,
                "torch": torch.__version__}  # fmt: skip
    return {"picture": picture, "format": FORMAT, "versions": versions, "basis": basis, "grid_level": LEVEL}


def subjects(xcs: list[str]) -> list[tuple[Subject, dict[str, Any]]]:
    """Functionals, and what saved results say of them.  Raises UnknownFunctionalError, ModelFileError, InputError."""
    if not xcs:
        raise InputError("no functional is given: --xc takes names with commas between them")
    found = [(Subject(xc), models.sha256(xc)) for xc in dict.fromkeys(xcs)]
    return [(subject, {"xc": subject.name, "sha256": sha256}) for subject, sha256 in found]


def solved(subject: Subject, mol: Any) -> Any:
    """A converged calculation, or None.  Raises InputError for a functional that PySCF cannot run."""
    try:
        with run_by_pyscf(subject.name, subject.ours):
            mf = subject.solve(mol)
    except MlxcError:
        raise
    except BREAKS as err:
        print(f"  {subject.name:16s} {err!r}", flush=True)
        return None
    print(f"  {subject.name:16s} {mf.e_tot:16.8f} Eh{'' if mf.converged else '  NOT converged'}", flush=True)
    return mf if mf.converged else None


def energy(subject: Subject, system: System, basis: str, symmetry: bool = False) -> float:
    """Self-consistent energy, Eh, nan where there is none.  Raises InputError for a functional that cannot be run."""
    try:
        with run_by_pyscf(subject.name, subject.ours):
            value = subject.energy(system, basis, symmetry)
    except MlxcError:
        raise
    except BREAKS:
        value = np.nan
    print(f"  {subject.name:16s} {system.id:16s} {value:16.8f} Eh", flush=True)
    return value


def listed(values: Any, digits: int | None = None) -> Any:
    """An array as lists for JSON, null for what is not finite, with so many significant digits."""
    array = np.asarray(values, dtype=float)
    if array.ndim:
        return [listed(x, digits) for x in array]
    if not np.isfinite(array):
        return None
    return float(array) if digits is None else float(f"{array:.{digits}g}")


def field(values: Any) -> Any:
    """Values on points, as `listed`."""
    return listed(values, DIGITS)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write results; the file appears complete or not at all.  Raises InputError where that fails."""
    write_atomic(path, json.dumps(content) + "\n")


def refuse_to_lose(path: Path, xcs: list[str]) -> None:
    """InputError where a file has results of functionals that are not among those to be computed."""
    try:
        before = {str(f["xc"]) for f in load(path)["functionals"]}
    except UNREADABLE:  # nothing is there, or nothing of this version
        return
    lost = before - {subject.name for subject, _ in subjects(xcs)}
    if lost:
        raise InputError(f"{path} has results of {', '.join(sorted(lost))}: name them too, or give another --out")


def load(path: Path) -> dict[str, Any]:
    """Saved results.  Raises InputError for any other file."""
    try:
        content = json.loads(path.read_text())
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} does not hold results of mlxc plot: it is no JSON") from err
    if not isinstance(content, dict) or not isinstance(content.get("picture"), str):
        raise InputError(f"{path} does not hold results of mlxc plot")
    if content.get("format") != FORMAT:
        raise InputError(f"{path} has format {content.get('format')}, this mlxc reads {FORMAT}: compute it again")
    return content
