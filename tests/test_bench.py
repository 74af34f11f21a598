"""`mlxc bench`: what it asks, what it keeps, what it averages."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run_bench as run
from pyscf import dft, gto

import mlxc
from mlxc import models
from mlxc.analytic import R2SCAN
from mlxc.bench import quantities, suite
from mlxc.bench import species as species_module
from mlxc.bench.ladder import RUNGS, Solution, first_density, settled
from mlxc.bench.protocol import PROTOCOLS, Protocol
from mlxc.bench.quantities import Calculation, check, error, value
from mlxc.bench.species import Species, compute, identity_of
from mlxc.bench.suite import Suite
from mlxc.cli import main
from mlxc.errors import InputError
from mlxc.harmonic import hessian
from mlxc.reference import Reference, shipped, write
from mlxc.reference.benchmark import Property, Reaction, make_system
from mlxc.units import KCAL

ROOT = Path(__file__).parents[1]


def test_species_go_to_another_process_and_come_back(benchmark_folder, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Dask, about sockets left to the garbage collector
        status, found = run(benchmark_folder, tmp_path, "--elements", "H", xc="mlxc-mgga3", basis="sto-3g")
    assert status == 0
    (row,) = found["functionals"][0]["reactions"]
    assert row["converged"]
    bar = capsys.readouterr().err
    assert "100%" in bar
    assert re.search(r"<00:00, 2 of 2: mlxc-mgga3: h2? is done", bar)


def test_errors_are_those_of_pyscf(benchmark_folder, tmp_path, in_turn):
    status, found = run(benchmark_folder, tmp_path)
    assert status == 0
    systems = suite.load(benchmark_folder).systems
    energies = {}
    for i, s in systems.items():
        mf = dft.KS(s.mole("6-31g"), xc="pbe0").density_fit()
        mf.grids.level, mf.conv_tol = 3, 1e-8
        energies[i] = mf.kernel(first_density(mf))
    for row, expected in zip(
        found["functionals"][0]["reactions"],
        [2 * energies["h"] - energies["h2"], energies["h"] + energies["f"] - energies["hf"]],
        strict=True,
    ):
        assert row["value_kcal"] == pytest.approx(KCAL * expected, abs=1e-6)
        assert row["error_kcal"] == row["value_kcal"] - row["ref_kcal"]
        assert row["converged"] is True
    errors = [row["error_kcal"] for row in found["functionals"][0]["reactions"]]
    summary = found["functionals"][0]["summary"]["sets"]["W4-17"]
    assert summary["mae"] == pytest.approx(np.abs(errors).mean())
    assert (summary["n"], summary["failed"]) == (2, 0)
    assert {p.name for p in tmp_path.iterdir()} >= {"reactions.csv", "properties.csv", "timings.json", "report.html"}
    assert (tmp_path / "reactions.csv").read_text().count("\n") == 3


@pytest.mark.slow
@pytest.mark.parametrize("xc", ["pbe0", "b3lyp"])
@pytest.mark.parametrize(
    ("multiplicity", "symbols", "coords"),
    [
        (1, ["O", "H", "H"], [(0.0, 0.0, 0.117), (0.0, 0.757, -0.47), (0.0, -0.757, -0.47)]),
        (2, ["N", "H", "H"], [(0.0, 0.0, 0.14), (0.0, 0.8, -0.5), (0.0, -0.8, -0.5)]),
    ],
)
def test_tight_energies_are_those_of_pyscf(xc, multiplicity, symbols, coords):
    """In def2-QZVPPD, without density fitting, as someone would run PySCF who has never heard of mlxc."""
    system = make_system("it", 0, multiplicity, symbols, coords)
    found = compute(Species(system, xc, identity_of(xc), PROTOCOLS["tight"]))
    atoms = list(zip(symbols, coords, strict=True))
    mf = gto.M(atom=atoms, spin=multiplicity - 1, basis="def2-qzvppd", verbose=0).KS(xc=xc)
    mf.grids.level = 5
    assert found["energy_hartree"] == pytest.approx(mf.run().e_tot, abs=1e-8)


@pytest.mark.parametrize(("symbol", "spin"), [("Ne", 0), ("N", 3)])
def test_nonlocal_correlation_may_come_after_the_scf(symbol, spin):
    system = make_system("it", 0, spin + 1, [symbol], [(0.0, 0.0, 0.0)])
    after = replace(PROTOCOLS["fast"], basis="def2-svp")
    within = replace(after, nlc_after=False)
    species = [Species(system, "wb97m-v", identity_of("wb97m-v"), p) for p in (after, within)]
    results = [compute(s) for s in species]
    assert results[0]["energy_hartree"] == pytest.approx(results[1]["energy_hartree"], abs=2e-6)
    left_out = after.calculation(system.mole(after.basis), "wb97m-v").set(nlc=0).run()
    assert results[0]["energy_hartree"] - left_out.e_tot > 0.02
    assert results[0]["homo_hartree"] == pytest.approx(results[1]["homo_hartree"], abs=5e-4)
    assert results[0]["homo_hartree"] - left_out.mo_energy[left_out.mo_occ > 0].max() > 2e-3
    assert species[0].identity != species[1].identity
    for xc in ("pbe0-d4", "wb97m-d3bj"):
        others = [Species(system, xc, identity_of(xc), p) for p in (after, within)]
        assert others[0].identity == others[1].identity


@pytest.mark.parametrize(
    ("protocol", "extras", "broken", "expected"),
    [("fast", (), False, False), ("fast", ("polarizability",), False, True), ("standard", (), True, True)],
)
def test_unoccupied_orbitals_are_left_alone_where_nothing_needs_them(monkeypatch, protocol, extras, broken, expected):
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", 0)
    made = []
    original = Protocol.calculation
    monkeypatch.setattr(Protocol, "calculation", lambda *args: made.append(original(*args)) or made[-1])
    system = make_system("it", 0, 1, ["He"], [(0.0, 0.0, 0.0)])
    settings = replace(PROTOCOLS[protocol], basis="6-31g", grid_level=0, broken_symmetry=broken)
    species = Species(system, "t-lmf", identity_of("t-lmf"), settings, frozenset(extras))
    result = compute(species)
    assert result["converged"]
    assert not result["faults"]
    assert set(extras) <= result.keys()
    assert species.identity["xc"] == "t-lmf"
    assert made[0].unoccupied is expected


def test_species_are_computed_once(benchmark_folder, tmp_path, in_turn):
    run(benchmark_folder, tmp_path, "--elements", "H")
    assert in_turn == ["pbe0: h2", "pbe0: h"]
    run(benchmark_folder, tmp_path)
    assert len(in_turn) == 4
    before = (tmp_path / "report.json").read_bytes()
    run(benchmark_folder, tmp_path)
    assert len(in_turn) == 4
    assert (tmp_path / "report.json").read_bytes() == before
    run(benchmark_folder, tmp_path, xc="pbe")
    run(benchmark_folder, tmp_path, basis="sto-3g")
    assert len(in_turn) == 12
    one = sorted((tmp_path / "species").iterdir())[0]
    one.write_text(one.read_text()[:40])
    run(benchmark_folder, tmp_path, xc="pbe0,pbe")
    run(benchmark_folder, tmp_path, basis="sto-3g")
    assert len(in_turn) == 13


def test_a_model_is_known_by_its_weights(benchmark_folder, tmp_path, in_turn):
    _, found = run(benchmark_folder, tmp_path, "--elements", "H", xc=f"default,{models.DEFAULT}", basis="sto-3g")
    assert [f["name"] for f in found["functionals"]] == [models.DEFAULT]
    assert found["functionals"][0]["sha256"] == models.describe()["sha256"]
    run(benchmark_folder, tmp_path, "--elements", "H", xc=models.DEFAULT, basis="sto-3g")
    assert len(in_turn) == 2
    system = suite.load(benchmark_folder).systems["h"]
    other = identity_of("mlxc-lh7") | {"sha256": "0" * 64}
    with pytest.raises(InputError, match="same versions and models"):
        compute(Species(system, "mlxc-lh7", other, PROTOCOLS["fast"]))


def test_what_breaks_off_is_tried_again(benchmark_folder, tmp_path, in_turn, monkeypatch, capsys):
    def too_large(fresh, before):
        raise MemoryError("none left")

    with monkeypatch.context() as patch:
        patch.setitem(RUNGS, "diis", too_large)
        status, found = run(benchmark_folder, tmp_path, "--elements", "H")
    assert status == 3
    assert found["functionals"][0]["failed"] == ["h", "h2"]
    assert "none left" in capsys.readouterr().out
    status, found = run(benchmark_folder, tmp_path, "--elements", "H")
    assert status == 0
    assert len(in_turn) == 4


def test_a_reaction_with_an_unconverged_species_is_no_average(benchmark_folder, tmp_path, monkeypatch, capsys):
    def results(work, tasks, *_, **__):
        for task in tasks:
            failed = {"converged": False, "rung": "none", "faults": [], "wall_s": 1.0}
            yield task, failed if task.system.id == "hf" else work(task)

    monkeypatch.setattr(species_module, "results", results)
    status, found = run(benchmark_folder, tmp_path)
    assert status == 3
    functional = found["functionals"][0]
    first, second = functional["reactions"]
    assert second["converged"] is False
    assert second["value_kcal"] is None
    summary = functional["summary"]["sets"]["W4-17"]
    assert (summary["n"], summary["failed"], summary["mae"]) == (1, 1, abs(first["error_kcal"]))
    assert functional["failed"] == ["hf"]
    printed = capsys.readouterr().out
    assert "[1 failed]" in printed
    assert "pbe0: no result for hf" in printed


def test_extras_that_are_asked_for_in_turn_are_kept_together(tmp_path, in_turn, monkeypatch):
    """A species is not computed again for what an earlier run has found, or why not, whatever was asked in between."""
    folder, out = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    row = {"id": "h2", "set": "x", "charge": 0, "multiplicity": 1, "symbols": ["H", "H"]}
    (folder / "systems.jsonl").write_text(json.dumps(row | {"coords_angstrom": [[0, 0, 0], [0, 0, 0.75]]}) + "\n")
    (folder / "reactions.jsonl").write_text("")
    rows = {"bonds": ("bond_1_2", 0.7414, "angstrom"), "spheres": ("polarizability", 5.2, "bohr^3")}
    properties = [{"id": "h2", "set": s, "property": p, "value": v, "unit": u} for s, (p, v, u) in rows.items()]
    (folder / "properties.jsonl").write_text("\n".join(map(json.dumps, properties)))
    found = [run(folder, out, "--sets", s)[1]["functionals"][0]["properties"] for s in ("bonds", "spheres", "bonds")]
    assert found[0] == found[2]
    assert len(in_turn) == 2
    both = run(folder, out, "--sets", "bonds,spheres")[1]["functionals"][0]["properties"]
    assert both == found[0] + found[1]
    assert len(in_turn) == 2

    def fails(calculation):
        raise InputError("lost its way")

    monkeypatch.setitem(quantities.EXTRAS, "minimum", fails)
    for sets in ("bonds", "spheres", "bonds"):
        doubtful = run(folder, tmp_path / "failed", "--sets", sets)[1]["functionals"][0]["doubtful"]
        assert doubtful == {"h2": ["no minimum: lost its way"]}
    assert len(in_turn) == 4


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, "abcd"), ({"sets": ["w4-17"]}, "ab"), ({"role": "dev"}, "bc"), ({"elements": ["h"]}, "ac"),
        ({"max_heavy": 1}, "abc"), ({"min_heavy": 2}, "d"),
        ({"max_heavy": 1, "min_heavy": 1}, "b"), ({"sets": ["W4-17"], "role": "dev"}, "b"),
        ({"sets": ["X", "S22"]}, "cd"),
    ],
)  # fmt: skip
def test_what_is_chosen(options, left):
    """Of four rows: two sets of two, roles that cross them, and species of one hydrogen, or of one or two nitrogens."""
    atoms = {"h": ("H",), "n": ("N",), "n2": ("N", "N")}
    systems = {i: make_system(i, 0, 1, s, [(0.0, 0.0, float(z)) for z in range(len(s))]) for i, s in atoms.items()}
    rows = [
        ("W4-17", "a", "h", "train"),
        ("W4-17", "b", "n", "dev"),
        ("S22", "c", "h", "dev"),
        ("S22", "d", "n2", "train"),
    ]
    reactions = [Reaction(s, name, {i: 1}, 0.0, role) for s, name, i, role in rows]
    properties = [Property("X", "h", "dipole_x", 0.0, "e*bohr"), Property("X", "n2", "bond_1_2", 1.1, "angstrom")]
    chosen = Suite("any", systems, reactions, properties, {}).chosen(**options)
    assert "".join(r.name for r in chosen.reactions) == left
    asked = [p.property for p in chosen.properties]
    if "sets" in options:
        assert asked == (["dipole_x", "bond_1_2"] if "X" in options["sets"] else [])
    else:
        # Geometries only where their set is named; the dipole is that of a hydrogen atom.
        assert asked == ([] if {"role", "min_heavy"} & options.keys() else ["dipole_x"])


def test_rows_can_be_chosen(benchmark_folder, tmp_path, in_turn, capsys):
    _, found = run(benchmark_folder, tmp_path, "--elements", "H", "--role", "train", "--sets", "W4-17")
    assert [r["name"] for r in found["functionals"][0]["reactions"]] == ["bond1"]
    assert found["choice"] == {"sets": ["W4-17"], "role": "train", "elements": ["H"]}
    for options, text in (
        (["--sets", "S22"], "no set S22"),
        (["--role", "dev"], "no rows with the role 'dev'"),
        (["--elements", "Xe"], "nothing in"),
        (["--protocol", "best"], "no protocol 'best'"),
        (["--basis", "none"], "basis 'none' is unknown"),
        (["--xc", "none"], "unknown functional 'none'"),
        (["--xc", "svwn-d4"], "PySCF cannot run 'svwn-d4'"),
        (["--xc", "pbe-d3"], "PySCF cannot run 'pbe-d3'"),
        (["--xc", ","], "no functional is given"),
        (["--elements", "Q"], "Q is not an element"),
    ):
        argv = ["bench", "--data", benchmark_folder, "--protocol", "fast", "--out", tmp_path / "no", *options]
        assert main([str(a) for a in argv]) == 2
        assert text in capsys.readouterr().err


def test_the_shipped_data_are_the_default(tmp_path, in_turn):
    argv = [
        "bench",
        "--xc",
        "pbe",
        "--elements",
        "H,F",
        "--protocol",
        "fast",
        "--basis",
        "def2-svp",
        "--max-heavy",
        "1",
    ]
    assert main([*argv, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "report.json").read_text())["functionals"][0]
    assert {r["set"] for r in found["reactions"]} == {"atomization", "ionization", "affinity"}
    assert {r["name"] for r in found["reactions"]} == {"H2", "HF", "F+", "F-", "H-"}
    errors = {(p["id"], p["property"]): p["error"] for p in found["properties"]}
    assert 0.001 < errors["small/HF", "density_l1"] < 0.05
    assert ("small/F", "density_l1") not in errors  # its density can turn
    assert abs(errors["small/HF", "dipole_norm"]) < 15


def test_a_density_is_its_own_reference(mole):
    """The error of a density vanishes where the reference is the calculation itself, and not where it is another."""
    reference = shipped.load("small")["H2O"]
    system = suite.load(None).systems["small/H2O"]
    mf = dft.RKS(reference.mole(), xc="hf").run()
    dm = mf.make_rdm1() / 2
    own = replace(reference, dm1=np.array([dm, dm]))
    protocol = replace(PROTOCOLS["fast"], basis="aug-cc-pvtz", density_fit=False)
    references = {"own": own, "other": reference}
    result = compute(Species(system, "hf", identity_of("hf"), protocol, frozenset({"density"}), references))
    assert result["densities"]["own"]["density_l1"] < 1e-4
    assert result["densities"]["other"]["density_l1"] > 5e-3


def test_density_errors_are_those_of_a_gaussian():
    """Against nothing at all: of two electrons in exp(-a r^2), L1 is 1 and L2 (a / pi)^(3/4)."""
    exponent = 0.7
    mol = gto.M(atom="He", basis={"He": [[0, [exponent, 1.0]]]}, verbose=0)
    mf = mlxc.KS(mol, "pbe").run()
    nothing = Reference("nothing", ("He",), np.zeros((1, 3)), 0, 0, mol._basis, "none", dm1=np.zeros((2, 1, 1)))
    found = quantities.EXTRAS["density"](Calculation(mf, None, {"nothing": nothing}))["densities"]["nothing"]
    assert found["density_l1"] == pytest.approx(1.0, abs=1e-6)
    assert found["density_l2"] == pytest.approx((exponent / np.pi) ** 0.75, rel=1e-6)


def test_quantities():
    result = {
        "dipole_debye": [0.0, 3.0, 4.0],
        "homo_hartree": -0.5,
        "coords_angstrom": [[0, 0, 1.0], [0, 0, 0], [2.0, 0, 0]],
        "frequencies_cm": [100.0, 200.0],
    }

    def row(name, unit, reference=0.0):
        return Property("set", "id", name, reference, unit)

    assert value(row("dipole_norm", "debye"), result) == pytest.approx(5.0)
    assert value(row("dipole_z", "e*bohr"), result) == pytest.approx(4.0 / 2.541746, rel=1e-6)
    assert error(row("dipole_z", "e*bohr", 0.1), 0.1 + 0.01 / 2.541746) == pytest.approx(1.0)
    assert value(row("ip_vertical_ev_expt", "eV"), result) == pytest.approx(13.605693, rel=1e-6)
    assert value(row("bond_1_3", "angstrom"), result) == pytest.approx(5**0.5)
    assert value(row("angle_1_2_3", "degree"), result) == pytest.approx(90.0)
    assert value(row("frequency_2", "1/cm"), result) == 200.0
    assert value(row("polarizability", "bohr^3"), result) is None
    assert error(row("dipole_norm", "debye", 0.5), 0.6) == pytest.approx(10.0)  # percent of 1 Debye
    assert error(row("dipole_norm", "debye", 2.0), 1.9) == pytest.approx(-5.0)
    water = suite.load(None).systems["small/H2O"]
    check(row("angle_2_1_3", "degree"), water, ())
    for name, unit in (
        ("colour", "nm"),
        ("dipole_norm", "e*bohr"),
        ("angle_1_2", "degree"),
        ("bond_1_4", "angstrom"),
        ("bond_0_1", "angstrom"),
        ("frequency_10", "1/cm"),
        ("density_l1", "per electron"),
    ):
        with pytest.raises(InputError, match="set"):
            check(row(name, unit), water, ())


@pytest.mark.parametrize("xc", ["pbe0", "mlxc-lh7"])
def test_second_derivatives(mole, xc):
    mf = mlxc.KS(mole("H2", "6-31g"), xc)
    mf.grids.level = 3 if xc == "pbe0" else 1
    with pytest.raises(InputError, match="converged"):
        hessian(mf)
    mf.run(conv_tol=1e-8)  # as in the protocols
    coords, weights = mf.mol.atom_coords(), mf.grids.weights
    found = hessian(mf)
    assert found.shape == (2, 2, 3, 3)
    assert np.array_equal(mf.mol.atom_coords(), coords)
    assert mf.grids.weights is weights
    if xc == "pbe0":
        assert found == pytest.approx(mf.Hessian().kernel(), abs=3e-4)
    step, energies = 0.01, []
    for shift in (-step, 0, step):
        coords = mf.mol.atom_coords() + np.array([[0, 0, 0], [0, 0, shift]])
        moved = mlxc.KS(mf.mol.set_geom_(coords, unit="Bohr", inplace=False), xc)
        moved.grids.level = mf.grids.level
        energies.append(moved.run(conv_tol=1e-11).e_tot)
    assert found[1, 1, 2, 2] == pytest.approx((energies[0] - 2 * energies[1] + energies[2]) / step**2, abs=2e-3)


def test_minima_and_polarizabilities(tmp_path, in_turn):
    folder = tmp_path / "data"
    folder.mkdir()
    row = {"id": "h2", "set": "x", "charge": 0, "multiplicity": 1, "symbols": ["H", "H"]}
    (folder / "systems.jsonl").write_text(json.dumps(row | {"coords_angstrom": [[0, 0, 0], [0, 0, 0.8]]}) + "\n")
    (folder / "reactions.jsonl").write_text("")
    rows = [("bond_1_2", 0.7414, "angstrom"), ("frequency_1", 4401.0, "1/cm"), ("polarizability", 5.2, "bohr^3")]
    properties = [{"id": "h2", "set": "H2", "property": p, "value": v, "unit": u} for p, v, u in rows]
    (folder / "properties.jsonl").write_text("\n".join(map(json.dumps, properties)))
    argv = [folder, tmp_path / "out"]
    _, found = run(folder, tmp_path / "cheap", xc="pbe0", basis="sto-3g")
    assert [p["property"] for p in found["functionals"][0]["properties"]] == ["polarizability"]
    in_turn.clear()
    status, found = run(*argv, "--sets", "h2", xc="pbe0", basis="def2-svpd")
    assert status == 0
    errors = [p["error"] for p in found["functionals"][0]["properties"]]
    assert 0 < abs(errors[0]) < 0.03
    assert 0 < abs(errors[1]) < 150
    kept = json.loads(next((tmp_path / "out" / "species").iterdir()).read_text())["result"]
    h2 = gto.M(atom=list(zip("HH", kept["coords_angstrom"], strict=True)), basis="def2-svpd", verbose=0)
    averaged = mlxc.vibrations(mlxc.KS(h2, "pbe0").density_fit().run(conv_tol=1e-10)).frequencies_cm[-1]
    protium = np.sqrt(1.008 / 1.00782503)  # PySCF averages 1.008
    assert kept["frequencies_cm"][-1] == pytest.approx(averaged * protium, rel=2e-5)
    assert 0 < abs(errors[2]) < 1
    assert len(in_turn) == 1
    # at the geometry that is given, whatever else is asked
    (folder / "properties.jsonl").write_text(json.dumps(properties[2]))
    _, alone = run(folder, tmp_path / "alone", xc="pbe0", basis="def2-svpd")
    assert alone["functionals"][0]["properties"][0]["error"] == pytest.approx(errors[2], abs=1e-6)


def test_other_geometries_keep_a_broken_symmetry():
    """A restricted calculation that went over to a lower unrestricted one goes on from there."""
    mol = gto.M(atom="H 0 0 0; H 0 0 2.5", basis="6-31g", verbose=0)
    restricted = mlxc.KS(mol, "pbe0").run()
    lower = settled(Solution(restricted, "diis"), broken_symmetry=True).mf
    assert lower.e_tot < restricted.e_tot - 0.02
    again = Calculation(lower, lambda mol: mlxc.KS(mol, "pbe0"), {}).again(mol)
    assert again.e_tot == pytest.approx(lower.e_tot, abs=1e-7)
    plain = Calculation(restricted, lambda mol: mlxc.KS(mol, "pbe0"), {}).again(mol)
    assert plain.e_tot == pytest.approx(restricted.e_tot, abs=1e-7)


def test_members_of_an_ensemble_say_how_sure_a_reaction_is(benchmark_folder, tmp_path, in_turn, monkeypatch):
    members = [models.load("mlxc-lh7"), R2SCAN()]
    monkeypatch.setattr(models, "load_members", lambda name: members)
    _, found = run(benchmark_folder, tmp_path, xc="mlxc-lh7")
    scale = models.describe("mlxc-lh7")["uncertainty_scale"]
    kept = [json.loads(p.read_text()) for p in (tmp_path / "species").glob("*.json")]
    energies = {c["id"]: np.array(c["result"]["member_hartree"]) for c in kept}
    for row in found["functionals"][0]["reactions"]:
        difference = sum(c * energies[id] for id, c in row["stoichiometry"].items())
        spread = abs(difference[0] - difference[1]) / np.sqrt(2) * KCAL
        assert spread > 0.1
        assert row["uncertainty_kcal"] == pytest.approx(np.hypot(0.1, scale * spread), rel=1e-4)


def test_only_shipped_references_are_those_that_models_are_trained_on(tmp_path):
    copied, mine = tmp_path / "copied.h5", tmp_path / "mine.h5"
    shutil.copy(ROOT / "data" / "atoms.h5", copied)
    write(mine, shipped.load("atoms").values(), "the same, built by somebody else")
    roles = [{r.role for r in suite.load(path).reactions} for path in (None, copied, mine)]
    assert roles == [{"train"}, {"train"}, {"dev"}]


def test_models_of_one_name_are_told_apart(benchmark_folder, tmp_path, in_turn):
    folders = [
        str(shutil.copytree(ROOT / "mlxc" / "models" / model, tmp_path / model)) for model in ("mlxc-mgga3", "mlxc-lh7")
    ]
    for folder in folders:
        card = Path(folder) / "model.json"
        card.write_text(json.dumps(json.loads(card.read_text()) | {"name": "mine"}))
    status, found = run(benchmark_folder, tmp_path / "out", "--sets", "W4-17", xc=",".join(folders))
    assert status == 0
    assert [f["name"] for f in found["functionals"]] == folders


def test_a_missing_library_is_told_first(benchmark_folder, tmp_path, in_turn, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--data", str(benchmark_folder), "--xc", "pbe", "--out", str(tmp_path)]) == 2
    assert "needs matplotlib" in capsys.readouterr().err
    assert not in_turn


def test_dispersion_is_part_of_a_name(benchmark_folder, tmp_path, in_turn):
    _, found = run(benchmark_folder, tmp_path, xc="b3lyp,b3lyp-d3bj,b3lyp-d4")
    values = [f["reactions"][1]["value_kcal"] for f in found["functionals"]]
    assert len(set(values)) == 3
    assert values == pytest.approx([values[0]] * 3, abs=0.5)


def test_files_of_reference_data(tmp_path, in_turn):
    argv = ["bench", "--data", str(shipped.path_of("two_electron")), "--elements", "He", "--xc", "pbe", "--out"]
    assert main([*argv, str(tmp_path), "--protocol", "fast", "--basis", "def2-svp"]) == 0
    found = json.loads((tmp_path / "report.json").read_text())["functionals"][0]
    assert {p["set"] for p in found["properties"]} == {"densities-two_electron"}
    assert {p["id"] for p in found["properties"]} == {"two_electron/He", "two_electron/He triplet"}


def test_folders_that_cannot_be_written_are_refused(benchmark_folder, tmp_path, in_turn, monkeypatch, capsys):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(species_module, "write_atomic", full)
    argv = ["bench", "--data", str(benchmark_folder), "--protocol", "fast", "--basis", "sto-3g", "--xc", "pbe"]
    assert main([*argv, "--out", str(tmp_path / "full")]) == 2
    assert "No space left" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([*argv, "--out", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on(benchmark_folder, tmp_path):
    """Killed in the middle, twice: the same report, bit for bit, and no species computed twice."""
    command = [sys.executable, "-m", "mlxc", "bench", "--data", str(benchmark_folder), "--xc", "pbe0,mlxc-lh7",
               "--protocol", "fast", "--jobs", "2", "--out"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True, env=environment)
    folder, seen = tmp_path / "killed" / "species", {}
    for at_least in (2, 5):
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env=environment,
        )  # fmt: skip
        while len(list(folder.glob("*.json"))) < at_least:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        files = {p: p.stat().st_mtime_ns for p in folder.glob("*.json")}
        assert len(files) < 8
        assert files.items() >= seen.items()
        seen = files
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True, env=environment)
    files = {p: p.stat().st_mtime_ns for p in folder.glob("*.json")}
    assert len(files) == 8
    assert files.items() >= seen.items()
    for name in ("report.json", "averages.csv", "reactions.csv", "properties.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_cluster_computes_them(benchmark_folder, tmp_path):
    from distributed import LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Dask, about sockets left to the garbage collector
        with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
            more = ["--elements", "H", "--scheduler", cluster.scheduler_address]
            status, found = run(benchmark_folder, tmp_path / "cluster", *more, xc="pbe", basis="sto-3g")
    assert status == 0
    (row,) = found["functionals"][0]["reactions"]
    assert row["converged"]
    assert len(list((tmp_path / "cluster" / "species").iterdir())) == 2


def test_symmetry_that_breaks_is_doubtful(tmp_path, in_turn, capsys):
    """Restricted unless it may become unrestricted: then lower, with an <S^2> that is told."""
    folder, energies = tmp_path / "data", []
    folder.mkdir()
    h2 = {"id": "h2", "set": "x", "charge": 0, "multiplicity": 1, "symbols": ["H", "H"]}
    h2["coords_angstrom"] = [[0, 0, 0], [0, 0, 2.5]]
    h = h2 | {"id": "h", "multiplicity": 2, "symbols": ["H"], "coords_angstrom": [[0, 0, 0]]}
    (folder / "systems.jsonl").write_text(f"{json.dumps(h2)}\n{json.dumps(h)}\n")
    reaction = {"set": "x", "name": "it", "stoichiometry": {"h2": -1, "h": 2}, "ref_kcal": 0.0, "role": "dev"}
    (folder / "reactions.jsonl").write_text(json.dumps(reaction) + "\n")
    for options in ([], ["--broken-symmetry"]):
        _, found = run(folder, tmp_path / "out", *options)
        energies.append(found["functionals"][0]["reactions"][0]["value_kcal"])
        assert (found["functionals"][0]["rungs"], "<S^2>" in capsys.readouterr().out) == (
            ({"broken symmetry": 1, "diis": 1}, True) if options else ({"diis": 2}, False)
        )
    assert energies[1] > energies[0] + 10


def test_a_property_that_nothing_is_known_of_is_a_failure(tmp_path, in_turn, monkeypatch):
    def fails(calculation):
        raise InputError("lost its way")

    monkeypatch.setitem(quantities.EXTRAS, "polarizability", fails)
    argv = ["bench", "--xc", "pbe", "--sets", "polarizabilities", "--elements", "H", "--protocol", "fast"]
    assert main([*argv, "--basis", "sto-3g", "--out", str(tmp_path)]) == 3


def test_switches_of_pyscf_belong_to_a_functional(monkeypatch):
    before = identity_of("b3lyp")
    monkeypatch.setattr("pyscf.__config__.B3LYP_WITH_VWN5", True, raising=False)
    assert identity_of("b3lyp") == before | {"B3LYP_WITH_VWN5": True}
