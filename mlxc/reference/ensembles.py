"""References for fractional charges and spins, which follow exactly from those of integer ones.

Between integers the exact energy is a straight line (Perdew, Parr, Levy, Balduz, Phys. Rev. Lett. 49, 1691 (1982)) and
between the members of a spin multiplet a constant (Cohen, Mori-Sanchez, Yang, Science 321, 792 (2008)); the densities
are the same averages.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mlxc.errors import InputError
from mlxc.geometry import count_electrons
from mlxc.reference.methods import properties
from mlxc.reference.schema import Reference


def _average(name: str, parts: list[tuple[float, Reference]]) -> Reference:
    """The ensemble sum_k w_k parts_k, of systems that differ by charge and spin alone."""
    first = parts[0][1]
    for _, other in parts:
        if not other.converged:
            raise InputError(f"{other.name} has no density ({other.outcome}): no average with it")
        if not _alike(other, first):
            raise InputError(f"{first.name} and {other.name} are not in one basis at one geometry: build them so")
    shared = [k for k in ("best", "hf", "total") if all(k in r.energies for _, r in parts)]
    dm1 = np.asarray(sum(w * np.asarray(r.dm1) for w, r in parts))
    components, dipole, occupations = properties(first.mole(), dm1)
    return replace(
        first,
        name=name,
        dm1=dm1,
        energies={k: sum(w * r.energies[k] for w, r in parts) for k in shared} | components,
        dipole=dipole,
        natural_occupations=occupations,
        diagnostics={},
        provenance={"ensemble": {r.name: w for w, r in parts}},
    )


def _alike(one: Reference, other: Reference) -> bool:
    """Whether both are at one geometry, to 1e-8 Bohr, and in one basis."""
    return one.basis == other.basis and np.allclose(one.coords, other.coords, rtol=0, atol=1e-8)


def _nuclei(reference: Reference) -> Reference:
    """The same nuclei without electrons."""
    nuclear = reference.energies["nuclear"]
    return replace(
        reference,
        name=f"nuclei of {reference.name}",
        dm1=np.zeros_like(reference.dm1),
        energies=dict.fromkeys(("best", "hf", "total"), nuclear),
    )


def fractional_charge(library: dict[str, Reference], symbols: tuple[str, ...], nelectron: float) -> Reference:
    """The ensemble of `nelectron` electrons in all of the system with these nuclei, from its neighbours in `library`.

    `symbols` are those of its atoms in their order, ("H", "H") for H2.  Neighbours are at one geometry and in one
    basis.  Of several states with one number of electrons the lowest counts.
    Charge and spin of the result are those of the member with more electrons.  Raises InputError where a neighbour is
    missing.
    """
    lower, upper = math.floor(nelectron), math.ceil(nelectron)
    states = [r for r in library.values() if r.symbols == tuple(symbols) and r.converged]
    states.sort(key=lambda r: r.energies["total"])
    name, rest = "".join(symbols), upper - nelectron
    for more in (r for r in states if r.nelectron == upper):
        if not rest:
            return _average(f"{name} N={nelectron:g}", [(1.0, more)])
        fewer = [_nuclei(more)] if lower == 0 else [r for r in states if r.nelectron == lower and _alike(r, more)]
        if fewer:
            return _average(f"{name} N={nelectron:g}", [(1 - rest, more), (rest, fewer[0])])
    neutral = count_electrons(symbols)
    raise InputError(
        f"the library has no {name} with {lower} and {upper} electrons in one basis at one geometry; {nelectron:g} is "
        f"the number of all electrons, {neutral} where it is neutral"
    )


def fractional_spin(reference: Reference, polarisation: float) -> Reference:
    """The ensemble of a system and its mirror image in spin: 2S times `polarisation`, from -1 to 1, spins on average.

    Raises InputError for another polarisation.
    """
    if not -1 <= polarisation <= 1:
        raise InputError(f"a polarisation of {polarisation} is outside -1 ... 1")
    up = (1 + polarisation) / 2
    mixed = _average(f"{reference.name} spin={polarisation:g}", [(1.0, reference)])
    dm1 = np.asarray(mixed.dm1)
    provenance = {"ensemble": {reference.name: up, f"{reference.name} reversed": 1 - up}}
    return replace(mixed, dm1=up * dm1 + (1 - up) * dm1[::-1], provenance=provenance)
