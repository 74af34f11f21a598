"""How sure a model is: the spread of functionals that were trained alike, each on its own sample of the rows."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mlxc import models
from mlxc.errors import InputError
from mlxc.functional import Functional
from mlxc.neural import NeuralMetaGGA
from mlxc.ongrid import blocks, functional_of, need_converged, needed_features, spin_densities
from mlxc.units import KCAL

#: Uncertainty (kcal/mol) of what has no spread, as one electron: that of grids, fits and the SCF.
NOISE = 0.1


def ensemble_energies(mf: Any, members: Sequence[Functional] | None = None) -> np.ndarray:
    """Total energies (n,), Eh, of all members of a model's ensemble at the converged density of `mf`.

    By the variational theorem they differ from the members' self-consistent energies in second order only.  Reaction
    energies are made of such arrays as of numbers, and their standard deviation over the members is the uncertainty:
    errors that molecules share cancel in them.

    `members` are by default those of the model that `mf` uses.  Raises InputError for a model without an ensemble, and
    for a calculation that is not converged.
    """
    functional = functional_of(mf)
    if members is None:
        members = models.load_members(functional.source) if functional.source else []
    if not members:
        raise InputError(f"{functional.name} has no ensemble: train one with mlxc train CONFIG.toml --members N")
    need_converged(mf, "ensemble energies need")
    features, everyone = needed_features(mf, spin_densities(mf)), [functional, *members]
    exc = np.zeros(len(everyone))
    with torch.no_grad():
        for f, w in blocks(mf.grids.weights, features):
            exc += [float(w @ member(f)) for member in everyone]
    return mf.e_tot + (exc[1:] - exc[0])


def uncertainty_kcal(energies: np.ndarray, name: str | os.PathLike) -> float:
    """How far an energy, or a sum of energies with coefficients, is likely to be off, kcal/mol: two thirds are less so.

    From the values of all members of a model's ensemble, (n,) Eh: their standard deviation, times the
    `uncertainty_scale` of model.json, which is fitted to reactions that training did not see
    (benchmarks/calibration.py; 1 where that is missing), and NOISE besides.
    """
    scale = models.describe(name).get("uncertainty_scale", 1.0)
    return float(np.hypot(NOISE, scale * np.std(energies, ddof=1) * KCAL))


def averaged(members: Sequence[NeuralMetaGGA]) -> NeuralMetaGGA:
    """The functional with the mean of the parameters of members that were trained from one start.

    It costs as much as one of them (Wortsman et al., "Model soups", ICML 2022).  Members from different starts have
    nothing in common that a mean would keep.
    """
    functional = copy.deepcopy(members[0])
    states = [m.state_dict() for m in members]
    functional.load_state_dict({k: torch.stack([s[k] for s in states]).mean(0) for k in states[0]})
    return functional
