"""What `mlxc run` prints of its results, for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from pyscf.data.nist import HARTREE2EV
from scipy.constants import atm

from mlxc.bench.ladder import RUNGS, Solution
from mlxc.excited import Excitations
from mlxc.harmonic import STATIONARY, Thermochemistry, Vibrations
from mlxc.properties import contaminated, pure_spin
from mlxc.units import KCAL


def frequencies(found: Vibrations, gas: Thermochemistry) -> list[str]:
    """Lines on vibrations and on the thermochemistry `gas` of an ideal gas."""
    lines = ["\n  vibration    frequency / cm^-1    IR / (km/mol)    reduced mass / amu"]
    rows = zip(found.frequencies_cm, found.ir_intensities_km_mol, found.reduced_masses_amu, strict=True)
    for k, (wave, intensity, mass) in enumerate(rows, start=1):
        lines.append(f"  {k:9d}    {abs(wave):16.1f}{'i' if wave < 0 else ' '}    {intensity:13.2f}    {mass:18.3f}")
    imaginary = int((found.frequencies_cm < 0).sum())
    if found.largest_force > STATIONARY:
        lines.append(
            f"  NOT a stationary point (largest force {found.largest_force:.1e} Eh/Bohr), so these frequencies mean "
            "little: use --task optimize first"
        )
    elif imaginary:
        lines.append(f"  {imaginary} imaginary (i): not a minimum" + " but a transition state" * (imaginary == 1))
    return [
        *lines,
        f"\n  ideal gas at {gas.temperature_k} K and {gas.pressure_pa / atm:g} atm of rigid rotors (symmetry number "
        f"{gas.symmetry_number}) and harmonic oscillators",
        f"  zero-point energy  {found.zero_point_hartree:.6f} Eh = {found.zero_point_hartree * KCAL:.2f} kcal/mol",
        f"  enthalpy           {gas.enthalpy_hartree:.6f} Eh",
        f"  entropy            {gas.entropy_hartree_per_k * KCAL * 1000:.2f} cal/(mol K)",
        f"  Gibbs energy       {gas.gibbs_hartree:.6f} Eh",
    ]


def excitations(found: Excitations) -> list[str]:
    """Lines on excitations."""
    lines = ["\n  state    energy / eV    wavelength / nm    oscillator strength"]
    for k, row in enumerate(zip(*asdict(found).values(), strict=True), start=1):
        energy, wavelength, strength, converged = row
        mark = "" if converged else "  NOT converged"
        lines.append(f"  {k:5d}    {energy:11.3f}    {wavelength:15.1f}    {strength:19.4f}{mark}")
    return lines


def stability(found: Solution) -> list[str]:
    """A line on whether a solution of the SCF is a minimum."""
    if found.broken:
        return [f"  stability          could not be worked out: {found.broken}"]
    if not found.stable:
        return ["  stability          NOT stable, but nothing lower was found"]
    moved = "" if found.rung in RUNGS else ", the first solution was not"
    return [f"  stability          stable{moved}"]


def report(result: dict[str, Any], charge: int, unpaired: int) -> None:
    """Prints what all tasks have; `unpaired` electrons tell what <S^2> should be."""
    if not result["converged"]:
        print("\nThe SCF did NOT converge: the numbers below are not a result.")
    homo = result["mo_homo_hartree"]
    print(f"\n  total energy       {result['energy_hartree']:.8f} Eh")
    if "energy_uncertainty_kcal" in result:
        print(f"  uncertain by       {result['energy_uncertainty_kcal']:.2f} kcal/mol, of which reactions keep a part")
    for reason in result.get("novelty", []):
        print(f"  UNLIKE the molecules that the functional was trained on: {reason}")
    print(f"  HOMO               {homo * HARTREE2EV:.3f} eV")
    about = "" if not charge else " about the origin, on which that of an ion depends"
    print(f"  dipole moment      {np.linalg.norm(result['dipole_debye']):.3f} Debye{about}")
    if result["s2"] > 1e-6:
        much = contaminated(result["s2"], unpaired)
        mixed = f"; {pure_spin(unpaired):.4f} would be pure: states of other spins are mixed in" if much else ""
        print(f"  <S^2>              {result['s2']:.4f}{mixed}")
    if "gradient_hartree_per_bohr" in result:
        print(f"  largest force      {np.abs(result['gradient_hartree_per_bohr']).max():.2e} Eh/Bohr")
    print(f"  {result['cycles']} cycles, {result['wall_s']:.1f} s")
