"""Far from a molecule: energy densities, potentials, and the orbital that reaches farthest."""

from __future__ import annotations

import numpy as np
import torch
from pyscf.data.nist import HARTREE2EV

from mlxc.constraints.condition import Condition, Curve, Finding, worst
from mlxc.constraints.fractional import MOLECULES, SECOND_ROW, THIRD_ROW, atom, molecule
from mlxc.constraints.penalties import DISTANCES, TAILS, PotentialTail, Tail
from mlxc.constraints.self_interaction import BASIS, QUICK
from mlxc.constraints.subject import Subject


def _energy_density(subject: Subject, quick: bool) -> Finding:
    tail = Tail(subject.mixed)
    with torch.no_grad():
        ratios = (subject.functional(tail.features) / tail.exact).reshape(len(TAILS), -1).numpy()
    curves = [Curve(s, tuple(DISTANCES), tuple(row)) for s, row in zip(TAILS, ratios, strict=True)]
    cases = {s: float(abs(row - 1).max()) for s, row in zip(TAILS, ratios, strict=True)}
    return worst(cases, curves=tuple(curves), axis="r / Bohr of e_xc / (-n / 2r)")


def _potential(subject: Subject, quick: bool) -> Finding:
    if not subject.mixed:
        return Finding(
            1.0, (("c", 0.0),), remark="semilocal potentials with bounded enhancement fall faster than 1 / r"
        )
    c = PotentialTail(subject.mixed).coefficients(subject.functional).detach().numpy()
    return worst({s: float(x - 1) for s, x in zip(TAILS, c, strict=True)}, remark="cases: c - 1")


def _ionization(subject: Subject, quick: bool) -> Finding:
    names = QUICK if quick else [*SECOND_ROW, *THIRD_ROW, *MOLECULES]
    cases = {}
    for name in names:
        whole, cation, _ = atom(name) if name in SECOND_ROW | THIRD_ROW else molecule(name)
        ip = (subject.energy(cation, BASIS) if cation else 0.0) - subject.energy(whole, BASIS)
        cases[name] = (subject.highest_orbital(whole, BASIS) + ip) * HARTREE2EV
    values = np.abs(list(cases.values()))
    return worst(cases, remark=f"mean {values.mean():.2f} eV")


CONDITIONS = (
    Condition(
        "energy density of tails", "asymptotics", "e_xc -> -n / (2 r) far out",
        "March, Phys. Rev. A 36, 5077 (1987)",
        f"r2SCAN densities of {', '.join(TAILS)} from {DISTANCES[0]:g} to {DISTANCES[-1]:g} Bohr; largest relative "
        "deviation, of which exact exchange leaves 0.06 in Ar", "", 0.1, _energy_density,
    ),
    Condition(
        "potential of tails", "asymptotics", "the potential on the highest orbital tends to -1 / r",
        "Almbladh, von Barth, Phys. Rev. B 31, 3231 (1985); for dE_xc/dphi see mlxc.constraints.penalties",
        f"c of -c / r, {', '.join(TAILS)}; largest deviation from 1", "", 0.05, _potential,
    ),
    Condition(
        "ionization potential", "asymptotics", "IP = E(N - 1) - E(N) = -e_HOMO",
        "Perdew, Parr, Levy, Balduz, Phys. Rev. Lett. 49, 1691 (1982)",
        "SCF energies and orbital energies of one functional, def2-TZVPPD, H to Ar, H2, LiH, HF, H2O, N2; largest "
        "deviation", "eV", 0.1, _ionization,
    ),
)  # fmt: skip
