"""What holds for whole molecules: no place, direction or order is special, and forces follow from energies."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import gto
from scipy.spatial.transform import Rotation

from mlxc.constraints.condition import Condition, Finding, worst
from mlxc.constraints.scaling import STEP
from mlxc.constraints.subject import Subject
from mlxc.geometry import gradient_method
from mlxc.units import KCAL

#: Symbols and coordinates (Bohr), spin.
WATER = (["O", "H", "H"], np.array([[0.0, 0.0, 0.0], [0.0, 1.43, 1.11], [0.0, -1.43, 1.11]]), 0)
AMIDOGEN = (["N", "H", "H"], np.array([[0.0, 0.0, 0.0], [0.0, 1.52, 1.19], [0.0, -1.52, 1.19]]), 1)
LITHIUM_HYDRIDE = (["Li", "H"], np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.02]]), 0)
BASIS, FAR = "def2-svp", 200.0
#: Step of numerical forces, Bohr.
DISPLACEMENT = 2e-3
MICROHARTREE = 1e6


def molecules(quick: bool) -> dict[str, tuple[list[str], np.ndarray, int]]:
    """A closed shell and an open one, of which a quick check has the first."""
    return {"H2O": WATER} if quick else {"H2O": WATER, "NH2": AMIDOGEN}


def mole(symbols: list[str], coords: np.ndarray, spin: int, basis: str = BASIS) -> gto.Mole:
    atoms = list(zip(symbols, coords, strict=True))
    return gto.M(atom=atoms, unit="Bohr", spin=spin, basis=basis, verbose=0)


def _energy(subject: Subject, symbols: list[str], coords: np.ndarray, spin: int, **settings: Any) -> float:
    mf = subject.solve(mole(symbols, coords, spin), **settings)
    return float(mf.e_tot) if mf.converged else np.nan


def _size(subject: Subject, quick: bool) -> Finding:
    cases = {}
    pairs = {"H2O ... LiH": (WATER, LITHIUM_HYDRIDE)} | ({} if quick else {"H2O ... NH2": (WATER, AMIDOGEN)})
    for name, (a, b) in pairs.items():
        far = b[1] + np.array([FAR, 0.0, 0.0])
        together = _energy(subject, a[0] + b[0], np.concatenate([a[1], far]), a[2] + b[2])
        cases[name] = (together - _energy(subject, *a) - _energy(subject, *b)) * KCAL
    return worst(cases)


def _rotation(subject: Subject, quick: bool) -> Finding:
    cases = {}
    for name, (symbols, coords, spin) in molecules(quick).items():
        still = _energy(subject, symbols, coords, spin)
        for seed in range(1 if quick else 3):
            turned = Rotation.random(rng=seed).apply(coords) + np.array([1.0, -2.0, 3.0])
            cases[f"{name} {seed + 1}"] = (_energy(subject, symbols, turned, spin) - still) * MICROHARTREE
    return worst(cases)


def _permutation(subject: Subject, quick: bool) -> Finding:
    cases = {}
    for name, (symbols, coords, spin) in molecules(quick).items():
        back = _energy(subject, symbols[::-1], coords[::-1], spin)
        cases[name] = (back - _energy(subject, symbols, coords, spin)) * MICROHARTREE
    return worst(cases)


def _scaled(symbol: str, gamma: float) -> gto.Mole:
    """An atom in even-tempered s and p functions, scaled by gamma: SCF energies in it are stationary to 1e-5 of |E|.

    With exponents further apart (1.9 in place of 1.6) those of neural functionals, whose potentials have structure on
    a shorter scale, are not (5e-5).
    """
    exponents = [0.02 * 1.6**k * gamma**2 for k in range(35)]
    basis = [[0, [e, 1]] for e in exponents] + [[1, [e, 1]] for e in exponents[:24]]
    return gto.M(atom=symbol, basis={symbol: basis}, verbose=0)


def _virial(subject: Subject, quick: bool) -> Finding:
    """dE[n_gamma]/dgamma at gamma = 1, from exponents scaled by gamma^2 with the orbitals held."""
    cases = {}
    for symbol in ("He",) if quick else ("He", "Be", "Ne"):
        mf = subject.solve(_scaled(symbol, 1.0), level=5)
        dm = mf.make_rdm1()
        up, down = (subject.unsolved(_scaled(symbol, 1 + k * STEP), level=5).energy_tot(dm=dm) for k in (1, -1))
        cases[symbol] = (up - down) / (2 * STEP) / abs(mf.e_tot) if mf.converged else np.nan
    return worst(cases)


def _force(subject: Subject, quick: bool) -> Finding:
    cases = {}
    for name, (symbols, coords, spin) in molecules(quick).items():
        mf = subject.solve(mole(symbols, coords, spin), conv_tol=1e-11)
        analytic = gradient_method(mf).kernel()[1, 2]
        ends = []
        for sign in (1, -1):
            moved = coords.copy()
            moved[1, 2] += sign * DISPLACEMENT
            ends.append(_energy(subject, symbols, moved, spin, conv_tol=1e-11))
        cases[name] = float(analytic - (ends[0] - ends[1]) / (2 * DISPLACEMENT)) if mf.converged else np.nan
    return worst(cases)


CONDITIONS = (
    Condition("size consistency", "systems", "E(A ... B) = E(A) + E(B)", "additivity of separate systems",
              f"SCF of H2O and LiH, H2O and NH2, {FAR:g} Bohr apart, def2-SVP", "kcal/mol", 0.01, _size),
    Condition("rotation and translation", "systems", "E does not change when a molecule moves or turns",
              "symmetry of space", "SCF on PySCF's default grid, H2O and NH2, def2-SVP; largest change", "uEh", 20.0,
              _rotation),
    Condition("permutation", "systems", "E does not depend on the order of atoms", "symmetry of the Hamiltonian",
              "SCF with atoms in reverse order, H2O and NH2, def2-SVP", "uEh", 1.0, _permutation),
    Condition("virial", "systems", "dE[n_gamma]/dgamma = 0 at gamma = 1 for atoms: E = -T - T_c",
              "Levy, Perdew, Phys. Rev. A 32, 2010 (1985)",
              "orbitals of an SCF with exponents scaled, He, Be, Ne in even-tempered functions; relative to |E|",
              "", 2e-5, _virial),
    Condition("forces", "systems", "F = -dE/dR", "Hellmann, Feynman; Pulay, Mol. Phys. 17, 197 (1969)",
              "analytic gradient with grid response against differences of SCF energies, H2O and NH2, def2-SVP",
              "Eh/Bohr", 2e-5, _force),
)  # fmt: skip
