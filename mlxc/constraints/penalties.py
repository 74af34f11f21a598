"""Exact conditions on the functional itself, as penalties for families in which they are not built in.

Each is made once, for functionals of any family, and gives a number that vanishes where the condition holds.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from pyscf import dft, gto

from mlxc.constraints.points import features_of_points, uniform_gas
from mlxc.constraints.uniform import exact
from mlxc.features import Features, GridMap
from mlxc.functional import Functional
from mlxc.ongrid import FULL_RANGE, RHO_MIN, Mixed, dense_features, features_at, spin_densities
from mlxc.reference import shipped
from mlxc.scf import solved
from mlxc.units import KCAL

#: One-electron systems of the shipped file, and the level of the grid that serves them.
ONE_ELECTRON, LEVEL = ("H", "He+", "H2+ R=1.057", "H2+ R=2.5", "H3 2+ linear R=0.9"), 2
#: The uniform gas: radii r_s and polarisations.
RADII, POLARISATIONS = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0), (0.0, 0.3, 0.7, 1.0)
#: Closed shells and distances from the nucleus (Bohr) where only their tail is left.
TAILS, DISTANCES = ("He", "Ne", "Ar"), np.linspace(6.0, 12.0, 13)
#: E_xc >= -LIEB_OXFORD int n^(4/3) for every density (Lewin, Lieb, Seiringer, Lett. Math. Phys. 112, 92 (2022)).
LIEB_OXFORD = 1.58


class OneElectron:
    """E_xc = -J of one electron: the mean square deviation, (kcal/mol)^2."""

    def __init__(self) -> None:
        library = shipped.load("one_electron")
        parts, weights, self.coulomb = [], [], []
        for reference in (library[name] for name in ONE_ELECTRON):
            mf = dft.UKS(reference.mole(), xc="r2scan")
            mf.grids.level = LEVEL
            mf.grids.build()
            features, w = dense_features(mf, np.asarray(reference.dm1))
            parts.append(features)
            weights.append(torch.from_numpy(w))
            self.coulomb.append(reference.energies["coulomb"])
        self.features, self.weights = Features.join(parts), weights

    def __call__(self, functional: Functional) -> torch.Tensor:
        energies = functional(self.features).split([len(w) for w in self.weights])
        errors = [w @ e + j for w, e, j in zip(self.weights, energies, self.coulomb, strict=True)]
        return (KCAL * torch.stack(errors)).square().mean()


class UniformGas:
    """E_xc of the uniform gas relative to that of Slater and PW92: the mean square deviation."""

    def __init__(self) -> None:
        rs, zeta = (x.ravel() for x in np.meshgrid(RADII, POLARISATIONS))
        self.features = features_of_points(FULL_RANGE, uniform_gas(rs, zeta))
        self.exact = exact(self.features)

    def __call__(self, functional: Functional) -> torch.Tensor:
        return (functional(self.features) / self.exact - 1).square().mean()


@cache
def _closed_shells(mixed: Mixed) -> list[tuple[dft.rks.RKS, Features]]:
    """Converged calculations of TAILS with r2SCAN, and features of their densities at DISTANCES."""
    found = []
    for symbol in TAILS:
        mf = dft.RKS(gto.M(atom=symbol, basis="def2-qzvppd", verbose=0), xc="r2scan")
        mf.grids.level = LEVEL
        mf = solved(mf)
        far = DISTANCES[:, None] * np.array([1.0, 2.0, 3.0]) / math.sqrt(14)
        found.append((mf, features_at(mf.mol, far, torch.from_numpy(spin_densities(mf)), mixed)))
    return found


class Tail:
    """The energy per volume of a density tail is -n / (2 r): the mean square relative deviation."""

    def __init__(self, mixed: Mixed = FULL_RANGE) -> None:
        tails = [far for _, far in _closed_shells(mixed)]
        self.features = Features.join(tails)
        self.exact = torch.cat([-far.total_rho / (2 * torch.from_numpy(DISTANCES)) for far in tails])

    def __call__(self, functional: Functional) -> torch.Tensor:
        return (functional(self.features) / self.exact - 1).square().mean()


class PotentialTail:
    """The potential on the highest orbital phi tends to -1 / r: the mean square deviation of its coefficient from 1.

    Of dE_xc / dphi nothing but exact exchange decays more slowly than phi.  With b = dE_xc / dex_s at each point,
    phi's exchange with itself gives - phi(r) [b(r) + int b |phi|^2] / (2 r) far out, times the sum of `mixed`.
    """

    def __init__(self, mixed: Mixed = FULL_RANGE) -> None:
        parts, weights = [], []
        for mf, far in _closed_shells(mixed):
            highest = torch.from_numpy(mf.mo_coeff[:, mf.mo_occ > 0][:, -1])
            inside = features_at(mf.mol, mf.grids.coords, torch.from_numpy(spin_densities(mf)), mixed)
            square = GridMap(mf.mol, mf.grids.coords, "LDA")(torch.outer(highest, highest)[None]).rho[0]
            parts += [inside, far]
            outside = (far.total_rho > RHO_MIN).double()
            weights.append(torch.cat([torch.from_numpy(mf.grids.weights) * square, outside / outside.sum()]) / 2)
        self.features, self.weights = Features.join(parts), weights
        self.mixed = sum(c for _, c in mixed)

    def coefficients(self, functional: Functional) -> torch.Tensor:
        """c of the potentials -c / r of TAILS, (len(TAILS),); differentiable."""
        f = self.features
        ex = f.exact_exchange.clone().requires_grad_()
        energy = functional(Features(f.rho, f.sigma, f.tau, ex)).sum()
        if not energy.requires_grad:
            return torch.zeros(len(TAILS), dtype=torch.float64)
        (b,) = torch.autograd.grad(energy, ex, create_graph=True, materialize_grads=True)
        b = b[0].split([len(w) for w in self.weights])
        return self.mixed * torch.stack([w @ x for w, x in zip(self.weights, b, strict=True)]) / f.multiplicity

    def __call__(self, functional: Functional) -> torch.Tensor:
        return (self.coefficients(functional) - 1).square().mean()


class LiebOxford:
    """What the energy per volume exceeds the Lieb-Oxford bound by, relative to it, at every point: the mean square."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.bound = LIEB_OXFORD * features.total_rho ** (4 / 3)

    def __call__(self, functional: Functional) -> torch.Tensor:
        return torch.relu(-functional(self.features) / self.bound - 1).square().mean()
