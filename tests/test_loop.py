"""Training from a configuration to a model: learning, resuming, several processes, and gradients of every loss."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from pyscf import gto
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import mlxc
from mlxc import cli, models
from mlxc.errors import InputError, ModelFileError
from mlxc.neural import NeuralLocalHybrid, NeuralMetaGGA
from mlxc.reference import write
from mlxc.reference.build import build_system
from mlxc.reference.recipe import Task
from mlxc.train import checkpoint, radial, selfconsistent
from mlxc.train.conditions import FRACTIONAL_CHARGE, fractional_charges, fractional_spins
from mlxc.train.config import Config, Data, Phase, read_config
from mlxc.train.dataset import Dataset, training_set
from mlxc.train.losses import LOSSES, OF_CONDENSED, State
from mlxc.train.objective import Objective
from mlxc.train.ranks import Ranks
from mlxc.train.run import train
from mlxc.train.selfconsistent import SelfConsistentPhase

SYSTEMS = {
    "h": (2, ["H"], [[0, 0, 0]]),
    "h2": (1, ["H", "H"], [[0, 0, 0], [0, 0, 0.74]]),
    "f": (2, ["F"], [[0, 0, 0]]),
    "hf": (1, ["H", "F"], [[0, 0, 0], [0, 0, 0.92]]),
}
REACTIONS = [("bond1", {"h": 2, "h2": -1}, 109.5), ("bond2", {"h": 1, "f": 1, "hf": -1}, 141.0)]
WATER = (("O", (0.0, 0.0, 0.0)), ("H", (0.0, 0.757, 0.587)), ("H", (0.0, -0.757, 0.587)))
HYDROXYL = (("O", (0.0, 0.0, 0.0)), ("H", (0.0, 0.2, 0.95)))
CONFIG = """
name = "tiny"
family = "{family}"
width = 4
depth = 1
[data]
folder = "bench"
sets = {{"W4-17" = 1.0}}
basis = "def2-svp"
grid_level = 0
references = ["molecules.h5"]
only = ["OH"]
[losses]
reactions = 1
density = 1
decay = 1e-5
size = 0.01
[[phase]]
kind = "fixed"
adam = 3
lbfgs = 60
[[phase]]
kind = "self-consistent"
adam = 2
rate = 1e-3
batch = 1
"""


@pytest.fixture(scope="module")
def references():
    """Densities of water and OH, and energies of their cations, from CCSD in a small basis."""
    level = {"method": "CCSD", "basis": "6-31g"}
    tasks = [
        Task(name, atoms, charge, spin, "", level, {"method": "CCSD", "bases": ["6-31g"]})
        for name, atoms, charge, spin in (
            ("H2O", WATER, 0, 0), ("H2O+", WATER, 1, 1), ("OH", HYDROXYL, 0, 1), ("OH+", HYDROXYL, 1, 2),
        )
    ]  # fmt: skip
    return {t.name: build_system(t) for t in tasks}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, references):
    path = tmp_path_factory.mktemp("training")
    (path / "bench").mkdir()
    rows = [
        {
            "id": i, "set": "W4-17", "charge": 0, "multiplicity": m, "symbols": s, "coords_angstrom": x,
            "nheavy": sum(a != "H" for a in s), "graph_key": i,
        }
        for i, (m, s, x) in SYSTEMS.items()
    ]  # fmt: skip
    (path / "bench" / "systems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [
        {"set": "W4-17", "name": name, "stoichiometry": s, "ref_kcal": ref, "role": "train"}
        for name, s, ref in REACTIONS
    ]
    (path / "bench" / "reactions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write(path / "molecules.h5", references.values(), "water and OH")
    return path


@pytest.fixture
def one_thread():
    """Sums over several threads differ in their last digits from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def configured(folder, family="neural-mgga"):
    path = folder / f"{family}.toml"
    path.write_text(CONFIG.format(family=family))
    return path


@pytest.mark.parametrize("family", sorted(models.FAMILIES))
def test_training_improves_and_ships_a_model(folder, tmp_path, family, one_thread, capsys):
    out = tmp_path / "model"
    assert cli.main(["train", str(configured(folder, family)), "--out", str(out)]) == 0
    assert "SCF failures 0" in capsys.readouterr().out
    card = models.describe(out)["card"]
    errors = card["errors"]["training"]["mae_kcal"]
    assert errors["mlxc"]["W4-17"] < 0.5 * errors["r2scan"]["W4-17"]
    assert card["configuration"]["losses"]["density"] == 1
    functional = models.load(out)
    assert functional.name == "tiny"
    assert type(functional) is models.FAMILIES[family]
    log = (out / "log.csv").read_text().splitlines()
    assert log[0].startswith("phase,kind,step,objective")
    assert [line.split(",")[1] for line in log[1:]] == ["fixed"] * 2 + ["self-consistent"]


class Killed(BaseException):
    """Stands for the end of a process."""


def test_a_killed_run_resumes_to_the_same_model(folder, tmp_path, monkeypatch, one_thread):
    """Killed before and after every checkpoint that is written, in all phases."""
    path = configured(folder)
    whole = models.describe(train(path, tmp_path / "whole"))["sha256"]
    numbers = []
    write_checkpoint = checkpoint.write

    def killed_at(last, before):
        def write(folder, number, tree):
            numbers.append(number)
            if len(numbers) < last or not before:
                write_checkpoint(folder, number, tree)
            if len(numbers) == last:
                raise Killed

        return write

    out = tmp_path / "killed"
    resume = False
    for before in (True, False) * 4:
        monkeypatch.setattr(checkpoint, "write", killed_at(len(numbers) + 1 + before, before))
        with pytest.raises(Killed):
            train(path, out, resume)
        resume = checkpoint.exists(out)
        monkeypatch.setattr(checkpoint, "write", write_checkpoint)
        if len(numbers) > 8:
            break
    assert models.describe(train(path, out, resume))["sha256"] == whole
    assert (out / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()


def test_runs_are_not_mixed_up(folder, tmp_path):
    path, out = configured(folder), tmp_path / "run"
    with pytest.raises(InputError, match="no checkpoint"):
        train(path, out, resume=True)
    train(path, out)
    with pytest.raises(InputError, match="--resume"):
        train(path, out)
    other = folder / "other.toml"
    other.write_text(path.read_text().replace("1e-5", "2e-5"))
    with pytest.raises(InputError, match="another configuration"):
        train(other, out, resume=True)
    (tensors,) = out.glob("checkpoint-*")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        train(path, out, resume=True)


def test_two_processes_train_as_one(folder, tmp_path):
    """The same rows in the same order; sums differ by rounding, and L-BFGS is not run long enough to magnify it."""
    path = folder / "two.toml"
    path.write_text(configured(folder).read_text().replace("lbfgs = 60", "lbfgs = 0").replace('"single"', '"double"'))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    weights = []
    for out, start in (
        (tmp_path / "one", [sys.executable]),
        (tmp_path / "two", [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]),
    ):
        command = [*start, "-m", "mlxc", "train", str(path), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        weights.append(parameters_to_vector(models.load(out).parameters()))
    start = parameters_to_vector(models.FAMILIES["neural-mgga"](4, 1).parameters())
    assert len(start) == len(weights[0])
    assert torch.allclose(*weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("width = 4", "widht = 4"), "unknown key widht"),
        (("width = 4", 'width = "4"'), "width"),
        (("adam = 3", "adam = -3"), "negative"),
        (('kind = "fixed"', 'kind = "frozen"'), "frozen"),
        (("density = 1", "density = -1"), "negative"),
        (("density = 1", "densities = 1"), "densities"),
        (('family = "neural-mgga"', 'family = "x"'), "family"),
        (('only = ["OH"]', 'only = ["CH"]'), "CH"),
        (('"molecules.h5"', '"nothing.h5"'), "nothing.h5"),
        (('folder = "bench"', 'folder = "none"'), "none"),
        (('name = "tiny"', "name = "), "cannot read"),
    ],
)
def test_bad_configurations_are_one_line(folder, tmp_path, capsys, change, message):
    path = folder / "bad.toml"
    path.write_text(configured(folder).read_text().replace(*change))
    assert cli.main(["train", str(path), "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_batches_see_everything_once(folder):
    data = training_set(read_config(configured(folder)).data, 0, ["fractional_spin"])
    phase = SelfConsistentPhase(NeuralMetaGGA(2, 1), data, Data(), {"density"}, Ranks(), seed=1)
    assert len(data.inside) == 9
    drawn = [r.name for step in range(9) for r in phase.batch(step, 2)[0]]
    assert sorted(drawn[:9]) == sorted(drawn[9:]) == sorted(r.name for r in data.inside)
    assert drawn[:9] != drawn[9:]
    assert [r.name for r in phase.batch(3, 2)[0]] == drawn[6:8]


def test_conditions_hold_for_energies_on_straight_lines():
    for systems, rows in (fractional_charges(), fractional_spins()):
        for row in rows:
            electrons = {
                i: sum(map(sum, s.occupations)) if s.occupations else s.mole("sto-3g").nelectron
                for i, s in systems.items()
                if i in row.stoichiometry
            }
            # A linear function of the number of electrons costs nothing, a bent one does; H+ has no electrons.
            assert sum(c * electrons[i] for i, c in row.stoichiometry.items()) == pytest.approx(0)
            bent = sum(c * electrons[i] ** 2 for i, c in row.stoichiometry.items())
            assert (abs(bent) > 0.1) == (row.set == FRACTIONAL_CHARGE)


@pytest.fixture
def tight(monkeypatch):
    """Self-consistency that differences can be taken of."""
    monkeypatch.setattr(selfconsistent, "CONV_TOL", 1e-13)
    monkeypatch.setattr(selfconsistent, "CONV_TOL_GRAD", 1e-9)


@pytest.mark.parametrize("family", [NeuralMetaGGA, NeuralLocalHybrid])
@pytest.mark.parametrize(
    "name", ["reactions", "fractional_charge", "fractional_spin", "density", "density_l1", "dipole", "ionization"]
)
def test_gradients_of_losses_through_the_scf(name, family, references, tight):
    """Of water, OH and atoms with fractional charge or spin, against differences of complete SCF calculations."""
    torch.manual_seed(1)
    functional = family(width=4, depth=1)
    for p in functional.parameters():
        torch.nn.init.normal_(p, std=0.3)
    systems, rows = fractional_charges() if name == "fractional_charge" else fractional_spins()
    rows = [r for r in rows if r.name == "Li"]
    if name == "reactions":
        rows = [replace(r, set="any", ref_kcal=5.0) for r in rows]
    known = references if name in ("density", "density_l1", "dipole", "ionization") else {}
    data = Dataset(systems, [] if known else rows, references=known)
    data.targets = [t for t in data.targets if t.ionization is not None]
    settings = Data(basis="6-31g", grid_level=0)
    phase = SelfConsistentPhase(functional, data, settings, {name}, Ranks(), 0)
    objective = Objective(Config("x", [Phase("fixed")], losses={name: 2.0}), functional, data, Ranks())
    parameters = list(functional.parameters())
    start = parameters_to_vector(parameters).detach()
    direction = torch.randn(len(start), dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(step):
        vector_to_parameters(start + step * direction, parameters)
        result = objective(phase.observe(data.inside, data.targets))[0]
        assert not phase.failures
        return result

    assert value(0.0) > 0
    gradient = torch.cat([p.grad.flatten() for p in parameters])
    step = 3e-4
    differences = [(value(k * step) - value(-k * step)) / (2 * k * step) for k in (1, 2)]
    expected = (4 * differences[0] - differences[1]) / 3
    assert abs(expected) > 1e-6
    assert float(gradient @ direction) == pytest.approx(expected, rel=1e-4)


def test_an_scf_that_fails_is_counted_and_left_out(references, monkeypatch):
    systems, rows = fractional_spins()
    data = Dataset(systems, [r for r in rows if r.name in ("Li", "H")])
    functional = NeuralMetaGGA(2, 1)
    phase = SelfConsistentPhase(functional, data, Data(basis="6-31g", grid_level=0), set(), Ranks(), 0)
    real = selfconsistent.converge

    def failing(mf, dm0=None):
        result = real(mf, dm0)
        result.converged = result.converged and mf.mol.atom_symbol(0) != "Li"
        return result

    monkeypatch.setattr(selfconsistent, "converge", failing)
    state = phase.observe(data.inside, [])
    assert set(phase.failures) == {s.id for s in data.species if "Li" in s.symbols}
    assert len(LOSSES["fractional_spin"](data).errors(state)[0]) == 1


@pytest.mark.parametrize("name", ["one_electron", "uniform_gas", "tail", "lieb_oxford"])
def test_penalties_find_who_violates_them(name, monkeypatch):
    """Nothing where a condition is built in; something for a functional that is known to break it."""
    from mlxc.analytic import PBE, SlaterPW92
    from mlxc.features import Features
    from mlxc.localhybrid import HartreeFock

    class Deep(SlaterPW92):
        def energy_density(self, features: Features):
            return 3 * super().energy_density(features)

    penalty = LOSSES[name](Dataset({}, []))
    keeps = {"one_electron": HartreeFock(), "uniform_gas": SlaterPW92(), "tail": HartreeFock(), "lieb_oxford": PBE()}
    breaks = {"one_electron": PBE(), "uniform_gas": HartreeFock(), "tail": PBE(), "lieb_oxford": Deep()}
    nothing = torch.zeros(0)
    good, bad = (float(penalty(State(f, nothing, nothing))) for f in (keeps[name], breaks[name]))  # type: ignore[arg-type]
    assert good < {"one_electron": 1e-2, "tail": 1e-3}.get(name, 1e-6)
    assert bad > 0.02


def test_every_loss_is_described():
    import mlxc.train.losses as module

    described = [line.split()[0] for line in module.__doc__.splitlines()[2:] if line and not line.startswith(" ")]
    assert described == sorted(LOSSES, key=described.index)
    assert set(OF_CONDENSED) == {"size", "slope"}
    assert radial.ATOMS.keys() >= {"H", "Ne"}
    assert np.isfinite(len(described))


def test_an_ensemble_knows_how_sure_it_is(folder, tmp_path, capsys):
    path = folder / "ensemble.toml"
    path.write_text(
        configured(folder).read_text().split('[[phase]]\nkind = "self')[0].replace("lbfgs = 60", "lbfgs = 50")
    )
    out = tmp_path / "ensemble"
    assert cli.main(["train", str(path), "--out", str(out), "--members", "3"]) == 0
    mf = mlxc.KS(gto.M(atom="H 0 0 0; F 0 0 0.92", basis="def2-svp", verbose=0), str(out)).run(conv_tol=1e-10)
    energies = mlxc.ensemble_energies(mf)
    assert energies[0] == mf.e_tot
    assert energies.std() > 1e-5
    for k in (2, 3):
        alone = mlxc.KS(mf.mol, str(out / f"member-{k}")).run(conv_tol=1e-10)
        assert energies[k - 1] == pytest.approx(alone.e_tot, abs=0.1 * abs(alone.e_tot - mf.e_tot) + 1e-6)
    xyz, result = tmp_path / "hf.xyz", tmp_path / "hf.json"
    xyz.write_text("2\n\nH 0 0 0\nF 0 0 0.92\n")
    assert cli.main(["run", str(xyz), "--xc", str(out), "--basis", "def2-svp", "--json", str(result)]) == 0
    expected = energies.std(ddof=1) * 627.5095
    assert json.loads(result.read_text())["energy_uncertainty_kcal"] == pytest.approx(expected, rel=1e-3)
    with pytest.raises(InputError, match="no ensemble"):
        mlxc.ensemble_energies(mlxc.KS(mf.mol).run())
    packed = out / "members.safetensors"
    packed.write_bytes(packed.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFileError, match="damaged"):
        mlxc.ensemble_energies(mf)


def test_plots_of_a_run_and_of_a_model(folder, tmp_path, capsys):
    out = train(configured(folder, "neural-local-hybrid"), tmp_path / "run")
    assert cli.main(["plot", str(out)]) == 0
    names = ("learning", "errors", "enhancement", "mixing")
    assert capsys.readouterr().out.split()[-4:] == [str(out / f"{n}.png") for n in names]
    for name in names:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["plot", str(tmp_path)]) == 2
    assert "neither" in capsys.readouterr().err
