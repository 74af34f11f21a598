"""Fixed-density training from a benchmark folder to a model that loads, on four small molecules."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mlxc import models
from mlxc.errors import InputError
from mlxc.train import cache, fit
from mlxc.train.compress import Condensed, condense
from mlxc.train.data import Reaction, read_reactions, read_systems, select
from mlxc.train.dataset import Molecule, split

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
    molecule = Molecule.read(cached / f"{systems['hf'].key}.h5")
    assert float(molecule.weights @ molecule.total.n) == pytest.approx(10, abs=1e-3)
    xc = molecule.weights @ (molecule.channel.energy(molecule.fx) + molecule.total.n_switched * molecule.ec)
    import h5py

    with h5py.File(cached / f"{systems['hf'].key}.h5") as f:
        assert float(xc) == pytest.approx(f.attrs["exc_r2scan"], abs=1e-5)


@pytest.mark.parametrize("which", ["shaken", "default"])
def test_condensed_molecules_agree_with_the_grid(cached, shaken, which):
    functional = shaken if which == "shaken" else models.load()
    molecules = [Molecule.read(p) for p in sorted(cached.glob("*.h5"))]
    condensed = Condensed((m.channel, m.total, m.ec, m.weights) for m in molecules)
    assert len(condensed.f0) < sum(m.channel.p.numel() for m in molecules) / 5
    energy, size = condensed.corrections(functional)
    exact = np.array([m.correction(functional) for m in molecules])
    assert np.abs(exact).max() > 0.01
    np.testing.assert_allclose(energy.numpy(), exact, atol=2e-4)
    assert float(size) > 0


def test_slope_is_that_of_the_shifts(cached, shaken):
    """Against differences at the same points."""
    molecule = Molecule.read(sorted(cached.glob("*.h5"))[0])
    condensed = Condensed([(molecule.channel, molecule.total, molecule.ec, molecule.weights)])
    want = 0.0
    for shift, at in ((shaken.exchange_shift, condensed.slope_x), (shaken.correlation_shift, condensed.slope_c)):
        for name in ("p", "alpha"):
            moved = [SimpleNamespace(**{**vars(at), name: getattr(at, name) + step}) for step in (1e-5, -1e-5)]
            want += float(((shift(moved[0]) - shift(moved[1])) / 2e-5).square().mean())
    assert condensed.slope(shaken).item() == pytest.approx(want, rel=1e-4)


def test_condensing_is_exact_for_linear_functions(rng):
    """Whatever the signs of the weights; squares come near."""
    points, weights = rng.uniform(size=(2, 3000)), rng.normal(size=3000)
    means, sums = condense(points, weights, 8)
    assert len(sums) <= 256
    assert sums @ (3 + means[0] - 2 * means[1]) == pytest.approx(weights @ (3 + points[0] - 2 * points[1]))
    assert sums @ means[0] ** 2 == pytest.approx(weights @ points[0] ** 2, rel=0.02)
    assert condense(points, weights, 1)[1] == pytest.approx([weights[weights < 0].sum(), weights[weights > 0].sum()])


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
    inside, outside = split(rows, systems, seed=0)
    assert len(inside) == 28
    assert len(outside) == 4
    graphs = [{systems[r.name].graph_key for r in part} for part in (inside, outside)]
    assert not graphs[0] & graphs[1]
    assert split(rows, systems, seed=1) != (inside, outside)


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
