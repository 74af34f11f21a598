"""The reference data that come with mlxc, and their manifest.

    python -m mlxc.reference.shipped data     # writes data/manifest.json anew from data/*.h5 and data/recipes/*.toml

`manifest.json` says of every file its SHA-256, the recipe that it was built from and that one's SHA-256, and what it
holds.  The folder is `data/` beside the package in a source tree; once installed it is `share/mlxc` of the environment
or, where pip has installed for one user, of that user.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

from mlxc.errors import UNREADABLE, InputError, ReferenceFileError
from mlxc.files import write_atomic
from mlxc.reference import store
from mlxc.reference.recipe import read_recipe
from mlxc.reference.schema import Reference

_SOURCE = Path(__file__).parents[2] / "data"
_INSTALLED, _USERS = (
    Path(sysconfig.get_path("data", scheme)) / "share" / "mlxc"
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
)


def folder() -> Path:
    """Where the files are.  Raises ReferenceFileError where there are none."""
    for place in (_SOURCE, _INSTALLED, _USERS):
        if (place / "manifest.json").is_file() and (place / "recipes").is_dir():
            return place
    raise ReferenceFileError(
        f"the reference data are neither in {_SOURCE} nor in {_INSTALLED} or {_USERS}: install mlxc again"
    )


def manifest() -> dict[str, dict[str, Any]]:
    """What each shipped file holds, by its name without ending.  Raises ReferenceFileError."""
    path = folder() / "manifest.json"
    try:
        return json.loads(path.read_text())
    except UNREADABLE as err:
        raise ReferenceFileError(f"{path} is damaged ({err}): install mlxc again") from err


def path_of(name: str) -> Path:
    """The shipped file of this name, checked against the manifest.  Raises InputError, ReferenceFileError."""
    known = manifest()
    if name not in known:
        raise InputError(f"no reference data {name!r}: shipped are {', '.join(known)}")
    path = folder() / f"{name}.h5"
    if not path.is_file() or _sha256(path) != known[name]["sha256"]:
        raise ReferenceFileError(f"{path} is missing or not the file of the manifest: install mlxc again")
    return path


def load(name: str) -> dict[str, Reference]:
    """The references of a shipped file by name.  Raises InputError for an unknown one, ReferenceFileError."""
    return store.read(path_of(name))


def is_shipped(path: Path) -> bool:
    """Whether a file is a copy of one that comes with mlxc.  Raises ReferenceFileError for a damaged manifest."""
    return _sha256(path) in {entry["sha256"] for entry in manifest().values()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe(path: Path, recipe: Path) -> dict[str, Any]:
    """The entry of a file in the manifest.  Raises InputError where it was not built from this recipe."""
    library, description = store.read_described(path)
    tasks = {t.name: t.hash for t in read_recipe(recipe).tasks}
    strange = [k for k, r in library.items() if r.provenance.get("task") != tasks.get(k)]
    if strange or library.keys() != tasks.keys():
        raise InputError(f"{path} was not built from {recipe}: {', '.join(strange or tasks.keys() ^ library.keys())}")
    return {
        "description": description,
        "sha256": _sha256(path),
        "recipe": f"recipes/{recipe.name}",
        "recipe_sha256": _sha256(recipe),
        "systems": len(library),
        "molecules": sum(len(r.symbols) > 1 and r.converged for r in library.values()),
        "without_density": {r.name: r.outcome for r in library.values() if not r.converged},
        "methods": dict(Counter(r.method for r in library.values())),
        "basis_functions": max(r.dm1.shape[1] for r in library.values() if r.dm1 is not None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    home = parser.parse_args().folder
    entries = {p.stem: describe(p, home / "recipes" / f"{p.stem}.toml") for p in sorted(home.glob("*.h5"))}
    write_atomic(home / "manifest.json", json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()
