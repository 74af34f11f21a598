"""`mlxc train CONFIG.toml`: from a configuration to a model folder."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlxc import models
from mlxc.domain import domain
from mlxc.ensemble import averaged
from mlxc.errors import InputError
from mlxc.files import make_folder, sole_use
from mlxc.functional import Functional
from mlxc.neural import NeuralMetaGGA
from mlxc.reference.benchmark import Reaction
from mlxc.train import checkpoint
from mlxc.train.cache import cache_of
from mlxc.train.config import Config, active, plain, read_config
from mlxc.train.dataset import Dataset, by_set, training_set
from mlxc.train.densities import FixedDensities
from mlxc.train.loop import Trainer
from mlxc.train.ranks import Ranks
from mlxc.version import __version__

#: So many molecules do not tell what others are like.
FEW = 20


def train(path: Path, out: Path | None = None, resume: bool = False, members: int = 1) -> Path:
    """Train what the configuration describes; returns the model's folder, by default one of its name beside it.

    Every member of an ensemble has its own sample of all rows (Efron's bootstrap), and a folder `member-K` for its
    run; the model has the mean of their parameters, and their spread is its uncertainty (`mlxc.ensemble`).  Under
    torchrun the processes share the molecules.  Raises InputError, also where the folder holds a run and `resume` is
    False or another process works there, and for an ensemble without a model to start from, UnknownFunctionalError and
    ModelFileError.
    """
    config = read_config(path)
    out = out or Path(path).parent / config.name
    config = replace(config, data=replace(config.data, cache=config.data.cache or out / "cache"))
    if resume and not out.is_dir():
        raise InputError(f"{out} holds nothing to go on with: start without --resume")
    with sole_use(out) if Ranks().first else nullcontext():
        return _trained(config, out, resume, members)


def _trained(config: Config, out: Path, resume: bool, members: int) -> Path:
    if members == 1:
        _train_one(config, out, resume)
        return out
    if not config.start:
        raise InputError("members have one model to start from: train that first, and name it as `start`")
    if isinstance(config.start, Path) and config.start.resolve() == out.resolve():
        raise InputError(f"{out} is the model to start from, which the ensemble would replace: give another name")
    folders = [out / f"member-{k}" for k in range(1, members + 1)]
    _refuse_finished(out, resume and checkpoint.exists(folders[0]))
    trained: list[NeuralMetaGGA] = []
    for k, folder in enumerate(folders):
        sample = replace(config.data, validation=0, bootstrap=True)
        member = replace(config, seed=config.seed + k, data=sample)
        known = trained[0].domain if trained else None
        trained.append(_train_one(member, folder, resume and checkpoint.exists(folder), known))
    ranks = Ranks()
    if ranks.first:
        functional = averaged(trained)
        cards = [models.describe(f)["card"] for f in folders]
        more: dict[str, Any] = {
            "members": [c["errors"] for c in cards],
            "data_sha256": [c["data_sha256"] for c in cards],
            "scf_failures": sum(c["scf_failures"] for c in cards),
        }
        if any(p.kind == "fixed" for p in config.phase):
            data = training_set(replace(config.data, validation=0), config.seed, active(config))
            parts = {"training": data.inside}
            more["errors"] = fixed_density_errors(data, cache_of(config.data), functional, parts)
        models.save(functional, out, cards[0] | more, trained)
    ranks.wait()
    return out


def _refuse_finished(out: Path, resume: bool = False) -> None:
    """InputError where a folder holds a model that is not the one to be resumed: it would be lost."""
    if (out / "model.json").exists() and not resume:
        raise InputError(f"{out} holds a finished model: give another --out")


def _train_one(config: Config, out: Path, resume: bool, known: dict[str, Any] | None = None) -> NeuralMetaGGA:
    """One run in a folder of its own, which then is a model's folder too; `known`: its domain, if that is known."""
    if checkpoint.exists(out) and not resume:
        raise InputError(f"{out} holds a run already: go on with --resume or give another --out")
    if not checkpoint.exists(out):
        _refuse_finished(out)
        resume = False  # it was stopped before the first step: the densities that are there serve
    data = training_set(config.data, config.seed, active(config))
    make_folder(out)
    trainer = Trainer(config, data, out, lambda line: print(line, flush=True))
    trainer.report(
        f"{len(data.inside)} rows and {len(data.targets)} references to train on ({sum(t.turns for t in data.targets)} "
        f"can turn: without density losses), {len(data.outside)} rows and {data.spared} references kept out; "
        f"{len(data.species)} species"
    )
    functional = trainer.run(trainer.resume() if resume else None)
    if trainer.ranks.first:
        functional.domain = known or known_domain(config, functional)
        models.save(functional, out, card(config, data, functional, trainer))
    trainer.ranks.wait()
    return functional


def known_domain(config: Config, functional: NeuralMetaGGA) -> dict[str, Any] | None:
    """What `mlxc.domain` compares with: all molecules of a fixed-density phase; None without one, or with FEW."""
    if not any(p.kind == "fixed" for p in config.phase):
        return None
    data = training_set(replace(config.data, validation=0, bootstrap=False), config.seed, active(config))
    densities = FixedDensities(data.species, cache_of(config.data))
    if int(densities.known.sum()) <= FEW:
        return None
    moles = (data.species[i].mole("sto-3g") for i in densities.known.nonzero()[:, 0].tolist())
    return domain(functional, ((mol, *m) for mol, m in zip(moles, densities.molecules(), strict=True)))


def card(config: Config, data: Dataset, functional: NeuralMetaGGA, trainer: Trainer) -> dict[str, Any]:
    """What a model's card says: data, settings, and errors at the cached densities where there are any."""
    fixed = any(p.kind == "fixed" for p in config.phase)
    parts = {"training": data.inside, "validation": data.outside}
    limit = f", corrected to {config.data.limit_basis} by r2SCAN" if config.data.limit_basis else ""
    return {
        "trained_on": f"{len(data.inside)} rows and {len(data.targets)} reference densities",
        "protocol": f"errors in kcal/mol at fixed densities of {plain(config.data.densities)}, {config.data.basis}, "
        f"density fitting, grid level {config.data.grid_level}{limit}",
        "command": "mlxc train CONFIG.toml, with the configuration below",
        # Family, width and depth, and D4 where none is named, are those of `start`, if there is one.
        "configuration": plain(asdict(config))
        | {"family": models.family_of(functional), "d4": (functional.disp or "").removeprefix("d4:")}
        | functional.config,
        "data_sha256": trainer.identity,
        "mlxc": __version__,
        "commit": trainer.commit,
        "scf_failures": trainer.at.failures,
        "errors": fixed_density_errors(data, cache_of(config.data), functional, parts) if fixed else {},
    }


def fixed_density_errors(
    data: Dataset, cache: Path, functional: Functional, parts: dict[str, list[Reaction]]
) -> dict[str, Any]:
    """Of each part its numbers of rows and mean absolute errors per set (kcal/mol), of the functional and r2SCAN."""
    densities = FixedDensities(data.species, cache)
    energies = {"mlxc": densities.full_grid(functional), "r2scan": densities.e_r2scan}
    report = {}
    for name, rows in parts.items():
        there = data.complete(rows, densities.known)
        if there:
            sets = [r.set for r in there]
            maes = {xc: by_set(sets, data.errors(there, e)) for xc, e in energies.items()}
            counts = {s: sets.count(s) for s in maes["mlxc"]}
            report[name] = {"rows": counts, "mae_kcal": maes, "left_out": len(rows) - len(there)}
    return report
