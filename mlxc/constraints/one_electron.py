"""Densities of one electron, whose exchange cancels their Coulomb energy and which have no correlation."""

from __future__ import annotations

from functools import cache

import numpy as np
from pyscf import gto, scf

from mlxc.constraints.condition import Condition, Finding, correlation_apart, worst
from mlxc.constraints.subject import LEVEL, Density, Subject, on_grid, one_electron
from mlxc.reference import shipped
from mlxc.units import KCAL

#: Systems with --quick.
QUICK = ("H", "He+", "H2+ R=4.0")
BASIS = "unc-def2-qzvpp"
#: Hydrogenic orbitals of Li2+, which PySCF's radial grids hold: angular momentum, and place among those of it.
STATES = {"2s": (0, 1), "2p": (1, 0), "3d": (2, 0)}
SELF_INTERACTION = "Perdew, Zunger, Phys. Rev. B 23, 5048 (1981)"


def _systems(quick: bool) -> list[str]:
    names = list(shipped.load("one_electron"))
    return [n for n in names if not quick or n in QUICK]


@cache
def hydrogenic(name: str) -> Density:
    """The density of an orbital of Li2+, spin up, in even-tempered functions."""
    angular, place = STATES[name]
    basis = [[angular, [0.04 * 2.0**k, 1]] for k in range(16)]
    mol = gto.M(atom="Li", charge=2, spin=1, basis={"Li": basis}, verbose=0)
    orbitals = scf.hf.eig(scf.hf.get_hcore(mol), mol.intor("int1e_ovlp"))[1]
    orbital = orbitals[:, place * (2 * angular + 1)]
    dm = np.outer(orbital, orbital)
    products = [[k, [0.08 * 2.0**i, 1]] for k in range(0, 2 * angular + 1, 2) for i in range(16)]
    return on_grid(name, mol, np.array([dm, 0 * dm]), 2 * LEVEL, {"Li": products})


def _energy(subject: Subject, quick: bool) -> Finding:
    densities = [one_electron(name) for name in _systems(quick)]
    return worst({d.name: (subject.energy_xc(d) + d.coulomb) * KCAL for d in densities})


def _excited(subject: Subject, quick: bool) -> Finding:
    densities = [hydrogenic(name) for name in STATES]
    return worst({d.name: (subject.energy_xc(d) + d.coulomb) * KCAL for d in densities})


def _correlation(subject: Subject, quick: bool) -> Finding:
    correlation_apart(subject)
    densities = [one_electron(name) for name in _systems(quick)]
    return worst({d.name: subject.integrals(d)[1] * KCAL for d in densities})


def _self_consistent(subject: Subject, quick: bool) -> Finding:
    cases = {}
    for name in _systems(quick):
        mol = shipped.load("one_electron")[name].mole()
        mol.build(basis=BASIS)
        exact = scf.hf.eig(scf.hf.get_hcore(mol), mol.intor("int1e_ovlp"))[0][0] + mol.energy_nuc()
        mf = subject.solve(mol)
        cases[name] = (mf.e_tot - exact) * KCAL if mf.converged else np.nan
    return worst(cases)


CONDITIONS = (
    Condition(
        "one-electron energy",
        "one electron",
        "E_xc[n] = -J[n] for every density of one electron",
        SELF_INTERACTION,
        "exact densities of H ... F8+, H2+ from 0.5 to 10 Angstrom and H3 2+; largest deviation",
        "kcal/mol",
        0.05,
        _energy,
    ),
    Condition(
        "one-electron excited states",
        "one electron",
        "E_xc[n] = -J[n] for every density of one electron, those with nodes among them",
        SELF_INTERACTION,
        "2s, 2p and 3d densities of Li2+; largest deviation",
        "kcal/mol",
        0.05,
        _excited,
    ),
    Condition(
        "one-electron correlation",
        "one electron",
        "E_c[n] = 0 for every density of one electron",
        SELF_INTERACTION,
        "the same densities",
        "kcal/mol",
        0.01,
        _correlation,
    ),
    Condition(
        "one-electron self-consistency",
        "one electron",
        "the self-consistent energy of one electron is that of Hartree-Fock",
        SELF_INTERACTION,
        f"unrestricted SCF of the same systems, {BASIS}; largest deviation",
        "kcal/mol",
        0.05,
        _self_consistent,
    ),
)
