"""Which published DFT-D4 damping suits a functional, judged by the references of `noncovalent.py`.

    python benchmarks/dispersion.py --xc NAME [--basis def2-qzvpp] [--only NAME,NAME] [--out FILE.json]

The functional without dispersion, and with the D4 term of each set of parameters that pyscf-dispersion knows by the
name of a functional: mf.disp = "d4:NAME".  Interaction energies without D4 are counterpoise corrected; all are in
kcal/mol.  An interrupted run with --out goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
import torch
from complexes import Atoms
from noncovalent import REFERENCES, interaction, moles, monomers
from pyscf import gto

import mlxc
from mlxc import models
from mlxc.dispersion import d4_energy
from mlxc.errors import InputError
from mlxc.files import write_atomic
from mlxc.scf import solved

GRID_LEVEL = 4
#: Interaction energy (kcal/mol) below which the error counts absolutely, above which relatively.
FLOOR = 0.1
#: Double hybrids, part of whose dispersion is in their perturbation theory: marked in the table.
DOUBLE_HYBRIDS = """
pwpb95 b2plyp b2gp-plyp mpw2plyp dsdblyp dsdpbe dsdpbeb95 dsdpbep86 dsdsvwn dodblyp dodpbe dodpbeb95 dodpbep86 dodsvwn
revdsd-pbep86 revdod-pbep86 pbe0dh pbe02 revpbe0dh r2scan0-dh r2scan-cidh r2scan0-2 pr2scan50 pr2scan69 kpr2scan50
wpr2scan50
"""
#: Functionals that may have D4 parameters; composites for small bases (-3c) are left out.
CANDIDATES = """
hf blyp bp86 bpbe bpw b1lyp b1p86 b1pw91 b1b95 b3lyp b3p86 b3pw91 bhlyp x3lyp xlyp olyp o3lyp opbe glyp pbe pbe0 pbesol
revpbe revpbe0 revpbe38 rpbe rpw86pbe pw86pbe pw91 pw1pw pwp pwp1 pw6b95 am05 lb94 mpwlyp mpwpw mpw1lyp mpw1pw mpw1b95
mpwb1k hse03 hse06 hse12 hse12s hsesol cam-b3lyp cam-qtp01 lc-blyp lc-wpbe lc-wpbeh wb97 wb97x wb97x-2008 wb97x-rev
wb97m wb97m-rev b97m m06l m06 mn12sx tpss tpssh tpss0 revtpss revtpssh revtpss0 scan rscan r2scan r2scanh r2scan0
r2scan50 lh07ssvwn lh07tsvwn lh12ctssirpw92 lh12ctssifpw92 lh14tcalpbe lh20t
"""


def bare(pair: tuple[Atoms, Atoms], xc: str, basis: str) -> float:
    """Interaction energy of a functional without dispersion correction."""
    energies = []
    for mol in moles(*pair, basis):
        mf = mlxc.KS(mol, xc).density_fit().set(conv_tol=1e-9)
        mf.grids.level = GRID_LEVEL
        energies.append(solved(mf).e_tot)
    return float(interaction(energies))


def published() -> list[str]:
    """The candidates that pyscf-dispersion knows."""
    atom, found = gto.M(atom="Ne", verbose=0), []
    for name in (CANDIDATES + DOUBLE_HYBRIDS).split():
        try:
            d4_energy(atom, name)
        except InputError:
            continue
        found.append(name)
    return found


def statistics(energies: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Errors in kcal/mol and percent, and the score, by which sets are ordered.

    The score is the mean of |error| / (FLOOR + |reference|), so that weak complexes count like strong ones, and
    hydrogen bonds, whose error is mostly not of dispersion, do not decide alone.
    """
    errors = energies - expected
    numbers = {
        "score": abs(errors / (FLOOR + abs(expected))).mean(),
        "mae": abs(errors).mean(),
        "me": errors.mean(),
        "max": abs(errors).max(),
        "mae_percent": 100 * abs(errors / expected).mean(),
    }
    return {k: round(float(v), 4) for k, v in numbers.items()}


def choose(args: argparse.Namespace) -> None:
    """Interaction energies of a functional, and the sets of D4 parameters in the order of their scores."""
    known = json.loads(args.references.read_text())["complexes"]
    names = [name for name in known if not args.only or name in args.only]
    if not names:
        raise SystemExit(f"none of these complexes is in {args.references}: it has {', '.join(known)}")
    pairs = {name: monomers(known[name]) for name in names}
    record: dict[str, Any] = {
        "command": f"python benchmarks/dispersion.py --xc {args.xc} --basis {args.basis}",
        "settings": {"xc": args.xc, "model": models.sha256(args.xc), "basis": args.basis, "grid": GRID_LEVEL},
        "units": "kcal/mol",
        "machine": platform.machine(),
        "pyscf": pyscf.__version__,
        "torch": torch.__version__,
        "bare": {},
    }
    if args.out and args.out.exists():
        earlier = json.loads(args.out.read_text())
        if earlier["settings"] != record["settings"]:
            raise SystemExit(f"{args.out} is of other settings: {earlier['settings']}")
        record["bare"] = earlier["bare"]

    def save() -> None:
        if args.out:
            write_atomic(args.out, json.dumps(record, indent=1) + "\n")

    for name in names:
        if name not in record["bare"]:
            record["bare"][name] = round(bare(pairs[name], args.xc, args.basis), 5)
            save()
        print(f"{name:14s} {known[name]['interaction']:8.3f} {record['bare'][name]:8.3f}", flush=True)

    expected = np.array([known[name]["interaction"] for name in names])
    alone = np.array([record["bare"][name] for name in names])
    triples = [[gto.M(atom=atoms, verbose=0) for atoms in ([*a, *b], a, b)] for a, b in (pairs[name] for name in names)]
    terms = {
        s: np.array([interaction([d4_energy(mol, s) for mol in triple]) for triple in triples]) for s in published()
    }
    scores = {s: statistics(alone + term, expected) for s, term in terms.items()}
    best = sorted(scores, key=lambda s: scores[s]["score"])
    record["statistics"] = {"bare": statistics(alone, expected)} | {s: scores[s] for s in best}
    record["references"] = {name: known[name]["interaction"] for name in names}
    record["d4"] = {s: dict(zip(names, terms[s].round(5).tolist(), strict=True)) for s in best[:10]}
    save()

    print(f"\n{args.xc}, {args.basis}, {len(names)} complexes, {len(best)} sets (* of a double hybrid); kcal/mol")
    print(f"{'D4 set':16s} {'score':>7s} {'MAE':>7s} {'ME':>7s} {'max':>7s} {'MAE %':>7s}")
    for s in ("bare", *best[:10]):
        row = record["statistics"][s].values()
        print(f"{s + ' *' * (s in DOUBLE_HYBRIDS.split()):16s}", *(f"{v:7.3f}" for v in row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xc", required=True, metavar="NAME", help="the bare one, not NAME-d4")
    parser.add_argument("--basis", default="def2-qzvpp")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--references", type=Path, default=REFERENCES)
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of complexes")
    choose(parser.parse_args())


if __name__ == "__main__":
    main()
