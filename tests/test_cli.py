"""The command line as a user meets it: results, and one clear line for everything that is wrong."""

import hashlib
import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mlxc
from mlxc import models
from mlxc.cli import main
from mlxc.errors import ConvergenceError, InputError, run_by_pyscf
from mlxc.excited import Excitations
from mlxc.geometry import make_mole, read_xyz
from mlxc.neural import NeuralMetaGGA
from mlxc.run import run

WATER = "3\n\nO 0 0 0\nH 0 0.757 0.587\nH 0 -0.757 0.587\n"
KEYS = {
    "energy_hartree", "converged", "cycles", "wall_s", "xc", "model_hash", "basis", "grid_level", "nelectron",
    "mo_homo_hartree", "s2", "dipole_debye",
}  # fmt: skip


@pytest.fixture
def h2(tmp_path):
    """Hydrogen, stretched by 0.06 Angstrom."""
    path = tmp_path / "h2.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.80\n")
    return path


@pytest.fixture
def water(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text(WATER)
    return path


def test_energy_with_the_default_model(water, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert main(["run", str(water), "--basis", "def2-svp", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result.keys() >= KEYS
    assert result["converged"]
    assert result["xc"] == models.DEFAULT
    assert result["model_hash"] == models.describe()["sha256"]
    assert -76.6 < result["energy_hartree"] < -76.2
    assert sum(x**2 for x in result["dipole_debye"]) ** 0.5 == pytest.approx(2.0, abs=0.4)
    printed = capsys.readouterr().out
    assert "total energy" in printed
    assert printed.count(" s\n") > result["cycles"]


def test_density_fitting(water, tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = ["run", str(water), "--basis", "def2-svp", "--xc", "mlxc-mgga3", "--charge", "1", "--json", str(out)]
    assert main([*arguments, "--density-fit"]) == 0
    result = json.loads(out.read_text())
    mf = mlxc.KS(make_mole(read_xyz(water), "def2-svp", 1, 1), "mlxc-mgga3").density_fit().run()
    assert result["density_fit"] is True
    assert result["energy_hartree"] == pytest.approx(mf.e_tot, abs=1e-7)
    assert result["dipole_debye"] == pytest.approx(mf.dip_moment(verbose=0), abs=1e-3)
    assert result["mo_homo_hartree"] == pytest.approx(mf.mo_energy[mf.mo_occ > 0].max(), abs=1e-5)
    assert (result["s2"], result["nelectron"]) == (pytest.approx(mf.spin_square()[0], abs=1e-5), 9)
    assert main([*arguments, "--density-fit", "--task", "gradient"]) == 0
    moving = mf.nuc_grad_method().set(grid_response=True).kernel()
    assert np.allclose(json.loads(out.read_text())["gradient_hartree_per_bohr"], moving, atol=1e-5)
    assert abs(moving - mf.nuc_grad_method().kernel()).max() > 3e-5
    assert "Debye about the origin" in capsys.readouterr().out


BARE = """import sys
extras = "ase basis_set_exchange dacite distributed geometric matplotlib qcelemental qcengine tqdm"
sys.modules.update(dict.fromkeys(extras.split()))
from mlxc.cli import main
from mlxc.errors import InputError
from mlxc.geometry import make_mole
try:
    sys.exit(make_mole([("Ce", (0, 0, 0))], "def2-tzvp").nelectron)
except InputError:
    sys.exit(main(sys.argv[1:]))"""


def test_extras_are_not_needed(water):
    """None stands for a package that is not there."""
    command = ["run", str(water), "--xc", "mlxc-mgga3", "--basis", "sto-3g"]
    subprocess.run([sys.executable, "-c", BARE, *command], check=True, capture_output=True)


def test_what_ends_a_run(water, capsys, monkeypatch):
    for error, status, said in ((KeyboardInterrupt(), 130, "interrupted"), (MemoryError("1 GB"), 2, "(1 GB)")):

        def broken(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr("mlxc.run.run", broken)
        assert main(["run", str(water)]) == status
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line


def test_status_of_what_does_not_converge(h2, capsys, monkeypatch):
    arguments = ["run", str(h2), "--basis", "sto-3g", "--xc", "mlxc-mgga3", "--task"]
    monkeypatch.setattr("mlxc.run.search", lambda mf, step, transition: (mf, False))
    assert main([*arguments, "optimize"]) == 3
    assert "NOT converged in 100 steps" in capsys.readouterr().out
    one = Excitations(np.array([10.0]), np.array([124.0]), np.array([0.1]), np.array([False]))
    monkeypatch.setattr("mlxc.run.excitations", lambda mf, states: one)
    assert main([*arguments, "excitations"]) == 3
    assert "NOT converged" in capsys.readouterr().out


def test_unrestricted_singlets(tmp_path, capsys):
    path, out = tmp_path / "apart.xyz", tmp_path / "out.json"
    path.write_text("2\n\nH 0 0 0\nH 0 0 2.5\n")
    command = ["run", str(path), "--basis", "sto-3g", "--xc", "pbe", "--json", str(out)]
    assert main(command) == 0
    restricted = json.loads(out.read_text())
    assert "would be pure" not in capsys.readouterr().out
    assert main([*command, "--unrestricted"]) == 0
    found = json.loads(out.read_text())
    assert found["energy_hartree"] < restricted["energy_hartree"] - 0.01
    assert (restricted["s2"], found["s2"]) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=0.1))
    assert "0.0000 would be pure" in capsys.readouterr().out
    assert "stable" not in found
    assert main([*command, "--stability"]) == 0
    followed, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert followed["energy_hartree"] == pytest.approx(found["energy_hartree"], abs=1e-6)
    assert followed["cycles"] > restricted["cycles"]
    assert followed["stable"] is True
    assert "stable, the first solution was not" in printed
    assert main([*command, "--stability", "--unrestricted"]) == 0
    assert json.loads(out.read_text())["stable"] is True
    assert "  stable\n" in capsys.readouterr().out


def test_gradient_and_optimize(h2, tmp_path, capfd):
    out = tmp_path / "out.json"
    arguments = ["run", str(h2), "--basis", "def2-svp", "--json", str(out)]
    assert main([*arguments, "--task", "gradient"]) == 0
    before = json.loads(out.read_text())
    assert before["gradient_hartree_per_bohr"][1][2] > 0.01
    assert main([*arguments, "--task", "optimize"]) == 0
    printed = capfd.readouterr()
    assert "geometry: energy" in printed.out
    assert printed.err == ""  # nothing of geomeTRIC's log
    after = json.loads(out.read_text())
    assert after["energy_hartree"] < before["energy_hartree"]
    assert abs(after["gradient_hartree_per_bohr"][1][2]) < 5e-4
    assert after["geometry_converged"] is True
    assert (tmp_path / "h2.opt.xyz").read_text().startswith("2\n")


def test_unconverged_scf_has_status_3_and_says_so(water, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert main(["run", str(water), "--xc", "pbe", "--basis", "sto-3g", "--max-cycle", "1", "--json", str(out)]) == 3
    assert json.loads(out.read_text())["converged"] is False
    assert "NOT converge" in capsys.readouterr().out


def test_what_stops_on_the_way_is_in_the_json_too(h2, tmp_path, capsys, monkeypatch):
    def stop(*args):
        raise ConvergenceError("the third geometry did not converge")

    monkeypatch.setattr("mlxc.run.search", stop)
    out = tmp_path / "out.json"
    out.write_text('{"converged": true}')
    arguments = ["run", str(h2), "--basis", "sto-3g", "--xc", "pbe", "--json", str(out)]
    assert main([*arguments, "--task", "optimize"]) == 3
    found = json.loads(out.read_text())
    assert found == {"converged": False, "reason": "the third geometry did not converge"}
    assert found["reason"] in capsys.readouterr().err


def test_faults_of_our_own_do_not_leave_an_earlier_result(h2, tmp_path, monkeypatch):
    """They have a traceback, and the file says that nothing came of it."""
    monkeypatch.setattr("mlxc.run.ensemble", lambda mf: 1 / 0)
    out = tmp_path / "out.json"
    out.write_text('{"converged": true}')
    with pytest.raises(ZeroDivisionError):
        main(["run", str(h2), "--basis", "sto-3g", "--xc", "pbe", "--json", str(out)])
    assert json.loads(out.read_text()) == {"converged": False, "reason": "division by zero"}


def test_what_fails_after_the_scf_leaves_its_result(h2, tmp_path, capsys, monkeypatch):
    def stop(*args):
        raise ConvergenceError("an excitation is lost")

    monkeypatch.setattr("mlxc.run.excitations", stop)
    out = tmp_path / "out.json"
    arguments = ["run", str(h2), "--basis", "sto-3g", "--xc", "pbe", "--json", str(out)]
    assert main([*arguments, "--task", "excitations"]) == 3
    found = json.loads(out.read_text())
    assert found["reason"] in capsys.readouterr().err
    assert found["converged"] is True
    assert main(arguments) == 0
    assert json.loads(out.read_text())["energy_hartree"] == pytest.approx(found["energy_hartree"], abs=1e-9)


@pytest.mark.parametrize(
    ("module", "task"), [("geometric", ["optimize"]), ("distributed", ["frequencies", "--jobs", "2"])]
)
def test_what_a_task_needs_is_asked_for_first(module, task, water, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("mlxc.run.converge", lambda mf: pytest.fail("it has begun"))
    assert "pip install 'mlxc[" in refused("run", water, "--task", *task)


def test_unknown_tasks_and_atoms_in_one_place(water, refused):
    assert "no task 'freq': there are energy, gradient" in refused("run", water, "--task", "freq")
    with pytest.raises(InputError, match="no task"):
        run(str(water), task="freq")
    with pytest.raises(InputError, match="atoms 1 and 2 lie on top"):
        make_mole([("H", (0, 0, 0)), ("H", (0, 0, 0))], "sto-3g")


def test_second_order_solver_is_announced(water, capsys):
    arguments = ["--xc", "pbe", "--basis", "sto-3g", "--max-cycle", "3"]
    assert main(["run", str(water), *arguments]) == 0
    assert capsys.readouterr().out.count("second-order solver") == 1


def test_functional_that_pyscf_refuses(water, refused):
    assert "laplacian" in refused("run", water, "--xc", "scanl", "--basis", "sto-3g")


def test_our_own_faults_are_not_laid_on_pyscf():
    with (
        pytest.raises(InputError, match="PySCF cannot run 'pbe': NotImplementedError"),
        run_by_pyscf("pbe", ours=False),
    ):
        raise NotImplementedError
    with pytest.raises(RuntimeError, match="shapes"), run_by_pyscf("mlxc-lh7", ours=True):
        raise RuntimeError("shapes")


def test_unknown_functional(water, refused):
    assert "'nonsense'" in refused("run", water, "--xc", "nonsense")
    assert "unknown functional" in refused("run", water, "--xc", "n" * 300)  # too long for a file's name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "number of atoms"),
        ("3\n\nO 0 0 0\n", "announces 3 atoms and has 1"),
        ("1\n\nH 0 0 0\nH 0 0 1\n", "announces 1 atoms and has more: line 4"),
        ("1\n\nO 0 zero 0\n", "line 3"),
        ("1\n\nO 0 nan 0\n", "not numbers"),
        ("1\n\nO 0 1e200 0\n", "more than 1e+06 Angstrom"),
        ("2\n\nH 0 0 0\nH 0 0 0\n", "on top of each other"),
        ("1\n\nXx 0 0 0\n", "'Xx' is not an element"),
        (b"\xff\xfe\x00\x01", "not text"),
    ],
)
def test_unreadable_geometry(tmp_path, refused, text, reason):
    path = tmp_path / "bad.xyz"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert reason in refused("run", path)


def test_a_single_atom_has_no_geometry(tmp_path, refused):
    path = tmp_path / "he.xyz"
    path.write_text("1\n\nHe 0 0 0\n")
    assert "single atom" in refused("run", path, "--task", "optimize")


@pytest.mark.parametrize(
    ("basis", "electrons"),
    [
        ("def2-svp", 25),
        ("ma-def2-svp", 25),
        ("unc_def2-svp", 25),
        ("def2-mtzvpp", 25),
        ("lanl2dz", 7),
        ("aug-cc-pvdz-pp", 25),
        ("cc-pwcvtz-pp", 25),
        ("sto-3g", 53),
    ],
)
def test_core_potentials_come_with_their_basis(basis, electrons):
    assert make_mole([("I", (0, 0, 0))], basis).nelectron == electrons
    assert make_mole([("I", (0, 0, 0))], {"default": basis}).nelectron == electrons
    assert make_mole([("Ne", (0, 0, 0))], "cc-pcvdz").nelectron == 10  # of which PySCF knows no core potential


def test_core_potentials_that_pyscf_keeps_under_another_name_or_not_at_all():
    for basis in ("ccecp-cc-pvdz", "ccecp-aug-cc-pvtz", "bfd-vdz"):
        assert make_mole([("C", (0, 0, 0))], basis).nelectron == 4
    for symbol, basis in (("C", "gth-dzvp"), ("Cu", "cc-pvdz-pp-nr")):
        with pytest.raises(InputError, match="made for one"):
            make_mole([(symbol, (0, 0, 0))], basis)
    with pytest.raises(InputError, match=r"lacks one of H, I|nothing for H"):
        make_mole([("H", (0, 0, 0)), ("I", (0, 0, 1.6))], "cc-pvdz-pp")
    with pytest.raises(InputError, match="outside the core potentials"):
        make_mole([("I", (0, 0, 0))], "def2-svp", charge=25)


def test_core_potentials_of_lanthanides():
    pytest.importorskip("basis_set_exchange", reason="whose bases PySCF takes for lanthanides")
    assert make_mole([("Ce", (0, 0, 0))], "def2-tzvp").nelectron == 30


def test_charge_and_spin_are_whole_numbers():
    mol = make_mole([("O", (0, 0, 0)), ("H", (0, 0, 0.97))], "sto-3g", charge=0.0, spin=np.float64(1))
    assert (mol.charge, mol.spin) == (0, 1)
    for charge, spin in ((0.5, None), (0, 1.2), (float("nan"), None), ("one", None)):
        with pytest.raises(InputError, match="not a whole number"):
            make_mole([("O", (0, 0, 0)), ("H", (0, 0, 0.97))], "sto-3g", charge, spin)


def test_missing_file(tmp_path, refused):
    assert "No such file" in refused("run", tmp_path / "absent.xyz")


def test_impossible_spin_and_charge(water, refused):
    assert "unpaired" in refused("run", water, "--charge", 1, "--spin", 0)
    assert "unpaired" in refused("run", water, "--spin", 12)
    assert "electrons" in refused("run", water, "--charge", 10)


def test_missing_basis(tmp_path, refused):
    path = tmp_path / "u.xyz"
    path.write_text("1\n\nU 0 0 0\n")
    assert "lacks one of U" in refused("run", path, "--basis", "6-31g")
    assert "'nobasis' is unknown" in refused("run", path, "--basis", "nobasis")
    assert "no basis" in refused("run", path, "--basis", "")


def test_first_frame_of_several_is_read(tmp_path):
    path = tmp_path / "two.xyz"
    path.write_text("1\n\nHe 0 0 0\n1\n\nNe 0 0 0\n")
    assert [symbol for symbol, _ in read_xyz(path)] == ["He"]


def test_at_least_one_cycle(water, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", str(water), "--max-cycle", "0"])
    assert stop.value.code == 2
    assert "'0' is not a positive" in capsys.readouterr().err


def test_unwritable_output(water, tmp_path, refused):
    for path in (tmp_path / "no" / "out.json", tmp_path):  # before anything is computed
        assert "a folder" in refused("run", water, "--xc", "pbe", "--basis", "sto-3g", "--json", path)


@pytest.mark.parametrize(
    "damage", ["flip", "truncate", "remove", "nan", "header", "json", "content", "size", "config", "huge"]
)
def test_damaged_model(water, tmp_path, refused, damage):
    folder = tmp_path / "model"
    models.save(NeuralMetaGGA(width=4, depth=1, name="small"), folder, card={})
    assert models.load(folder).name == "small"
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "truncate":
        weights.write_bytes(content[:-8])
    elif damage == "remove":
        weights.unlink()
    elif damage in ("nan", "header"):  # with the hash that they have
        if damage == "nan":
            content[-8:] = struct.pack("<d", math.nan)
        else:
            content[:8] = struct.pack("<Q", 2**62)
        weights.write_bytes(content)
        info = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(info | {"sha256": hashlib.sha256(content).hexdigest()}))
    elif damage in ("json", "content"):
        (folder / "model.json").write_text({"json": "{", "content": "[]"}[damage])
    else:
        config = {
            "size": {"width": 5, "depth": 1},
            "config": {"width": "x", "depth": 1},
            "huge": {"width": 4, "depth": 10**9},
        }
        info = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**info, "config": config[damage]}))
    assert "install the model again" in refused("run", water, "--xc", folder)


def test_models_lists_and_describes(refused, capsys):
    assert main(["models"]) == 0
    assert f"{models.DEFAULT} (default)" in capsys.readouterr().out
    assert main(["models", "default"]) == 0
    assert json.loads(capsys.readouterr().out)["card"]["errors"]
    assert "no model" in refused("models", "absent")
    assert "no model.json" in refused("models", Path(__file__).parent)


def test_a_reader_that_leaves_is_no_error():
    """As `head` does: before the first line here."""
    command = [sys.executable, "-m", "mlxc", "models", "default"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_no_traceback_in_a_real_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mlxc", "run", str(tmp_path / "absent.xyz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
