"""How sure a model is: the spread of the functionals that it is averaged from, trained alike from different seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mlxc.errors import InputError
from mlxc.functional import Functional
from mlxc.neural import NeuralMetaGGA
from mlxc.ongrid import blocks, functional_of, grid_features, spin_densities


def members_of(functional: Functional | None) -> list[Functional]:
    """What a functional is averaged from; none where it is not."""
    return list(functional.members()) if isinstance(functional, NeuralMetaGGA) else []


def ensemble_energies(mf: Any) -> np.ndarray:
    """Total energies (n,), Eh, of all members of the functional's ensemble at the converged density of `mf`.

    By the variational theorem they differ from the members' self-consistent energies in second order only.  Reaction
    energies are made of such arrays as of numbers, and their standard deviation over the members is the uncertainty:
    errors that molecules share cancel in them.

    Raises InputError for a functional that is not averaged, and for a calculation that is not converged.
    """
    functional = functional_of(mf)
    members = members_of(functional)
    if not members:
        raise InputError(f"{functional.name} has no ensemble: train one with mlxc train CONFIG.toml --members N")
    if not mf.converged:
        raise InputError("ensemble energies need a converged calculation: run mf.kernel() first")
    features = grid_features(mf, spin_densities(mf))
    exc = np.zeros(len(members) + 1)
    with torch.no_grad():
        for f, w in blocks(mf.grids.weights, features):
            exc += [float(w @ f_xc(f)) for f_xc in (functional, *members)]
    return mf.e_tot + (exc[1:] - exc[0])
