"""Committed measurements: of the models that are shipped, and packed without loss."""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from mlxc import models
from mlxc.bench.protocol import PROTOCOLS
from mlxc.bench.species import Species, compute, identity_of
from mlxc.constraints.report import table
from mlxc.reference import shipped
from mlxc.reference.benchmark import system_of

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
OF_NO_MODEL = {
    "ablation", "bench-qzvppd", "exact_exchange", "learning",
    "learning-t-lmf", "noncovalent", "reference_data", "robustness", "training",
}  # fmt: skip


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_record_is_of_a_shipped_model(path):
    record = json.loads(path.read_text())
    parts = record.get("functionals", [])
    of_parts = (f.get("sha256") for f in parts if isinstance(f, dict))
    hashes = {h for h in (record.get("model_sha256"), *record.get("models", {}).values(), *of_parts) if h}
    assert hashes <= {models.describe(name)["sha256"] for name in models.names()}
    assert hashes or path.stem in OF_NO_MODEL


def test_conditions_of_the_page_are_those_of_the_record():
    record = json.loads((BENCHMARKS / "results" / "constraints.json").read_text())
    names = [c["name"] for c in record["conditions"]]
    assert all([o["name"] for o in f["outcomes"]] == names for f in record["functionals"])
    assert table(record).strip() in (BENCHMARKS.parent / "docs" / "constraints.md").read_text()


@pytest.mark.parametrize("name", ["H2", "HF"])
def test_the_default_model_gives_its_recorded_energies(name):
    """The formula that its weights are put into is what it was when errors were measured."""
    species = Species(
        system_of(shipped.load("small")[name], name), models.DEFAULT, identity_of(models.DEFAULT), PROTOCOLS["fast"]
    )
    with gzip.open(BENCHMARKS / "results" / "species-fast.jsonl.gz", "rt") as packed:
        rows = [json.loads(line) for line in packed]
    same = [r["result"] for r in rows if {**r["of"], "pyscf": 0} == {**species.identity, "pyscf": 0}]
    found = compute(species)
    for key in ("energy_hartree", "member_hartree", "dipole_debye"):
        assert found[key] == pytest.approx(same[0][key], abs=1e-6)


def test_table_of_the_readme_is_that_of_the_record():
    """Every set, functional and number of the table of errors."""
    record = json.loads((BENCHMARKS / "results" / "bench-dev.json").read_text())
    found = {f["name"]: f["summary"] for f in record["functionals"]}
    lines = (BENCHMARKS.parent / "README.md").read_text().splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| | rows | mlxc"))
    names = [w.strip().lower().replace("ω", "w") for w in lines[header].split("|")[3:-1]]
    assert set(names) == found.keys()
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[header + 2 :])
    sets = set()
    for row in rows:
        title, number, *cells = (w.strip().strip("*") for w in row.split("|")[1:-1])
        what = title.split(",")[0]
        for name, cell in zip(names, cells, strict=True):
            if what.startswith("WTMAD-2"):
                value = found[name]["gmtkn55"]["wtmad2"]
                assert f"over {found[name]['gmtkn55']['rows']} rows" in what
            else:
                value, count = (found[name]["sets"][what][k] for k in ("mae", "n"))
                assert count == int(number)
            decimals = len(cell.split(".")[1])
            assert float(cell) == pytest.approx(value, abs=0.5001 * 10**-decimals)
        sets.add(what)
    seen = {s.removesuffix(" (seen in training)") for s in found[names[0]]["sets"]}
    assert sets >= seen - {"INV24"}  # of which training has seen all rows
    assert f"Multiplied by {models.describe()['uncertainty_scale']:.1f}, a factor" in "\n".join(lines)
