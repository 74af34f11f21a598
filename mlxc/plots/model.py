"""Pictures of a training run and of what its networks have learned."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlxc import models
from mlxc.analytic import LDA_X
from mlxc.constraints.points import slater
from mlxc.errors import InputError
from mlxc.features import Features
from mlxc.neural import NeuralLocalHybrid, NeuralMetaGGA
from mlxc.plots import figures

#: Density (Bohr^-3) and reduced gradients s of the curves, which run over the iso-orbital indicator alpha.
DENSITY, GRADIENTS, ALPHA = 0.1, (0.0, 0.5, 1.0, 2.0), np.linspace(0.0, 3.0, 151)


def draw(folder: Path) -> dict[str, Any]:
    """Figures of what there is in the folder of a run or a model, by name.

    Raises InputError where there is nothing to draw, ModelFileError for a damaged model.
    """
    drawings: dict[str, Callable[[Any], None]] = {}
    if (folder / "log.csv").exists():
        rows = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
        if rows:
            drawings["learning"] = lambda figure: learning(figure, rows)
    if models.exists(folder):
        functional, errors = models.load(folder), models.describe(folder).get("card", {}).get("errors", {})
        if errors:
            drawings["errors"] = lambda figure: by_set(figure, errors)
        if isinstance(functional, NeuralMetaGGA):
            drawings["enhancement"] = lambda figure: enhancement(figure, functional)
        if isinstance(functional, NeuralLocalHybrid):
            drawings["mixing"] = lambda figure: mixing(figure, functional)
    if not drawings:
        raise InputError(f"{folder} holds neither the log of a run nor a model")
    drawn = {}
    for name, drawing in drawings.items():
        drawn[name] = figures.figure(8, 5)
        drawing(drawn[name])
    return drawn


def learning(figure: Any, rows: list[dict[str, str]]) -> None:
    """Objective, judgement and every loss over the rows of a log, one after the other."""
    axes = figure.subplots()
    skipped = {"phase", "kind", "step", "scf_failures"}
    for name in (k for k in rows[0] if k not in skipped):
        points = [(i, float(r[name])) for i, r in enumerate(rows) if r.get(name) and float(r[name]) > 0]
        if points:
            thick = name in ("objective", "judgement")
            axes.semilogy(*zip(*points, strict=True), label=name, linewidth=2 if thick else 1, marker=".")
    for i, (before, after) in enumerate(pairwise(rows)):
        if before["phase"] != after["phase"]:
            axes.axvline(i + 0.5, color="grey", linestyle=":")
    axes.set(xlabel="line of the log (dotted: next phase)", ylabel="weighted loss; MAE in kcal/mol")
    axes.legend(fontsize="small", ncols=2)


def by_set(figure: Any, errors: dict[str, Any]) -> None:
    """Mean absolute errors of the card: one panel for each group of rows, one bar for each set and functional."""
    groups = {k: v["mae_kcal"] for k, v in errors.items() if "mae_kcal" in v}
    for axes, (title, maes) in zip(
        figure.subplots(1, max(1, len(groups)), squeeze=False)[0], groups.items(), strict=False
    ):
        sets = sorted({s for m in maes.values() for s in m})
        for k, (xc, mae) in enumerate(maes.items()):
            axes.bar(
                np.arange(len(sets)) + k * 0.8 / len(maes), [mae.get(s, 0) for s in sets], 0.8 / len(maes), label=xc
            )
        axes.set_xticks(np.arange(len(sets)) + 0.3, sets, rotation=60, fontsize="small")
        axes.set(title=title, ylabel="MAE, kcal/mol")
        axes.legend(fontsize="small")


def uniform_tau(gradient: float) -> Features:
    """Closed shells of DENSITY with reduced gradient s and all of ALPHA; exact exchange is that of the uniform gas."""
    n = torch.full((len(ALPHA),), DENSITY, dtype=torch.float64)
    sigma = 4 * (3 * np.pi**2) ** (2 / 3) * gradient**2 * n ** (8 / 3)
    tau = torch.from_numpy(ALPHA) * 0.3 * (3 * np.pi**2) ** (2 / 3) * n ** (5 / 3) + sigma / (8 * n)
    ex = LDA_X * n ** (4 / 3)
    return Features(n[None] / 2, sigma[None] / 4, tau[None] / 2, ex[None] / 2)


def enhancement(figure: Any, functional: NeuralMetaGGA) -> None:
    """F_xc = e_xc / e_x^LDA over alpha, for several s; thin lines: r2SCAN."""
    from mlxc.analytic import R2SCAN

    axes = figure.subplots()
    for s in GRADIENTS:
        features = uniform_tau(s)
        scale = slater(features)
        with torch.no_grad():
            (line,) = axes.plot(ALPHA, functional(features) / scale, label=f"s = {s:g}")
            axes.plot(ALPHA, R2SCAN()(features) / scale, color=line.get_color(), linewidth=0.6)
    axes.set(xlabel="alpha", ylabel=f"F_xc at n = {DENSITY} Bohr$^{{-3}}$ (thin: r2SCAN)")
    axes.legend()


def mixing(figure: Any, functional: NeuralLocalHybrid) -> None:
    """The share of exact exchange over alpha, for several s."""
    axes = figure.subplots()
    for s in GRADIENTS:
        with torch.no_grad():
            axes.plot(ALPHA, functional.local_mixing(uniform_tau(s))[0], label=f"s = {s:g}")
    axes.set(xlabel="alpha", ylabel="share of exact exchange", ylim=(0, 1.05))
    axes.legend()
