"""The border between PySCF (numpy) and the functionals (torch): densities in, energies and their derivatives out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement, product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlxc.errors import InputError
from mlxc.features import Features

if TYPE_CHECKING:
    from mlxc.functional import Functional

MAX_DERIV = 3
#: Grid points differentiated at a time.  PySCF hands over at most 67200; torch uses its threads from 32768 on.
BLOCK = 70000
_VARIABLES = {"LDA": 1, "GGA": 2, "MGGA": 3}
#: Where the arrays without Laplacian stand among libxc's 4, 10 and 20 meta-GGA derivatives of order 1, 2 and 3.
_MGGA_SLOTS = {1: (0, 1, 3), 2: (0, 1, 2, 6, 9, 4), 3: (0, 1, 2, 3, 5, 7, 10, 12, 15, 19)}
_NROWS = {"LDA": 1, "GGA": 4, "MGGA": 5}


def variables(rho: np.ndarray, spin: int, xctype: str) -> torch.Tensor:
    """PySCF's density array as libxc's variables, (nvar, G).

    `rho` is ([2,] rows, G) with rows n, its gradient, (Laplacian,) tau.  The result has the rows
    (n, sigma, tau) for spin = 0 or (n_a, n_b, sigma_aa, sigma_ab, sigma_bb, tau_a, tau_b) for spin = 1,
    cut short for LDA and GGA.  Raises InputError where rows are missing.
    """
    array = np.asarray(rho, dtype=np.float64)
    channels = array.reshape(1 + spin, -1, array.shape[-1])
    if channels.shape[1] < _NROWS[xctype]:
        raise InputError(
            f"a {xctype} functional needs {_NROWS[xctype]} rows of density per spin, got {channels.shape[1]}: "
            f'register it as define_xc_(functional.eval_xc, "{xctype}")'
        )
    parts = [channels[:, 0]]
    if xctype != "LDA":
        grad = channels[:, 1:4]
        parts.append(
            np.stack([(grad[s] * grad[t]).sum(0) for s, t in combinations_with_replacement(range(1 + spin), 2)])
        )
    if xctype == "MGGA":
        parts.append(channels[:, -1])
    return torch.from_numpy(np.concatenate(parts))


def features_of(x: torch.Tensor, spin: int) -> Features:
    """libxc's variables, (nvar, G), as Features; missing rows are zero.

    Behind tau may stand the exact-exchange energy density, total for spin = 0 and per spin for spin = 1.
    """
    nspin, npair = (2, 3) if spin else (1, 1)
    zero = x.new_zeros(npair, x.shape[1])
    # A density matrix that is not positive makes slightly negative densities; they hold no energy, as zero ones.
    rho, sigma, tau, ex = torch.tensor_split(x, [nspin, nspin + npair, 2 * nspin + npair])
    rho = rho.clamp(min=0)
    sigma = sigma if len(sigma) else zero
    tau = tau if len(tau) else zero[:nspin]
    if spin:
        return Features(rho, sigma, tau, ex if len(ex) else None)
    # A restricted total is shared equally by two spin channels.
    return Features(rho / 2, sigma / 4, tau / 2, ex / 2 if len(ex) else None)


def semilocal_variables(functional: Functional, rho: np.ndarray, spin: int) -> torch.Tensor:
    """As `variables`; InputError for a local hybrid, which no density array of PySCF describes."""
    if functional.exx_omega is not None:
        raise InputError(
            f"{functional.name} is a local hybrid: SCF, its stability, second-order solvers, nuclear gradients, TDA, "
            "TDDFT and, with mlxc.hessian(mf), second derivatives are available, this property is not"
        )
    return variables(rho, spin, functional.xctype)


def _block_derivatives(energy: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, deriv: int) -> torch.Tensor:
    """Energy per volume and its unique partial derivatives up to `deriv`, one row each, (rows, G)."""
    x = x.clone().requires_grad_(deriv > 0)
    nvar = len(x)
    level: dict[tuple[int, ...], torch.Tensor] = {(): energy(x)}
    rows = [level[()].detach()]
    for order in range(1, deriv + 1):
        last = order == deriv
        following: dict[tuple[int, ...], torch.Tensor] = {}
        for index, value in level.items():
            if not value.requires_grad:
                gradient = torch.zeros_like(x)
            else:
                # Points are independent of each other: the gradient of the sum holds every point's own.
                (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=not last, retain_graph=True)
            for i in range(index[-1] if index else 0, nvar):
                following[(*index, i)] = gradient[i]
        rows += [following[k].detach() for k in sorted(following)]
        level = following
    return torch.stack(rows)


def derivatives(functional: Functional, x: torch.Tensor, spin: int, deriv: int) -> np.ndarray:
    """Energy per particle, then every unique partial derivative of the energy per volume up to order `deriv`.

    Rows are in lexicographic order of the variables, order by order (what PySCF calls the xcfun order).
    Raises InputError for deriv > 3.
    """
    n = x[: 1 + spin].clamp(min=0).sum(0)
    return derivatives_of(lambda b: functional.energy_density(features_of(b, spin)), x, n, deriv)


def derivatives_of(
    energy: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, n: torch.Tensor, deriv: int
) -> np.ndarray:
    """As `derivatives`, of an energy per volume as a function of any variables x (nvar, G); n (G,): total density."""
    if not 0 <= deriv <= MAX_DERIV:
        raise InputError(f"derivatives of order 0 to {MAX_DERIV} are available, not {deriv}")
    # Higher orders keep every intermediate of the lower ones.
    blocks = x.split(BLOCK // 4 ** max(deriv - 1, 0), dim=1)
    with torch.set_grad_enabled(deriv > 0):
        out = torch.cat([_block_derivatives(energy, b, deriv) for b in blocks], dim=1)
    out[0] = torch.where(n > 0, out[0] / torch.where(n > 0, n, 1.0), 0.0)
    return out.numpy()


def _libxc_groups(spin: int, xctype: str, order: int) -> list[list[tuple[int, ...]]]:
    """libxc's arrays of order-th derivatives (v2rho2, v2rhosigma, ...): the variables of each column."""
    blocks = [range(2), range(2, 5), range(5, 7)] if spin else [range(1), range(1, 2), range(2, 3)]
    blocks = blocks[: _VARIABLES[xctype]]
    counts = [c for c in product(range(order + 1), repeat=len(blocks)) if sum(c) == order]
    # libxc names the arrays without tau first, then goes by falling numbers of rho and of sigma.
    counts.sort(key=lambda c: (any(c[2:]), [-k for k in c]))
    return [
        [sum(p, ()) for p in product(*(combinations_with_replacement(b, k) for b, k in zip(blocks, c, strict=True)))]
        for c in counts
    ]


def eval_xc(functional: Functional, rho: np.ndarray, spin: int = 0, deriv: int = 1) -> tuple:
    """(exc, vxc, fxc, kxc) as `pyscf.dft.libxc.eval_xc` returns them; orders above `deriv` are None.

    For a meta-GGA the arrays that belong to the Laplacian are None: vxc is (vrho, vsigma, None, vtau).
    """
    spin = 1 if spin else 0
    x = semilocal_variables(functional, rho, spin)
    values = derivatives(functional, x, spin, deriv)
    out: list[Any] = [values[0]]
    start = 1
    for order in range(1, deriv + 1):
        index = {c: start + k for k, c in enumerate(combinations_with_replacement(range(len(x)), order))}
        start += len(index)
        groups = [values[[index[c] for c in g]] for g in _libxc_groups(spin, functional.xctype, order)]
        arrays = [np.ascontiguousarray(g.T) if spin else g[0] for g in groups]
        if functional.xctype == "MGGA":
            slots = _MGGA_SLOTS[order]
            arrays = [arrays[slots.index(k)] if k in slots else None for k in range(max(slots) + 1)]
        out.append(tuple(arrays))
    return (*out, *[None] * (MAX_DERIV - deriv))
