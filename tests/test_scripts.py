"""The scripts of benchmarks/: what they keep, fit and count."""

import gzip
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from mlxc.ensemble import NOISE
from mlxc.errors import InputError
from mlxc.reference.benchmark import faults

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """script(name): the names of a script of benchmarks/, which may import another."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "speed", raising=False)
    return lambda name: runpy.run_path(str(BENCHMARKS / f"{name}.py"))


def test_species_are_packed_and_unpacked(script, tmp_path):
    store = script("store")
    packed = tmp_path / "all.jsonl.gz"
    for run, names in (("first", "ab"), ("second", "bc"), ("third", "a")):
        (tmp_path / run / "species").mkdir(parents=True)
        for name in names:
            content = {"of": {"system": name}, "more": {}, "id": name, "result": {"energy_hartree": -0.1}}
            (tmp_path / run / "species" / f"{name}.json").write_text(json.dumps(content))
    assert store["pack"]([tmp_path / "first"], packed) == 2
    assert store["pack"]([tmp_path / "second"], packed) == 3
    before = packed.read_bytes()
    assert store["pack"]([tmp_path / "first"], packed) == 3
    assert packed.read_bytes() == before
    kept = tmp_path / "first" / "species" / "a.json"
    richer = {"of": {"system": "a"}, "more": {"polarizability": None}, "result": {}}
    kept.write_text(json.dumps(richer))
    assert store["unpack"](packed, tmp_path / "first") == 1
    assert json.loads(kept.read_text()) == richer
    made = json.loads((tmp_path / "first" / "species" / "c.json").read_text())
    assert made == {"of": {"system": "c"}, "more": {}, "result": {"energy_hartree": -0.1}}
    assert store["pack"]([tmp_path / "first"], packed) == 3
    assert store["pack"]([tmp_path / "third"], packed) == 3  # the poorer result does not replace it
    for damaged in (kept.read_text()[:9], json.dumps(richer | {"more": {}})):
        kept.write_text(damaged)
        assert store["unpack"](packed, tmp_path / "first") == 1
        assert json.loads(kept.read_text()) == richer
    packed.write_bytes(gzip.compress(b'{"of": 1}'))
    with pytest.raises(InputError, match="cannot read"):
        store["unpack"](packed, tmp_path / "first")


def test_a_scale_is_found_where_it_is_known(script):
    """Errors that are 3 times the spread on average, and no smaller than the noise of references."""
    calibration = script("calibration")
    rng = np.random.default_rng(0)
    spreads = rng.uniform(0.5, 2.0, size=(2, 5000))
    errors = np.hypot(NOISE, 3 * spreads) * abs(rng.normal(size=spreads.shape))
    found = calibration["scale_of"]([np.array(x) for x in zip(errors, spreads, strict=True)])
    assert found == pytest.approx(3.0, rel=0.03)


def test_a_scale_needs_sets_of_one_model(script, tmp_path):
    """A report without the model, with it twice (with and without D4), or with one set of rows that can be used."""
    unseen, report = script("calibration")["unseen"], tmp_path / "report.json"

    def reported(*functionals):
        report.write_text(json.dumps({"functionals": functionals}))
        return report

    def part(*sets):
        row = {"role": "dev", "error_kcal": -1.5, "spread_kcal": 0.5}
        return {"sha256": "a", "reactions": [row | {"set": s, "group": s} for s in sets]}

    for parts, why in (
        ([part("S22", "RG18") | {"sha256": "b"}], "0 functionals"),
        ([part("S22", "RG18")] * 2, "2 functionals"),
        ([part("S22")], "1 sets"),
    ):
        with pytest.raises(SystemExit, match=why):
            unseen(reported(*parts), "a")
    found = unseen(reported(part("S22", "RG18", "S22")), "a")
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "RG18": [[1.5], [0.5]],
        "S22": [[1.5] * 2, [0.5] * 2],
    }


def test_exponents_are_those_of_a_power_law(script):
    """Of molecules that are large enough, where there are three of them at least."""
    rows = [
        {"heavy_atoms": heavy, "nao": nao, "functionals": {"x": {"cycle_s": 3e-5 * nao**2.5 + 10 * (heavy < 6)}}}
        for heavy, nao in ((2, 50), (6, 150), (8, 200), (12, 300))
    ]
    rows[1]["functionals"]["y"] = rows[2]["functionals"]["y"] = {"cycle_s": 1.0}
    assert script("speed")["exponents"](rows) == {"x": 2.5}
    rows[3]["functionals"]["x"] = {"ended": "memory", "cycle_s": float("nan")}
    assert script("speed")["exponents"](rows) == {}


def test_records_go_on_under_the_same_conditions_alone(script, tmp_path):
    """With more functionals as well; other threads or other weights of a model begin a new one."""
    begun, path = script("speed")["begun"], tmp_path / "record.json"
    settings = {"threads": 1, "models": {"default": "a"}}
    assert begun(path, settings) == settings
    path.write_text(json.dumps(settings | {"rows": [1]}))
    assert begun(path, settings) == settings | {"rows": [1]}
    more = begun(path, settings | {"models": {"mine": "b"}})
    assert more == settings | {"rows": [1], "models": {"default": "a", "mine": "b"}}
    for other in (settings | {"threads": 2}, settings | {"models": {"default": "c"}}):
        assert begun(path, other) == other


def test_series_grow_and_the_hard_list_is_sound(script):
    for molecules in script("scaling")["SERIES"].values():
        sizes = [len(atoms) for _, atoms in molecules]
        assert sizes == sorted(set(sizes))
        for _, atoms in molecules:
            places = np.array([x for _, x in atoms])
            distances = np.linalg.norm(places[:, None] - places, axis=-1) + 9 * np.eye(len(places))
            assert distances.min() > 0.9
    hard = script("robustness")["HARD"]
    assert len({s.id for s in hard}) == len(hard)
    assert faults({s.id: s for s in hard}, []) == []


def test_rungs_are_counted(script):
    found = {
        "a": {"converged": True, "rung": "diis", "cycles": 10, "faults": [], "attempts": [{"converged": True}]},
        "b": {
            "converged": True,
            "rung": "stability",
            "cycles": 21,
            "faults": ["odd"],
            "attempts": [{"converged": True}],
        },
        "c": {"converged": True, "rung": "damping", "cycles": 80, "faults": [], "attempts": [{"converged": False}]},
        "d": {"converged": False, "rung": "none", "faults": [], "attempts": []},
    }
    assert script("robustness")["summary"](found) == {
        "species": 4,
        "first_rung": 2,
        "rungs": {"diis": 1, "stability": 1, "damping": 1, "none": 1},
        "cycles": 37.0,
        "not_found": ["d"],
        "faults": {"b": ["odd"]},
    }
