"""What a functional of mlxc sees of a Kohn-Sham calculation, on the grid of that calculation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pyscf import gto
from pyscf.scf import dhf, ghf
from pyscf.x2c import x2c

from mlxc.errors import InputError
from mlxc.exx import FittedExchange, energy_density
from mlxc.features import Features, GridMap
from mlxc.functional import Functional
from mlxc.numint import features_of

#: Grid points worked on at a time.
BLOCK = 20000
#: Points below this density (Bohr^-3) are left out: together they hold less than 1e-7 Eh.
RHO_MIN = 1e-9
#: Shares of exact exchange by range (`features_at`).
Mixed = tuple[tuple[float, float], ...]
FULL_RANGE: Mixed = ((0.0, 1.0),)


def attached(mf: Any) -> Functional | None:
    """The functional of mlxc that a calculation uses, if it does."""
    return getattr(getattr(getattr(mf, "_numint", None), "libxc", None), "functional", None)


def functional_of(mf: Any) -> Functional:
    """The functional of mlxc that a calculation uses.  InputError where it uses another one."""
    functional = attached(mf)
    if functional is None:
        raise InputError(
            f"{getattr(mf, 'xc', type(mf).__name__)} is not a functional of mlxc: attach one with mlxc.attach(mf)"
        )
    return functional


def mixes_spins(mf: Any) -> bool:
    """Whether orbitals have no spin of their own: those of generalised and relativistic objects."""
    return isinstance(mf, ghf.GHF | dhf.DHF | x2c.SCF)


def has_spin_channels(mf: Any) -> bool:
    """Whether densities are those of the spins of a molecule: not of periodic, generalised and relativistic objects."""
    return not (hasattr(mf, "cell") or mixes_spins(mf))


def need_converged(mf: Any, what: str) -> None:
    """InputError for a calculation that has not converged or was reset since: "`what` a converged calculation".

    Makes the grid anew where its settings were changed afterwards.  A scanner and PySCF's optimisers take the grid of
    the object that they were made from to other geometries: InputError as well.
    """
    run = getattr(mf, "_scf", mf)  # of a second-order solver that which it was made of
    if not (mf.converged and run.scf_summary):  # PySCF's reset empties the one and leaves the other
        raise InputError(f"{what} a converged calculation: run mf.kernel() first")
    own_grid(mf, what)
    if hasattr(mf, "grids") and mf.grids.coords is None:
        mf.grids.build(with_non0tab=True)


def own_grid(mf: Any, what: str) -> None:
    """InputError where a calculation's grid was taken to another geometry: "`what` the grid of its own geometry"."""
    if hasattr(mf, "grids") and mf.grids.mol is not mf.mol:
        raise InputError(f"{what} the grid of its own geometry: run mf.reset(mf.mol).kernel() first")


def spin_densities(mf: Any) -> np.ndarray:
    """Density matrices (S, nao, nao) of spin channels: S = 1, half the total, for a restricted object.

    Raises InputError for periodic, generalised and relativistic objects, whose matrices are of another kind.
    """
    if not has_spin_channels(mf):
        raise InputError(f"this is for molecules in RKS, UKS or ROKS, not {type(mf).__name__}")
    dm = np.asarray(mf.make_rdm1())
    return dm if dm.ndim == 3 else dm[None] / 2


def semilocal_features(mf: Any, dms: np.ndarray, xctype: str = "MGGA") -> Features:
    """Features of spin density matrices (S, nao, nao) on the whole grid of `mf`, without exact exchange."""
    coords, dm = mf.grids.coords, torch.from_numpy(dms)
    return Features.join([GridMap(mf.mol, coords[i : i + BLOCK], xctype)(dm) for i in range(0, len(coords), BLOCK)])


def needed_features(mf: Any, dms: np.ndarray) -> Features:
    """Features of spin density matrices (S, nao, nao) on the whole grid of `mf`, as its functional needs them."""
    functional = functional_of(mf)
    if functional.exx_omega is None:
        return semilocal_features(mf, dms, functional.xctype)
    x = torch.from_numpy(mf._numint.variables(mf.mol, mf.grids, dms, mf.max_memory))
    # Densities as they are, negative ones of changed matrices too: differences of features are to be exact.
    return replace(features_of(x, len(dms) - 1), rho=x[: len(dms)] / (3 - len(dms)))


def exchange_at(mol: gto.Mole, coords: np.ndarray, dm: torch.Tensor, omega: float = 0.0) -> torch.Tensor:
    """Exact-exchange energy densities (S, G) of spin density matrices dm (S, nao, nao) at points (G, 3) in Bohr."""
    exchange = FittedExchange(mol, coords, omega)
    return torch.from_numpy(np.stack([energy_density(exchange, d) for d in dm.numpy()]))


def features_at(mol: gto.Mole, coords: np.ndarray, dm: torch.Tensor, mixed: Mixed = FULL_RANGE) -> Features:
    """Features of spin density matrices dm (S, nao, nao) at points (G, 3) in Bohr, exact exchange among them.

    mixed : the interaction of exact exchange, (omega, c) for c erf(omega r) / r, or c / r where omega = 0, all added
    """
    f = GridMap(mol, coords)(dm)
    ex = [c * exchange_at(mol, coords, dm, omega) for omega, c in mixed]
    return replace(f, ex=torch.stack(ex).sum(0) if ex else None)


def dense_features(mf: Any, dms: np.ndarray) -> tuple[Features, np.ndarray]:
    """Features of spin density matrices (S, nao, nao), exact exchange among them, and weights (G,): on the grid of `mf`
    without its empty points.
    """
    everywhere = semilocal_features(mf, dms)
    keep = everywhere.total_rho > RHO_MIN
    ex = exchange_at(mf.mol, mf.grids.coords[keep.numpy()], torch.from_numpy(dms))
    return replace(everywhere.at(keep), ex=ex), mf.grids.weights[keep.numpy()]


def blocks(weights: np.ndarray, *features: Features) -> Iterator[tuple]:
    """Parts of some Features of the same points, and their weights."""
    for i in range(0, len(weights), BLOCK):
        at = slice(i, i + BLOCK)
        yield *(f.at(at) for f in features), torch.from_numpy(weights[at])
