"""What `mlxc bench` reports: averages, what stands apart, what is left out, the page."""

import csv
import json

import numpy as np
import pytest
from conftest import run_bench as run

from mlxc import models
from mlxc.bench.html import figures, html
from mlxc.bench.judge import judged
from mlxc.bench.outputs import averages as averages_of
from mlxc.bench.protocol import PROTOCOLS
from mlxc.bench.report import ENOUGH, table
from mlxc.bench.statistics import GMTKN55, MEAN_ENERGY, averages, weighted
from mlxc.bench.suite import Suite
from mlxc.cli import main
from mlxc.ensemble import NOISE
from mlxc.reference.benchmark import Property, Reaction, make_system
from mlxc.units import KCAL

#: The head of a report.
MADE_UP = {"protocol": PROTOCOLS["fast"].settings(), "data": "made up", "choice": {}, "mlxc": "0", "pyscf": "0"}


def test_weights_are_those_of_gmtkn55():
    assert len(GMTKN55) == 55
    assert sum(w.rows for w in GMTKN55.values()) == 1505
    assert np.mean([w.energy for w in GMTKN55.values()]) == pytest.approx(MEAN_ENERGY, abs=0.005)


def test_averages():
    found = averages([1.0, -3.0])
    assert found == {"n": 2, "mae": 2.0, "me": -1.0, "rmse": pytest.approx(5**0.5), "max": -3.0}
    assert averages([]) == {"n": 0}
    found = weighted({"S22": 1.0, "W4-11": 10.0, "W4-17": 50.0}, {"S22": 22, "W4-11": 140, "W4-17": 200})
    assert found["wtmad1"] == pytest.approx((10 * 1.0 + 0.1 * 10.0) / 2)
    assert found["wtmad2"] == pytest.approx((22 * 56.84 / 7.30 * 1.0 + 140 * 56.84 / 306.91 * 10.0) / 162)
    assert found["wtmad4"] == pytest.approx((13.5 * 1.0 + 1.07 * 10.0) / 2)
    assert weighted({"W4-17": 1.0}, {"W4-17": 1}) == {}


def test_averages_over_other_rows_are_not_compared():
    """Either functional has failed in one of two rows, not in the same one; and what WTMADs are averages of is said."""
    sets = [*list(GMTKN55)[:10], "W4-17"]
    systems = {i: make_system(i, 0, 2, ("H",), [(0.0, 0.0, z)]) for z, i in enumerate(("a", "b"))}
    rows = [
        Reaction(s, i, {i: 1}, 0.0, "train" if s == sets[0] else "dev", s == sets[1]) for s in sets for i in systems
    ]

    def functional(name, lost=()):
        results = {
            i: {"converged": i not in lost, "rung": "diis", "faults": [], "energy_hartree": len(name) / KCAL}
            for i in systems
        }
        return {"name": name, "xc": name} | judged(Suite("any", systems, rows, [], {}), results, name)

    def page(*functionals):
        found = MADE_UP | {"functionals": list(functionals)}
        return html(found, {f["name"]: {} for f in functionals}), table(found)

    shown, text = page(functional("x"), functional("xyz"))
    assert shown.count('class="number best"') == len(sets) + 3
    assert "x, xyz: WTMADs over 20 of 1505 rows, in 10 of 55 sets" in text
    assert "trained on 4 of these rows" in text
    shown, text = page(functional("x", "a"), functional("xyz", "b"))
    assert "best" not in shown.split("</style>")[1]
    assert "x: WTMADs" not in text
    assert "WTMADs over 10 of 1505 rows" in text
    assert f"x: no result for a; left out: {sets[0]} a, " in text


def test_rows_seen_in_training_stand_apart(benchmark_folder, tmp_path, in_turn, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "systems.jsonl").write_text((benchmark_folder / "systems.jsonl").read_text())
    rows = [json.loads(line) for line in (benchmark_folder / "reactions.jsonl").read_text().splitlines()]
    rows[1] |= {"role": "dev", "seen_in_training": True}
    (folder / "reactions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, found = run(folder, tmp_path / "out")
    sets = found["functionals"][0]["summary"]["sets"]
    assert {k: s["n"] for k, s in sets.items()} == {"W4-17": 1, "W4-17 (seen in training)": 1}
    assert [s["roles"] for s in sets.values()] == [["train"], ["dev"]]
    printed = capsys.readouterr().out
    assert "W4-17 (train), kcal/mol [1]" in printed
    assert "WTMAD" not in printed


def test_coverage_counts_rows_that_training_has_not_seen(monkeypatch):
    """Errors of 1, 3 and 6 kcal/mol with an uncertainty of 2; rows trained on or seen do not count."""
    monkeypatch.setattr(models, "describe", lambda name: {"uncertainty_scale": 2.0})
    system = make_system("h", 0, 2, ("H",), [(0.0, 0.0, 0.0)])
    result = {"converged": True, "rung": "diis", "faults": [], "energy_hartree": 0.0}
    result["member_hartree"] = [x / KCAL for x in (-1.0, 0.0, 1.0)]
    rows = [Reaction("x", str(e), {"h": 1}, e, "dev", e > 100) for e in (1.0, -3.0, 6.0, 1e3)]
    rows.append(Reaction("x", "trained on", {"h": 1}, 0.0, "train"))
    found = judged(Suite("any", {"h": system}, rows, [], {}), {"h": result}, "any")
    assert [r["spread_kcal"] for r in found["reactions"]] == pytest.approx([1.0] * 5)
    assert [r["uncertainty_kcal"] for r in found["reactions"]] == pytest.approx([np.hypot(2.0, NOISE)] * 5)
    assert found["summary"]["coverage"] == pytest.approx({"n": 3, "within": 1 / 3, "within_twice": 2 / 3})


def test_the_page_stands_alone(benchmark_folder, tmp_path, in_turn):
    run(benchmark_folder, tmp_path, xc="pbe0,pbe")
    text = (tmp_path / "report.html").read_text()
    assert text.count("<svg") == 3
    assert "<script" not in text
    assert "bond2" in text
    assert not [w for w in ('href="http', "src=") if w in text]
    found = json.loads((tmp_path / "report.json").read_text())
    times = json.loads((tmp_path / "timings.json").read_text())
    assert html(found, times) == text
    with (tmp_path / "averages.csv").open() as f:
        averages = list(csv.DictReader(f))
    assert [(a["functional"], a["set"]) for a in averages] == [("pbe0", "W4-17"), ("pbe", "W4-17")]
    expected = found["functionals"][1]["summary"]["sets"]["W4-17"]
    assert float(averages[1]["rmse"]) == expected["rmse"]
    assert float(averages[1]["max"]) == expected["max"]


def test_worst_of_reactions_and_of_each_quantity(benchmark_folder, tmp_path, in_turn):
    argv = ["bench", "--xc", "pbe", "--sets", "atomization,dipoles-small", "--elements", "H,F"]
    assert main([*argv, "--protocol", "fast", "--basis", "sto-3g", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text().split("Largest errors")[1]
    found = json.loads((tmp_path / "report.json").read_text())["functionals"][0]
    assert "<th>reaction</th>" in text
    assert "<th>dipole_norm</th>" in text
    for row in found["properties"]:
        assert f"{row['error']:+.3g} %" in text


def test_figures_show_the_errors():
    """The length of every bar, and that no reaction is missing in the histogram."""
    systems = {"a": make_system("a", 0, 2, ("H",), [(0.0, 0.0, 0.0)])}
    rows = [Reaction(s, str(k), {"a": 1}, -float(k), "dev") for s, k in (("x", 1), ("x", 3), ("y", 5))]
    result = {"converged": True, "rung": "diis", "faults": [], "energy_hartree": 0.0}
    suite = Suite("any", systems, rows, [], {})
    functionals = [
        {"name": name, "xc": name} | judged(suite, {"a": result | {"energy_hartree": e}}, name)
        for name, e in (("first", 0.0), ("second", 2 / KCAL))
    ]
    drawn = dict(figures(MADE_UP | {"functionals": functionals}, {"first": {"a": 60.0}, "second": {}}))
    bars = [[bar.get_width() for bar in c] for c in drawn["Errors by set"].axes[0].containers]
    assert bars == [pytest.approx([2.0, 5.0]), pytest.approx([4.0, 7.0])]
    heights = [np.diff(p.get_xy()[::2, 1]) for p in drawn["Distribution of errors"].axes[0].patches]
    assert [int(h[h > 0].sum()) for h in heights] == [3, 3]
    assert [bar.get_width() for bar in drawn["Times"].axes[0].patches] == [1.0, 0.0]


def test_figures_show_the_errors_of_properties():
    """One panel for each quantity of each set, one bar for each functional, and no more panels than these."""
    systems = {"a": make_system("a", 0, 2, ("H",), [(0.0, 0.0, 0.0)])}
    wanted = [
        Property(s, "a", "polarizability", value, "bohr^3")
        for s, value in zip("pqrs", (4.0, 4.5, 5.0, 6.0), strict=True)
    ]
    result = {"converged": True, "rung": "diis", "faults": [], "energy_hartree": 0.0}
    functionals = [
        {"name": name, "xc": name}
        | judged(Suite("any", systems, [], wanted, {}), {"a": result | {"polarizability": found}}, name)
        for name, found in (("first", 4.5), ("second", 5.5))
    ]
    drawn = dict(figures(MADE_UP | {"functionals": functionals}, {"first": {}, "second": {}}))["Errors of properties"]
    shown = [axes for axes in drawn.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [f"{s}, polarizability" for s in "pqrs"]
    lengths = [[bar.get_width() for bar in axes.patches] for axes in shown]
    assert lengths == [[0.5, 1.5], [0.0, 1.0], [0.5, 0.5], [1.5, 0.5]]


def test_the_page_has_the_ten_worst_in_their_order():
    systems = {"a": make_system("a", 0, 2, ("H",), [(0.0, 0.0, 0.0)])}
    rows = [Reaction("x", f"row {k}", {"a": 1}, (-1.0) ** k * k, "dev") for k in range(12)]
    result = {"converged": True, "rung": "diis", "faults": [], "energy_hartree": 0.0}
    functional = {"name": "f", "xc": "f"} | judged(Suite("any", systems, rows, [], {}), {"a": result}, "f")
    text = html(MADE_UP | {"functionals": [functional]}, {"f": {}}).split("Largest errors")[1]
    places = [text.find(f">row {k}<") for k in range(12)]
    assert places[:2] == [-1, -1]
    assert places[2:] == sorted(places[2:], reverse=True)


def test_what_is_left_out_is_said():
    """Rows that were not chosen, the choice, and more doubtful species than a terminal takes."""
    systems = {str(k): make_system(str(k), 0, 2, ("H",) if k else ("F",), [(0.0, 0.0, 1.0 * k)]) for k in range(8)}
    rows = [Reaction("x", i, {i: 1}, 0.0, "dev", i == "7") for i in systems]
    properties = [Property("dipoles", i, "dipole_x", 0.0, "e*bohr") for i in systems]
    suite = Suite("any", systems, rows, properties, {})
    results = {i: {"converged": True, "rung": "diis", "faults": ["odd"], "energy_hartree": 0.01} for i in systems}
    results = {i: r | {"dipole_debye": [0.1, 0.0, 0.0]} for i, r in results.items()}

    def shown(suite):
        of = {i: results[i] for i in suite.needed()}
        found = MADE_UP | {"choice": suite.choice, "functionals": [{"name": "f", "xc": "f"} | judged(suite, of, "f")]}
        return table(found), html(found, {"f": {}})

    text, page = shown(suite)
    assert "x, kcal/mol [7]" in text
    assert "dipoles: RMS, %" in text
    assert "made up; protocol" in text
    text, page = shown(suite.chosen(elements=["h"], max_heavy=1))
    assert "x, kcal/mol [6 of 7]" in text
    assert "x (seen in training), kcal/mol [1]" in text
    assert "dipoles: dipole components, % [7 of 8]" in text
    assert "made up (elements H; heavy atoms up to 1); protocol" in text
    assert "odd; and 2 more, which report.json has" in text
    assert page.count("odd") == 7
    text, _ = shown(suite.chosen(["x"], "dev"))
    assert "made up (sets x; role dev); protocol" in text


def test_weighted_averages_need_enough_sets():
    """One functional has them over ten sets; the other, of fewer, has none."""
    sets = list(GMTKN55)[:ENOUGH]
    systems = {s: make_system(s, 0, 2, ("H",), [(0.0, 0.0, z)]) for z, s in enumerate(sets)}
    suite = Suite("any", systems, [Reaction(s, s, {s: 1}, 0.0, "dev") for s in sets], [], {})
    found = []
    for name, lost in (("whole", ()), ("part", sets[:1])):
        of = {s: {"converged": s not in lost, "rung": "diis", "faults": [], "energy_hartree": 0.1} for s in sets}
        found.append({"name": name, "xc": name} | judged(suite, of, name))
    text = table(MADE_UP | {"functionals": found})
    (line,) = [line for line in text.splitlines() if line.startswith("WTMAD-2")]
    assert line.endswith("-")
    rows = averages_of(MADE_UP | {"functionals": found})
    of_set = {(r["functional"], r["set"]): r["mae"] for r in rows if "WTMAD" in r["set"]}
    assert of_set == {("whole", f"WTMAD-{k}"): found[0]["summary"]["gmtkn55"][f"wtmad{k}"] for k in (1, 2, 4)}
