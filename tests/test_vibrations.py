"""Second derivatives, infrared intensities and thermochemistry of both families."""

import json
import math
import subprocess
import sys
from functools import partial

import cloudpickle
import numpy as np
import pytest
from pyscf import gto, lib, qmmm, scf
from pyscf.data.nist import AVOGADRO, BOLTZMANN, HARTREE2J
from pyscf.dispersion import dftd4

import mlxc
from mlxc import harmonic
from mlxc.analytic import R2SCAN
from mlxc.cli import main
from mlxc.errors import ConvergenceError, InputError
from mlxc.geometry import gradient_method
from mlxc.harmonic import second_derivatives, straightened
from mlxc.localhybrid import HartreeFock

MOLECULES = {
    "H2": {"atom": "H 0 0 0; H 0.1 0.2 0.75"},
    "H3": {"atom": "H 0 0 0; H 0 0 0.93; H 0 0 1.9", "spin": 1},
    "NH": {"atom": "N 0 0 0; H 0 0 1.05", "spin": 2},
    "HeH+": {"atom": "He 0 0 0; H 0 0 0.8", "charge": 1},
    "HF Ne": {"atom": "H 0 0 0; F 0 0 0.92; Ne 0 0.3 4"},
}


def calculation(name, xc, grid=(20, 50), change=None):
    mf = mlxc.KS(gto.M(**MOLECULES[name], basis="sto-3g", verbose=0), xc)
    mf = change(mf) if change else mf
    return mf.set(grids=mf.grids.set(atom_grid=grid, prune=None)).run(conv_tol=1e-11)


@pytest.mark.parametrize("name", ["H2", "H3"])
def test_hessian_of_a_semilocal_functional_is_the_analytic_one(name):
    """On a grid so fine that its motion, which PySCF's leaves out, matters little."""
    mf = calculation(name, R2SCAN(), (30, 110))
    expected = mf.Hessian().kernel()
    assert np.allclose(mlxc.hessian(mf), expected, atol=1e-3)
    assert abs(expected).max() > 0.1


@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga3"])
def test_hessian_of_a_restricted_open_shell(xc):
    """For which PySCF has none, along the bond against energies."""
    mf = calculation("NH", xc, change=lambda mf: mlxc.attach(mf.mol.ROKS(), xc))
    force = mlxc.hessian(mf)[1, 1, 2, 2]
    energies = [mf.e_tot]
    for shift in (0.005, -0.005):
        coords = mf.mol.atom_coords()
        coords[1, 2] += shift
        energies.append(mf.copy().reset(mf.mol.set_geom_(coords, unit="Bohr", inplace=False)).kernel(mf.make_rdm1()))
    assert force == pytest.approx((energies[1] + energies[2] - 2 * energies[0]) / 0.005**2, abs=1e-3)


def test_hessian_of_exact_exchange_is_that_of_hartree_fock():
    expected = calculation("HeH+", "hf").Hessian().kernel()
    assert np.allclose(mlxc.hessian(calculation("HeH+", "hf")), expected, atol=5e-5)
    assert np.allclose(mlxc.hessian(calculation("HeH+", HartreeFock(), (30, 86))), expected, atol=4e-3)


@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga3"])
def test_translation_and_rotation_in_a_solvent(xc):
    """The gradient stays as it is, and turns with the molecule."""
    mf = calculation("H2", xc, (30, 86), lambda mf: mf.density_fit().PCM())
    gradient, hessian = gradient_method(mf).kernel(), mlxc.hessian(mf)
    assert np.allclose(gradient_method(mf).kernel(), gradient, atol=1e-9)  # `mf` is as it was
    assert abs(hessian.sum(1)).max() < 1e-4
    axis = np.array([0.6, 0.8, 0.0])
    turned = np.einsum("abxy,by->ax", hessian, np.cross(axis, mf.mol.atom_coords()))
    assert np.allclose(turned, np.cross(axis, gradient), atol=2.5e-3)
    assert abs(np.cross(axis, gradient)).max() > 2e-2


@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga3"])
def test_a_second_order_solver_keeps_its_geometry(xc):
    plain, mf = calculation("H2", xc), calculation("H2", xc, change=lambda mf: mf.newton())
    energy, points = mf.e_tot, mf._scf.grids.coords.copy()
    assert np.allclose(mlxc.hessian(mf), mlxc.hessian(plain), atol=1e-6)
    assert mf._scf.mol is mf.mol
    assert np.array_equal(mf._scf.grids.coords, points)
    assert mf.kernel() == pytest.approx(energy, abs=1e-10)


def test_hessian_of_plain_hartree_fock():
    mf = gto.M(**MOLECULES["H3"], basis="sto-3g", verbose=0).UHF().run(conv_tol=1e-12)
    assert np.allclose(mlxc.hessian(mf), mf.Hessian().kernel(), atol=1e-4)  # of the differences


def test_the_calculation_stays_what_it_was(tmp_path):
    """Its checkpoint file and the relativistic Hamiltonian that its copies share."""
    mf = calculation("H2", "hf", change=lambda mf: mf.x2c().set(chkfile=str(tmp_path / "h2.chk")))
    coords, energy = mf.with_x2c.mol.atom_coords().copy(), lib.chkfile.load(mf.chkfile, "scf/e_tot")
    before = gradient_method(mf).kernel()
    mlxc.hessian(mf)
    assert np.array_equal(mf.with_x2c.mol.atom_coords(), coords)
    assert np.allclose(gradient_method(mf).kernel(), before, atol=1e-10)
    assert lib.chkfile.load(mf.chkfile, "scf/e_tot") == energy
    assert np.array_equal(lib.chkfile.load_mol(mf.chkfile).atom_coords(), mf.mol.atom_coords())


def test_a_point_group_by_name():
    mol = gto.M(**MOLECULES["HeH+"], basis="sto-3g", verbose=0)
    expected = mlxc.hessian(mol.RHF().run(conv_tol=1e-12))
    for group in ({"symmetry": "C2v"}, {"symmetry": True, "symmetry_subgroup": "C2v"}):
        named = gto.M(**MOLECULES["HeH+"], basis="sto-3g", verbose=0, **group)
        assert np.allclose(mlxc.hessian(named.RHF().run(conv_tol=1e-12)), expected, atol=1e-6)


def test_dipole_of_an_ion_moves_with_it():
    mf = calculation("HeH+", "t-lmf")
    _, dipole = second_derivatives(mf)
    assert np.allclose(dipole.sum(0), np.eye(3), atol=1e-6)
    moved = [
        calculation_at(mf, [[0, 0, 0], [0, 0, h]]).dip_moment(unit="AU", verbose=0)[2]
        for h in (0.8 / 0.529177 + 0.01, 0.8 / 0.529177 - 0.01)
    ]
    assert dipole[1, 2, 2] == pytest.approx((moved[0] - moved[1]) / 0.02, abs=1e-4)


def calculation_at(mf, coords):
    """The same calculation with the atoms at `coords`, Bohr."""
    new = mlxc.KS(mf.mol.set_geom_(np.array(coords), unit="Bohr", inplace=False), mf._numint.functional)
    return new.set(grids=new.grids.set(atom_grid=(20, 50), prune=None)).run(conv_tol=1e-11)


def test_vibration_of_a_diatomic_molecule():
    """sqrt(k / m) / (2 pi c), and N |dmu/dQ|^2 / (12 epsilon_0 c^2), 974.88 km/mol for e / amu^(1/2), by hand."""
    found = mlxc.vibrations(calculation("HeH+", "hf"))
    mass = 1 / (1 / 4.002602 + 1 / 1.008)
    axis = np.array([[0, 0, -1 / 4.002602], [0, 0, 1 / 1.008]]) * mass
    force = np.einsum("ax,abxy,by->", axis, found.hessian, axis)
    assert found.frequencies_cm == pytest.approx([5140.487 * math.sqrt(force / mass)], rel=1e-5)
    assert found.reduced_masses_amu * (axis**2).sum() == pytest.approx([mass], rel=1e-4)
    charge = np.einsum("ax,axy->y", axis, found.dipole_derivatives)
    assert found.ir_intensities_km_mol == pytest.approx([974.88 * (charge @ charge) / mass], rel=1e-4)
    assert np.allclose(abs(found.modes[0]), abs(axis) / np.linalg.norm(axis), atol=1e-6)
    assert found.zero_point_hartree == pytest.approx(found.frequencies_cm[0] / 219474.63 / 2, rel=1e-6)


def test_dispersion_is_part_of_second_derivatives():
    mf = calculation("HF Ne", "hf")
    bare = mlxc.hessian(mf)
    mf.disp = "d4:pbe0"
    got = mlxc.hessian(mf.run()) - bare
    expected = np.empty_like(bare)
    for i in range(3):
        for x in range(3):
            slopes = []
            for h in (0.01, -0.01):
                coords = mf.mol.atom_coords()
                coords[i, x] += h
                mol = mf.mol.set_geom_(coords, unit="Bohr", inplace=False)
                slopes.append(dftd4.DFTD4Dispersion(mol, xc="pbe0", atm=True).get_dispersion(grad=True)["gradient"])
            expected[i, :, x] = (slopes[0] - slopes[1]) / 0.02
    assert abs(expected).max() > 1e-5
    assert np.allclose(got, expected, atol=1e-7)


def test_thermochemistry():
    found = mlxc.vibrations(calculation("H2", "hf"))
    gas = found.thermochemistry(temperature_k=500)
    assert gas.symmetry_number == 2
    assert gas.gibbs_hartree == pytest.approx(gas.enthalpy_hartree - 500 * gas.entropy_hartree_per_k, abs=1e-9)
    thermal = 3.5 * BOLTZMANN * 500 / HARTREE2J  # translation, rotation and expansion; the vibration stays cold
    assert gas.enthalpy_hartree == pytest.approx(found.energy_hartree + found.zero_point_hartree + thermal, abs=1e-6)
    double = found.thermochemistry(500, 2 * gas.pressure_pa)
    expected = -BOLTZMANN / HARTREE2J * math.log(2)
    assert double.entropy_hartree_per_k - gas.entropy_hartree_per_k == pytest.approx(expected, rel=1e-6)
    for wrong in ((0, 1e5), (300, -1), (math.nan, 1e5)):
        with pytest.raises(InputError, match="positive"):
            found.thermochemistry(*wrong)


def test_symmetry_number_of_an_optimised_geometry():
    """Which is symmetric to the accuracy of the optimisation."""
    atom = "O 0 0 0; H 0 0.757 0.587; H 0 -0.7572 0.5869"
    found = mlxc.vibrations(scf.RHF(gto.M(atom=atom, basis="sto-3g", verbose=0)).to_ks("hf").run())
    assert found.thermochemistry().symmetry_number == 2
    assert len(found.frequencies_cm) == 3


def test_a_molecule_that_is_nearly_linear_is_linear():
    """Bent by a tenth of a degree, as an optimisation leaves it; by five degrees it is not."""
    found = []
    for degrees in (0.0, 0.1, 5.0):
        x, z = 1.33 * math.sin(math.radians(degrees)), 1.33 * math.cos(math.radians(degrees))
        mol = gto.M(atom=f"Be 0 0 0; H 0 0 -1.33; H {x} 0 {z}", basis="sto-3g", verbose=0)
        found.append(mlxc.vibrations(scf.RHF(mol).to_ks("hf").run()))
    straight, nearly, bent = found
    assert [len(f.frequencies_cm) for f in found] == [4, 4, 3]
    assert nearly.frequencies_cm == pytest.approx(straight.frequencies_cm, abs=1.0)
    gas = [f.thermochemistry() for f in found]
    assert [g.symmetry_number for g in gas] == [2, 2, 2]
    assert gas[1].entropy_hartree_per_k == pytest.approx(gas[0].entropy_hartree_per_k, rel=1e-3)
    assert straightened(bent.mol) is bent.mol


def test_an_atom_has_a_gibbs_energy():
    found = mlxc.vibrations(mlxc.KS(gto.M(atom="He 0 0 0", basis="sto-3g", verbose=0), "hf").run())
    assert found.frequencies_cm.shape == found.ir_intensities_km_mol.shape == (0,)
    assert found.thermochemistry(pressure_pa=1e5).entropy_hartree_per_k * HARTREE2J * AVOGADRO == pytest.approx(
        126.15, abs=0.05
    )


def test_vibrations_refuse_charges_around_the_molecule_and_irreps():
    mol = gto.M(**MOLECULES["H2"], basis="sto-3g", verbose=0)
    with pytest.raises(InputError, match="exclude_trans"):
        mlxc.vibrations(qmmm.mm_charge(mlxc.KS(mol, "pbe"), [(0, 0, 4.0)], [0.5]).run())
    mf = mlxc.KS(gto.M(**MOLECULES["H2"], basis="sto-3g", symmetry=True, verbose=0), "pbe")
    with pytest.raises(InputError, match="irrep_nelec"):
        mlxc.hessian(mf.set(irrep_nelec={"A1g": 2}).run())


def test_vibrations_refuse_what_they_cannot_do():
    mf = calculation("H2", "hf")
    with pytest.raises(InputError, match="kernel"):
        mlxc.vibrations(mlxc.KS(mf.mol, "hf"))
    with pytest.raises(InputError, match="kernel"):
        mlxc.vibrations(calculation("H2", "hf").reset())
    with pytest.raises(InputError, match="no nuclear gradients of GKS"):
        mlxc.vibrations(mf.mol.GKS(xc="pbe").run())
    with pytest.raises(InputError, match="ghost"):
        mlxc.vibrations(mlxc.KS(gto.M(atom="He 0 0 0; ghost-H 0 0 1", basis="sto-3g", verbose=0), "hf").run())
    with pytest.raises(ConvergenceError, match="atom 1 along x"):
        mlxc.vibrations(mf.set(max_cycle=1))


def test_a_displaced_molecule_in_another_state_is_found(monkeypatch):
    """Its forces differ by 1e-3 Eh/Bohr here."""
    moved = harmonic._moved

    def elsewhere(mf, dm0, task):
        gradient, dipole = moved(mf, dm0, task)
        return gradient + 1e-3 * (task == harmonic.Displacement(1, 2, harmonic.STEP)), dipole

    monkeypatch.setattr(harmonic, "_moved", elsewhere)
    with pytest.raises(ConvergenceError, match="another state"):
        mlxc.vibrations(calculation("HeH+", "hf"))


ELSEWHERE = """import pickle, sys
work, task = pickle.load(sys.stdin.buffer)
print(*work(task)[0].ravel())"""


def test_a_displaced_calculation_can_be_done_elsewhere():
    mf = calculation("H2", "t-lmf", change=lambda mf: mf.density_fit())
    work = partial(harmonic._moved, harmonic.detached(mf), np.asarray(mf.make_rdm1()))
    task = harmonic.Displacement(0, 2, harmonic.STEP)
    command = [sys.executable, "-c", ELSEWHERE]
    done = subprocess.run(command, input=cloudpickle.dumps((work, task)), capture_output=True, check=True)
    assert np.array(done.stdout.split(), dtype=float) == pytest.approx(work(task)[0].ravel(), abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga3"])
def test_processes_share_the_displacements(xc):
    mf = calculation("H2", xc, change=lambda mf: mf.density_fit())
    assert np.allclose(mlxc.hessian(mf, jobs=2), mlxc.hessian(mf), atol=1e-6)


def test_command_line(tmp_path, capsys):
    path, out = tmp_path / "h2.xyz", tmp_path / "out.json"
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.712\n")
    arguments = ["run", str(path), "--xc", "hf", "--basis", "sto-3g", "--task", "frequencies", "--json", str(out)]
    assert main(arguments) == 0
    printed, result = capsys.readouterr().out, json.loads(out.read_text())
    (wave,) = result["frequencies_cm"]
    assert 4000 < wave < 6500
    assert f"{wave:.1f} " in printed
    assert result["ir_intensities_km_mol"] == pytest.approx([0], abs=1e-6)
    assert result["thermochemistry"]["gibbs_hartree"] < result["energy_hartree"] + result["zero_point_hartree"]
    assert "displacement 12 of 12" in printed
    assert "Gibbs energy" in printed
    assert "NOT a stationary point" not in printed
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.9\n")
    assert main(arguments) == 0
    assert "NOT a stationary point" in capsys.readouterr().out
