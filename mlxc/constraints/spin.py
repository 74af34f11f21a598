"""How spin enters: exchange of each spin by itself, and no direction that is special."""

from __future__ import annotations

import numpy as np
import torch

from mlxc.constraints.condition import Condition, Finding, exchange_apart, worst
from mlxc.constraints.fractional import MOLECULES
from mlxc.constraints.points import features_of_points, search
from mlxc.constraints.subject import Subject
from mlxc.features import Features
from mlxc.geometry import parse_atoms
from mlxc.reference.benchmark import make_system
from mlxc.units import KCAL

#: Closed shells, restricted and unrestricted.
CLOSED = {"H2O": MOLECULES["H2O"], "LiH": "Li 0 0 0; H 0 0 1.5957", "Be": "Be 0 0 0"}


def swapped(x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same points with both spins exchanged."""
    other = {"a": "b", "b": "a"}
    out = {f"{k[:-1]}{other[k[-1]]}" if k[-2:] in ("_a", "_b") else k: v for k, v in x.items()}
    return out | {"zeta": -x["zeta"]}


def doubled(features: Features, spin: int) -> Features:
    """The closed shell of density 2 n_s."""
    at = slice(spin, spin + 1)
    ex = None if features.ex is None else features.ex[at]
    return Features(features.rho[at], features.sigma[2 * spin : 2 * spin + 1], features.tau[at], ex)


def _scaling(subject: Subject, quick: bool) -> Finding:
    exchange_apart(subject)

    def violation(x: dict[str, np.ndarray]) -> torch.Tensor:
        f = features_of_points(subject.mixed, x)
        whole = subject.functional.parts(f)[0]
        halves = torch.stack([subject.functional.parts(doubled(f, s))[0] for s in (0, 1)])
        return (whole - halves.sum(0) / 2).abs() / (1e-30 + halves.abs().sum(0) / 2)

    return search(violation, quick)


def _swap(subject: Subject, quick: bool) -> Finding:
    def violation(x: dict[str, np.ndarray]) -> torch.Tensor:
        one, other = (subject.functional(features_of_points(subject.mixed, v)) for v in (x, swapped(x)))
        return (one - other).abs() / (one.abs() + other.abs() + 1e-30)

    return search(violation, quick)


def _closed_shell(subject: Subject, quick: bool) -> Finding:
    cases = {}
    for name, atoms in CLOSED.items():
        symbols, coords = zip(*parse_atoms(atoms), strict=True)
        system = make_system(name, 0, 1, symbols, coords)
        restricted = subject.solve(system.mole("def2-svp"))
        pairs = [1.0] * (restricted.mol.nelectron // 2)
        unrestricted = subject.solve(restricted.mol, (pairs, pairs))
        known = restricted.converged and unrestricted.converged
        cases[name] = (restricted.e_tot - unrestricted.e_tot) * KCAL if known else np.nan
    return worst(cases)


CONDITIONS = (
    Condition(
        "exchange spin scaling",
        "spin",
        "E_x[n_a, n_b] = (E_x[2 n_a] + E_x[2 n_b]) / 2",
        "Oliver, Perdew, Phys. Rev. A 20, 397 (1979)",
        "largest relative deviation of the exchange energy density at any point",
        "",
        1e-6,
        _scaling,
    ),
    Condition(
        "spin reversal",
        "spin",
        "E_xc[n_a, n_b] = E_xc[n_b, n_a]; for collinear spins every rotation is this one or none",
        "symmetry of the Hamiltonian",
        "largest relative deviation of the energy density at any point",
        "",
        1e-6,
        _swap,
    ),
    Condition(
        "closed shells",
        "spin",
        "a closed shell has one energy, calculated restricted or unrestricted",
        "symmetry of the Hamiltonian",
        "SCF of H2O, LiH and Be with equal occupations of both spins; largest difference",
        "kcal/mol",
        1e-3,
        _closed_shell,
    ),
)
