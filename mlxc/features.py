"""What a functional sees at each grid point, and the map that makes it from a density matrix.

Units are Hartree atomic units throughout.

The spin dimension S is 2, or 1 for a restricted density.  With S = 1 the single channel is the alpha
density, and beta equals it; every total therefore carries the factor `multiplicity` = 2 / S.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from pyscf import gto

from mlxc.errors import InputError

#: What each PySCF functional type needs, and the AO derivative order that it costs.
AO_DERIVATIVE_ORDER = {"LDA": 0, "GGA": 1, "MGGA": 1}


@dataclass(frozen=True)
class Features:
    """Densities per spin channel on G grid points (torch, float64).

    rho    (S, G)            electron density n_s, Bohr^-3
    sigma  (S(S+1)/2, G)     grad n_s . grad n_s' for (aa) or (aa, ab, bb), Bohr^-8
    tau    (S, G)            kinetic energy density 1/2 sum_i |grad phi_i|^2, Eh Bohr^-3
    ex     (S, G)            exact-exchange energy density (mlxc.exx), Eh Bohr^-3; None for a semilocal functional
    """

    rho: torch.Tensor
    sigma: torch.Tensor
    tau: torch.Tensor
    ex: torch.Tensor | None = None

    @classmethod
    def join(cls, parts: list[Features]) -> Features:
        """The points of all parts, one after the other."""

        def joined(name: str) -> torch.Tensor:
            return torch.cat([getattr(p, name) for p in parts], dim=1)

        ex = None if parts[0].ex is None else joined("ex")
        return cls(joined("rho"), joined("sigma"), joined("tau"), ex)

    def at(self, points: slice | torch.Tensor) -> Features:
        """Some of the points: a slice, indices or a mask."""
        ex = None if self.ex is None else self.ex[:, points]
        return Features(self.rho[:, points], self.sigma[:, points], self.tau[:, points], ex)

    @property
    def multiplicity(self) -> int:
        """How many spin channels each stored channel stands for."""
        return 2 // self.rho.shape[0]

    @property
    def exact_exchange(self) -> torch.Tensor:
        """`ex`, (S, G); InputError where it was not computed."""
        if self.ex is None:
            raise InputError(
                "a local hybrid needs the exact-exchange energy density: integrate it with mlxc.attach(mf)"
            )
        return self.ex

    @property
    def sigma_same(self) -> torch.Tensor:
        """|grad n_s|^2 per channel, (S, G)."""
        return self.sigma if self.multiplicity == 2 else self.sigma[::2]

    @property
    def total_rho(self) -> torch.Tensor:
        """Total density, (G,)."""
        return self.multiplicity * self.rho.sum(0)

    @property
    def total_sigma(self) -> torch.Tensor:
        """|grad n|^2 of the total density, (G,)."""
        if self.multiplicity == 2:
            return 4 * self.sigma[0]
        return self.sigma[0] + 2 * self.sigma[1] + self.sigma[2]

    @property
    def total_tau(self) -> torch.Tensor:
        """Total kinetic energy density, (G,)."""
        return self.multiplicity * self.tau.sum(0)


class GridMap:
    """The map D -> Features on fixed grid points, which torch differentiates.

    Parameters
    ----------
    mol : pyscf.gto.Mole
    coords : (G, 3) grid points in Bohr
    xctype : "LDA", "GGA" or "MGGA": what the functional declares; decides the AO derivative order.

    One instance holds the AO values of its points: map a large grid in blocks.
    """

    def __init__(self, mol: gto.Mole, coords: np.ndarray, xctype: str = "MGGA"):
        order = AO_DERIVATIVE_ORDER[xctype]
        ao = mol.eval_gto(f"GTOval_sph_deriv{order}" if not mol.cart else f"GTOval_cart_deriv{order}", coords)
        ao = ao.reshape(-1, len(coords), mol.nao)
        self.ao = torch.from_numpy(np.ascontiguousarray(ao))
        self.xctype = xctype

    def _gradient(self, half: torch.Tensor) -> torch.Tensor:
        return 2 * torch.einsum("xgm,sgm->sxg", self.ao[1:], half)

    def __call__(self, dm: torch.Tensor) -> Features:
        """Features of spin density matrices dm (S, nao, nao), Hermitian."""
        spins = range(len(dm))
        half = self.ao[0] @ dm
        rho = torch.einsum("gm,sgm->sg", self.ao[0], half)
        pairs = list(combinations_with_replacement(spins, 2))
        sigma, tau = rho.new_zeros(len(pairs), rho.shape[1]), torch.zeros_like(rho)
        if self.xctype != "LDA":
            grad = self._gradient(half)
            sigma = torch.stack([(grad[s] * grad[t]).sum(0) for s, t in pairs])
        if self.xctype == "MGGA":
            tau = 0.5 * torch.stack([torch.einsum("xgm,xgm->g", self.ao[1:] @ d, self.ao[1:]) for d in dm])
        return Features(rho, sigma, tau)
