"""References for protons between two molecules, whose barriers mlxc-lh3, trained without, put 2 to 4 kcal/mol too low.

    python benchmarks/flagship/protons.py --out benchmarks/flagship/protons

Two kinds of rows of a benchmark folder, closed shells all: what it costs to bring the proton of a proton-bound pair
from one molecule to the middle, at one or two distances of the heavy atoms and with all else rigid; and barriers of two
molecules that exchange protons in a ring, in geometries of PBE0/def2-SVP (`mlxc run --task ts --xc pbe0 --basis
def2-svp`).  CCSD(T) in aug-cc-pVTZ, and what Hartree-Fock and second-order perturbation theory, both with density
fitting, gain from there to the limit of aug-cc-pVTZ and aug-cc-pVQZ (`mlxc.reference.methods.extrapolated`).  Frozen
cores.  An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from pyscf import cc, gto, mp, scf
from pyscf.mp.dfmp2_native import DFMP2
from rows import Atoms, Rows

from mlxc.reference.methods import core_orbitals, extrapolated

#: Proton-bound pairs: the heavy atom, hydrogens of each molecule, their bonds (Angstrom) and angle with the axis
#: (degrees), charge, distance of the proton from the molecule that has it, and distances of the heavy atoms.
PAIRS: dict[str, tuple[str, int, float, float, int, float, tuple[float, ...]]] = {
    "FHF-": ("F", 0, 0.0, 0.0, -1, 0.98, (2.6, 2.9)),
    "ClHCl-": ("Cl", 0, 0.0, 0.0, -1, 1.34, (3.4, 3.7)),
    "HOHOH-": ("O", 1, 0.96, 106.0, -1, 1.02, (2.7, 3.0)),
    "H2OHOH2+": ("O", 2, 0.97, 116.0, 1, 1.02, (2.7,)),
}


def molecule(symbol: str, hydrogens: int, bond: float, angle: float, side: int, z: float) -> Atoms:
    """One half of a pair with its heavy atom at a height z (Angstrom), hydrogens turned away from the proton at 0."""
    atoms: Atoms = [(symbol, (0.0, 0.0, z))]
    out, up = bond * np.sin(np.radians(angle)), -side * bond * np.cos(np.radians(angle))
    for k in range(hydrogens):
        # Two hydrogens on opposite sides of the axis; those of both molecules are staggered.
        turn = np.pi * k + (0.0 if side > 0 else np.pi / 2)
        atoms.append(("H", tuple(round(float(x), 6) for x in (out * np.cos(turn), out * np.sin(turn), z + up))))
    return atoms


def pair(name: str, distance: float, shift: float) -> Atoms:
    """A proton-bound pair with the proton `shift` (Angstrom) above the middle."""
    symbol, hydrogens, bond, angle, *_ = PAIRS[name]
    halves = (molecule(symbol, hydrogens, bond, angle, side, side * distance / 2) for side in (1, -1))
    return [*next(halves), *next(halves), ("H", (0.0, 0.0, round(shift, 6)))]


def energy(atoms: Atoms, charge: int, higher_in: str = "aug-cc-pvtz") -> float:
    """CCSD(T) energy of a closed shell in the limit of the basis, Eh, what is beyond second order in `higher_in`.

    Raises SystemExit without convergence.
    """
    fitted = {}
    for basis in ("aug-cc-pvtz", "aug-cc-pvqz"):
        mol = gto.M(atom=atoms, basis=basis, charge=charge, verbose=0, max_memory=4000)
        mf = scf.RHF(mol).density_fit(f"{basis}-jkfit").set(conv_tol=1e-9).run()
        second = DFMP2(mf, frozen=core_orbitals(mol), auxbasis=f"{basis}-ri")
        fitted[basis] = mf.e_tot, second.kernel()
        if not mf.converged:
            raise SystemExit(f"{atoms} did not converge in {basis}")
    mol = gto.M(atom=atoms, basis=higher_in, charge=charge, verbose=0, max_memory=4000)
    mf = scf.RHF(mol).set(conv_tol=1e-9).run()
    frozen = core_orbitals(mol)
    solver = cc.CCSD(mf, frozen=frozen).run()
    if not (mf.converged and solver.converged):
        raise SystemExit(f"{atoms} did not converge")
    higher = solver.e_corr + solver.ccsd_t() - mp.MP2(mf, frozen=frozen).kernel(with_t2=False)[0]
    return float(sum(extrapolated(*fitted.values(), 3)) + higher)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = Rows("protons", args.out, energy)
    rings = json.loads((Path(__file__).with_name("protons") / "rings.json").read_text())
    for name, atoms in rings.items():
        rows.add_system(name, [(s, tuple(x)) for s, *x in atoms], 0)
    for name in rings:
        if " + " in name:
            first, second = name.split(" + ")
            rows.add_reaction(name, {name: 1, f"{first} alone": -1, f"{second} alone": -1})
    for name, (*_, charge, near, distances) in PAIRS.items():
        for distance in distances:
            bound, middle = f"{name} {distance} A", f"{name} {distance} A middle"
            rows.add_system(bound, pair(name, distance, distance / 2 - near), charge)
            rows.add_system(middle, pair(name, distance, 0.0), charge)
            rows.add_reaction(middle, {middle: 1, bound: -1})
    rows.write()


if __name__ == "__main__":
    main()
