"""Does training find a functional that is known?  Energies and densities of a teacher, learned from some molecules.

    python benchmarks/learning.py [--teacher r2scan0] [--work FOLDER] [--out FILE.json]

Molecules of ASE's g2 collection (geometries of its own) in def2-SVP on grids of level 2.  Trained on are atomization
energies and densities of TRAINED, a fifth of which decides when to stop; reported are atomization energies and
densities of UNSEEN, self-consistent with the trained functional, against the teacher's, and the same of what training
starts from, r2SCAN and PBE0.
An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
from ase.build import molecule
from pyscf import gto

import mlxc
from mlxc.files import write_atomic
from mlxc.neural import NeuralLocalHybrid
from mlxc.reference import Reference, methods, read, write
from mlxc.reference.benchmark import Reaction, System, make_system
from mlxc.reference.folders import write_folder
from mlxc.train import checkpoint
from mlxc.train.run import train
from mlxc.train.selfconsistent import density_errors
from mlxc.units import KCAL

BASIS, LEVEL = "def2-svp", 2
TRAINED = (
    "LiH", "CH", "CH2_s3B1d", "CH3", "CH4", "NH", "NH3", "OH", "HF", "Li2", "LiF", "C2H2", "HCN", "CO", "HCO", "NO",
    "N2", "N2H4", "F2", "CO2", "N2O", "CH3OH", "SiH4", "PH3", "HCl", "CS", "Cl2", "C2H6",
)  # fmt: skip
UNSEEN = ("CH2_s1A1d", "NH2", "H2O", "C2H4", "CN", "H2CO", "O2", "H2O2", "SH2", "SiH3", "ClF", "SO", "CH3Cl", "HOCl")
CONFIG = """
name = "student"
family = "neural-local-hybrid"
width = 16
[data]
folder = "bench"
sets = {{teacher = 1.0}}
basis = "{basis}"
grid_level = {level}
references = ["densities.h5"]
validation = 5
[losses]
reactions = 1.0
density = 1000.0
grids = 100.0
mass = 10.0
size = 0.1
slope = 0.02
decay = 1e-5
[[phase]]
kind = "fixed"
adam = 200
lbfgs = 1000
[[phase]]
kind = "self-consistent"
adam = {steps}
rate = 5e-4
batch = 14
"""


def system(name: str) -> System:
    """A molecule of the g2 collection, or an atom, in its ground state."""
    atoms = molecule(name)
    spin = round(abs(atoms.get_initial_magnetic_moments().sum()))
    return make_system(name, 0, spin + 1, atoms.get_chemical_symbols(), atoms.get_positions().tolist())


def calculated(s: System, xc: Any) -> Any:
    """A calculation, converged as far as mlxc can: its `converged` says whether it is."""
    mf = mlxc.KS(s.mole(BASIS), xc).density_fit()
    mf.grids.level = LEVEL
    return mlxc.converge(mf)


def reference(s: System, xc: str) -> Reference:
    """Density and energy of the teacher."""
    mf = calculated(s, xc)
    dm = np.asarray(mf.make_rdm1())
    dm = dm if dm.ndim == 3 else np.array([dm, dm]) / 2
    mol: gto.Mole = mf.mol
    _, dipole, occupations = methods.properties(mol, dm)
    return Reference(
        s.id, s.symbols, mol.atom_coords(), 0, mol.spin, mol._basis, xc, dm1=dm, dipole=dipole,
        natural_occupations=occupations, energies={"total": mf.e_tot, "best": mf.e_tot},
        outcome="converged" if mf.converged else "the SCF did not converge",
    )  # fmt: skip


def teach(xc: str, folder: Path) -> dict[str, Reference]:
    """Everything by the teacher, made once."""
    path = folder / "teacher.h5"
    if not path.exists():
        names = [*TRAINED, *UNSEEN]
        atoms = sorted({a for n in names for a in molecule(n).get_chemical_symbols()})
        write(path, [reference(system(n), xc) for n in (*atoms, *names)], f"{xc} in {BASIS}")
    library = read(path)
    failed = [n for n, r in library.items() if not r.converged]
    if failed:
        raise SystemExit(f"{xc} does not converge for {', '.join(failed)}: take another teacher")
    return library


def row(name: str, energies: dict[str, float]) -> tuple[dict[str, int], float]:
    """Stoichiometry and energy (kcal/mol) of an atomization."""
    symbols = molecule(name).get_chemical_symbols()
    members = {a: symbols.count(a) for a in sorted(set(symbols))} | {name: -1}
    return members, sum(c * energies[i] for i, c in members.items()) * KCAL


def compare(xc: Any, library: dict[str, Reference]) -> dict[str, Any]:
    """Errors of the atomization energies (kcal/mol) and densities (int |n - n_ref| / N) of UNSEEN."""
    wanted = {*UNSEEN, *(a for n in UNSEEN for a in molecule(n).get_chemical_symbols())}
    found = {n: calculated(system(n), xc) for n in sorted(wanted)}
    energies = {n: mf.e_tot for n, mf in found.items()}
    exact = {n: r.energies["total"] for n, r in library.items()}
    errors = {n: row(n, energies)[1] - row(n, exact)[1] for n in UNSEEN}
    densities = {n: density_errors(found[n], library[n])[1].value for n in UNSEEN}
    return {
        "not_converged": sorted(n for n, mf in found.items() if not mf.converged),
        "mae_kcal": round(float(np.mean(np.abs(list(errors.values())))), 3),
        "max_kcal": round(float(np.max(np.abs(list(errors.values())))), 3),
        "density_l1": float(f"{np.mean(list(densities.values())):.3g}"),
        "errors_kcal": {n: round(float(e), 3) for n, e in errors.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="r2scan0")
    parser.add_argument("--steps", type=int, default=20, help="of the self-consistent phase")
    parser.add_argument("--work", type=Path, default=Path(".cache/learning"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/learning.json"))
    args = parser.parse_args()
    work = args.work / args.teacher
    (work / "bench").mkdir(parents=True, exist_ok=True)
    library = teach(args.teacher, work)
    exact = {n: r.energies["total"] for n, r in library.items()}
    rows = [Reaction("teacher", n, *row(n, exact), "train") for n in TRAINED]
    systems = {i: system(i) for r in rows for i in r.stoichiometry}
    write_folder(work / "bench", systems, rows)
    write(work / "densities.h5", [library[n] for n in TRAINED], "densities to learn")
    config = work / "student.toml"
    config.write_text(CONFIG.format(basis=BASIS, level=LEVEL, steps=args.steps))
    student = train(config, work / "student", resume=checkpoint.exists(work / "student"))
    record = {
        "command": f"python benchmarks/learning.py --teacher {args.teacher} --steps {args.steps}",
        "machine": platform.machine(),
        "pyscf": pyscf.__version__,
        "trained_on": mlxc.models.describe(student)["card"]["trained_on"],
        "unseen": {xc: compare(name, library) for xc, name in
                   (("student", str(student)), ("untrained", NeuralLocalHybrid()), ("r2scan", "r2scan"),
                    ("pbe0", "pbe0"))},
    }  # fmt: skip
    write_atomic(args.out, json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
