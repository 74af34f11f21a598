"""Total energies on PySCF's grids of each level minus those on a fine one, self-consistent, and the cycles of the SCF.

python benchmarks/grids.py [--xc default] [--levels 2,3,4] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyscf
from pyscf import gto

import mlxc
from mlxc import models
from mlxc.files import write_atomic
from mlxc.scf import Cycles, converge
from mlxc.units import KCAL

BASIS, FINE = "def2-tzvp", 7
H = 0.8557
#: Atoms (Angstrom) and unpaired electrons.
SPECIES: dict[str, tuple[str, int]] = {
    "H2": ("H 0 0 0; H 0 0 0.74", 0),
    "Be": ("Be 0 0 0", 0),
    "LiH": ("Li 0 0 0; H 0 0 1.5957", 0),
    "C": ("C 0 0 0", 2),
    "O": ("O 0 0 0", 2),
    "OH": ("O 0 0 0; H 0 0 0.97", 1),
    "H2O": ("O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", 0),
    "N2": ("N 0 0 0; N 0 0 1.098", 0),
    "CF": ("C 0 0 0; F 0 0 1.27", 1),
    "F2": ("F 0 0 0; F 0 0 1.412", 0),
    "NaH": ("Na 0 0 0; H 0 0 1.887", 0),
    "AlF": ("Al 0 0 0; F 0 0 1.654", 0),
    "SiH4": (f"Si 0 0 0; H {H} {H} {H}; H {-H} {-H} {H}; H {-H} {H} {-H}; H {H} {-H} {-H}", 0),
    "HCl": ("H 0 0 0; Cl 0 0 1.275", 0),
}


def errors(name: str, xc: str, levels: list[int]) -> dict:
    """Energy at each level minus that of FINE (kcal/mol), and DIIS cycles at PySCF's default level."""
    atom, spin = SPECIES[name]
    mol = gto.M(atom=atom, spin=spin, basis=BASIS, verbose=0)
    energies, dm, count = {}, None, Cycles()
    for level in (3, FINE, *levels):
        mf = mlxc.KS(mol, xc).density_fit()
        mf.grids.level = level
        if dm is None:
            mf.callback = count
        mf = converge(mf, dm)
        dm = mf.make_rdm1()
        energies[level] = mf.e_tot if mf.converged else float("nan")
    out = {"cycles": count.number, **{str(k): round(float(energies[k] - energies[FINE]) * KCAL, 4) for k in levels}}
    print(name, out, flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xc", default="default")
    parser.add_argument("--levels", default="2,3,4")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/grids.json"))
    args = parser.parse_args()
    levels = [int(k) for k in args.levels.split(",")]
    record = {
        "command": f"python benchmarks/grids.py --xc {args.xc} --levels {args.levels}",
        "settings": f"{BASIS}, density fitting, kcal/mol relative to level {FINE}; cycles of DIIS",
        "pyscf": pyscf.__version__,
        "model_sha256": models.sha256(args.xc),
        "species": {name: errors(name, args.xc, levels) for name in SPECIES},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
