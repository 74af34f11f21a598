"""References for noncovalent interactions from wave functions, and training rows made of them.

    python benchmarks/noncovalent.py references [--only NAME,NAME] [--out benchmarks/results/noncovalent.json]
    python benchmarks/noncovalent.py rows --out FOLDER

`references`: interaction energies, MP2 in the limit of aug-cc-pVTZ and aug-cc-pVQZ (correlation as X^-3: Halkier et
al., Chem. Phys. Lett. 286, 243 (1998); Hartree-Fock of aug-cc-pVQZ; density fitting) and CCSD(T) - MP2 in aug-cc-pVDZ.
Frozen cores.  Pairs of rare gases have CCSD(T) - MP2 in aug-cc-pVTZ and functions halfway in all bases, without which
Ne2 is bound by 0.069 instead of 0.081 kcal/mol.
Geometries are those of `complexes.py`.

`rows`: the same as a benchmark folder of training rows, which `mlxc train` and `mlxc bench` read.

All interaction energies are counterpoise corrected and in kcal/mol.  An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
from complexes import RARE_GASES, Atoms, complexes
from pyscf import cc, df, gto, scf
from pyscf.mp.dfmp2 import DFMP2

from mlxc.files import write_atomic
from mlxc.reference.benchmark import Reaction, System, make_system
from mlxc.reference.folders import write_folder
from mlxc.reference.methods import core_orbitals, extrapolated
from mlxc.scf import solved
from mlxc.units import KCAL

REFERENCES = Path("benchmarks/results/noncovalent.json")
#: Angular momentum and exponents: Tao, Pan, J. Chem. Phys. 97, 4989 (1992).
MIDBOND = [
    [l, [a, 1.0]] for l, exponents in enumerate(((0.9, 0.3, 0.1), (0.9, 0.3, 0.1), (0.6, 0.2))) for a in exponents
]
#: Name of the set of `rows`.
SET = "noncovalent"


def moles(a: Atoms, b: Atoms, basis: str, midbond: bool = False) -> list[gto.Mole]:
    """The complex and both monomers in its basis; `midbond`: with functions halfway between the first atoms."""
    ghost_a, ghost_b = ([(f"ghost-{symbol}", x) for symbol, x in atoms] for atoms in (a, b))
    bond = [("ghost-He", [float(x) for x in np.mean([a[0][1], b[0][1]], axis=0)])] if midbond else []
    parts = ([*a, *b], [*a, *ghost_b], [*ghost_a, *b])
    table = {"default": basis, "ghost-He": MIDBOND}
    return [gto.M(atom=[*atoms, *bond], basis=table, verbose=0, max_memory=8000) for atoms in parts]


def interaction(energies: Any) -> Any:
    """Complex less monomers, kcal/mol, of energies (3, ...) in Eh."""
    of_complex, a, b = np.asarray(energies) * KCAL
    return of_complex - a - b


def mp2(mol: gto.Mole) -> tuple[float, float]:
    """Energy of Hartree-Fock and correlation energy of MP2, with density fitting, Eh."""
    mf = solved(scf.RHF(mol).density_fit().set(conv_tol=1e-10))
    solver = DFMP2(mf, frozen=core_orbitals(mol))
    solver.with_df = df.DF(mol, df.make_auxbasis(mol, mp2fit=True))
    return mf.e_tot, solver.kernel(with_t2=False)[0]


def coupled_cluster(mol: gto.Mole) -> float:
    """CCSD(T) - MP2, Eh."""
    mf = solved(scf.RHF(mol).set(conv_tol=1e-10))
    solver = cc.CCSD(mf, frozen=core_orbitals(mol)).run(conv_tol=1e-8, conv_tol_normt=1e-6)
    if not solver.converged:
        raise SystemExit(f"CCSD of {mol.atom} did not converge")
    return solver.e_corr + solver.ccsd_t() - solver.emp2


def reference(a: Atoms, b: Atoms) -> dict:
    """Record of a complex."""
    start = time.process_time()
    rare = all(symbol in RARE_GASES for symbol, _ in (*a, *b))
    delta_basis = "aug-cc-pvtz" if rare else "aug-cc-pvdz"
    hf_tz, mp2_tz = interaction([mp2(mol) for mol in moles(a, b, "aug-cc-pvtz", rare)])
    hf_qz, mp2_qz = interaction([mp2(mol) for mol in moles(a, b, "aug-cc-pvqz", rare)])
    _, mp2_limit = extrapolated((hf_tz, mp2_tz), (hf_qz, mp2_qz), 3)
    delta = interaction([coupled_cluster(mol) for mol in moles(a, b, delta_basis, rare)])
    parts = {
        "hf_aug-cc-pvqz": hf_qz,
        "mp2_correlation_aug-cc-pvtz": mp2_tz,
        "mp2_correlation_aug-cc-pvqz": mp2_qz,
        "mp2_correlation_limit": mp2_limit,
        f"ccsd(t)-mp2_{delta_basis}": delta,
    }
    return {
        "monomers": lines_of(a, b),
        "interaction": round(float(hf_qz + mp2_limit + delta), 5),
        "parts": {k: round(float(v), 5) for k, v in parts.items()},
        "midbond": rare,
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def references(args: argparse.Namespace) -> None:
    """Compute what is missing in the file of references."""
    old = json.loads(args.out.read_text())["complexes"] if args.out.exists() else {}
    for name, pair in complexes().items():
        if (name in old and old[name]["monomers"] == lines_of(*pair)) or (args.only and name not in args.only):
            continue
        old[name] = reference(*pair)
        record = {
            "command": "python benchmarks/noncovalent.py references",
            "settings": "MP2/CBS(aug-cc-pVTZ, aug-cc-pVQZ) + CCSD(T) - MP2, counterpoise, frozen cores",
            "units": "kcal/mol, Angstrom",
            "machine": platform.machine(),
            "pyscf": pyscf.__version__,
            "complexes": {k: old[k] for k in complexes() if k in old},
        }
        write_atomic(args.out, json.dumps(record, indent=1) + "\n")
        print(f"{name:14s} {old[name]['interaction']:8.3f} kcal/mol {old[name]['cpu_seconds']:7.1f} s", flush=True)


def lines_of(a: Atoms, b: Atoms) -> list[list[str]]:
    """Both monomers of a complex as a record has them."""
    return [[f"{symbol} {x} {y} {z}" for symbol, (x, y, z) in atoms] for atoms in (a, b)]


def monomers(record: dict) -> tuple[Atoms, Atoms]:
    """Of a complex among the references."""
    rows = ([line.split() for line in lines] for lines in record["monomers"])
    a, b = ([(symbol, [float(x) for x in coords]) for symbol, *coords in atoms] for atoms in rows)
    return a, b


def rows(args: argparse.Namespace) -> None:
    """A benchmark folder of the references: systems named by their atoms, one row for each complex."""
    systems: dict[str, System] = {}

    def named(id: str, atoms: Atoms) -> str:
        symbols, coords = zip(*atoms, strict=True)
        made = make_system(id, 0, 1, symbols, [tuple(x) for x in coords])
        same = next((s for s in systems.values() if s.key == made.key), made)
        systems[same.id] = same
        return same.id

    reactions = []
    for name, record in json.loads(args.references.read_text())["complexes"].items():
        a, b = monomers(record)
        stoichiometry = Counter({named(name, [*a, *b]): 1})
        for part, atoms in (("A", a), ("B", b)):
            # Away from the origin an isolated monomer is the same one.
            shift = np.array(atoms[0][1])
            moved = [(symbol, [round(float(x), 6) for x in np.array(r) - shift]) for symbol, r in atoms]
            stoichiometry[named(f"{name} {part}", moved)] -= 1
        reactions.append(Reaction(SET, name, dict(stoichiometry), record["interaction"], "train"))
    write_folder(args.out, systems, reactions)
    print(f"{len(reactions)} rows of {SET} and {len(systems)} systems in {args.out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("references")
    one.set_defaults(command=references)
    one.add_argument("--out", type=Path, default=REFERENCES)
    one.add_argument("--only", type=lambda text: text.split(","), help="names of complexes")
    two = commands.add_parser("rows")
    two.set_defaults(command=rows)
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--references", type=Path, default=REFERENCES)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
