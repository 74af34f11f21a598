"""The loop of training: phases of steps, each of which ends in a checkpoint that an interrupted run goes on from."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pyscf import gto

from mlxc import models
from mlxc.dispersion import d4_energy
from mlxc.errors import UNREADABLE, ConvergenceError, InputError, ModelFileError
from mlxc.files import write_atomic
from mlxc.functional import Functional
from mlxc.network import MLP
from mlxc.neural import NeuralMetaGGA
from mlxc.train import checkpoint
from mlxc.train.cache import cache_of, fill
from mlxc.train.config import Config, Phase, active, plain
from mlxc.train.dataset import Dataset
from mlxc.train.densities import FixedDensities
from mlxc.train.fixed import FixedPhase
from mlxc.train.log import as_csv, look_line
from mlxc.train.objective import Objective
from mlxc.train.optimizer import CHUNK, learning_rate, load_state, new_optimizer, steps_of
from mlxc.train.ranks import Ranks
from mlxc.train.selfconsistent import SelfConsistentPhase
from mlxc.version import commit

#: Steps of Adam between two looks at the rows that are kept out: a look at all grid points costs as much as many steps
#: at fixed densities.
LOOK = {"fixed": 50, "self-consistent": 10}

Work = FixedPhase | SelfConsistentPhase


@dataclass
class Progress:
    """Where a run is.

    phase, step  number of the phase and steps done in it; total: steps in all phases
    best         the best judgement in this phase (`Objective.judge`); stale: looks since then
    failures     SCF calculations that have not converged
    """

    phase: int = 0
    step: int = 0
    total: int = 0
    stale: int = 0
    failures: int = 0
    best: list[float] = field(default_factory=lambda: [math.inf, math.inf])


class Trainer:
    """One run: a functional, its data, and a folder for checkpoints, log and model."""

    def __init__(self, config: Config, data: Dataset, out: Path, report: Callable[[str], None] = print):
        self.config, self.data, self.out, self.ranks = config, data, out, Ranks()
        self.report = report if self.ranks.first else lambda line: None
        self.report_of_each = report  # by every process, of its own share
        torch.manual_seed(config.seed)
        self.functional = new_functional(config)
        self.objective = Objective(config, self.functional, data, self.ranks)
        self.best_state = copy.deepcopy(self.functional.state_dict())
        self.at = Progress()
        self.commit = commit()
        self.log: list[dict[str, Any]] = []
        self.identity = hashlib.sha256(
            json.dumps([plain(asdict(config)), data.identity()], sort_keys=True).encode()
        ).hexdigest()

    def resume(self) -> dict[str, Any] | None:
        """Go back to the last checkpoint; returns the state of its phase.

        Raises InputError where it is of another configuration or other data, ModelFileError where it is damaged.
        """
        tree = checkpoint.read(self.out)
        if tree.get("identity") != self.identity:
            raise InputError(
                f"the checkpoint in {self.out} is of another configuration or other data: give another --out"
            )
        try:
            self.functional.load_state_dict(tree["parameters"])
            self.best_state, self.log = tree["best"], tree["log"]
            self.at = Progress(**tree["progress"])
            return tree["phase"] or None
        except UNREADABLE as err:
            raise ModelFileError(
                f"the checkpoint in {self.out} is damaged ({err!r}): train anew without --resume"
            ) from err

    def run(self, state: dict[str, Any] | None = None) -> NeuralMetaGGA:
        """All phases, from the state of an interrupted one; returns what was judged best in the last."""
        while self.at.phase < len(self.config.phase):
            self._run_phase(self.config.phase[self.at.phase], state)
            state = None
            self.functional.load_state_dict(self.best_state)
            done = self.at
            self.at = Progress(phase=done.phase + 1, total=done.total, failures=done.failures)
            self._save({})
        if self.ranks.first:
            write_atomic(self.out / "log.csv", as_csv(self.log))  # the last thing that a killed run may have missed
        return self.functional

    def _run_phase(self, phase: Phase, state: dict[str, Any] | None) -> None:
        single = phase.kind == "fixed" and self.config.precision == "single"
        self._arithmetic(torch.float32 if single else torch.float64)
        self.objective.move_to(self.config.device if phase.kind == "fixed" else "cpu")
        work = self._fixed() if phase.kind == "fixed" else self._self_consistent(phase)
        steps = steps_of(phase)
        optimizer: Any = None
        first, started = self.at.step, time.perf_counter()
        if not first:
            self._look(work, phase, {}, math.nan)
        elif isinstance(work, FixedPhase) and first >= phase.adam:
            work.refresh()  # what the look before the interruption had found
        for step in range(first, steps):
            if self._finished(phase):
                break
            if optimizer is None or step == phase.adam:
                optimizer = new_optimizer(phase, step, self.objective.parameters)
            if state:
                if step != phase.adam:  # there L-BFGS takes over from Adam
                    load_state(optimizer, state["optimizer"])
                work.remember(state["memory"])
                state = None
            lbfgs = step >= phase.adam
            losses = self._step(work, phase, optimizer, step)
            self.at.step, self.at.total = step + 1, self.at.total + 1
            if self.at.step in (steps, phase.adam) or lbfgs or self.at.step % LOOK[phase.kind] == 0:
                left = (time.perf_counter() - started) / (self.at.step - first) * (steps - self.at.step)
                self._look(work, phase, losses, left)
            self._save({"optimizer": optimizer.state_dict(), "memory": work.memory()})
        self._arithmetic(torch.float64)

    def _finished(self, phase: Phase) -> bool:
        """Whether a phase has run out of patience, or L-BFGS of directions in which the objective falls."""
        if self.config.patience and self.at.stale >= self.config.patience:
            return True
        if self.at.step < phase.adam + 2:
            return False
        now, before = (row["objective"] for row in (self.log[-1], self.log[-2]))
        return now == before or not math.isfinite(now)

    def _arithmetic(self, precision: torch.dtype) -> None:
        for network in self.functional.modules():
            if isinstance(network, MLP):
                network.precision = precision

    def _densities(self) -> FixedDensities:
        fill(self.data.species[self.ranks.share], self.config.data, self.report_of_each)
        self.ranks.wait()
        return FixedDensities(self.data.species, cache_of(self.config.data))

    def _fixed(self) -> FixedPhase:
        work = FixedPhase(self.functional, self._densities(), self.ranks, self.config.device)
        rows = [*self.data.inside, *self.data.outside]
        left_out = len(rows) - len(self.data.complete(rows, work.known))
        if left_out:
            self.report(f"{left_out} rows left out: a calculation of theirs failed")
        return work

    def _self_consistent(self, phase: Phase) -> SelfConsistentPhase:
        settings = self.config.data
        gains = None
        if settings.limit_basis:
            densities = self._densities()
            gains = densities.gains.where(densities.known, math.nan)
            if lost := int((~densities.known).sum()):
                self.report(f"{lost} species without an energy in {settings.limit_basis}: rows with them are left out")
        return SelfConsistentPhase(
            self.functional, self.data, settings, active(self.config), self.ranks, self.config.seed, phase.batch, gains
        )

    def _step(self, work: Work, phase: Phase, optimizer: Any, step: int) -> dict[str, float]:
        """One step of Adam, or some iterations of L-BFGS; the losses at the point before it, or after them."""
        if step < phase.adam:
            optimizer.param_groups[0]["lr"] = learning_rate(phase, step)
            observed = work.observe(step)
            self._count_failures(work)
            if not observed.known.any():
                if not work.failures:
                    raise InputError("no loss needs a calculation: take a phase of kind fixed, which makes none")
                raise ConvergenceError(
                    f"no calculation of step {step + 1} converged: {next(iter(work.failures.values()))}"
                )
            losses = self.objective(observed)
            if not math.isfinite(sum(losses.values())):
                raise InputError(f"the objective is no number any more in step {step + 1}: take a smaller rate")
            optimizer.step()
            return losses
        optimizer.param_groups[0]["max_iter"] = min(CHUNK, phase.lbfgs - (step - phase.adam) * CHUNK)
        optimizer.step(lambda: sum(self.objective(work.observe(step)).values()))
        losses = self.objective(work.observe(step))
        if step == phase.adam and not math.isfinite(sum(losses.values())):
            raise InputError("the objective is no number from the start: look at reference energies and weights")
        return losses

    def _count_failures(self, work: Work) -> None:
        for name, reason in work.failures.items():
            self.at.failures += 1
            self.report(f"  {name}: {reason}")

    def _look(self, work: Work, phase: Phase, losses: dict[str, float], left: float) -> None:
        """Judge the present parameters, keep the best, and write a line; `left`: seconds until the phase ends."""
        judgement, maes = self.objective.judge(work.look())
        self._count_failures(work)
        if judgement < self.at.best:
            self.at.best, self.at.stale = judgement, 0
            self.best_state = copy.deepcopy(self.functional.state_dict())
        else:
            self.at.stale += 1
        if isinstance(work, FixedPhase) and self.at.step < phase.adam:
            work.forget()
        row = {"phase": self.at.phase + 1, "kind": phase.kind, "step": self.at.step, "objective": sum(losses.values())}
        row |= {"judgement": judgement[1], "scf_failures": self.at.failures, **losses}
        self.log.append(row | {f"MAE {s}": m for s, m in maes.items()})
        self.report(
            look_line(row, losses, maes, steps_of(phase), "kept out" if self.data.outside else "trained on", left)
        )

    def _save(self, phase_state: dict[str, Any]) -> None:
        """The checkpoint and the log, by the first process."""
        if self.ranks.first:
            tree = {
                "identity": self.identity,
                "commit": self.commit,
                "parameters": self.functional.state_dict(),
                "best": self.best_state,
                "progress": asdict(self.at),
                "log": self.log,
                "phase": phase_state,
            }
            checkpoint.write(self.out, self.at.total * 2 + (not phase_state), tree)
            write_atomic(self.out / "log.csv", as_csv(self.log))
        self.ranks.wait()


#: The setting `d4` of a model that is to have none, although that which it starts from has.
NO_D4 = "none"


def new_functional(config: Config) -> NeuralMetaGGA:
    """The functional that training starts from.  Raises InputError, UnknownFunctionalError, ModelFileError."""
    if not config.start:
        functional: Functional = models.FAMILIES[config.family](config.width, config.depth)
    else:
        functional = models.load(config.start)
    if not isinstance(functional, NeuralMetaGGA):
        raise InputError(f"{config.start} has no networks to train")
    of_start = models.describe(config.start).get("d4", "") if config.start else ""
    d4 = "" if config.d4 == NO_D4 else config.d4 or of_start
    functional.name, functional.disp = config.name, f"d4:{d4}" if d4 else None
    if d4:
        d4_energy(gto.M(atom="He", verbose=0), d4)  # an unknown name is told before densities are computed
    return functional.requires_grad_(True)
