"""Behaviour that no theorem asks for and every calculation needs."""

from __future__ import annotations

import numpy as np
import torch
from pyscf import gto

from mlxc.constraints.condition import Condition, Curve, Finding, worst
from mlxc.constraints.mass import MOLECULES, ground_state
from mlxc.constraints.points import BOUNDS, features_of_points
from mlxc.constraints.radial import RadialGrids
from mlxc.constraints.subject import Subject
from mlxc.constraints.systems import BASIS, mole, molecules
from mlxc.features import Features
from mlxc.units import KCAL

#: Molecules for cycles: symbols and coordinates in Angstrom as PySCF reads them, charge, unpaired electrons.
CYCLES = {
    "H2O": ("O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", 0, 0),
    "O": ("O 0 0 0", 0, 2),
    "C": ("C 0 0 0", 0, 2),
    "NO": ("N 0 0 0; O 0 0 1.151", 0, 1),
    "O2": ("O 0 0 0; O 0 0 1.208", 0, 2),
    "CN-": ("C 0 0 0; N 0 0 1.177", -1, 0),
    "F2": ("F 0 0 0; F 0 0 1.412", 0, 0),
    "O3": ("O 0 0 0; O 0 1.087 0.667; O 0 -1.087 0.667", 0, 0),
    "LiF 4 A": ("Li 0 0 0; F 0 0 4.0", 0, 0),
    "N2 2 A": ("N 0 0 0; N 0 0 2.0", 0, 0),
}
QUICK_CYCLES = ("H2O", "O")
#: Random inputs, with --quick, and at a time; exponents of ten of their densities and reduced variables.
RANDOM, QUICK_RANDOM, BLOCK = 10**7, 10**5, 10**5
EXTREMES = (-18, 6)
#: Relative step of tau for its derivative.
STEP = 1e-3


def _levels(subject: Subject, quick: bool) -> Finding:
    cases, curves = {}, []
    for name, (symbols, coords, spin) in molecules(quick).items():
        mol = mole(symbols, coords, spin)
        mf = subject.solve(mol)
        if not mf.converged:
            cases[name] = np.nan
            continue
        levels = (1, 3) if quick else (1, 2, 3, 4, 5)
        dm = mf.make_rdm1()
        energies = np.array([subject.unsolved(mol, n).energy_tot(dm=dm) for n in levels]) * KCAL
        cases[name] = float(np.ptp(energies))
        curves.append(Curve(name, tuple(map(float, levels)), tuple(energies - energies[-1])))
    return worst(cases, curves=tuple(curves), axis="level of E - E(last level), kcal/mol")


def _radial(subject: Subject, quick: bool) -> Finding:
    grids = RadialGrids(subject.mixed)
    with torch.no_grad():
        errors = grids.errors(subject.functional).numpy() * KCAL
    return Finding(
        float(abs(errors).max()), (("mean", float(abs(errors).mean())), ("largest", float(abs(errors).max())))
    )


def _cycles(subject: Subject, quick: bool) -> Finding:
    counts = {}
    for name, (atoms, charge, spin) in CYCLES.items():
        if quick and name not in QUICK_CYCLES:
            continue
        mf = subject.unsolved(gto.M(atom=atoms, charge=charge, spin=spin, basis=BASIS, verbose=0))
        mf.kernel()
        counts[name] = float(mf.cycles) if mf.converged else np.inf
    failed = [name for name, n in counts.items() if not np.isfinite(n)]
    most = float(mf.max_cycle + 1) if failed else max(counts.values())
    remark = f"DIIS alone does not converge: {', '.join(failed)}" if failed else ""
    return Finding(most, tuple(counts.items()), remark=remark)


def _random(subject: Subject, quick: bool) -> Finding:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range((QUICK_RANDOM if quick else RANDOM) // BLOCK):
        x = {name: rng.uniform(*bounds, BLOCK) for name, bounds in BOUNDS.items()}
        x["rs"] = (3 / (4 * np.pi * 10 ** rng.uniform(*EXTREMES, BLOCK))) ** (1 / 3)
        x["zeta"] = np.where(rng.random(BLOCK) < 0.2, np.sign(x["zeta"]), x["zeta"])
        for name in ("s_a", "s_b", "alpha_a", "alpha_b"):
            x[name] = np.where(rng.random(BLOCK) < 0.1, 0.0, 10 ** rng.uniform(-6, 4, BLOCK))
        wrong += int((~torch.isfinite(finite_derivatives(subject, features_of_points(subject.mixed, x)))).sum())
    return Finding(float(wrong), (("not finite", float(wrong)),))


def finite_derivatives(subject: Subject, features: Features) -> torch.Tensor:
    """Energy density plus, of functionals of mlxc, all its first derivatives, (G,): finite where all of them are."""
    given = [features.rho, features.sigma, features.tau, *([] if features.ex is None else [features.ex])]
    inputs = [t.clone().requires_grad_() for t in given]
    energy = subject.functional(Features(*inputs))
    if not energy.requires_grad:
        return energy
    slopes = torch.autograd.grad(energy.sum(), inputs, materialize_grads=True)
    return energy.detach() + torch.cat(slopes).sum(0)


def _mass(subject: Subject, quick: bool) -> Finding:
    cases = {}
    for atoms, charge, spin in MOLECULES[: 2 if quick else None]:
        f = ground_state(atoms, charge, spin, mixed=subject.mixed)
        lowest = []
        for channel in torch.eye(2, dtype=f.tau.dtype):
            step = STEP * channel[:, None] * f.tau
            with torch.no_grad():
                up, down = (subject.functional(Features(f.rho, f.sigma, f.tau + k * step, f.ex)) for k in (1, -1))
            lowest.append(float(((up - down) / (2 * step.sum(0))).min()))
        cases[f"{atoms} ({charge:+})" if charge else atoms] = -min(lowest)
    return worst(cases, 1.0, remark="cases: largest -v_tau")


CONDITIONS = (
    Condition("levels of the grid", "numerics", "E does not depend on the grid", "practice",
              "one density on PySCF's grids of level 1 to 5, H2O and NH2, def2-SVP; spread of E", "kcal/mol", 0.5,
              _levels),
    Condition("radial grids of atoms", "numerics", "E does not depend on the grid: the potential is smooth", "practice",
              "E_xc of atoms H to Cl on PySCF's level-3 radial grids minus that on 160 points; largest error",
              "kcal/mol", 0.2, _radial),
    Condition("cycles", "numerics", "an SCF converges", "practice",
              f"DIIS cycles of {', '.join(CYCLES)}, def2-SVP, PySCF's settings; most of all", "", 30.0, _cycles),
    Condition("random inputs", "numerics", "energy densities and their derivatives are finite", "practice",
              "inputs that are not finite among 10^7 random ones, densities from 1e-18 to 1e6; of libxc's functionals "
              "the energy alone", "", 0.0, _random),
    Condition("effective mass", "numerics", "1 + v_tau > 0: kinetic energy counts positively",
              "the operator -1/2 div (1 + v_tau) grad of a meta-GGA is to be bounded from below",
              f"lowest v_tau in r2SCAN densities of {len(MOLECULES)} atoms, ions and molecules; what it falls below -1",
              "", 0.0, _mass),
)  # fmt: skip
