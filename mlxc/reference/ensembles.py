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
from mlxc.reference.methods import properties
from mlxc.reference.schema import Reference


def _average(name: str, parts: list[tuple[float, Reference]]) -> Reference:
    """The ensemble sum_k w_k parts_k, of systems that differ by charge and spin alone."""
    first = parts[0][1]
    for _, other in parts:
        if not other.converged:
            raise InputError(f"{other.name} has no density ({other.outcome}): no average with it")
        if other.basis != first.basis or not np.array_equal(other.coords, first.coords):
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
    """The ensemble of `nelectron` electrons of the system with these nuclei, from its neighbours in `library`.

    Of several states with one number of electrons the lowest counts.  Charge and spin of the result are those of the
    member with more electrons.  Raises InputError where a neighbour is missing.
    """
    lower, upper = math.floor(nelectron), math.ceil(nelectron)
    states = [r for r in library.values() if r.symbols == tuple(symbols) and r.converged]
    members = {r.nelectron: r for r in sorted(states, key=lambda r: -r.energies["total"])}
    if lower == 0 and upper in members:
        members[0] = _nuclei(members[upper])
    missing = {lower, upper} - members.keys()
    if missing:
        raise InputError(f"the library has no {''.join(symbols)} with {', '.join(map(str, missing))} electrons")
    rest = upper - nelectron
    parts = [(1 - rest, members[upper])] + ([(rest, members[lower])] if rest else [])
    return _average(f"{''.join(symbols)} N={nelectron:g}", parts)


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
