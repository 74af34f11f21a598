"""Training from a configuration to a model: learning, resuming, several processes, and gradients of every loss."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import slope
from pyscf import gto, lib
from threadpoolctl import threadpool_limits
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import mlxc
from mlxc import cli, models
from mlxc.constraints.fractional import FRACTIONAL_CHARGE, FRACTIONAL_SPIN, fractional_charges, fractional_spins
from mlxc.errors import InputError, ModelFileError
from mlxc.neural import NeuralLocalHybrid, NeuralMetaGGA
from mlxc.reference import write
from mlxc.reference.benchmark import Reaction, make_system, system_of
from mlxc.reference.build import build_system
from mlxc.reference.recipe import Task
from mlxc.train import checkpoint, compress, loop, losses, selfconsistent
from mlxc.train.config import Config, Data, Phase, read_config
from mlxc.train.dataset import Dataset, training_set
from mlxc.train.densities import FixedDensities
from mlxc.train.loop import new_functional
from mlxc.train.losses import LOSSES, Rows, State
from mlxc.train.objective import Objective
from mlxc.train.optimizer import learning_rate
from mlxc.train.ranks import Ranks
from mlxc.train.run import train
from mlxc.train.selfconsistent import SelfConsistentPhase
from mlxc.units import KCAL

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
validation = 2
references = ["molecules.h5"]
only = ["H2O+"]
[losses]
reactions = 1
density = 1
decay = 1e-5
size = 0.01
[[phase]]
kind = "fixed"
adam = 3
lbfgs = 100
[[phase]]
kind = "self-consistent"
adam = 3
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
def folder(benchmark_folder, tmp_path_factory, references):
    path = tmp_path_factory.mktemp("training")
    shutil.copytree(benchmark_folder, path / "bench")
    write(path / "molecules.h5", references.values(), "water and OH")
    return path


@pytest.fixture
def one_thread():
    """Sums over several threads differ in their last digits from run to run."""
    threads = torch.get_num_threads(), lib.num_threads()
    torch.set_num_threads(1)
    lib.num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads[0])
    lib.num_threads(threads[1])


def configured(folder, family="neural-mgga"):
    path = folder / f"{family}.toml"
    path.write_text(CONFIG.format(family=family))
    return path


def fixed_only(text):
    """The same configuration without what needs a self-consistent phase."""
    return text.split('[[phase]]\nkind = "self')[0].replace("density = 1", "")


@pytest.mark.parametrize("family", sorted(models.FAMILIES))
def test_training_improves_and_ships_a_model(folder, tmp_path, family, one_thread, capsys, monkeypatch):
    monkeypatch.setattr("mlxc.train.run.FEW", 1)
    out = tmp_path / "model"
    assert cli.main(["train", str(configured(folder, family)), "--out", str(out)]) == 0
    assert "SCF failures 0" in capsys.readouterr().out
    assert models.describe(out)["domain"]["elements"] == ["F", "H", "O"]
    card = models.describe(out)["card"]
    errors = card["errors"]["training"]["mae_kcal"]
    if family == "neural-mgga":  # the other one starts further away
        assert errors["mlxc"]["W4-17"] < errors["r2scan"]["W4-17"]
    assert card["errors"]["training"]["rows"] == card["errors"]["validation"]["rows"] == {"W4-17": 1}
    assert card["configuration"]["losses"]["density"] == 1
    functional = models.load(out)
    assert functional.name == "tiny"
    assert type(functional) is models.FAMILIES[family]
    log = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [(r["kind"], r["step"]) for r in log[:3] + log[-2:]] == [
        ("fixed", "0"), ("fixed", "3"), ("fixed", "4"), ("self-consistent", "0"), ("self-consistent", "3")
    ]  # fmt: skip
    judged = [float(r["judgement"]) for r in log]
    assert min(judged) < 0.99 * judged[0]
    assert float(log[2]["reactions"]) < 0.1
    assert float(log[-1]["MAE W4-17"]) > 0


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.mark.parametrize("patience", [0, 1])
def test_a_killed_run_resumes_to_the_same_model(folder, tmp_path, monkeypatch, one_thread, patience):
    """Killed at every file that it writes, before it is there and after, again and again."""
    monkeypatch.setitem(loop.LOOK, "fixed", 2)  # in the midst of Adam, too
    path = folder / f"killed{patience}.toml"
    path.write_text(f"patience = {patience}\n" + configured(folder).read_text())
    whole = models.describe(train(path, tmp_path / "whole"))["sha256"]
    out, deaths, done = tmp_path / "killed", 0, False
    real = {module: module.write_atomic for module in (checkpoint, loop)}

    def dying(module, written, last, before):
        def write_atomic(path, content):
            written.append(path)
            if len(written) < last or not before:
                real[module](path, content)
            if len(written) == last:
                raise Killed

        return write_atomic

    while not done:
        written: list = []
        # Three files for each step: progress is made only where at least two of them are written.
        last, before = 2 + deaths % 4, bool(deaths % 2)
        for module in real:
            monkeypatch.setattr(module, "write_atomic", dying(module, written, last, before))
        try:
            train(path, out, resume=checkpoint.exists(out))
            done = True
        except Killed:
            deaths += 1
        assert deaths < 60
    assert deaths > 5
    assert models.describe(out)["sha256"] == whole
    assert (out / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()


def test_a_run_that_was_stopped_before_its_first_step_resumes(folder, tmp_path, monkeypatch, one_thread):
    path = folder / "early.toml"
    path.write_text(fixed_only(configured(folder).read_text()))
    real = loop.fill

    def stopped(species, settings, report):
        real(species[:1], settings, report)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "fill", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(path, tmp_path / "stopped")
    assert len(list((tmp_path / "stopped" / "cache").glob("*.h5"))) == 1
    train(path, tmp_path / "stopped", resume=True)
    assert models.sha256(tmp_path / "stopped") == models.sha256(train(path, tmp_path / "whole"))


def test_adam_is_judged_on_the_grid(folder, tmp_path, one_thread, monkeypatch):
    """Not by what condensed points make of it, whose errors Adam would be praised for."""
    monkeypatch.setitem(loop.LOOK, "fixed", 2)
    monkeypatch.setattr(compress, "CELLS", (40, 40))
    text = fixed_only(configured(folder).read_text()).replace("lbfgs = 100\n", "").replace("adam = 3", "adam = 5")
    path, out, real = folder / "adam.toml", tmp_path / "model", Objective.judge
    path.write_text('precision = "double"\n' + text)
    species = training_set(read_config(path).data, 0, []).species
    off = []

    def judge(self, state):
        exact = FixedDensities(species, out / "cache").full_grid(state.functional)
        off.append(float((state.energies - exact).detach().abs().max()))
        return real(self, state)

    monkeypatch.setattr(Objective, "judge", judge)
    train(path, out)
    assert len(off) == 4  # before the first step, after 2, 4 and 5
    assert max(off) < 1e-10


def test_a_phase_that_does_harm_changes_nothing(folder, tmp_path, one_thread):
    path = folder / "harm.toml"
    text = configured(folder).read_text()
    path.write_text(text.replace("rate = 1e-3", "rate = 3.0"))
    harmed = train(path, tmp_path / "harmed")
    path.write_text(fixed_only(text))
    assert models.sha256(harmed) == models.sha256(train(path, tmp_path / "fixed"))
    log = csv.DictReader((tmp_path / "harmed" / "log.csv").read_text().splitlines())
    judged = [float(r["judgement"]) for r in log if r["kind"] == "self-consistent"]
    assert judged[-1] > judged[0]


def test_runs_are_not_mixed_up(folder, tmp_path, monkeypatch):
    path, out = configured(folder), tmp_path / "run"
    path.write_text(fixed_only(path.read_text()))
    with pytest.raises(InputError, match="nothing to go on with"):
        train(path, out, resume=True)
    train(path, out)
    with pytest.raises(InputError, match="--resume"):
        train(path, out)
    finished = tmp_path / "finished"
    shutil.copytree(out, finished, ignore=shutil.ignore_patterns("checkpoint*"))
    for resume, members in ((False, 1), (True, 1), (False, 2), (True, 2)):
        ensemble = folder / "ensemble.toml"
        ensemble.write_text(f'start = "{out}"\n' + path.read_text())
        with pytest.raises(InputError, match="holds a finished model"):
            train(ensemble if members > 1 else path, finished, resume, members)
    with pytest.raises(InputError, match="the model to start from"):
        train(ensemble, out, True, 2)
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(path.parent)
        train(Path(path.name), out, resume=True)
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


def test_two_processes_train_as_one(folder, tmp_path, one_thread):
    """The same steps; sums differ by rounding, and L-BFGS is not run long enough to magnify it.

    Trained on is H2, with seed 1: where the hole of F lies on a coarse grid is decided by rounding.
    """
    path = folder / "two.toml"
    path.write_text(
        'precision = "double"\nseed = 1\n' + configured(folder).read_text().replace("lbfgs = 100", "lbfgs = 4")
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*together, "-m", "mlxc", "train", str(path), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    train(path, tmp_path / "one")
    one, two = (parameters_to_vector(models.load(tmp_path / x).parameters()) for x in ("one", "two"))
    new = parameters_to_vector(new_functional(read_config(path)).parameters())
    assert (one - new).abs().max() > 1e-3
    assert torch.allclose(one, two, rtol=1e-5, atol=1e-7)
    assert (tmp_path / "one" / "log.csv").read_text().count("\n") == (tmp_path / "two" / "log.csv").read_text().count(
        "\n"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_networks_on_a_gpu_train_as_on_the_processor(folder, tmp_path):
    content = 'precision = "double"\n' + configured(folder).read_text().replace("lbfgs = 100", "lbfgs = 4")
    trained = {}
    for device in ("cpu", "cuda"):
        path = folder / f"{device}.toml"
        path.write_text(f'device = "{device}"\n{content}')
        train(path, tmp_path / device)
        trained[device] = parameters_to_vector(models.load(tmp_path / device).parameters())
    assert torch.allclose(trained["cpu"], trained["cuda"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("width = 4", "widht = 4"), "unknown key widht"),
        (("width = 4", 'width = "4"'), "width"),
        (("width = 4", 'width = 4\ndevice = "abacus"'), "no device 'abacus'"),
        (("width = 4", 'width = 4\nd4 = "abacus"'), "no published D4 parameters for 'abacus'"),
        (("adam = 3", "adam = -3"), "negative"),
        (('kind = "fixed"', 'kind = "frozen"'), "frozen"),
        (("density = 1", "density = -1"), "weight -1"),
        (("density = 1", "densities = 1"), "densities"),
        (('family = "neural-mgga"', 'family = "x"'), "family"),
        (('only = ["H2O+"]', 'only = ["CH"]'), "CH"),
        (('"molecules.h5"', '"nothing.h5"'), "nothing.h5"),
        (('folder = "bench"', 'folder = "none"'), "none"),
        (('name = "tiny"', "name = "), "cannot read"),
        (('basis = "def2-svp"', 'basis = "nonsense"'), "basis 'nonsense' is unknown"),
        (("grid_level = 0", "grid_level = 12"), "grid_level"),
        (("depth = 1", "depth = 0"), "depth"),
        (("rate = 1e-3", "rate = nan"), "rate"),
        (("batch = 1", "batch = 0"), "batch"),
        (("adam = 3\nlbfgs = 100", ""), "neither"),
        (('{"W4-17" = 1.0}', '{"W4-17" = 0.0}'), "no set has a weight"),
        (('basis = "def2-svp"', 'basis = "def2-svp"\nrole = "dev"'), "W4-17 has no rows of role 'dev'"),
        (("rate = 1e-3", "rate = 1e-3\nlast_rate = 2.0"), "last_rate = 2.0 is not above 0"),
        (("reactions = 1", ""), "need each other"),
        (('folder = "bench"', ""), "sets are those of a folder"),
        (('{"W4-17" = 1.0}', '{"W4-17" = 1.0, "W4-71" = 1.0}'), "no set W4-71"),
        (('references = ["molecules.h5"]', ""), "needs references"),
        (('[[phase]]\nkind = "fixed"', '[phase]\nkind = "fixed"'), "cannot read"),
        (('name = "tiny"', 'name = "../tiny"'), "plain one"),
        (('name = "tiny"', 'name = ""'), "plain one"),
        (('name = "tiny"', 'name = ".."'), "plain one"),
        (("grid_level = 0", 'grid_level = 0\ngains = "gains.jsonl"'), "limit_basis"),
        (
            ('kind = "fixed"\nadam = 3\nlbfgs = 100', 'kind = "self-consistent"\nadam = 1'),
            "of densities that are",
        ),
    ],
)
def test_bad_configurations_are_one_line(folder, tmp_path, capsys, change, message):
    path, text = folder / "bad.toml", configured(folder).read_text()
    assert change[0] in text
    path.write_text(text.replace(*change).replace("[data]", '[data]\ncache = "bad"'))
    assert cli.main(["train", str(path), "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("named", ["first", "first-d4", "./first-D4"])
def test_models_are_those_beside_the_configuration(named, folder, tmp_path):
    text = configured(folder).read_text().replace("[data]", f'[data]\ndensities = "{named}"')
    (tmp_path / "own.toml").write_text(f'start = "{named}"\n{text}')
    assert read_config(tmp_path / "own.toml").start == named  # a shipped one, or none
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "model.json").touch()
    config = read_config(tmp_path / "own.toml")
    assert config.start == config.data.densities == (tmp_path / named).absolute()


def test_densities_of_fractional_electrons_are_refused(references, tmp_path):
    ensemble = replace(references["OH"], name="half", provenance={"ensemble": {"H2O": 0.5}})
    write(tmp_path / "half.h5", [references["OH"], ensemble], "")
    settings = Data(references=[tmp_path / "half.h5"])
    with pytest.raises(InputError, match="half/half: densities of fractional electrons"):
        training_set(settings, 0, ["density"])
    assert len(training_set(replace(settings, only=["OH"]), 0, ["density"]).targets) == 1


def test_a_phase_that_no_loss_needs_is_one_line(tmp_path, capsys):
    path = tmp_path / "idle.toml"
    path.write_text(
        'name = "idle"\nwidth = 2\n[data]\nreferences = ["atoms"]\nonly = ["H"]\n[losses]\nuniform_gas = 1.0\n'
        '[[phase]]\nkind = "self-consistent"\nadam = 1\n'
    )
    assert cli.main(["train", str(path)]) == 2
    error = capsys.readouterr().err
    assert "no loss needs a calculation" in error
    assert error.count("\n") == 1


def test_the_learning_rate_falls():
    phase = Phase("fixed", adam=100, rate=0.01, last_rate=0.3)
    assert [learning_rate(phase, k) for k in (0, 50, 100)] == pytest.approx([0.01, 0.0065, 0.003])


def test_batches_see_everything_once(folder):
    data = training_set(read_config(configured(folder)).data, 0, ["fractional_spin"])
    phase = SelfConsistentPhase(NeuralMetaGGA(2, 1), data, Data(), {"density"}, Ranks(), seed=1, batch=2)
    assert {k: len(rows) for k, rows in data.kinds().items()} == {"reactions": 1, FRACTIONAL_SPIN: 7}
    drawn = [r.name for step in range(7) for r in phase.batch(step)[0] if r.set == FRACTIONAL_SPIN]
    assert sorted(drawn[:7]) == sorted(drawn[7:]) == sorted(r.name for r in data.kinds()[FRACTIONAL_SPIN])
    assert drawn[:7] != drawn[7:]
    assert [r.name for r in phase.batch(3)[0]][-2:] == drawn[6:8]
    assert [t.reference.name for t in phase.batch(5)[1]] == ["H2O+"]


def test_a_row_that_a_sample_has_twice_is_drawn_as_two(folder):
    settings = replace(read_config(configured(folder)).data, validation=0, bootstrap=True)
    data = next(d for d in (training_set(settings, k, ["reactions"]) for k in range(9)) if d.inside[0] == d.inside[1])
    phase = SelfConsistentPhase(NeuralMetaGGA(2, 1), data, Data(), {"reactions"}, Ranks(), seed=1, batch=1)
    rows, _ = phase.batch(0)
    energies, known = torch.zeros(len(data.species), dtype=torch.float64), torch.ones(len(data.species)).bool()
    observed = State(phase.functional, energies=energies, known=known, rows=rows)
    assert len(Rows(data, data.inside, data.weights).errors(observed)[0]) == 1


def test_conditions_of_molecules_that_are_kept_out_are_kept_out_too(folder):
    data = training_set(read_config(configured(folder)).data, 0, ["fractional_charge"])
    graphs = {data.systems[i].graph_key for r in data.outside for i in r.stoichiometry if not data.systems[i].is_atom}
    assert graphs
    assert not graphs & {data.systems[i].graph_key for r in data.inside for i in r.stoichiometry}


def test_atoms_are_never_kept_out(folder):
    settings = read_config(configured(folder)).data
    for seed in range(4):
        data = training_set(settings, seed, ["fractional_spin"])
        assert data.outside
        assert {"H", "F"} <= {r.name for r in data.kinds()[FRACTIONAL_SPIN]}


def test_sets_count_by_their_weights_in_every_batch():
    systems, rows = fractional_spins()
    rows = [replace(r, set="rare" if r.name == "H" else "common") for r in rows]
    data = Dataset(systems, rows, weights={"rare": 3.0, "common": 1.0})
    energies = torch.linspace(0, 0.01, len(data.species), dtype=torch.float64)
    loss = LOSSES["reactions"](data)

    def value(known):
        return float(loss(State(NeuralMetaGGA(2, 1), energies, known)))

    one_by_one = []
    for r in rows:
        known = torch.zeros(len(data.species), dtype=torch.bool)
        known[[data.index[systems[i].key] for i in r.stoichiometry]] = True
        one_by_one.append(value(known))
    assert value(torch.ones(len(data.species), dtype=torch.bool)) == pytest.approx(np.mean(one_by_one))
    assert one_by_one[0] / sum(one_by_one) > 0.4


def test_references_that_are_not_trained_on_still_give_ionization_potentials(folder, references):
    settings = read_config(configured(folder)).data
    (target,) = training_set(replace(settings, only=["OH"]), 0, []).targets
    expected = references["OH+"].energies["best"] - references["OH"].energies["best"]
    assert target.ionization == pytest.approx(expected)


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
    phase = SelfConsistentPhase(functional, data, settings, {name}, Ranks())
    objective = Objective(Config("x", [Phase("fixed")], losses={name: 2.0}), functional, data, Ranks())
    parameters = list(functional.parameters())
    start = parameters_to_vector(parameters).detach()
    direction = torch.randn(len(start), dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(step):
        vector_to_parameters(start + step * direction, parameters)
        losses = objective(phase.observe())
        assert not phase.failures
        return sum(losses.values())

    assert value(0.0) > 0
    gradient = torch.cat([p.grad.flatten() for p in parameters])
    step = 1e-4 if name == "density_l1" else 3e-4  # absolute values have kinks
    expected = slope(value, step)
    assert abs(expected) > 1e-6
    assert float(gradient @ direction) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("what", ["converge", "energy_gradient"])
def test_what_fails_is_counted_and_left_out(what, monkeypatch):
    systems, rows = fractional_spins()
    data = Dataset(systems, [r for r in rows if r.name in ("Li", "H")], weights={FRACTIONAL_SPIN: 1.0})
    settings = Data(basis="6-31g", grid_level=0)
    phase = SelfConsistentPhase(NeuralMetaGGA(2, 1), data, settings, set(), Ranks())
    real = getattr(selfconsistent, what)

    def failing(mf, *args):
        result = real(mf, *args)
        if "Li" in mf.mol.elements:
            if what == "energy_gradient":
                raise RuntimeError("no gradient")
            result.converged = False
        return result

    monkeypatch.setattr(selfconsistent, what, failing)
    state = phase.observe()
    assert set(phase.failures) == {s.id for s in data.species if "Li" in s.symbols}
    assert len(LOSSES["reactions"](data).errors(state)[0]) == 1


def test_an_scf_that_raises_is_tried_from_scratch(monkeypatch):
    systems, rows = fractional_spins()
    data = Dataset(systems, [r for r in rows if r.name == "H"], weights={FRACTIONAL_SPIN: 1.0})
    phase = SelfConsistentPhase(NeuralMetaGGA(2, 1), data, Data(basis="6-31g", grid_level=0), set(), Ranks())
    assert phase.observe().known.all()
    real = selfconsistent.converge

    def failing(mf, start):
        if start is not None:
            raise ValueError("array must not contain infs or NaNs")
        return real(mf, start)

    monkeypatch.setattr(selfconsistent, "converge", failing)
    assert phase.observe().known.all()
    assert not phase.failures


def test_wrong_settings_are_no_failures_of_species():
    systems, rows = fractional_spins()
    phase = SelfConsistentPhase(NeuralMetaGGA(2, 1), Dataset(systems, rows[:1]), Data(basis="none"), set(), Ranks())
    with pytest.raises(InputError, match="basis"):
        phase.observe()


def test_an_energy_without_its_gain_is_not_known():
    systems, rows = fractional_spins()
    data = Dataset(systems, [r for r in rows if r.name in ("Li", "H")], weights={FRACTIONAL_SPIN: 1.0})
    gains = torch.tensor([float("nan") if "Li" in s.symbols else 0.0 for s in data.species], dtype=torch.float64)
    settings = Data(basis="6-31g", grid_level=0)
    phase = SelfConsistentPhase(NeuralMetaGGA(2, 1), data, settings, set(), Ranks(), gains=gains)
    state = phase.observe()
    assert not phase.failures
    assert torch.equal(state.known, ~gains.isnan())
    assert len(LOSSES["reactions"](data).errors(state)[0]) == 1
    assert torch.isfinite(state.energies).all()


def test_every_process_remembers_its_own_densities_alone():
    """A density that another process goes on with would be an old one here, and take its place in a checkpoint."""
    systems, rows = fractional_spins()
    data = Dataset(systems, rows[:2])
    ranks = SimpleNamespace(world=2, rank=1)
    phase = SelfConsistentPhase(NeuralMetaGGA(2, 1), data, Data(), set(), ranks)
    phase.remember({str(i): torch.full((1, 1), float(i)) for i in range(4)})
    assert sorted(phase.densities) == [1, 3]


def test_an_excited_atom_has_no_exact_energy():
    """Triplet helium and singlet oxygen beside the ground states."""
    atoms = [("He", 1, -2.9), ("He", 3, -2.1), ("O", 3, -75.0), ("O", 1, -74.9), ("Ar", 1, -527.0)]
    systems = {f"{s} {m}": make_system(f"{s} {m}", 0, m, (s,), [(0.0, 0.0, 0.0)]) for s, m, _ in atoms}
    data = Dataset(systems, [Reaction("x", i, {i: 1}, 0.0, "train") for i in systems])
    energies = torch.zeros(len(atoms), dtype=torch.float64)
    for (_, _, e), system in zip(atoms, systems.values(), strict=True):
        energies[data.index[system.key]] = e
    errors = data.atom_errors(energies, torch.ones(len(atoms), dtype=torch.bool))
    expected = [(-2.9 + 2.903724) * KCAL / 2, (-75.0 + 75.0673) * KCAL / 8]
    assert sorted(errors.tolist()) == pytest.approx(sorted(expected))


def test_references_of_two_files_stand_beside_each_other(folder, tmp_path, references):
    """H2O of one file has no cation there, and does not take that of the other."""
    write(tmp_path / "more.h5", [references["H2O"], references["OH"]], "the same again")
    settings = Data(references=[folder / "molecules.h5", tmp_path / "more.h5"], only=["H2O", "more/OH"])
    data = training_set(settings, 0, ["density"])
    assert [t.reference.name for t in data.targets] == ["H2O", "H2O", "OH"]
    assert [t.ionization is None for t in data.targets] == [False, True, True]
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "more.h5", [references["OH"]], "another of this name")
    with pytest.raises(InputError, match="two files of references are called more"):
        training_set(Data(references=[tmp_path / "more.h5", tmp_path / "other" / "more.h5"]), 0, ["density"])


def test_references_that_are_not_there_to_train_on(references, tmp_path):
    """Those of molecules that are kept out are counted; those that lack a density and are asked for are refused."""
    water = system_of(references["H2O"])
    row = Reaction("W4-17", "water", {water.id: 1}, 0.0, "train")
    data = Dataset({water.id: water}, [], [row], references={f"file/{k}": r for k, r in references.items()})
    assert [t.reference.name for t in data.targets] == ["H2O+", "OH", "OH+"]  # a cation is another graph
    assert data.spared == 1
    write(tmp_path / "bare.h5", [replace(references["OH"], dm1=None)], "an energy alone")
    with pytest.raises(InputError, match="no density of it"):
        training_set(Data(references=[tmp_path / "bare.h5"], only=["OH"]), 0, ["density"])


def test_faulty_rows_are_refused(folder, tmp_path):
    shutil.copytree(folder / "bench", tmp_path / "bench")
    rows = [json.loads(x) for x in (folder / "bench" / "reactions.jsonl").read_text().splitlines()]
    for change, message in (
        ({"ref_kcal": float("nan")}, "the reference energy is nan"),
        ({"stoichiometry": {"h2": 1, "h": -1}}, "nuclei of H on one side only"),
        ({"stoichiometry": {"h2": 1, "hydrogen": -2}}, "no geometry of hydrogen"),
    ):
        content = [rows[0] | change, *rows[1:]]
        (tmp_path / "bench" / "reactions.jsonl").write_text("\n".join(map(json.dumps, content)))
        with pytest.raises(InputError, match=message):
            training_set(Data(folder=tmp_path / "bench", sets={"W4-17": 1.0}), 0, ["reactions"])


@pytest.mark.parametrize("validation", [0, 2])
def test_without_rows_kept_out_parameters_are_judged_by_the_whole_objective(validation, folder, tmp_path):
    """Or else a run that is to make a functional smoother would give back the one that it began with."""
    text = fixed_only(configured(folder).read_text()).replace("adam = 3\n", "").replace("size = 0.01", "slope = 0.5")
    path = folder / "judged.toml"
    path.write_text(text.replace("validation = 2", f"validation = {validation}"))
    assert cli.main(["train", str(path), "--out", str(tmp_path / "model")]) == 0
    last = list(csv.DictReader((tmp_path / "model" / "log.csv").read_text().splitlines()))[-1]
    judgement, objective = float(last["judgement"]), float(last["objective"])
    assert float(last["slope"]) > 1e-3 * objective
    assert (judgement == pytest.approx(objective, rel=1e-5)) == (validation == 0)


@pytest.mark.parametrize("what", ["conditions", "rows kept out"])
def test_a_functional_whose_scf_fails_is_judged_worse(what, monkeypatch):
    """Whatever it is that fails, and although what is left looks better."""
    systems, rows = fractional_spins()
    lithium, hydrogen = ([r for r in rows if r.name == name] for name in ("Li", "H"))
    if what == "rows kept out":
        data = Dataset(systems, hydrogen, lithium)
    else:
        data = Dataset(systems, hydrogen + lithium, weights={})
    functional, losses = NeuralMetaGGA(2, 1), {"reactions": 1.0, "fractional_spin": 1.0}
    objective = Objective(Config("x", [Phase("fixed", 1)], losses=losses), functional, data, Ranks())
    phase = SelfConsistentPhase(functional, data, Data(basis="6-31g", grid_level=0), set(), Ranks())
    good = objective.judge(phase.look())[0]

    def failing(i):
        raise ValueError("array must not contain infs or NaNs")

    monkeypatch.setattr(phase, "_converged", failing)
    bad = objective.judge(phase.look())[0]
    assert good[0] == 0 < good[1]
    assert bad[0] == (2 if what == "rows kept out" else len(data.species))
    assert bad > good


def test_a_response_that_fails_keeps_its_energy(references, monkeypatch):
    data = Dataset({}, [], references=references, only=["H2O"])
    functional = NeuralMetaGGA(2, 1)
    phase = SelfConsistentPhase(functional, data, Data(basis="6-31g", grid_level=0), {"density"}, Ranks())

    def failing(*args):
        raise InputError("the response did not converge")

    monkeypatch.setattr(selfconsistent, "response_gradient", failing)
    state = phase.observe()
    assert state.known.all()
    assert not len(state.results["density"])
    assert state.failed == len(phase.failures) == 1


def test_rows_that_were_not_drawn_do_not_count():
    """Although all of their molecules are known from others."""
    systems, rows = fractional_spins()
    rows = [r for r in rows if r.name in ("H", "Li")]
    data = Dataset(systems, rows)
    known = torch.ones(len(data.species), dtype=torch.bool)
    energies = torch.arange(len(data.species)).double() / 100
    loss = LOSSES["reactions"](data)
    functional = NeuralMetaGGA(2, 1)
    both, first, second = (loss(State(functional, energies, known, rows=r)) for r in (None, rows[:1], rows[1:]))
    assert first != second
    assert both == pytest.approx((first + second) / 2)


def test_densities_that_can_turn_are_not_compared(references):
    from mlxc.reference import shipped

    small = shipped.load("small")
    turning = {k for k in ("H", "N", "O", "F", "C", "Be", "OH", "CH", "NH", "HF", "H2O", "NH2") if small[k].can_turn()}
    assert turning == {"O", "F", "C", "OH", "CH"}
    data = Dataset({}, [], references=references, only=["OH"])
    phase = SelfConsistentPhase(
        NeuralMetaGGA(2, 1), data, Data(basis="6-31g", grid_level=0), {"density", "dipole"}, Ranks()
    )
    results = phase.look().results
    assert (len(results["density"]), len(results["dipole"])) == (0, 1)


def test_one_molecule_in_two_units_is_one_species(references):
    from mlxc.reference.benchmark import make_system, system_of

    symbols, coords = zip(*WATER, strict=True)
    assert make_system("w", 0, 1, symbols, coords).key == system_of(references["H2O"]).key
    moved = [(x + 1e-6, y, z) for x, y, z in coords]
    assert make_system("w", 0, 1, symbols, moved).key != system_of(references["H2O"]).key


@pytest.mark.parametrize("names", [[n] for n in sorted(losses.OF_FUNCTIONAL)] + [["tail", "mass", "decay"]])
def test_gradients_of_penalties(names):
    """Of single ones and of a sum, by Objective, against differences along a direction."""
    torch.manual_seed(3)
    functional = NeuralMetaGGA(4, 1) if names == ["one_electron"] else NeuralLocalHybrid(4, 1)
    for p in functional.parameters():
        torch.nn.init.normal_(p, std=0.5)
    weights = dict.fromkeys(names, 2.0)
    data = Dataset({}, [])
    objective = Objective(Config("x", [Phase("fixed")], losses=weights), functional, data, Ranks())
    parameters = list(functional.parameters())
    start = parameters_to_vector(parameters).detach()
    direction = torch.randn(len(start), dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def value(step):
        vector_to_parameters(start + step * direction, parameters)
        return sum(objective(State(functional, torch.zeros(0), torch.zeros(0, dtype=torch.bool))).values())

    if names == ["uniform_gas"]:  # built into both families
        assert value(0.0) < 1e-4
        return
    assert value(0.0) > 0
    gradient = torch.cat([p.grad.flatten() for p in parameters])
    assert float(gradient @ direction) == pytest.approx(slope(value, 1e-4), rel=1e-6)


@pytest.mark.parametrize("name", ["one_electron", "uniform_gas", "tail", "potential_tail", "lieb_oxford"])
def test_penalties_find_who_violates_them(name, monkeypatch):
    """Nothing where a condition is built in; something for a functional that is known to break it."""
    from mlxc.analytic import PBE, SlaterPW92
    from mlxc.features import Features
    from mlxc.localhybrid import HartreeFock

    class Deep(SlaterPW92):
        def energy_density(self, features: Features):
            return 3 * super().energy_density(features)

    penalty = LOSSES[name](Dataset({}, []))
    gas = SlaterPW92()
    keeps = {n: HartreeFock() for n in LOSSES} | {"uniform_gas": gas, "lieb_oxford": PBE()}
    breaks = {n: PBE() for n in LOSSES} | {"uniform_gas": HartreeFock(), "lieb_oxford": Deep()}
    nothing = torch.zeros(0)
    good, bad = (float(penalty(State(f, nothing, nothing))) for f in (keeps[name], breaks[name]))  # type: ignore[arg-type]
    assert good < {"one_electron": 1e-2, "tail": 1e-3}.get(name, 1e-6)
    assert bad > 0.02


@pytest.mark.parametrize("hybrid", ["t-lmf", "mlxc-lh7"])
def test_the_potential_tail_is_that_of_the_operator(hybrid):
    """c of -c / r against matrix elements of V_xc between the orbital of He and a narrow function far out."""
    from pyscf import gto

    import mlxc
    from mlxc.constraints.penalties import PotentialTail

    functional = mlxc.models.resolve(hybrid)
    distance = 7.0
    wide = [[0, [0.15 * 2.2**k, 1]] for k in range(8)]
    mol = gto.M(atom=[["He", (0, 0, 0)], ["ghost-H", (0, 0, distance)]], unit="Bohr", spin=0, verbose=0,
                basis={"He": wide, "ghost-H": [[0, [8.0, 1]]]})  # fmt: skip
    mf = mlxc.KS(mol, functional)
    mf.grids.atom_grid = {"ghost-H": (100, 302), "He": (100, 302)}
    homo = mf.kernel() and mf.mo_coeff[:, 0]
    vxc = mf.get_veff() - mf.get_j()
    found = -distance * (vxc @ homo)[-1] / (mf.get_ovlp() @ homo)[-1]
    assert found == pytest.approx(float(PotentialTail().coefficients(functional)[0].detach()), abs=0.02)


def test_every_loss_is_described():
    described = [line.split()[0] for line in losses.__doc__.splitlines()[2:] if line and not line.startswith(" ")]
    assert set(described) == LOSSES.keys()
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    assert all(f"`{name}`" in page for name in LOSSES)


def test_an_ensemble_knows_how_sure_it_is(folder, tmp_path, capsys):
    path = folder / "ensemble.toml"
    # With both molecules to train on, so that the model moves away from r2SCAN.
    content = fixed_only(configured(folder).read_text()).replace("validation = 2", "validation = 8")
    path.write_text(content)
    out, start = tmp_path / "ensemble", tmp_path / "start"
    argv = ["train", str(path), "--out", str(out), "--members", "3"]
    assert cli.main(argv) == 2
    assert "start" in capsys.readouterr().err
    path.write_text(content.replace("lbfgs = 100", "lbfgs = 1"))
    assert cli.main(["train", str(path), "--out", str(start)]) == 0
    path.write_text(f'start = "{start}"\n' + content)
    assert cli.main(argv) == 0
    mf = mlxc.KS(gto.M(atom="H 0 0 0; F 0 0 0.92", basis="def2-svp", verbose=0), str(out)).run(conv_tol=1e-10)
    energies = mlxc.ensemble_energies(mf)
    assert energies.std() > 1e-5
    parameters = [
        parameters_to_vector(models.load(out / f).parameters()) for f in ("", *(f"member-{k}" for k in (1, 2, 3)))
    ]
    assert torch.allclose(parameters[0], torch.stack(parameters[1:]).mean(0))
    for k in (1, 2, 3):
        alone = mlxc.KS(mf.mol, str(out / f"member-{k}")).run(conv_tol=1e-10)
        assert energies[k - 1] == pytest.approx(alone.e_tot, abs=0.1 * abs(alone.e_tot - mf.e_tot) + 1e-6)
    xyz, result = tmp_path / "hf.xyz", tmp_path / "hf.json"
    xyz.write_text("2\n\nH 0 0 0\nF 0 0 0.92\n")
    assert cli.main(["run", str(xyz), "--xc", str(out), "--basis", "def2-svp", "--json", str(result)]) == 0
    expected = energies.std(ddof=1) * 627.5095
    found = json.loads(result.read_text())["energy_uncertainty_kcal"]
    assert found == pytest.approx(np.hypot(expected, mlxc.ensemble.NOISE), rel=1e-3)
    (out / "model.json").write_text(json.dumps(models.describe(out) | {"uncertainty_scale": 2.5}))
    assert mlxc.ensemble.uncertainty_kcal(energies, out) == pytest.approx(
        np.hypot(2.5 * expected, mlxc.ensemble.NOISE), rel=1e-6
    )
    with pytest.raises(InputError, match="no ensemble"):
        mlxc.ensemble_energies(mlxc.KS(mf.mol, "t-lmf").run())
    packed = out / "members.safetensors"
    packed.write_bytes(packed.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFileError, match="damaged"):
        mlxc.ensemble_energies(mf)


def test_plots_of_a_run_and_of_a_model(folder, tmp_path, capsys):
    out = train(configured(folder, "neural-local-hybrid"), tmp_path / "run")
    assert cli.main(["plot", str(out)]) == 0
    names = ("learning", "errors", "enhancement", "mixing")
    paths = [str(out / f"{n}.{form}") for n in names for form in ("png", "svg")]
    assert capsys.readouterr().out.split()[-8:] == paths
    for name in names:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (out / f"{name}.svg").read_text()
    assert cli.main(["plot", str(tmp_path)]) == 2
    assert "neither" in capsys.readouterr().err


def test_the_example_is_a_configuration():
    config = read_config(Path(__file__).parents[1] / "examples" / "train.toml")
    data = training_set(config.data, config.seed, config.losses)
    assert len(data.inside) > 15
    assert len(data.targets) == 4
