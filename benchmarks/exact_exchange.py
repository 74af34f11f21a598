"""How well exact exchange on the grid reproduces Hartree-Fock and the analytic energy density.

    python benchmarks/exact_exchange.py [--out benchmarks/results/exact_exchange.json]

Energies, gradients and excitations of the functional with a = 1 and no correlation against PySCF's Hartree-Fock, both
without density fitting of the Coulomb part (`exact`) and with all of Hartree-Fock fitted in the same auxiliary basis
(`fitted`); the energy density against integrals of all pairs at random points (int1e_grids).
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import pyscf
from pyscf import dft, gto, scf
from speed import acene

import mlxc
from mlxc.exx import FittedExchange, auxiliary_basis, energy_density
from mlxc.exx_analytic import AnalyticExchange
from mlxc.files import write_atomic
from mlxc.localhybrid import HartreeFock
from mlxc.scf import solved
from mlxc.units import KCAL

BASIS = "def2-tzvp"
H = 0.6291
#: Atoms, charge, unpaired electrons.
SPECIES: dict[str, tuple] = {
    "H": ("H 0 0 0", 0, 1),
    "C": ("C 0 0 0", 0, 2),
    "N": ("N 0 0 0", 0, 3),
    "O": ("O 0 0 0", 0, 2),
    "H2O": ("O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", 0, 0),
    "N2": ("N 0 0 0; N 0 0 1.098", 0, 0),
    "CH4": (f"C 0 0 0; H {H} {H} {H}; H {H} {-H} {-H}; H {-H} {H} {-H}; H {-H} {-H} {H}", 0, 0),
    "OH": ("O 0 0 0; H 0 0 0.97", 0, 1),
    "OH-": ("O 0 0 0; H 0 0 0.97", -1, 0),
    "H2+ (10 A)": ("H 0 0 0; H 0 0 10", 1, 1),
    "Br": ("Br 0 0 0", 0, 1),
    "benzene": (acene(1), 0, 0),
}
ATOMIZATION = {"H2O": {"H": 2, "O": 1}, "N2": {"N": 2}, "CH4": {"C": 1, "H": 4}}
DENSITIES = ("H2O", "benzene", "OH", "OH-", "H2+ (10 A)", "Br")


def mole(name: str) -> gto.Mole:
    atom, charge, spin = SPECIES[name]
    return gto.M(atom=atom, charge=charge, spin=spin, basis=BASIS, verbose=0)


def hartree_fock(mol: gto.Mole, fitted: bool):
    """(on the grid, PySCF's), both converged; `fitted`: everything in the same auxiliary basis."""
    grid = mlxc.KS(mol, HartreeFock())
    reference = scf.UHF(mol) if mol.spin else scf.RHF(mol)
    if fitted:
        grid, reference = grid.density_fit(), reference.density_fit(auxbasis=auxiliary_basis(mol))
    return solved(grid.set(conv_tol=1e-10)), solved(reference.set(conv_tol=1e-10))


def compare_hartree_fock(fitted: bool) -> dict:
    """Differences to Hartree-Fock: energies (Eh), atomization (kcal/mol), gradients (Eh/Bohr), TDA roots (Eh)."""
    energy, out = {}, {"energy_eh": {}, "gradient_eh_per_bohr": {}, "tda_eh": {}, "atomization_kcal": {}}
    for name in sorted({*ATOMIZATION, *(a for atoms in ATOMIZATION.values() for a in atoms)}):
        grid, reference = hartree_fock(mole(name), fitted)
        energy[name] = grid.e_tot - reference.e_tot
        if name in ATOMIZATION:
            forces = [mf.nuc_grad_method().kernel() for mf in (grid, reference)]
            out["gradient_eh_per_bohr"][name] = float(abs(forces[0] - forces[1]).max())
        if name == "H2O":
            roots = [mf.TDA().run(nstates=3).e for mf in (grid, reference)]
            out["tda_eh"][name] = float(abs(roots[0] - roots[1]).max())
        print(f"{'fitted' if fitted else 'exact':6s} {name:4s} {energy[name]:10.2e} Eh", flush=True)
    out["energy_eh"] = energy
    for name, atoms in ATOMIZATION.items():
        difference = sum(n * energy[a] for a, n in atoms.items()) - energy[name]
        out["atomization_kcal"][name] = difference * KCAL
    return out


def compare_energy_density(name: str, points: int = 1000) -> dict:
    """Median and 99% quantile of the relative error, and points of the wrong sign, at random points with n > 1e-12."""
    mol, rng = mole(name), np.random.default_rng(0)
    mf = solved(scf.UHF(mol))
    dm = mf.make_rdm1()[0]
    coords = dft.gen_grid.Grids(mol).build().coords
    ao = mol.eval_gto("GTOval_sph", coords)
    present = np.flatnonzero(np.einsum("gm,mn,gn->g", ao, dm, ao) > 1e-12)
    chosen = coords[rng.choice(present, min(points, len(present)), replace=False)]
    # The whole grid is fitted, so that groups of points are as they are in an SCF.
    fitted = energy_density(FittedExchange(mol, np.concatenate([chosen, coords])), dm)[: len(chosen)]
    analytic = energy_density(AnalyticExchange(mol, chosen), dm)
    error = abs(fitted / analytic - 1)
    result = {"median": float(np.median(error)), "q99": float(np.quantile(error, 0.99))}
    result["wrong_sign"] = int((fitted >= 0).sum())
    print(f"ex {name:12s} {result}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/exact_exchange.json"))
    args = parser.parse_args()
    record = {
        "command": "python benchmarks/exact_exchange.py",
        "settings": f"{BASIS}, grid level 3, conv_tol 1e-10",
        "machine": platform.machine(),
        "pyscf": pyscf.__version__,
        "hartree_fock_fitted_alike": compare_hartree_fock(fitted=True),
        "hartree_fock_exact": compare_hartree_fock(fitted=False),
        "energy_density": {name: compare_energy_density(name) for name in DENSITIES},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
