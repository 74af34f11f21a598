"""The loop of training: phases of steps, each of which ends in a checkpoint that an interrupted run goes on from."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mlxc import models
from mlxc.errors import InputError
from mlxc.files import write_atomic
from mlxc.network import MLP
from mlxc.neural import NeuralMetaGGA
from mlxc.train import checkpoint
from mlxc.train.cache import fill
from mlxc.train.config import Config, Phase, plain
from mlxc.train.dataset import Dataset
from mlxc.train.fixed import FixedPhase
from mlxc.train.losses import OF_FUNCTIONAL, OF_REFERENCES, Rows, State
from mlxc.train.objective import Objective
from mlxc.train.ranks import Ranks
from mlxc.train.selfconsistent import SelfConsistentPhase

#: Iterations of L-BFGS that make one step of the loop.
CHUNK = 50
#: Steps of Adam between two looks at the validation rows, in a fixed-density phase and in a self-consistent one.
CHECKS = {"fixed": 10, "self-consistent": 10}
#: The rate of Adam at the end of a phase, relative to that at its beginning.
LAST_RATE = 0.1


@dataclass
class Progress:
    """Where a run is: phase, steps done in it and in all, steps without progress, SCF failures, rows of the log."""

    phase: int = 0
    step: int = 0
    total: int = 0
    stale: int = 0
    failures: int = 0
    best: float = math.inf


class Trainer:
    """One run: a functional, its data, and a folder for checkpoints, log and model."""

    def __init__(self, config: Config, data: Dataset, out: Path, report: Callable[[str], None] = print):
        self.config, self.data, self.out, self.ranks = config, data, out, Ranks()
        self.report = report if self.ranks.first else lambda line: None
        torch.manual_seed(config.seed)
        self.functional = new_functional(config)
        self.objective = Objective(config, self.functional, data, self.ranks)
        self.validation = Rows(data, data.outside, data.weights)
        self.best_state = copy.deepcopy(self.functional.state_dict())
        self.at, self.log = Progress(), []  # type: ignore[var-annotated]
        self.identity = hashlib.sha256(
            json.dumps([plain(asdict(config)), [s.key for s in data.species], [r.ref_kcal for r in data.inside]],
                       sort_keys=True).encode()
        ).hexdigest()  # fmt: skip

    def resume(self) -> dict[str, Any] | None:
        """Go back to the last checkpoint.  Raises InputError where it is of another configuration or other data."""
        tree = checkpoint.read(self.out)
        if tree["identity"] != self.identity:
            raise InputError(
                f"the checkpoint in {self.out} is of another configuration or other data: give another --out"
            )
        self.functional.load_state_dict(tree["parameters"])
        self.best_state, self.log = tree["best"], tree["log"]
        self.at = Progress(**tree["progress"])
        return tree["phase"]

    def run(self, state: dict[str, Any] | None = None) -> NeuralMetaGGA:
        """All phases, from the state of an interrupted one; returns what did best on the validation rows."""
        while self.at.phase < len(self.config.phase):
            self._run_phase(self.config.phase[self.at.phase], state)
            state = None
            self.functional.load_state_dict(self.best_state)
            self.at.phase, self.at.step, self.at.stale, self.at.best = self.at.phase + 1, 0, 0, math.inf
            self._save({})
        return self.functional

    def _run_phase(self, phase: Phase, state: dict[str, Any] | None) -> None:
        fixed = phase.kind == "fixed"
        self._precision(torch.float32 if fixed and self.config.precision == "single" else torch.float64)
        work = self._fixed() if fixed else self._self_consistent()
        chunks = -(-phase.lbfgs // CHUNK)
        optimizer: Any = None
        started = time.perf_counter()
        for step in range(self.at.step, phase.adam + chunks):
            if optimizer is None or step == phase.adam:
                optimizer = self._optimizer(phase, step)
            if state:
                if step != phase.adam:  # there L-BFGS takes over from Adam
                    _load_optimizer(optimizer, state["optimizer"])
                self._restore(work, state)
                state = None
            if isinstance(work, FixedPhase) and step >= phase.adam:
                work.refresh()
            losses = self._step(work, phase, optimizer, step)
            self.at.step, self.at.total = step + 1, self.at.total + 1
            last = self.at.step == phase.adam + chunks
            if last or step >= phase.adam or self.at.step % CHECKS[phase.kind] == 0:
                self._check(work, phase, losses, started, last)
            self._save({"optimizer": optimizer.state_dict(), **self._kept(work)})
            if self.config.patience and self.at.stale >= self.config.patience:
                break
        self._precision(torch.float64)

    def _precision(self, dtype: torch.dtype) -> None:
        for network in self.functional.modules():
            if isinstance(network, MLP):
                network.precision = dtype

    def _fixed(self) -> FixedPhase:
        fill(self.data.species[self.ranks.share], self.config.data, self.report)
        self.ranks.wait()
        return FixedPhase(self.functional, self.data, self.config.data.cache, self.ranks)

    def _self_consistent(self) -> SelfConsistentPhase:
        kinds = {k for k in OF_REFERENCES if self.config.losses.get(k, 0) > 0}
        return SelfConsistentPhase(self.functional, self.data, self.config.data, kinds, self.ranks, self.config.seed)

    def _optimizer(self, phase: Phase, step: int) -> torch.optim.Optimizer:
        if step < phase.adam:
            return torch.optim.Adam(self.objective.parameters, lr=phase.rate)
        return torch.optim.LBFGS(
            self.objective.parameters, max_iter=CHUNK, history_size=50, line_search_fn="strong_wolfe",
            tolerance_change=1e-12,
        )  # fmt: skip

    def _observe(self, work: Any, phase: Phase, step: int) -> State:
        if isinstance(work, FixedPhase):
            return work.observe()
        state = work.observe(*work.batch(step, phase.batch))
        for name, reason in work.failures.items():
            self.at.failures += 1
            self.report(f"  {name}: {reason}")
        return state

    def _step(self, work: Any, phase: Phase, optimizer: Any, step: int) -> dict[str, float]:
        """One step of Adam or some iterations of L-BFGS; the losses at its beginning or at its end."""
        if step < phase.adam:
            rate = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / phase.adam)) / 2
            optimizer.param_groups[0]["lr"] = phase.rate * rate
            _, losses, _ = self.objective(self._observe(work, phase, step))
            optimizer.step()
            return losses
        optimizer.step(lambda: self.objective(self._observe(work, phase, step))[0])
        return self.objective(self._observe(work, phase, step))[1]

    def _check(self, work: Any, phase: Phase, losses: dict[str, float], started: float, last: bool) -> None:
        """Look at the validation rows, keep the best parameters, and write a line."""
        if isinstance(work, FixedPhase):
            with torch.no_grad():
                observed = work.observe()
        else:
            observed = work.observe(self.data.outside, [])
        state = State(self.functional, self.ranks.total(observed.energies), observed.known)
        errors, there = self.validation.errors(state)
        # What no row shows, also no row of those kept out, must not be given up for their errors.
        behaviour = sum(v for k, v in losses.items() if k in OF_FUNCTIONAL and k != "decay")
        value = behaviour + (float(self.validation(state)) if len(errors) else sum(losses.values()) - behaviour)
        if value < self.at.best:
            self.at.best, self.at.stale = value, 0
            self.best_state = copy.deepcopy(self.functional.state_dict())
        else:
            self.at.stale += 1
        sets = [r.set for r, t in zip(self.data.outside, there.tolist(), strict=True) if t]
        maes = {s: float(errors[[x == s for x in sets]].abs().mean()) for s in dict.fromkeys(sets)}
        row = {"phase": self.at.phase + 1, "kind": phase.kind, "step": self.at.step, "objective": sum(losses.values())}
        row |= {"validation": value, "scf_failures": self.at.failures, **losses} | {
            f"MAE {s}": m for s, m in maes.items()
        }
        self.log.append(row)
        done, all_steps = self.at.step, phase.adam + -(-phase.lbfgs // CHUNK)
        left = (time.perf_counter() - started) / done * (all_steps - done)
        shown = "  ".join(f"{k} {v:.3g}" for k, v in losses.items())
        kept_out = "  ".join(f"{s} {m:.2f}" for s, m in maes.items())
        self.report(
            f"{phase.kind} {done}/{all_steps}  objective {row['objective']:.4g} ({shown})  validation {value:.4g} "
            f"({kept_out or 'no rows'})  SCF failures {self.at.failures}  {left / 60:.0f} min left"
        )

    def _kept(self, work: Any) -> dict[str, Any]:
        """What a phase needs of its past."""
        if isinstance(work, FixedPhase):
            return {"offset": work.offset}
        return {"densities": {str(i): torch.from_numpy(d.copy()) for i, d in work.densities.items()}}

    @staticmethod
    def _restore(work: Any, state: dict[str, Any]) -> None:
        if isinstance(work, FixedPhase):
            work.offset = state["offset"]
        else:
            work.densities = {int(i): d.numpy() for i, d in state["densities"].items()}

    def _save(self, phase_state: dict[str, Any]) -> None:
        """The checkpoint and the log, by the first process."""
        if self.ranks.first:
            tree = {
                "identity": self.identity,
                "parameters": self.functional.state_dict(),
                "best": self.best_state,
                "progress": asdict(self.at),
                "log": self.log,
                "phase": phase_state,
            }
            checkpoint.write(self.out, self.at.total * 2 + (not phase_state), tree)
            write_atomic(self.out / "log.csv", _csv(self.log))
        self.ranks.wait()


def new_functional(config: Config) -> NeuralMetaGGA:
    """The functional that training starts from.  Raises InputError, UnknownFunctionalError, ModelFileError."""
    if not config.start:
        return models.FAMILIES[config.family](config.width, config.depth, name=config.name)
    functional = models.load(config.start)
    if not isinstance(functional, NeuralMetaGGA):
        raise InputError(f"{config.start} has no networks to train")
    functional.name = config.name
    return functional.requires_grad_(True)


def _load_optimizer(optimizer: torch.optim.Optimizer, tree: dict[str, Any]) -> None:
    """Put the state of a checkpoint back; its keys have become texts."""
    state = {int(k): v for k, v in tree["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": tree["param_groups"]})


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(k for row in rows for k in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
