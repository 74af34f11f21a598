"""Total energies of species at cached densities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from mlxc.analytic import R2SCAN
from mlxc.dispersion import d4_energy
from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.reference.benchmark import System
from mlxc.train.cache import attribute, read_molecule


def correction(functional: Functional, features: Features, weights: torch.Tensor) -> torch.Tensor:
    """E_xc - E_xc^r2SCAN at the fixed density on the full grid, () Eh."""
    return weights @ (functional(features) - R2SCAN()(features))


class FixedDensities:
    """Total energies of species at cached densities: of r2SCAN and of other functionals."""

    def __init__(self, species: list[System], cache: Path):
        self.species = species
        self.paths = [cache / f"{s.key}.h5" for s in species]
        there = [p.exists() and bool(attribute(p, "converged")) for p in self.paths]
        #: Species whose densities are there and converged, (M,).
        self.known = torch.tensor(there)
        e_r2scan, gains = (
            torch.tensor(
                [float(attribute(p, k)) if t else 0.0 for p, t in zip(self.paths, there, strict=True)],
                dtype=torch.float64,
            )
            for k in ("e_r2scan", "limit_gain")
        )
        #: In the basis of the limit, (M,) Eh.
        self.e_r2scan = e_r2scan + gains
        #: What energies of r2SCAN, and nearly those of any functional, gain in the basis of the limit, (M,) Eh.
        self.gains = gains

    def molecules(self, part: slice = slice(None)) -> Iterator[tuple[Features, torch.Tensor]]:
        """Features and weights of the known species, or some of them."""
        return (read_molecule(self.paths[i]) for i in self.known.nonzero()[part, 0].tolist())

    def dispersion(self, functional: Functional) -> torch.Tensor:
        """What the D4 of a functional adds to the known energies, (M,) Eh.  Raises InputError."""
        energies = torch.zeros_like(self.e_r2scan)
        if functional.disp:
            for i in self.known.nonzero()[:, 0].tolist():
                energies[i] = d4_energy(self.species[i].mole("sto-3g"), functional.disp.removeprefix("d4:"))
        return energies

    def full_grid(self, functional: Functional) -> torch.Tensor:
        """Total energies of a functional with its D4, (M,) Eh, on all points; zero where they are not known."""
        energies = self.e_r2scan + self.dispersion(functional)
        for i in self.known.nonzero()[:, 0].tolist():
            with torch.no_grad():
                energies[i] += correction(functional, *read_molecule(self.paths[i]))
        return energies
