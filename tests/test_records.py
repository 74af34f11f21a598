"""Committed measurements are of the models that are shipped."""

import json
from pathlib import Path

import pytest

from mlxc import models

RESULTS = sorted((Path(__file__).parents[1] / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_record_is_of_a_shipped_model(path):
    record = json.loads(path.read_text())
    hashes = {h for h in (record.get("model_sha256"), *record.get("models", {}).values()) if h}
    assert hashes <= {models.describe(name)["sha256"] for name in models.names()}
