"""Write data/properties.jsonl: polarizabilities, geometries and frequencies of molecules of `small` to compare with.

    python benchmarks/properties.py [--out data/properties.jsonl]

Polarizabilities: CCSD(T)/aug-cc-pVTZ with frozen cores at the geometry of the reference, by central differences of the
energy in fields of +-FIELD atomic units along the axes.  Geometries and harmonic frequencies are experimental
equilibrium values: of diatomic molecules Huber, Herzberg, Constants of Diatomic Molecules (1979); water: Hoy, Bunker,
J. Mol. Spectrosc. 74, 1 (1979) and Benedict, Gailar, Plyler, J. Chem. Phys. 24, 1139 (1956); HCN: Winnewisser, Maki,
Johnson, J. Mol. Spectrosc. 39, 149 (1971) and Strey, Mills, Mol. Phys. 26, 129 (1973).
An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from pyscf import cc, scf
from pyscf.data.nist import BOHR

from mlxc.files import write_atomic
from mlxc.geometry import make_mole
from mlxc.reference import Reference, shipped
from mlxc.reference.methods import core_orbitals

BASIS = "aug-cc-pvtz"
FIELD = 0.002
MOLECULES = ("H2", "Be", "Li2", "LiH", "BH", "HF", "H2O", "NH3", "CH4", "N2", "CO", "F2", "HCN", "HCl", "H2S", "LiF")
#: Bond length (Angstrom) and harmonic frequency (1/cm).
DIATOMICS = {
    "H2": (0.74144, 4401.2),
    "LiH": (1.5949, 1405.7),
    "BeH": (1.3426, 2060.8),
    "BH": (1.2324, 2366.9),
    "CH": (1.1199, 2858.5),
    "NH": (1.0362, 3282.3),
    "OH": (0.96966, 3737.8),
    "HF": (0.91681, 4138.3),
    "NaH": (1.8874, 1172.2),
    "AlH": (1.6478, 1682.6),
    "HCl": (1.27455, 2990.9),
    "Li2": (2.6729, 351.4),
    "LiF": (1.5639, 910.3),
    "BF": (1.2626, 1402.1),
    "N2": (1.09768, 2358.6),
    "CO": (1.12832, 2169.8),
    "F2": (1.41193, 916.6),
}
#: Bonds and angles as named by mlxc.bench.quantities, and frequencies in ascending order.
LARGER = {
    "H2O": ({"bond_1_2": 0.9578, "angle_2_1_3": 104.48}, (1648.5, 3832.2, 3942.5)),
    "HCN": ({"bond_1_2": 1.1532, "bond_1_3": 1.0655}, (726.9, 726.9, 2128.7, 3442.1)),
}
UNITS = {"bond": "angstrom", "angle": "degree"}


def energy(reference: Reference, field: np.ndarray) -> float:
    """CCSD(T) in a homogeneous field (3,), atomic units."""
    atoms = list(zip(reference.symbols, reference.coords * BOHR, strict=True))
    mol = make_mole(atoms, BASIS, reference.charge, reference.spin)
    mf = scf.RHF(mol)
    core = mf.get_hcore() + np.einsum("x,xmn->mn", field, mol.intor("int1e_r"))
    mf.get_hcore = lambda *_: core
    mf.energy_nuc = lambda *_: mol.energy_nuc() - field @ (mol.atom_charges() @ mol.atom_coords())
    mf.run(conv_tol=1e-11)
    solver = cc.CCSD(mf, frozen=core_orbitals(mol)).set(conv_tol=1e-9, conv_tol_normt=1e-7)
    solver.kernel()
    if not (mf.converged and solver.converged):
        raise SystemExit(f"{reference.name} in the field {field} did not converge")
    return solver.e_tot + solver.ccsd_t()


def polarizability(reference: Reference) -> float:
    """Isotropic, Bohr^3."""
    zero = energy(reference, np.zeros(3))
    second = [
        (energy(reference, FIELD * axis) + energy(reference, -FIELD * axis) - 2 * zero) / FIELD**2 for axis in np.eye(3)
    ]
    return -float(np.mean(second))


def experimental() -> list[dict]:
    """Rows of geometries and frequencies."""
    known = {k: ({"bond_1_2": bond}, (wave,)) for k, (bond, wave) in DIATOMICS.items()} | LARGER
    rows = []
    for name, (geometry, waves) in known.items():
        for quantity, value in geometry.items():
            kind = quantity.split("_")[0]
            rows.append(
                {"set": f"{kind}s", "id": f"small/{name}", "property": quantity, "value": value, "unit": UNITS[kind]}
            )
        for k, wave in enumerate(waves, start=1):
            quantity = f"frequency_{k}"
            rows.append(
                {"set": "frequencies", "id": f"small/{name}", "property": quantity, "value": wave, "unit": "1/cm"}
            )
    return [row | {"source": "experiment, equilibrium"} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/properties.jsonl"))
    out = parser.parse_args().out
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    computed = [r for r in rows if r["property"] == "polarizability"]
    library = shipped.load("small")
    for name in MOLECULES:
        if f"small/{name}" not in [r["id"] for r in computed]:
            computed.append(
                {
                    "set": "polarizabilities",
                    "id": f"small/{name}",
                    "property": "polarizability",
                    "value": round(polarizability(library[name]), 4),
                    "unit": "bohr^3",
                    "source": f"CCSD(T)/{BASIS}, frozen core, finite field",
                }
            )
            print(computed[-1]["id"], computed[-1]["value"], flush=True)
        write_atomic(out, "".join(f"{json.dumps(row)}\n" for row in [*computed, *experimental()]))


if __name__ == "__main__":
    main()
