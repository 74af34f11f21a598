"""Spins that are shared by degenerate states, of which every mixture has the same energy."""

from __future__ import annotations

from mlxc.constraints.condition import Condition, Finding, worst
from mlxc.constraints.fractional import atom, fractional_spins
from mlxc.constraints.self_interaction import BASIS, FAR, errors
from mlxc.constraints.subject import Subject
from mlxc.reference.benchmark import make_system
from mlxc.units import KCAL

#: Atoms with --quick.
QUICK = ("H", "Li", "N")


def _spins(subject: Subject, quick: bool) -> Finding:
    systems, rows = fractional_spins()
    rows = [r for r in rows if not quick or r.name in QUICK]
    return worst(errors(subject, systems, rows))


def _stretched(subject: Subject, quick: bool) -> Finding:
    pair = make_system("H2", 0, 1, ["H", "H"], [(0.0, 0.0, 0.0), (0.0, 0.0, FAR)])
    cases = {"H2": (subject.energy(pair, BASIS, symmetry=True) - 2 * subject.energy(atom("H")[0], BASIS)) * KCAL}
    return worst(cases)


CONDITIONS = (
    Condition(
        "fractional spin", "fractional spin", "E is the same for every mixture of the spin states of a multiplet",
        "Cohen, Mori-Sanchez, Yang, Science 321, 792 (2008)",
        "equal shares of both spins in the open shells of H, Li, B to F, SCF, def2-TZVPPD", "kcal/mol", 1.0, _spins,
    ),
    Condition(
        "stretched H2", "fractional spin", "restricted H2 far apart is two H",
        "Cohen, Mori-Sanchez, Yang, Science 321, 792 (2008)",
        f"restricted SCF with symmetry at {FAR:g} Angstrom, def2-TZVPPD", "kcal/mol", 1.0, _stretched,
    ),
)  # fmt: skip
