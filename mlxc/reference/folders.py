"""Benchmark folders: JSON lines, read and written, and GMTKN55's own layout, read.

`systems.jsonl` rows have id, charge, multiplicity, symbols and coords_angstrom; nheavy and graph_key are written beside
them and worked out anew, so that one molecule has one key whoever wrote it.  `reactions.jsonl` rows have set, name,
stoichiometry {id: coefficient}, ref_kcal = sum(coefficient * E), role ("train" or "dev") and, for dev rows,
seen_in_training; `properties.jsonl`, which may be missing, has rows of set, id, property, value, unit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from mlxc.errors import UNREADABLE, InputError
from mlxc.files import make_folder, write_atomic
from mlxc.geometry import whole
from mlxc.reference.benchmark import Property, Reaction, System, faults, make_system
from mlxc.reference.gmtkn55 import is_gmtkn55, read_gmtkn55

T = TypeVar("T")


def _rows(path: Path, convert: Callable[[dict], T]) -> list[T]:
    """Every row of a file of JSON lines, converted.  Raises InputError with the line that cannot be."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"cannot read {path} ({err}): give the folder that holds it") from err
    out = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                out.append(convert(json.loads(line)))
            except UNREADABLE as err:
                raise InputError(f"{path}, line {number} is not a row as expected: {err!r}") from err
    return out


def _texts(row: dict, *keys: str) -> list[str]:
    """The values of these keys.  TypeError where one is no text."""
    values = [row[k] for k in keys]
    if not all(isinstance(v, str) for v in values):
        raise TypeError(f"{', '.join(keys)} have to be texts")
    return values


def _system(row: dict) -> System:
    (name,) = _texts(row, "id")
    if not all(isinstance(s, str) for s in row["symbols"]):
        raise TypeError("symbols have to be texts")
    coords = [(float(x), float(y), float(z)) for x, y, z in row["coords_angstrom"]]
    return make_system(
        name, whole(row["charge"], "charge"), whole(row["multiplicity"], "multiplicity"), row["symbols"], coords
    )


def _reaction(row: dict) -> Reaction:
    stoichiometry = {str(k): whole(c, "coefficient") for k, c in row["stoichiometry"].items()}
    seen = row.get("seen_in_training", False)
    if not isinstance(seen, bool):
        raise TypeError("seen_in_training has to be true or false")
    of, name, role = _texts(row, "set", "name", "role")
    return Reaction(of, name, stoichiometry, float(row["ref_kcal"]), role, seen)


def read_systems(folder: Path) -> dict[str, System]:
    """All systems of a folder by id.  Raises InputError where the file is missing or broken."""
    systems = _rows(Path(folder) / "systems.jsonl", _system)
    twice = [i for i, n in Counter(s.id for s in systems).items() if n > 1]
    if twice:
        raise InputError(f"{folder}/systems.jsonl has several systems called {', '.join(twice)}: give each its own id")
    return {s.id: s for s in systems}


def read_reactions(folder: Path) -> list[Reaction]:
    """All reactions of a folder.  Raises InputError where the file is missing or broken."""
    return _rows(Path(folder) / "reactions.jsonl", _reaction)


def read_properties(folder: Path) -> list[Property]:
    """All reference properties of a folder, none without the file.  Raises InputError where it is broken."""
    path = Path(folder) / "properties.jsonl"
    if not path.exists():
        return []
    keys = ("set", "id", "property", "unit")
    return _rows(path, lambda row: Property(**{k: str(row[k]) for k in keys}, value=float(row["value"])))


def read_benchmark(folder: Path) -> tuple[dict[str, System], list[Reaction]]:
    """Systems by id and reactions of a folder of JSON lines or of GMTKN55's layout.

    Raises InputError where it is neither, cannot be read, or holds what cannot be (`mlxc.reference.benchmark.faults`).
    """
    if (folder / "systems.jsonl").is_file():
        systems, reactions = read_systems(folder), read_reactions(folder)
    elif is_gmtkn55(folder):
        systems, reactions = read_gmtkn55(folder)
    else:
        raise InputError(f"{folder} has neither systems.jsonl nor sets with .res files, as GMTKN55 has")
    found = faults(systems, reactions)
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise InputError(f"{folder}: {'; '.join(found[:5])}{more}")
    return systems, reactions


def write_folder(
    folder: Path, systems: dict[str, System], reactions: list[Reaction], properties: Iterable[Property] = ()
) -> None:
    """Write the files of a benchmark folder; each appears complete, `reactions.jsonl` last.  Raises InputError."""
    make_folder(folder)
    lines = []
    for s in systems.values():
        row = {**vars(s), "coords_angstrom": s.coords}
        del row["coords"]
        lines.append(json.dumps(row))
    write_atomic(folder / "systems.jsonl", "".join(f"{line}\n" for line in lines))
    known = "".join(f"{json.dumps(vars(p))}\n" for p in properties)
    if known:
        write_atomic(folder / "properties.jsonl", known)
    else:
        (folder / "properties.jsonl").unlink(missing_ok=True)
    write_atomic(folder / "reactions.jsonl", "".join(f"{json.dumps(vars(r))}\n" for r in reactions))
