"""Fixed-density training from a benchmark folder to a model that loads, on four small molecules."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch

from mlxc import models
from mlxc.errors import InputError
from mlxc.train import cache, fit
from mlxc.train.compress import Lattice, deposit, nodes
from mlxc.train.data import Reaction, read_reactions, read_systems, select

SYSTEMS = {
    "h": (2, ["H"], [[0, 0, 0]]),
    "h2": (1, ["H", "H"], [[0, 0, 0], [0, 0, 0.74]]),
    "f": (2, ["F"], [[0, 0, 0]]),
    "hf": (1, ["H", "F"], [[0, 0, 0], [0, 0, 0.92]]),
}
REACTIONS = [("bond1", {"h": 2, "h2": -1}, 109.5), ("bond2", {"h": 1, "f": 1, "hf": -1}, 141.0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    rows = [
        {
            "id": i, "set": "W4-17", "charge": 0, "multiplicity": m, "symbols": s, "coords_angstrom": x,
            "nheavy": sum(a != "H" for a in s), "graph_key": i,
        }
        for i, (m, s, x) in SYSTEMS.items()
    ]  # fmt: skip
    (path / "systems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [
        {"set": "W4-17", "name": name, "stoichiometry": s, "ref_kcal": ref, "role": "train"}
        for name, s, ref in REACTIONS
    ]
    (path / "reactions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


def call(main, monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, argv)])
    main()


@pytest.fixture(scope="module")
def cached(folder):
    with pytest.MonkeyPatch.context() as patch:
        call(cache.main, patch, "--data", folder, "--out", folder / "cache", "--basis", "def2-svp")
    return folder / "cache"


def test_a_killed_cache_run_resumes(folder, cached, monkeypatch, capsys):
    files = sorted(cached.glob("*.h5"))
    assert len(files) == 4
    files[0].unlink()
    call(cache.main, monkeypatch, "--data", folder, "--out", cached, "--basis", "def2-svp")
    assert capsys.readouterr().out.count("converged") == 1
    assert sorted(cached.glob("*")) == files


def test_cached_features_give_back_r2scan(folder, cached):
    systems = read_systems(folder)
    molecule = fit.Molecule.read(cached / f"{systems['hf'].key}.h5")
    assert float(molecule.weights @ molecule.total.n) == pytest.approx(10, abs=1e-3)
    xc = molecule.weights @ (molecule.channel.energy(molecule.fx) + molecule.total.n_switched * molecule.ec)
    import h5py

    with h5py.File(cached / f"{systems['hf'].key}.h5") as f:
        assert float(xc) == pytest.approx(f.attrs["exc_r2scan"], abs=1e-5)


def test_lattice_agrees_with_the_grid(cached, shaken):
    molecules = [fit.Molecule.read(p) for p in sorted(cached.glob("*.h5"))]
    lattice = Lattice.build((m.channel, m.total, m.ec, m.weights) for m in molecules)
    energy, size = lattice.corrections(shaken)
    exact = np.array([m.correction(shaken) for m in molecules])
    assert np.abs(exact).min() > 1e-3
    np.testing.assert_allclose(energy.numpy(), exact, rtol=0.03, atol=2e-4)
    assert float(size) > 0
    assert lattice.slope(shaken).detach() > 0


def test_deposit_is_exact_for_linear_functions(rng):
    shape = (7, 5)
    points, weights = torch.from_numpy(rng.uniform(0, 0.99, (2, 30))), torch.from_numpy(rng.normal(size=30))
    total = deposit(points, weights, shape)
    at_nodes = 3 + nodes(shape)[0] - 2 * nodes(shape)[1]
    assert total @ at_nodes.numpy() == pytest.approx(float(weights @ (3 + points[0] - 2 * points[1])))


def test_training_improves_and_ships_a_model(folder, cached, monkeypatch, capsys, tmp_path):
    out = tmp_path / "tiny"
    settings = ["--adam-steps", "20", "--steps", "100", "--width", "6", "--size-weight", "0"]
    arguments = ["--data", folder, "--cache", cached, "--out", out, *settings]
    monkeypatch.setattr(fit, "split", lambda rows, *_: (rows, rows))
    call(fit.main, monkeypatch, *arguments)
    errors = models.describe(out)["card"]["errors"]["training"]["mae_kcal"]
    assert errors["mlxc"]["W4-17"] < 0.7 * errors["r2scan"]["W4-17"]
    first = models.describe(out)["sha256"]
    call(fit.main, monkeypatch, *arguments)
    assert models.describe(out)["sha256"] == first  # same seed, same model
    functional = models.load(out)
    assert functional.name == "tiny"
    assert isinstance(functional.eval_xc("", np.ones((5, 3)))[0], np.ndarray)


def test_split_keeps_graphs_apart(folder):
    template = read_systems(folder)["h2"]
    systems = {str(i): dataclasses.replace(template, id=str(i), graph_key=str(i // 2)) for i in range(32)}
    rows = [Reaction("W4-17", i, {i: 1}, 0.0, "train") for i in systems]
    inside, outside = fit.split(rows, systems, seed=0)
    assert len(inside) == 28
    assert len(outside) == 4
    graphs = [{systems[r.name].graph_key for r in part} for part in (inside, outside)]
    assert not graphs[0] & graphs[1]
    assert fit.split(rows, systems, seed=1) != (inside, outside)


def test_too_few_rows_are_refused(folder, cached, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="too few"):
        call(fit.main, monkeypatch, "--data", folder, "--cache", cached, "--out", tmp_path / "m")


def test_selection_and_broken_folders(folder, tmp_path):
    systems, rows = read_systems(folder), read_reactions(folder)
    assert len(select(rows, systems, ("W4-17",), "train", frozenset("HF"), 3)) == 2
    assert len(select(rows, systems, ("W4-17",), "train", frozenset("H"), 3)) == 1
    assert not select(rows, systems, ("W4-17",), "dev", frozenset("HF"), 3)
    with pytest.raises(InputError, match="cannot read"):
        read_systems(tmp_path)
    (tmp_path / "systems.jsonl").write_text("{")
    with pytest.raises(InputError, match="not JSON lines"):
        read_systems(tmp_path)
