"""Exact conditions on the functional itself, as penalties for families in which they are not built in.

Each is made once, for functionals of any family, and gives a number that vanishes where the condition holds.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pyscf import dft, gto

from mlxc.analytic import LDA_X, Total, pw92
from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.reference import shipped
from mlxc.train.cache import features_at, features_on_grid
from mlxc.units import KCAL

#: One-electron systems of the shipped file, and the level of the grid that serves them.
ONE_ELECTRON, LEVEL = ("H", "He+", "H2+ R=1.057", "H2+ R=2.5", "H3 2+ linear R=0.9"), 2
#: The uniform gas: radii r_s and polarisations.
RADII, POLARISATIONS = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0), (0.0, 0.3, 0.7, 1.0)
#: Closed shells and distances from the nucleus (Bohr) where only their tail is left.
TAILS, DISTANCES = ("He", "Ne", "Ar"), np.linspace(6.0, 12.0, 13)
#: E_xc >= -LIEB_OXFORD int n^(4/3) for every density (Lewin, Lieb, Seiringer, arXiv:2203.12473).
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
            features, w = features_on_grid(mf, np.asarray(reference.dm1))
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
        n = 3 / (4 * np.pi * rs**3)
        spins = torch.from_numpy(np.array([n * (1 + zeta) / 2, n * (1 - zeta) / 2]))
        tau = 0.3 * (6 * math.pi**2) ** (2 / 3) * spins ** (5 / 3)
        exchange = 0.5 * LDA_X * (2 * spins) ** (4 / 3)
        self.features = Features(spins, torch.zeros(3, len(n), dtype=torch.float64), tau, exchange)
        self.exact = exchange.sum(0) + spins.sum(0) * pw92(Total(self.features))[0]

    def __call__(self, functional: Functional) -> torch.Tensor:
        return (functional(self.features) / self.exact - 1).square().mean()


class Tail:
    """The energy per volume of a density tail is -n / (2 r): the mean square relative deviation."""

    def __init__(self) -> None:
        parts, exact = [], []
        for symbol in TAILS:
            mol = gto.M(atom=symbol, basis="def2-qzvppd", verbose=0)
            dm = torch.from_numpy(dft.RKS(mol, xc="r2scan").run().make_rdm1()[None] / 2)
            features = features_at(mol, DISTANCES[:, None] * np.array([1.0, 2.0, 3.0]) / math.sqrt(14), dm)
            parts.append(features)
            exact.append(-features.total_rho / (2 * torch.from_numpy(DISTANCES)))
        self.features, self.exact = Features.join(parts), torch.cat(exact)

    def __call__(self, functional: Functional) -> torch.Tensor:
        return (functional(self.features) / self.exact - 1).square().mean()


class LiebOxford:
    """What the energy per volume exceeds the Lieb-Oxford bound by, relative to it, at every point: the mean square."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.bound = LIEB_OXFORD * features.total_rho ** (4 / 3)

    def __call__(self, functional: Functional) -> torch.Tensor:
        return torch.relu(-functional(self.features) / self.bound - 1).square().mean()
