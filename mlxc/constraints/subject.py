"""Any functional, of libxc or of mlxc, as the conditions see it: a function of features, and calculations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from pyscf import dft, gto, scf

from mlxc import models
from mlxc.features import Features, GridMap
from mlxc.functional import Functional
from mlxc.libxc import LibxcFunctional
from mlxc.ongrid import Mixed, exchange_at, spin_densities
from mlxc.properties import highest_occupied
from mlxc.reference import shipped
from mlxc.reference.benchmark import System
from mlxc.scf import KS, attach, converge, fractional, solved

#: Convergence of energies, Eh, and the grid of all calculations that do not say otherwise.
CONV_TOL, LEVEL = 1e-9, 3
#: Of the grid for VV10, which costs far more on the other one and changes energies by less than 1e-6 Eh.
NLC_LEVEL = 1


@dataclass(frozen=True, eq=False)
class Density:
    """A known density on a grid.

    coords   (G, 3) Bohr; weights (G,)
    dms      (2, nao, nao), spin density matrices
    coulomb  1/2 int int n n / r, Eh
    auxbasis for fitted exchange, where the default does not serve
    """

    name: str
    mol: gto.Mole
    coords: np.ndarray
    weights: np.ndarray
    dms: np.ndarray
    coulomb: float
    auxbasis: Any = None


def on_grid(
    name: str, mol: gto.Mole, dms: np.ndarray, level: int = LEVEL, auxbasis: Any = None, coulomb: float | None = None
) -> Density:
    """The density of spin density matrices (2, nao, nao) on PySCF's grid of this level; `coulomb` where it is known."""
    grids = dft.gen_grid.Grids(mol)
    grids.level = level
    grids.build()
    if coulomb is None:
        total = dms.sum(0)
        coulomb = 0.5 * float(np.einsum("mn,mn->", scf.hf.get_jk(mol, total, with_k=False)[0], total))
    return Density(name, mol, grids.coords, np.asarray(grids.weights), dms, coulomb, auxbasis)


@cache
def one_electron(name: str) -> Density:
    """The exact density of one of the shipped systems of one electron."""
    reference = shipped.load("one_electron")[name]
    return on_grid(name, reference.mole(), np.asarray(reference.dm1), coulomb=reference.energies["coulomb"])


@cache
def determinant(file: str, name: str) -> Density:
    """The Hartree-Fock density of a shipped system, restricted where its spin allows: one determinant's, like all those
    of which exchange and correlation functionals are functions through orbitals.
    """
    mol = shipped.load(file)[name].mole()
    mf = solved(scf.RHF(mol) if mol.spin == 0 else scf.UHF(mol))
    return on_grid(name, mol, np.asarray(spin_densities(mf)) if mol.spin else np.repeat(spin_densities(mf), 2, axis=0))


@cache
def _semilocal(density: Density) -> Features:
    return GridMap(density.mol, density.coords)(torch.from_numpy(density.dms))


@cache
def _exchange(density: Density, omega: float) -> torch.Tensor:
    return exchange_at(density.mol, density.coords, torch.from_numpy(density.dms), omega)


@cache
def _exchange_energy(density: Density, omega: float) -> float:
    """Exact exchange energy with erf(omega r) / r, or 1 / r where omega is 0, Eh."""
    k = scf.hf.get_jk(density.mol, density.dms, with_j=False, omega=omega or None)[1]
    return -0.5 * float(np.einsum("smn,smn->", k, density.dms))


class Subject:
    """A functional under examination.

    name, functional  the latter a function of Features for every functional; PySCF's calculations take `xc`
    """

    def __init__(self, xc: str | Functional):
        found = models.resolve(xc)
        self.functional: Functional = found or LibxcFunctional(str(xc))
        self.xc = found or xc
        self.name = self.functional.name
        self._solved: dict[tuple[str, str, bool], tuple[float, float]] = {}

    @property
    def ours(self) -> bool:
        """Whether it is a functional of mlxc."""
        return not isinstance(self.functional, LibxcFunctional)

    @property
    def mixed(self) -> Mixed:
        """What exact exchange the functional takes as `Features.ex` (`mlxc.ongrid.features_at`)."""
        if isinstance(self.functional, LibxcFunctional):
            return self.functional.mixed
        omega = self.functional.exx_omega
        return () if omega is None else ((omega, 1.0),)

    @property
    def with_nonlocal(self) -> bool:
        """Whether VV10 belongs to the functional, which `functional` leaves out."""
        return isinstance(self.functional, LibxcFunctional) and self.functional.with_nonlocal

    def features(self, density: Density, gamma: float = 1.0) -> Features:
        """Features of the density n_gamma(r) = gamma^3 n(gamma r) at the points coords / gamma."""
        f = _semilocal(density)
        ex = None
        if self.mixed:
            parts = [c * _exchange(density, omega / gamma) for omega, c in self.mixed]
            ex = gamma**4 * torch.stack(parts).sum(0)
        return Features(gamma**3 * f.rho, gamma**8 * f.sigma, gamma**5 * f.tau, ex)

    def integrals(self, density: Density, gamma: float = 1.0) -> tuple[float, float]:
        """E_x and E_c of n_gamma, Eh, without VV10.  Raises InputError where the functional has them in one piece."""
        w = torch.from_numpy(density.weights) / gamma**3
        with torch.no_grad():
            return tuple(float(w @ e) for e in self.functional.parts(self.features(density, gamma)))  # type: ignore[return-value]

    def energy_xc(self, density: Density) -> float:
        """E_xc, Eh, as PySCF's calculations have it: with VV10 and with exact exchange from its own integrals."""
        mf = attach(density.mol.UKS(), self.xc)
        if density.auxbasis and self.functional.exx_omega is not None:
            mf = mf.density_fit(density.auxbasis)
        mf.grids.level, mf.nlcgrids.level = LEVEL, NLC_LEVEL
        mf.initialize_grids(density.mol, density.dms)
        energy = float(mf._numint.nr_uks(density.mol, mf.grids, mf.xc, density.dms)[1])
        if self.with_nonlocal:
            energy += float(mf._numint.nr_nlc_vxc(density.mol, mf.nlcgrids, mf.xc, density.dms.sum(0))[1])
        if isinstance(self.functional, LibxcFunctional):  # the integrals of local hybrids are part of nr_uks
            energy += sum(c * _exchange_energy(density, omega) for omega, c in self.mixed)
        return energy

    def solve(self, mol: gto.Mole, occupations: Any = None, level: int = LEVEL, **settings: Any) -> Any:
        """A calculation that has been carried to convergence as far as mlxc can: look at its `converged`."""
        mf = fractional(mol, occupations, self.xc) if occupations else self.unsolved(mol)
        mf.grids.level, mf.nlcgrids.level = level, NLC_LEVEL
        mf.conv_tol = CONV_TOL
        for name, value in settings.items():
            setattr(mf, name, value)
        return converge(mf)

    def unsolved(self, mol: gto.Mole, level: int = LEVEL) -> Any:
        """A calculation with PySCF's settings that has not been run."""
        mf = KS(mol, self.xc)
        mf.grids.level, mf.nlcgrids.level = level, NLC_LEVEL
        return mf

    def energy(self, system: System, basis: str, symmetry: bool = False) -> float:
        """Self-consistent energy, Eh, nan where the SCF does not converge; worked out once.

        With `symmetry` orbitals keep that of the molecule, and with it electrons that two far atoms share.
        """
        return self._known(system, basis, symmetry)[0]

    def highest_orbital(self, system: System, basis: str) -> float:
        """Energy of the highest occupied orbital of the same calculation, Eh."""
        return self._known(system, basis, False)[1]

    def _known(self, system: System, basis: str, symmetry: bool) -> tuple[float, float]:
        key = (system.key, basis, symmetry)
        if key not in self._solved:
            mf = self.solve(system.mole(basis, symmetry), system.occupations)
            self._solved[key] = (float(mf.e_tot), highest_occupied(mf)) if mf.converged else (np.nan, np.nan)
        return self._solved[key]
