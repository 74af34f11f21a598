"""How sure a model is: the spread of functionals that were trained alike from different seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mlxc import models
from mlxc.errors import InputError
from mlxc.functional import Functional
from mlxc.ongrid import blocks, functional_of, grid_features, spin_densities


def ensemble_energies(mf: Any, members: Sequence[Functional] | None = None) -> np.ndarray:
    """Total energies (n,), Eh, of all members of a model's ensemble at the converged density of `mf`.

    The first is that of `mf` itself; by the variational theorem the others differ from their self-consistent energies
    in second order only.  Reaction energies are made of such arrays as of numbers, and their standard deviation over
    the members is the uncertainty: errors that molecules share cancel in them.

    `members` are by default those of the model that `mf` uses.  Raises InputError for a model without an ensemble, and
    for a calculation that is not converged.
    """
    functional = functional_of(mf)
    if members is None:
        members = models.load_members(functional.source) if functional.source else []
    if not members:
        raise InputError(f"{functional.name} has no ensemble: train one with mlxc train CONFIG.toml --members N")
    if not mf.converged:
        raise InputError("ensemble energies need a converged calculation: run mf.kernel() first")
    features, everyone = grid_features(mf, spin_densities(mf)), [functional, *members]
    exc = np.zeros(len(everyone))
    with torch.no_grad():
        for f, w in blocks(mf.grids.weights, features):
            exc += [float(w @ member(f)) for member in everyone]
    return mf.e_tot + (exc - exc[0])
