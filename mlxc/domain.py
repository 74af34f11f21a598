"""Whether a molecule is unlike those that a model was trained on, and in what: then its numbers are extrapolated.

Of the training set a model keeps its elements and, of two descriptors of a molecule, mean, covariance and the distance
(Mahalanobis's) within which most of its molecules lie:

- density: means and standard deviations, over all electrons, of the variables that its correlation depends on;
- structure: the largest eigenvalues of the Coulomb matrix (Rupp, Tkatchenko, Mueller, von Lilienfeld, Phys. Rev. Lett.
  108, 058301 (2012)), which tell size and composition.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from pyscf import gto

from mlxc.errors import UNREADABLE, InputError, ModelFileError
from mlxc.features import Features
from mlxc.neural import NeuralMetaGGA, network_inputs
from mlxc.ongrid import functional_of, need_converged, needed_features, spin_densities

#: Largest eigenvalues of the Coulomb matrix that count; logarithms of them, so that the heaviest atom is not all.
EIGENVALUES = 8
#: Share of the training molecules within the limit.
SHARE = 0.99
#: Part of a component's variance that is added to it: of few molecules covariances are poorly known.
FLOOR = 0.1


def density_descriptor(functional: NeuralMetaGGA, features: Features, weights: torch.Tensor) -> np.ndarray:
    """Means and standard deviations, (2 V,), of V variables over the electrons, from features on a grid."""
    x = network_inputs(functional.variables(features)[1], functional.correlation_variables)
    share = weights * features.total_rho
    share = share / share.sum()
    mean = x @ share
    return torch.cat([mean, torch.sqrt((x - mean[:, None]).square() @ share)]).numpy()


def structure_descriptor(mol: gto.Mole) -> np.ndarray:
    """ln(1 + |eigenvalue|) of the Coulomb matrix, the largest first, zeros for missing ones, (EIGENVALUES,)."""
    z = mol.atom_charges().astype(float)
    r = np.linalg.norm(mol.atom_coords()[:, None] - mol.atom_coords(), axis=-1)
    np.fill_diagonal(r, 1.0)
    matrix = np.outer(z, z) / r
    np.fill_diagonal(matrix, 0.5 * z**2.4)
    found = np.sort(np.log1p(np.abs(np.linalg.eigvalsh(matrix))))[::-1][:EIGENVALUES]
    return np.pad(found, (0, EIGENVALUES - len(found)))


def _cloud(points: np.ndarray) -> dict[str, Any]:
    """Mean, covariance and limit of descriptors (M, D), for JSON."""
    mean, covariance = points.mean(0), np.atleast_2d(np.cov(points.T))
    covariance[np.diag_indices_from(covariance)] += FLOOR * np.diag(covariance) + 1e-12
    cloud = {"mean": mean.tolist(), "covariance": covariance.tolist()}
    return cloud | {"limit": float(np.quantile([_distance(cloud, p) for p in points], SHARE))}


def _distance(cloud: dict[str, Any], point: np.ndarray) -> float:
    away = point - np.array(cloud["mean"])
    return float(np.sqrt(away @ np.linalg.solve(np.array(cloud["covariance"]), away)))


def domain(functional: NeuralMetaGGA, molecules: Iterable[tuple[gto.Mole, Features, torch.Tensor]]) -> dict[str, Any]:
    """What a model keeps of its training molecules, each with features and weights of its grid, for `model.json`."""
    elements: set[str] = set()
    densities, structures = [], []
    for mol, features, weights in molecules:
        elements |= set(mol.elements)
        densities.append(density_descriptor(functional, features, weights))
        structures.append(structure_descriptor(mol))
    return {
        "molecules": len(densities),
        "elements": sorted(elements),
        "density": _cloud(np.array(densities)),
        "structure": _cloud(np.array(structures)),
    }


def novelty(mf: Any) -> list[str]:
    """What tells the molecule of a converged calculation from those that its model was trained on; empty: nothing.

    Of one electron nothing, where its energy is exact by construction.  Raises InputError for a functional that is no
    model or was saved without its domain and for a calculation that has not converged, ModelFileError where the domain
    is damaged.
    """
    functional = functional_of(mf)
    known = functional.domain
    if known is None or not isinstance(functional, NeuralMetaGGA):
        raise InputError(f"{functional.name} does not know what it was trained on: it was saved without its domain")
    need_converged(mf, "what is new about a molecule needs")
    if mf.mol.nelectron == 1 and "one-electron energy" in functional.built_in:
        return []
    features, mol = needed_features(mf, spin_densities(mf)), mf.mol
    elements = {mol.atom_pure_symbol(i) for i in range(mol.natm) if mol.atom_charge(i)}  # not those of ghost atoms
    density = density_descriptor(functional, features, torch.from_numpy(mf.grids.weights))
    try:
        return _reasons(elements, density, structure_descriptor(mol), functional.correlation_variables, known)
    except UNREADABLE as err:
        raise ModelFileError(f"the domain of {functional.name} is damaged ({err!r}): install the model again") from err


def _reasons(
    elements: set[str], density: np.ndarray, structure: np.ndarray, variables: Iterable[str], known: dict[str, Any]
) -> list[str]:
    missing = sorted(elements - set(known["elements"]))
    reasons = [f"{', '.join(missing)}: not among the elements of the training set"] if missing else []
    names = [f"{what} of {v}" for what in ("mean", "spread") for v in variables]
    numbered = [f"eigenvalue {i + 1}" for i in range(EIGENVALUES)]
    for kind, point, components in (("density", density, names), ("structure", structure, numbered)):
        cloud = known[kind]
        distance = _distance(cloud, point)
        if distance > cloud["limit"]:
            scores = (point - np.array(cloud["mean"])) / np.sqrt(np.diag(cloud["covariance"]))
            k = int(np.abs(scores).argmax())
            reasons.append(
                f"{kind} at a distance of {distance:.1f}, of the training set {SHARE:.0%} are within "
                f"{cloud['limit']:.1f}; most unusual: {components[k]} ({scores[k]:+.1f} standard deviations)"
            )
    return reasons
