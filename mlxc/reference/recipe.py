"""Recipes: TOML files that say which systems are built, where their geometries come from and at which level.

    description = "..."
    optimize = "b3lyp/def2-tzvpp"         # optional: functional and basis of the geometries

    [density]
    method = "CCSD(T)"                    # HF, FCI, CCSD or CCSD(T)
    basis = "aug-cc-pVTZ"                 # or a table: {default = "aug-cc-pVTZ", H = "cc-pVTZ"}
    frozen_core = true

    [energy]                              # optional: the best energies, else those of the density
    method = "CCSD(T)"
    bases = ["aug-cc-pVTZ", "aug-cc-pVQZ"]    # cardinal numbers n and n + 1, extrapolated; or one basis
    cardinal = 3
    frozen_core = true
    core_basis = "cc-pCVTZ"               # optional: correlation of all electrons less that of the valence there

    [[system]]
    name = "H2O"
    atoms = "ase:H2O"                     # a molecule of ASE's g2 collection (the default: the name), an element,
    charge = 0                            # or symbols and Angstrom: "H 0 0 0; H 0 0 {R}"
    spin = 0                              # 2S; ASE's or the lowest possible by default
    R = [0.5, 0.74]                       # optional: one system for each value, NAME R=VALUE; the name of the variable
                                          # is what stands in braces

A system may have tables `density` and `energy` and an `optimize` of its own, whose keys replace the recipe's.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyscf.data.elements import ELEMENTS

from mlxc.errors import UNREADABLE, InputError
from mlxc.extras import need
from mlxc.geometry import count_electrons, parse_atoms, spin_is_possible
from mlxc.reference.methods import METHODS
from mlxc.reference.task import Task

#: Types of the keys of each kind of table.  A basis is a name, or a table of names by element.
_TYPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "recipe": {"description": str, "optimize": str, "density": dict, "energy": dict, "system": list},
    "density": {"method": str, "basis": (str, dict), "frozen_core": bool},
    "energy": {"method": str, "bases": list, "cardinal": int, "frozen_core": bool, "core_basis": (str, dict)},
    "system": {
        "name": str, "atoms": str, "charge": int, "spin": int, "density": dict, "energy": dict, "optimize": str,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A recipe: what it says of itself, and its tasks."""

    description: str
    tasks: tuple[Task, ...]


def _checked(table: Any, kind: str, path: Path, variables: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The table, of which every key is known and every value of its type."""
    known = _TYPES[kind]
    if not isinstance(table, dict):
        header = "[[system]]" if kind == "system" else f"[{kind}]"
        raise InputError(f"{path}: {kind} is {table!r}, not a table below a line {header}")
    unknown = table.keys() - known.keys() - variables
    if unknown:
        raise InputError(
            f"{path}: unknown key {', '.join(sorted(unknown))} in a {kind} table; there are {', '.join(known)}"
        )
    for key in table.keys() & known.keys():
        types, value = known[key], table[key]
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            names = " or a ".join(t.__name__ for t in (types if isinstance(types, tuple) else (types,)))
            raise InputError(f"{path}: {key} = {value!r} in a {kind} table is not a {names}")
    return table


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises InputError for an unreadable one, an unknown key, a value of another type, and a name given twice.
    """
    try:
        content = tomllib.loads(Path(path).read_text())
    except UNREADABLE as err:
        raise InputError(f"cannot read the recipe {path}: {err}") from err
    _checked(content, "recipe", path)
    if not content.get("system") or "density" not in content:
        raise InputError(f"{path} needs a [density] table and at least one [[system]]")
    tasks = [task for row in content["system"] for task in _tasks(row, content, path)]
    names = [t.name for t in tasks]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise InputError(f"{path} gives {', '.join(sorted(twice))} twice: every system needs a name of its own")
    return Recipe(content.get("description", ""), tuple(tasks))


def _tasks(row: dict[str, Any], recipe: dict[str, Any], path: Path) -> list[Task]:
    """The tasks of one [[system]] table: several for a scan."""
    scans = {k: v for k, v in row.items() if isinstance(v, list)} if isinstance(row, dict) else {}
    _checked(row, "system", path, frozenset(scans))
    empty = [k for k, v in scans.items() if not v]
    if empty:
        raise InputError(f"{path}: the list of values of {empty[0]} is empty")
    if "name" not in row or "/" in row["name"] or len(scans) > 1:
        raise InputError(f"{path}: a system needs a name without a slash, and at most one list of values: {row}")
    density = _checked(recipe["density"] | row.get("density", {}), "density", path)
    energy = _checked(recipe.get("energy", {}) | row.get("energy", {}), "energy", path)
    for table in (density, energy or density):
        if table.get("method") not in METHODS:
            raise InputError(f"{path}: method {table.get('method')!r} is not one of {', '.join(METHODS)}")
    if "core_basis" in energy and not energy.get("frozen_core"):
        raise InputError(f"{path}: core_basis is for energies with frozen_core = true")
    if "basis" not in density or (energy and not 1 <= len(energy.get("bases", ())) <= 1 + ("cardinal" in energy)):
        raise InputError(f"{path}: [density] needs a basis, and [energy] bases: one, or two and the cardinal number")
    for basis in (
        density["basis"],
        *energy.get("bases", ()),
        *([energy["core_basis"]] if "core_basis" in energy else ()),
    ):
        names = list(basis.values()) if isinstance(basis, dict) else [basis]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise InputError(f"{path}: basis {basis!r} is neither a name nor a table of names by element")
    if energy.get("cardinal", 2) < 2:
        raise InputError(f"{path}: cardinal = {energy['cardinal']}: that of the smaller basis, 2 for double zeta")
    optimize = row.get("optimize", recipe.get("optimize", ""))
    if optimize and optimize.count("/") != 1:
        raise InputError(
            f"{path}: optimize = {optimize!r} is not a functional and a basis, b3lyp/def2-tzvpp for example"
        )
    values: list[tuple[str, str]] = [("", "")]
    if scans:
        ((variable, numbers),) = scans.items()
        values = [(f" {variable}={x}", str(x)) for x in numbers]
    tasks = []
    for suffix, value in values:
        text = row.get("atoms", row["name"])
        for variable in scans:
            if "{" + variable + "}" not in text:
                raise InputError(f"{path}: {variable} is a list of values, but no {{{variable}}} is in {text!r}")
            text = text.replace("{" + variable + "}", value)
        atoms, unpaired = _geometry(text, path)
        charge = row.get("charge", 0)
        electrons = count_electrons((s for s, _ in atoms), charge)
        spin = row.get("spin", unpaired if unpaired is not None and charge == 0 else electrons % 2)
        if not spin_is_possible(electrons, spin):
            raise InputError(f"{path}: {row['name']} has {electrons} electrons, of which {spin} cannot be unpaired")
        settle = optimize if len(atoms) > 1 and not scans else ""
        tasks.append(Task(row["name"] + suffix, atoms, charge, spin, settle, density, energy))
    return tasks


def _geometry(text: str, path: Path) -> tuple[tuple, int | None]:
    """Atoms (symbol, Angstrom) and, from ASE, the number of unpaired electrons."""
    if text in ELEMENTS[1:]:
        return ((text, (0.0, 0.0, 0.0)),), None
    if ";" not in text and len(text.split()) == 1:
        return _from_ase(text.removeprefix("ase:"), path)
    try:
        return tuple(parse_atoms(text)), None
    except ValueError:
        raise InputError(
            f'{path}: expected "SYMBOL x y z; ..." in Angstrom or a name of ASE\'s, got {text!r}'
        ) from None


def _from_ase(name: str, path: Path) -> tuple[tuple, int]:
    need("a geometry of ASE's g2 collection", "reference", "ase")
    from ase.build import molecule

    try:
        found = molecule(name)
    except KeyError:
        raise InputError(f"{path}: ASE's g2 collection has no {name!r}") from None
    atoms = tuple(zip(found.get_chemical_symbols(), map(tuple, found.positions.tolist()), strict=True))
    return atoms, round(abs(found.get_initial_magnetic_moments().sum()))
