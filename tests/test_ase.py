"""The calculator for ASE against PySCF asked directly, and what an ASE user expects of any calculator."""

import importlib
import pickle
import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError, SCFError
from ase.io.trajectory import Trajectory
from ase.md.verlet import VelocityVerlet
from conftest import slope
from pyscf import gto

import mlxc
from mlxc.ase import MLXC, NotConverged, NotPossible
from mlxc.ensemble import uncertainty_kcal
from mlxc.errors import ConvergenceError, InputError

SMALL = {"basis": "sto-3g", "grid_level": 1, "conv_tol": 1e-11}


def hydroxyl():
    """OH: a dipole, an open shell, an axis that is none of x, y, z."""
    return Atoms("OH", [(0, 0, 0), (0.1, 0.2, 0.95)])


def h2(length=0.74, **options):
    return Atoms("H2", [(0, 0, 0), (0, 0, length)], **options)


def test_results_are_those_of_pyscf():
    atoms = hydroxyl()
    atoms.calc = MLXC(**SMALL)
    mol = gto.M(atom="O 0 0 0; H 0.1 0.2 0.95", spin=1, basis="sto-3g", verbose=0)
    mf = mlxc.KS(mol).density_fit()
    mf.grids.level, mf.conv_tol = 1, 1e-11
    mf.kernel()
    assert atoms.get_potential_energy() == pytest.approx(mf.e_tot * units.Hartree, abs=1e-7)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert np.allclose(atoms.get_dipole_moment(), mf.dip_moment(unit="AU", verbose=0) * units.Bohr, atol=1e-5)
    forces = -mf.nuc_grad_method().kernel() * units.Hartree / units.Bohr
    assert np.allclose(atoms.get_forces(), forces, atol=1e-4)
    assert abs(forces).max() > 0.1
    kcal = uncertainty_kcal(mlxc.ensemble_energies(mf), "default")
    assert atoms.calc.get_property("energy_uncertainty", atoms) == pytest.approx(
        kcal * units.kcal / units.mol, rel=1e-4
    )
    assert atoms.calc.results["energy_uncertainty"] > 0


def test_a_model_without_members_has_no_uncertainty():
    atoms = h2()
    atoms.calc = MLXC(xc="pbe", **SMALL)
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("energy_uncertainty", atoms)


@pytest.mark.parametrize("xc", ["default", "mlxc-mgga3"])
def test_forces_are_the_derivative_of_the_energy(xc):
    """Across calls, which start from one another's densities, and on a coarse grid, so that its motion counts."""
    atoms = hydroxyl()
    atoms.calc = MLXC(xc=xc, **SMALL | {"conv_tol": 1e-12})  # the hole in OH turns at next to no cost
    force = atoms.get_forces()[1, 2]

    def energy(step):
        moved = atoms.copy()
        moved.positions[1, 2] += step
        return atoms.calc.get_potential_energy(moved)

    assert force == pytest.approx(-slope(energy, 1e-3), abs=1e-5)
    assert abs(force) > 0.1


def test_each_scf_starts_from_the_last_density():
    """The energy does not depend on it, and other atoms are another beginning."""
    calculators = [MLXC(xc="pbe", **SMALL) for _ in range(3)]
    atoms = hydroxyl()
    calculators[0].get_potential_energy(atoms)
    atoms.positions[1, 2] += 0.01
    energies = [calc.get_potential_energy(atoms) for calc in calculators[:2]]
    assert calculators[0].mf.cycles < calculators[1].mf.cycles
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)  # eV; OH's hole turns at next to no cost
    energies = [calc.get_potential_energy(h2()) for calc in calculators[1:]]
    assert energies[0] == pytest.approx(energies[1], abs=1e-7)


def test_nothing_is_computed_twice(monkeypatch):
    atoms = h2()
    atoms.calc = MLXC(xc="pbe", **SMALL)
    atoms.get_potential_energy()
    monkeypatch.setattr("mlxc.ase.solve", None)
    atoms.get_forces()
    atoms.set_cell((9, 9, 9))  # a box without periodic boundaries
    assert abs(atoms.get_forces()).max() > 0
    monkeypatch.undo()
    before = atoms.get_potential_energy()
    atoms.calc.set(xc="lda,vwn")
    assert abs(atoms.get_potential_energy() - before) > 0.1


@pytest.mark.parametrize(
    ("options", "parameters", "charge", "spin"),
    [
        ({}, {}, 0, 0),
        ({"magmoms": [1, 1]}, {}, 0, 2),
        ({"magmoms": [-0.9, -0.9]}, {}, 0, 2),
        ({"magmoms": [1, -1]}, {}, 0, 0),
        ({"magmoms": [1, 1]}, {"spin": 0}, 0, 0),
        ({"charges": [0.5, 0.5]}, {}, 1, 1),
        ({"charges": [0.5, 0.5]}, {"charge": 0}, 0, 0),
        ({}, {"charge": 1}, 1, 1),
    ],
)
def test_charge_and_spin(options, parameters, charge, spin):
    atoms = h2(**options)
    atoms.calc = MLXC(xc="lda,vwn", **SMALL, **parameters)
    atoms.get_potential_energy()
    assert (atoms.calc.mf.mol.charge, atoms.calc.mf.mol.spin) == (charge, spin)


def test_moments_that_cancel_ask_for_an_unrestricted_singlet():
    """Two hydrogen atoms far apart, not the restricted state 5 eV above them; and back again."""
    atom = Atoms("H", magmoms=[1])
    apart = Atoms("H2", [(0, 0, 0), (0, 0, 3.5)])
    for a in (atom, apart):
        a.calc = MLXC(**SMALL)
    restricted = apart.get_potential_energy()
    apart.set_initial_magnetic_moments([1, -1])
    assert apart.get_potential_energy() == pytest.approx(2 * atom.get_potential_energy(), abs=0.02)
    assert apart.calc.mf.spin_square()[0] == pytest.approx(1, abs=0.05)
    apart.set_initial_magnetic_moments([0, 0])
    assert apart.get_potential_energy() == pytest.approx(restricted, abs=1e-5)
    assert restricted > 2 * atom.get_potential_energy() + 1


def test_a_calculator_goes_to_another_process():
    """Without PySCF's object, which holds files of integrals."""
    atoms = h2()
    atoms.calc = MLXC(xc="pbe", **SMALL)
    energy = atoms.get_potential_energy()
    again = pickle.loads(pickle.dumps(atoms))
    assert again.calc.mf is None
    assert again.get_potential_energy() == energy  # kept
    assert again.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-6)


def test_initial_charges_add_up_to_a_whole_number():
    atoms = h2(charges=[0.3, 0.3])
    atoms.calc = MLXC(xc="lda,vwn", **SMALL)
    with pytest.raises(NotPossible, match="not a whole number"):
        atoms.get_potential_energy()


def test_what_cannot_be_done_is_an_error_of_both():
    assert issubclass(NotPossible, InputError)
    assert issubclass(NotPossible, CalculatorSetupError)
    with pytest.raises(NotPossible, match="no setting functional"):
        MLXC(functional="pbe")
    for change, reason in (
        ({"pbc": True}, "molecules"),
        ({"magmoms": [1, 0]}, "unpaired"),
        ({"xc": "nonsense"}, "nonsense"),
        ({"basis": "nonsense"}, "nonsense"),
        ({"grid_level": 12}, "grid_level"),
        ({"conv_tol": -1.0}, "conv_tol"),
        ({"density_fit": "no"}, "density_fit"),
    ):
        own = {k: v for k, v in change.items() if k in ("pbc", "magmoms")}
        atoms = h2(cell=(5, 5, 5), **own)
        atoms.calc = MLXC(**SMALL | {k: v for k, v in change.items() if k not in own})
        with pytest.raises(NotPossible, match=reason):
            atoms.get_potential_energy()


def test_an_scf_that_does_not_converge_leaves_no_result(monkeypatch):
    assert issubclass(NotConverged, ConvergenceError)
    assert issubclass(NotConverged, SCFError)
    atoms = hydroxyl()
    atoms.calc = MLXC(xc="pbe", **SMALL)
    atoms.get_potential_energy()
    with monkeypatch.context() as patch:
        patch.setattr("mlxc.scf.converge", lambda mf, dm0: mf.set(max_cycle=1, conv_tol=1e-14).run(dm0))
        atoms.positions[1, 2] += 0.1
        for _ in range(2):  # asking again does not help
            with pytest.raises(NotConverged, match="did not converge"):
                atoms.get_potential_energy()
        assert not atoms.calc.results
    assert atoms.get_potential_energy() < 0


def test_dynamics_and_trajectory(tmp_path):
    """What ASE writes can be read again, and a name that ASE does not have is in nobody's way."""
    atoms = h2(0.8)
    atoms.calc = MLXC(**SMALL)
    total = []
    with Trajectory(tmp_path / "h2.traj", "w") as out:
        dynamics = VelocityVerlet(atoms, timestep=0.2 * units.fs)
        for _ in range(3):
            dynamics.run(1)
            atoms.calc.get_property("energy_uncertainty", atoms)
            out.write(atoms)
            total.append(atoms.get_total_energy())
    frames = Trajectory(tmp_path / "h2.traj")
    assert [x.get_total_energy() for x in frames] == pytest.approx(total, abs=1e-12)
    assert np.ptp(total) < 0.01 * atoms.get_kinetic_energy()
    assert atoms.get_properties(["energy", "forces"])["energy"] == atoms.get_potential_energy()


def test_without_ase_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "mlxc.ase")
    monkeypatch.setitem(sys.modules, "ase", None)
    with pytest.raises(InputError, match=r"mlxc\[ase\]"):
        importlib.import_module("mlxc.ase")
