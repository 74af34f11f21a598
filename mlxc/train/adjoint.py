"""Derivatives of self-consistent results with respect to a functional's parameters, without differentiating the SCF.

At self-consistency the energy is stationary: dE/dtheta is the partial derivative of E_xc at the density as it is.  What
depends on the density matrix D or on orbital energies e_p otherwise, L(D, e), takes one linear-response solve (the
Z-vector method, Handy, Schaefer, J. Chem. Phys. 81, 5031 (1984)).  A change dV of the potential turns orbitals p and q
of occupations n_p != n_q into each other; with y_pq = (n_q - n_p) U_pq for pairs p > q,

    M y = -dV_pq,   (M y)_pq = (e_p - e_q) / (n_q - n_p) y_pq + (K[D1])_pq,   D1 = sum_pq y_pq (C_p C_q^T + C_q C_p^T),

where K is what `mf.gen_response` gives, and de_p = (dV + K[D1])_pp.  With G = dL/dD, W = sum_p dL/de_p C_p C_p^T and M
symmetric, z = -M^-1 [2 (G + K[W])]_pq gives dL/dtheta = tr(Z dV/dtheta) with
Z = W + 1/2 sum_pq z_pq (C_p C_q^T + C_q C_p^T): one more partial derivative of E_xc, along Z.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, minres

from mlxc.errors import ConvergenceError, InputError
from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.ongrid import blocks, functional_of, needed_features, spin_densities

#: Residual of the Z-vector equations, relative to their right-hand side, and the most iterations.
TOLERANCE, MAX_ITERATIONS = 1e-9, 300
#: Occupations closer than this are equal: such orbitals turn into each other without a change of D.
SAME_OCCUPATION = 1e-8


def parameters_of(functional: Functional) -> list[torch.nn.Parameter]:
    """What is trained, in the order of the gradients of this module.  InputError for a functional without any."""
    parameters = [p for p in functional.parameters() if p.requires_grad]
    if not parameters:
        raise InputError(f"{functional.name} has no parameters to train: functional.requires_grad_(True)")
    return parameters


def energy_gradient(mf: Any) -> torch.Tensor:
    """dE/dtheta (P,), Eh, of a converged calculation with a functional of mlxc."""
    functional, features = functional_of(mf), needed_features(mf, spin_densities(mf))
    return _accumulated(functional, (w @ functional(f) for f, w in blocks(mf.grids.weights, features)))


def _accumulated(functional: Functional, values: Iterable[torch.Tensor]) -> torch.Tensor:
    """Sum of the gradients (P,) of scalars, each of which is let go before the next is made."""
    parameters = parameters_of(functional)
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for value in values:
        grads = torch.autograd.grad(value, parameters, allow_unused=True)
        total += torch.cat(
            [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, grads, strict=True)]
        )
    return total


def potential_gradient(mf: Any, direction: np.ndarray) -> torch.Tensor:
    """d/dtheta (P,) of sum_s tr(direction_s V_s) for symmetric matrices (S, nao, nao) and the potentials V_s of `mf`.

    Features are quadratic in the density matrix at most, so that differences are their exact derivatives.
    """
    functional, dms = functional_of(mf), spin_densities(mf)
    direction = direction / (3 - len(dms))  # a restricted channel has half of any change
    size = abs(direction).max()
    if size == 0:
        return torch.zeros(sum(p.numel() for p in parameters_of(functional)), dtype=torch.float64)
    step = abs(dms).max() / size
    here, up, down = (needed_features(mf, dms + h * direction) for h in (0, step, -step))

    def slopes() -> Iterable[torch.Tensor]:
        for f, f_up, f_down, w in blocks(mf.grids.weights, here, up, down):
            names = [k for k in ("rho", "sigma", "tau", "ex") if getattr(f, k) is not None]
            leaves = {k: getattr(f, k).clone().requires_grad_() for k in names}
            energy = w @ functional(Features(**leaves))
            potentials = torch.autograd.grad(energy, list(leaves.values()), create_graph=True, allow_unused=True)
            changes = [(getattr(f_up, k) - getattr(f_down, k)) / (2 * step) for k in names]
            yield sum((v * c).sum() for v, c in zip(potentials, changes, strict=True) if v is not None)

    return _accumulated(functional, slopes())


def response_gradient(
    mf: Any, density: np.ndarray | None = None, orbital_energies: np.ndarray | None = None
) -> torch.Tensor:
    """dL/dtheta (P,) of L(D, e) at a converged calculation with a functional of mlxc.

    Parameters
    ----------
    density : dL/dD, symmetric, in the shape of `mf.make_rdm1()`
    orbital_energies : dL/de in the shape of `mf.mo_energy`, zero for unoccupied orbitals

    Raises InputError for energies of unoccupied orbitals, which the response of local hybrids does not know, and for
    restricted open shells, ConvergenceError where the equations do not converge.
    """
    if orbital_energies is not None and np.any(orbital_energies * (np.asarray(mf.mo_occ) == 0)):
        raise InputError("gradients of the energies of unoccupied orbitals are not available")
    return potential_gradient(mf, z_matrix(mf, density, orbital_energies))


def z_matrix(mf: Any, density: np.ndarray | None, orbital_energies: np.ndarray | None) -> np.ndarray:
    """Z (S, nao, nao), for which dL/dtheta = sum_s tr(Z_s dV_s/dtheta).  Raises InputError, ConvergenceError."""
    shape = np.shape(mf.make_rdm1())
    restricted, nspin = len(shape) == 2, int(np.prod(shape[:-2]))
    if np.ndim(mf.mo_coeff) != len(shape):
        raise InputError("restricted open shells have no Z-vector equations here: train with UKS")
    electrons = 2 if restricted else 1
    orbitals = np.reshape(mf.mo_coeff, (nspin, shape[-1], -1))
    energies = np.reshape(mf.mo_energy, (nspin, -1))
    occupations = np.reshape(mf.mo_occ, (nspin, -1)) / electrons
    #: Spin and numbers of the orbitals of every pair.
    s, p, q = np.nonzero(np.tril(abs(occupations[:, :, None] - occupations[:, None]) > SAME_OCCUPATION))
    gaps = (energies[s, p] - energies[s, q]) / (occupations[s, q] - occupations[s, p])
    kernel = mf.gen_response(hermi=1)

    def matrix(y: np.ndarray) -> np.ndarray:
        """sum_pq y_pq (C_p C_q^T + C_q C_p^T) of each spin, (S, nao, nao)."""
        half = np.zeros((nspin, *energies.shape[1:] * 2))
        half[s, p, q] = y
        return orbitals @ (half + half.swapaxes(1, 2)) @ orbitals.swapaxes(1, 2)

    def elements(operators: np.ndarray) -> np.ndarray:
        """Matrix elements between the pairs of orbitals, of operators of the shape of the density matrix."""
        return (orbitals.swapaxes(1, 2) @ operators.reshape(-1, *shape[-2:]) @ orbitals)[s, p, q]

    def stability(x: np.ndarray) -> np.ndarray:
        """scale M scale x."""
        y = scale * x.ravel()
        return scale * (gaps * y + elements(kernel(electrons * matrix(y).reshape(shape))))

    weights, right = np.zeros(shape), np.zeros(shape) if density is None else np.asarray(density)
    if orbital_energies is not None:
        slopes = np.reshape(orbital_energies, (nspin, 1, -1))
        weights = ((orbitals * slopes) @ orbitals.swapaxes(1, 2)).reshape(shape)
        right = right + kernel(weights)
    scale = 1 / np.sqrt(abs(gaps))  # close to unity is what remains
    x, failed = minres(
        LinearOperator((len(gaps), len(gaps)), stability, dtype=float),
        -2 * electrons * scale * elements(right),
        rtol=TOLERANCE,
        maxiter=MAX_ITERATIONS,
    )
    if failed:
        raise ConvergenceError("the Z-vector equations do not converge: the SCF solution may not be stable")
    return weights.reshape(nspin, *shape[-2:]) + 0.5 * matrix(scale * x)
