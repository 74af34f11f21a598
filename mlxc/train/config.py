"""What `mlxc train` is told: a TOML file, every key of which is known.

    name = "my-functional"
    family = "neural-local-hybrid"

    [data]
    folder = "benchmarks"                     # systems.jsonl and reactions.jsonl
    sets = {"W4-17" = 3.0, "BH76" = 1.0}      # and their weights
    references = ["atoms", "my.h5"]           # shipped files or others: densities and ionization potentials

    [losses]
    reactions = 1.0
    density = 10.0

    [[phase]]
    kind = "fixed"
    lbfgs = 1500

    [[phase]]
    kind = "self-consistent"
    adam = 20

Relative paths are those from the folder of the file.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mlxc import models
from mlxc.errors import UNREADABLE, InputError
from mlxc.extras import need


@dataclass(frozen=True)
class Data:
    """Where molecules and references come from.

    folder      benchmark folder; none: no reactions
    sets        weight of each set of reactions
    role        of the rows to train on: "train" or "dev", as the folder says of each
    max_heavy   most heavy atoms of a molecule; rows with a larger one are left out
    references  files of references, or names of shipped ones
    only        names of the references to use; all where it is empty
    cache       folder of densities and features of the fixed-density phase, by default in that of the run
    basis, grid_level   of all calculations
    densities   functional at whose self-consistent densities the fixed phase works: its name, or a model's folder
    limit_basis         a larger one: energies get what r2SCAN's gain from basis to it; none where it is empty
    gains       JSON lines of such gains that are known: system (key of a species), basis, limit_basis, gain (Eh)
    validation  one of so many molecular graphs is kept out of training; 0: none
    bootstrap   train on as many rows, drawn from them with replacement: what a member of an ensemble does
    """

    folder: Path | None = None
    sets: dict[str, float] = field(default_factory=dict)
    role: str = "train"
    max_heavy: int = 3
    references: list[str | Path] = field(default_factory=list)
    only: list[str] = field(default_factory=list)
    cache: Path | None = None
    basis: str = "def2-tzvppd"
    densities: str | Path = "r2scan"
    limit_basis: str = ""
    gains: Path | None = None
    grid_level: int = 3
    validation: int = 8
    bootstrap: bool = False


@dataclass(frozen=True)
class Phase:
    """Steps of Adam, then iterations of L-BFGS, at fixed densities or through the self-consistent field.

    kind   "fixed" or "self-consistent"; the latter knows Adam only
    adam   steps; rate: their learning rate, which falls along a cosine to last_rate times itself
    lbfgs  iterations at most: chunks of fifty, each of which ends after 62 evaluations as well
    batch  rows of each kind, and references, of a self-consistent step
    """

    kind: str
    adam: int = 0
    rate: float = 1e-2
    last_rate: float = 0.1
    lbfgs: int = 0
    batch: int = 16


@dataclass(frozen=True)
class Config:
    """All settings of a training run; see the fields of Data and Phase.

    name       of the model, and of the folder of the run where the command gives none
    family, width, depth  of the functional; start: a model to begin with, from which they then come
    d4         functional whose published D4 damping belongs to the model: all energies get that D4; where empty, that
               of `start`, if it has one, and none where "none"
    losses     weight of each loss (mlxc.train.losses)
    precision  of the networks in the fixed-density phase: "single" is twice as fast and errs by 0.001 kcal/mol
    device     where these networks are evaluated: "cpu", or "cuda" and its like
    seed       of the first weights, the rows kept out, the samples of an ensemble and the order of batches
    patience   judgements without progress before a phase ends, what it has of L-BFGS included; 0: never
    """

    name: str
    phase: list[Phase]
    data: Data = Data()
    losses: dict[str, float] = field(default_factory=lambda: {"reactions": 1.0})
    family: str = "neural-local-hybrid"
    width: int = 12
    depth: int = 2
    start: str | Path = ""
    d4: str = ""
    seed: int = 0
    precision: str = "single"
    device: str = "cpu"
    patience: int = 0


def read_config(path: Path) -> Config:
    """Read a training configuration.  Raises InputError, which names the key, for anything that cannot be meant."""
    try:
        content = tomllib.loads(Path(path).read_text())
    except UNREADABLE as err:
        raise InputError(f"cannot read the configuration {path}: {err}") from err
    config = from_table(content, path)
    here = Path(path).parent
    data = replace(
        config.data,
        folder=None if config.data.folder is None else here / config.data.folder,
        cache=None if config.data.cache is None else here / config.data.cache,
        gains=None if config.data.gains is None else here / config.data.gains,
        references=[here / r if Path(r).suffix else r for r in config.data.references],
    )

    def model(name: str | Path) -> str | Path:
        # Absolute, since a shipped model may have the same name.
        folder = (here / name).absolute()
        return folder if name and models.exists(folder) else name

    return replace(config, data=replace(data, densities=model(data.densities)), start=model(config.start))


def from_table(content: dict[str, Any], path: Path) -> Config:
    """A Config from the tables of a TOML file.  Raises InputError."""
    need("training", "train", "dacite")
    import dacite

    if not isinstance(content.get("phase"), list):
        raise InputError(f"{path}: phases are written [[phase]], in double brackets, at least one of them")
    try:
        config = dacite.from_dict(Config, content, dacite.Config(strict=True, cast=[Path]))
    except dacite.UnexpectedDataError as err:
        raise InputError(f"{path}: unknown key {', '.join(sorted(map(str, err.keys)))}") from err
    except (dacite.DaciteError, TypeError, ValueError) as err:
        raise InputError(f"{path}: {err}") from err
    _check(config, path)
    return config


def _is_there(device: str) -> bool:
    """Whether torch can compute on a device."""
    try:
        return torch.zeros(1, device=device).add(1).item() == 1
    except (AssertionError, NotImplementedError, RuntimeError):
        return False


def active(config: Config) -> dict[str, float]:
    """The losses that count."""
    return {k: w for k, w in config.losses.items() if w > 0}


def plain(tree: Any) -> Any:
    """The same settings for JSON; paths by their names, which do not depend on where a run is started."""
    if isinstance(tree, dict):
        return {k: plain(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [plain(v) for v in tree]
    return tree.name if isinstance(tree, Path) else tree


def _check(config: Config, path: Path) -> None:
    """Raises InputError for values that are of the right type and make no sense."""
    from mlxc.train.losses import LOSSES, OF_CONDENSED, OF_REFERENCES

    def need(holds: bool, message: str) -> None:
        if not holds:
            raise InputError(f"{path}: {message}")

    def one_of(what: str, value: str, known: Any) -> None:
        need(value in known, f"{what} {value!r} is none of {', '.join(sorted(known))}")

    one_of("family", config.family, models.FAMILIES)
    one_of("precision", config.precision, ("single", "double"))
    need(_is_there(config.device), f"there is no device {config.device!r} for torch here")
    for name in config.losses:
        one_of("loss", name, LOSSES)
    data, losses, kinds = config.data, active(config), {p.kind for p in config.phase}
    for where, table in (("losses", config.losses), ("sets", data.sets)):
        for name, weight in table.items():
            need(0 <= weight < math.inf, f"the weight {weight} of {name} in {where} is not a positive number or 0")
    need(bool(losses), "no loss has a weight above 0")
    need(
        bool(data.sets) == ("reactions" in losses),
        "the loss reactions and the sets of [data] need each other: give both or neither",
    )
    need(not data.sets or data.folder is not None, "sets are those of a folder: [data] has none")
    need(not data.sets or max(data.sets.values()) > 0, "no set has a weight above 0")
    for name, value in (("width", config.width), ("depth", config.depth), ("max_heavy", data.max_heavy)):
        need(value >= 1, f"{name} = {value} is less than 1")
    need(0 <= data.grid_level <= 9, f"grid_level = {data.grid_level} is none of 0 to 9")
    need(
        bool(config.name) and Path(config.name).name == config.name != "..",
        f"name = {config.name!r} is that of the model's folder: give a plain one",
    )
    need(data.gains is None or bool(data.limit_basis), "gains are those from basis to limit_basis: give that too")
    need(data.validation >= 2 or not data.validation, f"validation = {data.validation}: at least 2, or 0 for none")
    need(min(config.seed, config.patience) >= 0, "seed and patience are not negative")
    for phase in config.phase:
        one_of("kind of phase", phase.kind, ("fixed", "self-consistent"))
        need(phase.kind == "fixed" or not phase.lbfgs, "a self-consistent phase knows adam, not lbfgs")
        need(min(phase.adam, phase.lbfgs) >= 0, f"{phase.adam} steps and {phase.lbfgs} iterations: none is negative")
        need(phase.adam + phase.lbfgs > 0, "a phase has neither steps of adam nor iterations of lbfgs")
        need(0 < phase.rate < math.inf, f"rate = {phase.rate} is not a positive number")
        need(0 < phase.last_rate <= 1, f"last_rate = {phase.last_rate} is not above 0 and at most 1")
        need(phase.batch >= 1, f"batch = {phase.batch} is less than 1")
    need(bool(config.phase), "give at least one [[phase]]")
    idle = sorted(losses.keys() & set(OF_CONDENSED))
    need(not idle or "fixed" in kinds, f"{', '.join(idle)}: of densities that are fixed, and no phase has any")
    idle = sorted(losses.keys() & set(OF_REFERENCES))
    need(
        not idle or bool(data.references and "self-consistent" in kinds),
        f"{', '.join(idle)}: needs references in [data] and a self-consistent phase",
    )
