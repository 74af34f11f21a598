"""Which published DFT-D4 damping suits a functional, judged by noncovalent interactions from wave functions.

    python benchmarks/dispersion.py references [--only NAME,NAME] [--out benchmarks/results/dispersion-references.json]
    python benchmarks/dispersion.py rows --out FOLDER
    python benchmarks/dispersion.py choose --xc NAME [--basis def2-qzvpp] [--only NAME,NAME] [--out FILE.json]

`references`: interaction energies, MP2 in the limit of aug-cc-pVTZ and aug-cc-pVQZ (correlation as X^-3: Halkier et
al., Chem. Phys. Lett. 286, 243 (1998); Hartree-Fock of aug-cc-pVQZ; density fitting) and CCSD(T) - MP2 in aug-cc-pVDZ.
Frozen cores.  Pairs of rare gases have CCSD(T) - MP2 in aug-cc-pVTZ and functions halfway in all bases, without which
Ne2 is bound by 0.069 instead of 0.081 kcal/mol.
Geometries: rigid monomers of experimental equilibrium structure (Huber, Herzberg (1979); Herzberg, Electronic Spectra
of Polyatomic Molecules (1966)), placed by hand near the minimum, which they need not be.

`rows`: the same as a benchmark folder of training rows, which `mlxc train` and `mlxc bench` read.

`choose`: the functional without dispersion, and with the D4 term of each set of parameters that pyscf-dispersion knows
by the name of a functional: mf.disp = "d4:NAME".

All interaction energies are counterpoise corrected, those of D4 excepted, and in kcal/mol.  An interrupted run goes on
where it was, `choose` with --out.
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
import torch
from pyscf import cc, df, gto, scf
from pyscf.mp.dfmp2 import DFMP2
from scipy.spatial.transform import Rotation

import mlxc
from mlxc import models
from mlxc.dispersion import d4_energy
from mlxc.errors import InputError
from mlxc.files import write_atomic
from mlxc.reference.benchmark import Reaction, System, make_system
from mlxc.reference.folders import write_folder
from mlxc.reference.methods import core_orbitals, extrapolated
from mlxc.units import KCAL

Atoms = list[tuple[str, list[float]]]

REFERENCES = Path("benchmarks/results/dispersion-references.json")
RARE_GASES = ("Ne", "Ar")
#: Angular momentum and exponents: Tao, Pan, J. Chem. Phys. 97, 4989 (1992).
MIDBOND = [
    [l, [a, 1.0]] for l, exponents in enumerate(((0.9, 0.3, 0.1), (0.9, 0.3, 0.1), (0.6, 0.2))) for a in exponents
]
STRETCH = 1.2
#: Name of the set of `rows`.
SET = "noncovalent"
GRID_LEVEL = 4
#: Interaction energy (kcal/mol) below which the error counts absolutely, above which relatively.
FLOOR = 0.1


def _top(symbol: str, bond: float, angle: float, hydrogens: int) -> Atoms:
    """XHn, X at the origin, the bonds at `angle` (degrees) from the axis +z; the first of them in the half plane +y."""
    polar, azimuths = np.radians(angle), 2 * np.pi * np.arange(hydrogens) / hydrogens
    directions = [(np.sin(polar) * np.sin(a), np.sin(polar) * np.cos(a), np.cos(polar)) for a in azimuths]
    return [(symbol, [0.0, 0.0, 0.0]), *(("H", [float(bond * x) for x in d]) for d in directions)]


#: Angstrom.  Rare gases at, and linear molecules along z through, the origin.
MONOMERS: dict[str, Atoms] = {
    **{symbol: [(symbol, [0.0, 0.0, 0.0])] for symbol in RARE_GASES},
    "HF": _top("F", 0.9168, 0, 1),
    "HCl": _top("Cl", 1.2746, 0, 1),
    "H2O": _top("O", 0.9572, 104.52 / 2, 2),
    "H2S": _top("S", 1.3356, 92.11 / 2, 2),
    "NH3": _top("N", 1.0116, 67.88, 3),
    "CH4": [*_top("C", 1.0870, 109.4712, 3), ("H", [0.0, 0.0, 1.0870])],
    "C2H2": [(s, [0.0, 0.0, z]) for s, z in (("C", 0.6013), ("C", -0.6013), ("H", 1.6634), ("H", -1.6634))],
    # C=C along x, plane xz
    "C2H4": [
        *(("C", [x, 0.0, 0.0]) for x in (0.6654, -0.6654)),
        *(("H", [x, 0.0, z]) for x in (1.2293, -1.2293) for z in (0.9220, -0.9220)),
    ],
}
#: Monomer and its turns about fixed axes in degrees, the same of the other, which lies at the distance (Angstrom) on
#: +z, and whether dispersion binds them: then they are also taken at STRETCH times it.  Small ones first.
COMPLEXES: dict[str, tuple[str, str, str, str, float, bool]] = {
    "Ne2": ("Ne", "", "Ne", "", 3.09, True),
    "Ne-Ar": ("Ne", "", "Ar", "", 3.49, True),
    "Ar2": ("Ar", "", "Ar", "", 3.76, True),
    "Ar-HF": ("Ar", "", "HF", "x180", 3.45, False),
    "(HF)2": ("HF", "x7", "HF", "x-68", 2.74, False),
    "Ne-CH4": ("Ne", "", "CH4", "", 3.50, True),
    "Ar-CH4": ("Ar", "", "CH4", "", 3.75, True),
    "(HCl)2": ("HCl", "x9", "HCl", "x-90", 3.80, False),
    "(H2O)2": ("H2O", "x52.26", "H2O", "z90 x-57", 2.91, False),
    "(H2S)2": ("H2S", "x46.06", "H2S", "z90 x-80", 4.10, False),
    "C2H4-HF": ("C2H4", "x90", "HF", "x180", 3.10, False),
    "(NH3)2": ("NH3", "x67.88", "NH3", "", 3.28, False),
    "H2O-CH4": ("CH4", "y180", "H2O", "x232.26", 3.52, False),
    "(C2H2)2": ("C2H2", "x90", "C2H2", "", 4.35, False),
    "(CH4)2": ("CH4", "x180", "CH4", "", 3.63, True),
    "(C2H4)2": ("C2H4", "", "C2H4", "z90", 3.75, False),
}
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


def turned(name: str, turns: str, distance: float = 0.0) -> Atoms:
    """A monomer turned, as in "z90 x-57", and moved along z; coordinates to 1e-6 Angstrom."""
    symbols, coords = zip(*MONOMERS[name], strict=True)
    positions = np.array(coords)
    for turn in turns.split():
        positions = Rotation.from_euler(turn[0], float(turn[1:]), degrees=True).apply(positions)
    positions = np.round(positions + np.array([0, 0, distance]), 6) + 0.0  # no negative zeros
    return list(zip(symbols, positions.tolist(), strict=True))


def complexes() -> dict[str, tuple[Atoms, Atoms]]:
    """Both monomers of each complex."""
    found = {}
    for name, (a, turns_a, b, turns_b, distance, stretched) in COMPLEXES.items():
        for factor in (1.0, STRETCH) if stretched else (1.0,):
            label = name if factor == 1 else f"{name} x{factor}"
            found[label] = turned(a, turns_a), turned(b, turns_b, factor * distance)
    return found


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


def converged(mf: Any) -> Any:
    """The object after its SCF."""
    mf = mlxc.converge(mf)
    if not mf.converged:
        raise SystemExit(f"{mf.mol.atom} did not converge")
    return mf


def mp2(mol: gto.Mole) -> tuple[float, float]:
    """Energy of Hartree-Fock and correlation energy of MP2, with density fitting, Eh."""
    mf = converged(scf.RHF(mol).density_fit().set(conv_tol=1e-10))
    solver = DFMP2(mf, frozen=core_orbitals(mol))
    solver.with_df = df.DF(mol, df.make_auxbasis(mol, mp2fit=True))
    return mf.e_tot, solver.kernel(with_t2=False)[0]


def coupled_cluster(mol: gto.Mole) -> float:
    """CCSD(T) - MP2, Eh."""
    mf = converged(scf.RHF(mol).set(conv_tol=1e-10))
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
        "monomers": [[f"{symbol} {x} {y} {z}" for symbol, (x, y, z) in atoms] for atoms in (a, b)],
        "interaction": round(float(hf_qz + mp2_limit + delta), 5),
        "parts": {k: round(float(v), 5) for k, v in parts.items()},
        "midbond": rare,
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def references(args: argparse.Namespace) -> None:
    """Compute what is missing in the file of references."""
    old = json.loads(args.out.read_text())["complexes"] if args.out.exists() else {}
    for name, pair in complexes().items():
        if name in old or (args.only and name not in args.only):
            continue
        old[name] = reference(*pair)
        record = {
            "command": "python benchmarks/dispersion.py references",
            "settings": "MP2/CBS(aug-cc-pVTZ, aug-cc-pVQZ) + CCSD(T) - MP2, counterpoise, frozen cores",
            "units": "kcal/mol, Angstrom",
            "machine": platform.machine(),
            "pyscf": pyscf.__version__,
            "complexes": {k: old[k] for k in complexes() if k in old},
        }
        write_atomic(args.out, json.dumps(record, indent=1) + "\n")
        print(f"{name:14s} {old[name]['interaction']:8.3f} kcal/mol {old[name]['cpu_seconds']:7.1f} s", flush=True)


def bare(pair: tuple[Atoms, Atoms], xc: str, basis: str) -> float:
    """Interaction energy of a functional without dispersion correction."""
    energies = []
    for mol in moles(*pair, basis):
        mf = mlxc.KS(mol, xc).density_fit().set(conv_tol=1e-9)
        mf.grids.level = GRID_LEVEL
        energies.append(converged(mf).e_tot)
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


def choose(args: argparse.Namespace) -> None:
    """Interaction energies of a functional, and the sets of D4 parameters in the order of their scores."""
    known = json.loads(args.references.read_text())["complexes"]
    names = [name for name in known if not args.only or name in args.only]
    if not names:
        raise SystemExit(f"none of these complexes is in {args.references}: it has {', '.join(known)}")
    pairs = {name: monomers(known[name]) for name in names}
    record: dict[str, Any] = {
        "command": f"python benchmarks/dispersion.py choose --xc {args.xc} --basis {args.basis}",
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
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("references")
    one.set_defaults(command=references)
    one.add_argument("--out", type=Path, default=REFERENCES)
    two = commands.add_parser("choose")
    two.set_defaults(command=choose)
    two.add_argument("--xc", default="default")
    two.add_argument("--basis", default="def2-qzvpp")
    two.add_argument("--out", type=Path)
    three = commands.add_parser("rows")
    three.set_defaults(command=rows)
    three.add_argument("--out", type=Path, required=True)
    for command in (two, three):
        command.add_argument("--references", type=Path, default=REFERENCES)
    for command in (one, two):
        command.add_argument("--only", type=lambda text: text.split(","), help="names of complexes")
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
