"""Energies of atoms between whole numbers of electrons, which exact functionals join by straight lines.

Perdew, Parr, Levy, Balduz, Phys. Rev. Lett. 49, 1691 (1982).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from pyscf.data.elements import charge
from pyscf.data.nist import HARTREE2EV

from mlxc.constraints.fractional import SECOND_ROW, THIRD_ROW, occupations_between
from mlxc.errors import InputError
from mlxc.geometry import make_mole
from mlxc.plots import figures
from mlxc.plots.saved import energy, header, listed, subjects
from mlxc.reference import shipped
from mlxc.reference.benchmark import System, make_system

STATES = {"": (0, 0)} | SECOND_ROW | THIRD_ROW
#: Atoms whose anions lose an electron of their own accord.
UNBOUND = ("He", "Be", "N", "Ne", "Mg", "Ar")
#: Shipped files with atoms and their ions.
FILES = ("one_electron", "two_electron", "atoms", "metal_atoms")


def exact(symbol: str) -> dict[int, float]:
    """The best energies in the reference data, Eh, of an atom and its ions by their number of electrons.

    The lowest where several are there: they are extrapolated to the limit of the basis or close to it from above.
    """
    found = {0: 0.0}
    for reference in (r for file in FILES for r in shipped.load(file).values()):
        best = reference.energies.get("best")
        if reference.symbols == (symbol,) and best is not None:
            found[reference.nelectron] = min(best, found.get(reference.nelectron, 0.0))
    return found


def _ion(symbol: str, state: tuple[int, int]) -> System:
    """An atom with so many electrons of each spin."""
    up, down = state
    return make_system(f"{symbol} N={up + down}", charge(symbol) - up - down, up - down + 1, [symbol], [(0, 0, 0)])


def compute(symbol: str, xcs: list[str], basis: str = "def2-tzvppd", points: int = 8) -> dict[str, Any]:
    """E(N) of an atom from its cation to itself and, where that is bound, to its anion, in `points` steps per electron.

    Whole numbers are ordinary calculations.  Ions have the ground states of the atoms with as many electrons.  Raises
    InputError and its kin for what cannot be done; energies of calculations that do not converge are null.
    """
    if not symbol or symbol not in STATES:
        raise InputError(f"E(N) is drawn of the atoms {', '.join(s for s in STATES if s)}, not of {symbol!r}")
    make_mole([(symbol, (0, 0, 0))], basis)  # refuses an unknown basis before anything is computed
    states = list(STATES.values())
    last = list(STATES).index(symbol)
    chain = states[last - 1 : last + (1 if symbol in UNBOUND else 2)]
    systems: list[tuple[float, System | None]] = []
    for fewer, more in pairwise(chain):
        systems.append((sum(fewer), _ion(symbol, fewer) if sum(fewer) else None))
        for share in np.arange(1, points) / points:
            number, whole = sum(fewer) + float(share), _ion(symbol, more)
            part = replace(
                whole, id=f"{symbol} N={number:.3f}", occupations=occupations_between(fewer, more, float(share))
            )
            systems.append((number, part))
    systems.append((sum(chain[-1]), _ion(symbol, chain[-1])))
    rows = []
    for subject, row in subjects(xcs):
        energies = [0.0 if system is None else energy(subject, system, basis) for _, system in systems]
        rows.append(row | {"converged": bool(np.isfinite(energies).all()), "energy_hartree": listed(energies)})
    known = {n: e for n, e in sorted(exact(symbol).items()) if sum(chain[0]) <= n <= sum(chain[-1])}
    return header("charge", basis) | {
        "symbol": symbol,
        "neutral": charge(symbol),
        "number": [n for n, _ in systems],
        "functionals": rows,
        "exact": {"number": list(known), "energy_hartree": list(known.values()), "source": "mlxc reference data"},
    }


def draw(content: dict[str, Any]) -> dict[str, Any]:
    """E(N) against the exact straight lines, and what bends away from the straight lines of each functional."""
    number, neutral = np.array(content["number"], dtype=float), content["neutral"]
    whole = number == np.round(number)
    figure = figures.figure(10.5, 4.4)
    figure.suptitle(f"{content['symbol']}: energies between whole numbers of electrons, {content['basis']}")
    left, right = figure.subplots(1, 2)
    known = dict(zip(content["exact"]["number"], content["exact"]["energy_hartree"], strict=True))
    if neutral in known and len(known) > 1:
        line = (np.array(list(known.values())) - known[neutral]) * HARTREE2EV
        left.plot(list(known), line, label="exact (reference data)", marker="o", **figures.EXACT)
    right.axhline(0, **figures.EXACT)
    for k, functional in enumerate(content["functionals"]):
        look = figures.line(k) | {"marker": "o", "markersize": figures.MARKER}
        energies = np.array(functional["energy_hartree"], dtype=float) * HARTREE2EV
        left.plot(number, energies - energies[number == neutral], label=functional["xc"], **look)
        straight = np.interp(number, number[whole], energies[whole])
        right.plot(number, energies - straight, **look)
    left.set(ylabel=f"$E(N) - E({neutral})$, eV")
    right.set(ylabel="$E(N)$ minus the straight line, eV")
    for axes in (left, right):
        axes.set(xlabel="number of electrons N", xticks=number[whole])
    left.legend()
    return {"": figure}
