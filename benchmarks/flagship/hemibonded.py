"""References for one electron shared by two equal molecules, which semilocal functionals bind far too strongly.

    python benchmarks/flagship/hemibonded.py --out benchmarks/flagship/hemibonded

Energies of X2+ -> X + X+ with rigid fragments at several distances, as rows of a benchmark folder: unrestricted
CCSD(T) in cc-pVTZ, and what second-order perturbation theory gains from there to the limit of cc-pVTZ and cc-pVQZ
(correlation as X^-3: Halkier et al., Chem. Phys. Lett. 286, 243 (1998)).  Frozen cores.  Orbitals of the dimers
have their symmetry, so that the hole is shared at all distances.  An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pyscf import cc, gto, mp, scf
from rows import Atoms, Rows

from mlxc.reference.methods import core_orbitals, extrapolated

#: The shortest distance (Angstrom) of each dimer, near its minimum, and what the others are in units of it.
NEAR = {"Ne": 1.75, "HF": 1.85, "HCl": 2.55, "H2": 1.6}
STRETCHED = (1.0, 1.25, 1.5, 1.75)
#: Bonds (Angstrom) of the hydrogens, and their angle (degrees) with the axis; that of H2, across it, suits H2+ as well.
BOND = {"HF": 0.95, "HCl": 1.29, "H2": 0.8}
ANGLE = 104.0


def fragment(name: str, z: float, side: int) -> Atoms:
    """One half of a dimer at a height z (Angstrom); hydrogens of both point away from each other, `side` = 1 or -1."""
    if name == "H2":
        return [("H", (x, 0.0, z)) for x in (-BOND[name] / 2, BOND[name] / 2)]
    heavy = name.removeprefix("H")
    atoms: Atoms = [(heavy, (0.0, 0.0, z))]
    if name in BOND:
        angle = np.radians(ANGLE)
        out, up = BOND[name] * np.sin(angle), -BOND[name] * np.cos(angle)
        atoms.append(("H", (round(side * float(out), 6), 0.0, round(z + side * float(up), 6))))
    return atoms


def energy(atoms: Atoms, charge: int) -> float:
    """CCSD(T) energy in the limit of the basis, Eh.  Raises SystemExit where something does not converge."""
    second, hartree_fock, delta = {}, {}, 0.0
    heights = [z for _, (_, _, z) in atoms]
    shared = min(heights) < 0 < max(heights)  # a fragment by itself is on one side
    for basis in ("cc-pvtz", "cc-pvqz"):
        mol = gto.M(atom=atoms, basis=basis, charge=charge, spin=charge, symmetry=shared, verbose=0, max_memory=6000)
        mf = scf.UHF(mol).set(conv_tol=1e-10).run()
        if not mf.converged:
            raise SystemExit(f"{atoms} did not converge in {basis}")
        frozen = core_orbitals(mol)
        hartree_fock[basis], second[basis] = mf.e_tot, mp.UMP2(mf, frozen=frozen).kernel(with_t2=False)[0]
        if basis == "cc-pvtz":
            solver = cc.UCCSD(mf, frozen=frozen).set(max_cycle=100).run()
            if not solver.converged:
                raise SystemExit(f"{atoms} did not converge")
            delta = solver.e_corr + solver.ccsd_t() - second[basis]
    small, large = ((hartree_fock[b], second[b]) for b in ("cc-pvtz", "cc-pvqz"))
    _, limit = extrapolated(small, large, 3)
    return float(hartree_fock["cc-pvqz"] + limit + delta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = Rows("hemibonded", args.out, energy)
    for name, near in NEAR.items():
        rows.add_system(name, fragment(name, 0.0, -1), 0)
        rows.add_system(f"{name}+", fragment(name, 0.0, -1), 1, 2)
        for stretch in STRETCHED:
            z = near * stretch / 2
            dimer = f"({name})2+ x{stretch}"
            rows.add_system(dimer, fragment(name, -z, -1) + fragment(name, z, 1), 1, 2)
            rows.add_reaction(dimer, {name: 1, f"{name}+": 1, dimer: -1})
    rows.write()


if __name__ == "__main__":
    main()
