"""Committed measurements: of the models that are shipped, and packed without loss."""

import gzip
import json
import runpy
from pathlib import Path

import pytest

from mlxc import models
from mlxc.errors import InputError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_record_is_of_a_shipped_model(path):
    record = json.loads(path.read_text())
    hashes = {h for h in (record.get("model_sha256"), *record.get("models", {}).values()) if h}
    assert hashes <= {models.describe(name)["sha256"] for name in models.names()}


def test_species_are_packed_and_unpacked(tmp_path):
    store = runpy.run_path(str(BENCHMARKS / "store.py"))
    packed = tmp_path / "all.jsonl.gz"
    for run, names in (("first", "ab"), ("second", "bc")):
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
    kept.write_text("mine")
    assert store["unpack"](packed, tmp_path / "first") == 1
    assert kept.read_text() == "mine"
    made = json.loads((tmp_path / "first" / "species" / "c.json").read_text())
    assert made == {"of": {"system": "c"}, "more": {}, "result": {"energy_hartree": -0.1}}
    packed.write_bytes(gzip.compress(b'{"of": 1}'))
    with pytest.raises(InputError, match="cannot read"):
        store["unpack"](packed, tmp_path / "first")
