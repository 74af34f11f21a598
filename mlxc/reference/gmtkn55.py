"""GMTKN55's own layout: one folder per set with a `.res` file of reactions and one folder per molecule.

A line of `.res` is shell code, `$tmer A/$f {B,C}/$f x -1 1 2 $w REFERENCE`: species with the shell's braces, their
coefficients, and the reference energy in kcal/mol.  `name=$( $tmer ... )` keeps a reaction energy under a name, which
`$w $name REFERENCE` of a later line subtracts (RSE43).  A folder's `.resRC` (BH76) is a set of its own, BH76RC.
A molecule's folder has `struc.xyz` (Angstrom) or Turbomole's `coord` (Bohr) and, where they are not zero, its charge
and number of unpaired electrons in `.CHRG` and `.UHF`.  Bare protons have no energy and are not listed.

Goerigk, Hansen, Bauer, Ehrlich, Najibi, Grimme, Phys. Chem. Chem. Phys. 19, 32184 (2017).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice, product
from pathlib import Path

from mlxc.errors import InputError
from mlxc.extras import need
from mlxc.geometry import read_xyz
from mlxc.reference.benchmark import Reaction, System, make_system

_REACTION = re.compile(
    r"(?:(?P<name>\w+)=\$\(\s*)?"
    r"(?:\$tmer|tmer2\S*)\s+(?P<species>.+?)\s+x\s+(?P<coefficients>(?:-?\d+\s+)+)\$w\s+"
    r"(?:\$(?P<shift>\w+)\s*)?(?P<reference>[-+]?(?:\d+\.?\d*|\.\d+)(?=\s|$))?"
)


def is_gmtkn55(folder: Path) -> bool:
    """Whether a folder is of this layout: GMTKN55 as a whole or one of its sets."""
    return bool(_tables(folder))


def _tables(folder: Path) -> list[Path]:
    """The files of reactions of all sets."""
    names = [f"{prefix}.res{suffix}" for prefix in ("", "*/") for suffix in ("", "RC")]
    return sorted(p for name in names for p in folder.glob(name) if "$tmer" in _text(p))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}") from err


def expanded(word: str) -> Iterator[str]:
    """The words that the shell makes of one with groups in braces, `a{b,c}` -> ab, ac; they may be very many."""
    parts = re.split(r"\{([^{}]*)\}", word)
    choices = (part.split(",") if k % 2 else [part] for k, part in enumerate(parts))
    return map("".join, product(*choices))


def read_gmtkn55(folder: Path) -> tuple[dict[str, System], list[Reaction]]:
    """Systems by id (SET/NAME) and reactions.  Raises InputError with file and line of what cannot be read."""
    systems: dict[str, System] = {}
    reactions = []
    for table in _tables(folder):
        kept: dict[str, Counter[str]] = {}
        home = table.resolve().parent
        name = home.name + table.name.removeprefix(".res")
        rows = 0
        for number, line in enumerate(_text(table).splitlines(), start=1):
            code = line.split("#")[0].strip()
            if not re.search(r"tmer\S*\s.*\sx\s", code):
                continue
            where = f"{table}, line {number}"
            found = _REACTION.match(code)
            if found is None:
                raise InputError(f"{where}: expected '$tmer SPECIES x COEFFICIENTS $w REFERENCE', got {code!r}")
            try:
                coefficients = [int(c) for c in found["coefficients"].split()]
            except ValueError as err:
                raise InputError(f"{where}: {err}") from err
            words = chain.from_iterable(expanded(part) for part in found["species"].split())
            species = [w.removesuffix("/$f") for w in islice(words, len(coefficients) + 1)]
            if len(species) != len(coefficients):
                more = "more" if len(species) > len(coefficients) else "fewer"
                raise InputError(f"{where}: {len(coefficients)} coefficients and {more} species")
            sides: Counter[str] = Counter()
            for s, c in zip(species, coefficients, strict=True):
                sides[f"{home.name}/{s}"] += c
                if f"{home.name}/{s}" not in systems:
                    systems[f"{home.name}/{s}"] = _read_system(home, s)
            if found["name"]:
                kept[found["name"]] = sides
                continue
            if (found["shift"] and found["shift"] not in kept) or not found["reference"]:
                raise InputError(f"{where}: the reference energy is not a number in {code!r}")
            sides.subtract(kept.get(found["shift"], {}))
            rows += 1
            stoichiometry = {i: c for i, c in sides.items() if c}
            reactions.append(Reaction(name, f"{name}_{rows}", stoichiometry, float(found["reference"]), "dev"))
    return systems, reactions


def _read_system(home: Path, name: str) -> System:
    """The molecule in a folder of a set."""
    folder = home / name
    charge, unpaired = (_number(folder / file) for file in (".CHRG", ".UHF"))
    xyz = folder / "struc.xyz"
    atoms = read_xyz(xyz) if os.path.exists(xyz) else _read_coord(folder / "coord")
    try:
        symbols, coords = zip(*atoms, strict=True)
        return make_system(f"{home.name}/{name}", charge, unpaired + 1, symbols, coords)
    except ValueError as err:  # no atom, or one of no element
        raise InputError(f"{folder}: its geometry cannot be used: {err}") from err


def _number(path: Path) -> int:
    """The integer in a file; 0 where there is none."""
    if not os.path.exists(path):  # Path's own breaks off at names that are too long for a file
        return 0
    try:
        return int(_text(path).split()[0])
    except (IndexError, ValueError) as err:
        raise InputError(f"{path} does not hold a whole number") from err


def _read_coord(path: Path) -> list[tuple[str, tuple[float, float, float]]]:
    """Atoms (symbol, Angstrom) of Turbomole's file of coordinates."""
    if not os.path.exists(path):
        raise InputError(f"{path.parent} has neither struc.xyz nor coord")
    need(str(path), "reference", "ase")
    from ase.io.turbomole import read_turbomole

    try:
        with path.open() as f:
            atoms = read_turbomole(f)
    except Exception as err:  # ASE raises whatever its parser stumbles over
        raise InputError(f"{path} is not a file of Turbomole coordinates: {err}") from err
    return list(zip(atoms.get_chemical_symbols(), map(tuple, atoms.positions.tolist()), strict=True))
