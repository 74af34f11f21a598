"""Cached densities, condensed molecules, rows and splits, on four small molecules."""

import copy
import dataclasses
import json
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from pyscf import dft, scf
from scipy.spatial.transform import Rotation
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mlxc import models
from mlxc.analytic import R2SCAN, Channel, SlaterPW92
from mlxc.constraints import angular, radial
from mlxc.dispersion import d4_energy
from mlxc.errors import InputError
from mlxc.localhybrid import HartreeFock
from mlxc.neural import NeuralLocalHybrid
from mlxc.ongrid import FULL_RANGE, features_at
from mlxc.reference.benchmark import Reaction, select
from mlxc.reference.folders import read_benchmark, read_reactions, read_systems
from mlxc.scf import converge
from mlxc.train import cache, compress
from mlxc.train.cache import read_molecule
from mlxc.train.compress import Condensed, condense
from mlxc.train.config import Config, Data, Phase
from mlxc.train.dataset import Dataset, split
from mlxc.train.densities import FixedDensities, correction
from mlxc.train.fixed import FixedPhase
from mlxc.train.loop import new_functional
from mlxc.train.ranks import Ranks
from mlxc.train.selfconsistent import SelfConsistentPhase
from mlxc.units import KCAL


def call(main, monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, argv)])
    main()


@pytest.fixture(scope="module")
def cached(benchmark_folder):
    with pytest.MonkeyPatch.context() as patch:
        call(cache.main, patch, "--data", benchmark_folder, "--out", benchmark_folder / "cache", "--basis", "def2-svp")
    return benchmark_folder / "cache"


def test_a_killed_cache_run_resumes(benchmark_folder, cached, monkeypatch, capsys):
    files = sorted(cached.glob("*.h5"))
    assert len(files) == 4
    files[0].unlink()
    call(cache.main, monkeypatch, "--data", benchmark_folder, "--out", cached, "--basis", "def2-svp")
    assert capsys.readouterr().out.count("converged") == 1
    assert sorted(cached.glob("*")) == files


def test_a_cache_that_cannot_be_filled_is_one_line(benchmark_folder, cached, tmp_path, monkeypatch, capsys):
    for more, message in (
        (["--part", "2/2"], "K from 0 to N - 1"),
        (["--part", "1"], "K from 0 to N - 1"),
        (["--basis", "sto-3g"], "another functional, basis or grid"),
        (["--data", tmp_path / "none"], "none"),
    ):
        with pytest.raises(SystemExit):
            call(cache.main, monkeypatch, "--data", benchmark_folder, "--out", cached, *more)
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_cached_features_give_back_r2scan(benchmark_folder, cached):
    system = read_systems(benchmark_folder)["hf"]
    path = cached / f"{system.key}.h5"
    features, weights = read_molecule(path)
    assert float(weights @ features.total_rho) == pytest.approx(10, abs=1e-3)
    r2scan = converge(cache.kohn_sham(system, "r2scan", Data(basis="def2-svp")))
    with h5py.File(path) as f:
        assert f.attrs["e_r2scan"] == pytest.approx(r2scan.e_tot, abs=1e-5)


def test_energies_are_those_at_the_densities_of_another_functional(benchmark_folder, tmp_path):
    system = read_systems(benchmark_folder)["hf"]
    settings = Data(basis="def2-svp", densities="hf", cache=tmp_path)
    cache.fill([system], settings)
    densities = FixedDensities([system], tmp_path)
    hf, r2scan = (converge(cache.kohn_sham(system, xc, settings)) for xc in ("hf", "r2scan"))
    r2scan.with_df = hf.with_df  # of both, the auxiliary basis that exchange needs
    there = r2scan.energy_tot(dm=hf.make_rdm1())
    assert there > r2scan.e_tot + 1e-4
    assert float(densities.e_r2scan[0]) == pytest.approx(there, abs=1e-5)
    exchange = float(densities.full_grid(HartreeFock())[0])
    assert exchange == pytest.approx(hf.e_tot, abs=1e-4)
    with pytest.raises(InputError, match="another functional"):
        cache.fill([system], dataclasses.replace(settings, densities="r2scan"))


def test_d4_is_part_of_all_energies_and_of_the_model(benchmark_folder, cached, tmp_path):
    species = list(read_systems(benchmark_folder).values())
    densities = FixedDensities(species, cached)
    config = Config("with", [Phase("fixed", adam=1)], width=2, depth=1, d4="pbe0")
    functional, without = new_functional(config), new_functional(dataclasses.replace(config, d4=""))
    expected = [
        d4_energy(s.mole("def2-svp"), "pbe0") if known else 0 for s, known in zip(species, densities.known, strict=True)
    ]
    assert min(expected) < -1e-6
    found = densities.full_grid(functional) - densities.full_grid(without)
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    energies = [FixedPhase(f, densities, Ranks()).observe().energies.detach().sum() for f in (functional, without)]
    assert float(energies[0] - energies[1]) == pytest.approx(sum(expected), abs=1e-9)
    models.save(functional, tmp_path / "model", {})
    assert models.load(f"{tmp_path / 'model'}-d4").disp == "d4:pbe0"
    for named, kept in (("", "d4:pbe0"), ("b3lyp", "d4:b3lyp"), ("none", None)):
        again = dataclasses.replace(config, start=tmp_path / "model", d4=named)
        assert new_functional(again).disp == kept
    with pytest.raises(InputError, match="no published D4 parameters"):
        densities.full_grid(new_functional(dataclasses.replace(config, d4="r2scann")))


def test_cached_exact_exchange_is_that_of_the_orbitals(benchmark_folder, cached):
    for name, shares in (("hf", 2), ("f", 1)):  # the one channel of a closed shell stands for two
        system = read_systems(benchmark_folder)[name]
        features, weights = read_molecule(cached / f"{system.key}.h5")
        mf = cache.kohn_sham(system, "r2scan", Data(basis="def2-svp", grid_level=cache.SCF_GRID)).run(conv_tol=1e-8)
        dm = np.asarray(mf.make_rdm1()) / shares
        exchange = -0.5 * shares * np.sum(scf.hf.get_jk(mf.mol, dm, with_j=False)[1] * dm)
        assert shares * float(weights @ features.ex.sum(0)) == pytest.approx(exchange, abs=2e-4)


@pytest.fixture
def functional(request):
    """A functional by the name of a fixture or of a shipped model."""
    name = request.param
    return models.load(name) if name in models.names() else request.getfixturevalue(name)


@pytest.mark.parametrize("functional", ["shaken", "shaken_hybrid", "mlxc-mgga3"], indirect=True)
def test_condensed_molecules_agree_with_the_grid(cached, functional):
    molecules = [read_molecule(p) for p in sorted(cached.glob("*.h5"))]
    condensed = Condensed(type(functional), molecules)
    assert len(condensed.x.f0) < sum(f.rho.numel() for f, _ in molecules) / 5
    energy, size = condensed.corrections(functional)
    exact = np.array([correction(functional, *m).item() for m in molecules])
    assert np.abs(exact).max() > 0.01
    np.testing.assert_allclose(energy.numpy(), exact, atol=1e-4)
    assert float(size) > 0


@pytest.mark.parametrize("functional", ["shaken", "shaken_hybrid"], indirect=True)
def test_slope_is_that_of_the_corrections(cached, functional):
    """Against differences at the same points."""
    condensed = Condensed(type(functional), [read_molecule(sorted(cached.glob("*.h5"))[0])])

    def enhancement(x):
        return functional.exchange_energy(x, x.f0, functional.exchange_shift(x)) / x.e_lda

    want, variables = 0.0, set()
    for value, at in ((enhancement, condensed.slope_x), (functional.correlation_shift, condensed.slope_c)):
        for name in set(vars(at)) & {"p", "alpha", "z", "y", "zt", "yt", "zeta2"}:
            moved = [SimpleNamespace(**{**vars(at), name: getattr(at, name) + step}) for step in (1e-5, -1e-5)]
            want += float(((value(moved[0]) - value(moved[1])) / 2e-5).square().mean())
            variables.add(name)
    assert len(variables) == (7 if functional.exx_omega == 0 else 3)
    assert condensed.slope(functional).item() == pytest.approx(want, rel=1e-4)


def test_gradient_of_the_objective(cached, shaken_hybrid):
    """With respect to every weight of every network, against differences."""
    condensed = Condensed(NeuralLocalHybrid, [read_molecule(p) for p in sorted(cached.glob("*.h5"))])
    functional = copy.deepcopy(shaken_hybrid).requires_grad_(True)
    parameters = list(functional.parameters())
    start = parameters_to_vector(parameters).detach()
    direction = torch.randn(len(start), dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def objective(step):
        vector_to_parameters(start + step * direction, parameters)
        energies, size = condensed.corrections(functional)
        return energies.square().sum() + 0.1 * size + 0.1 * condensed.slope(functional)

    grads = torch.autograd.grad(objective(0.0), parameters)
    assert all(g.abs().max() > 0 for g in grads)
    difference = (objective(1e-5) - objective(-1e-5)).item() / 2e-5
    assert (parameters_to_vector(grads) @ direction).item() == pytest.approx(difference, rel=1e-5)


def test_condensed_molecules_follow_the_grid(benchmark_folder, cached, shaken_hybrid, monkeypatch):
    """After a refresh energies and their slopes are those of the grid, at parameters that condensing errs at."""
    functional = copy.deepcopy(shaken_hybrid).requires_grad_()
    systems = read_systems(benchmark_folder)
    data = Dataset(systems, [Reaction("x", "all", dict.fromkeys(systems, 1), 0.0, "train")])
    monkeypatch.setattr(compress, "CELLS", (200, 200))
    phase = FixedPhase(functional, FixedDensities(data.species, cached), Ranks())
    exact = phase.densities.full_grid(functional)
    assert (phase.observe().energies - exact).abs().max() * KCAL > 0.01  # 1e4 times what is asked below
    phase.refresh()
    parameters = list(functional.parameters())
    found = phase.observe().energies
    assert torch.allclose(found, exact, rtol=0, atol=1e-9)
    slope = parameters_to_vector(torch.autograd.grad(found.sum(), parameters))
    total = sum(correction(functional, *m) for m in phase.densities.molecules())
    assert torch.allclose(slope, parameters_to_vector(torch.autograd.grad(total, parameters)), rtol=1e-9, atol=1e-12)


def test_errors_of_radial_grids(monkeypatch):
    """A smooth functional has small ones, one that oscillates in a core large ones."""
    monkeypatch.setattr(radial, "ATOMS", {"Ne": (0, 0)})
    monkeypatch.setattr(radial, "CLOSED", {"F": (-1, 0)})
    assert len(radial.RadialGrids().weights) == 2
    grids = radial.RadialGrids(closed=True)
    assert len(grids.weights) == 4  # two directions for each

    class Rippled(SlaterPW92):
        def energy_density(self, features):
            return super().energy_density(features) * (1 + 0.01 * torch.sin(100 * Channel(features).alpha[0]))

    smooth, rippled = (KCAL * grids.errors(f).abs().max() for f in (SlaterPW92(), Rippled()))
    assert smooth < 0.05
    assert rippled > 1
    coarse = KCAL * radial.RadialGrids(closed=True, level=1).errors(SlaterPW92()).abs().max()
    assert 10 * smooth < coarse < 0.05


@pytest.mark.parametrize("symbol", ["C", "S"])
def test_errors_of_angular_grids(symbol, monkeypatch):
    """They are what the energy changes by as the atom turns against PySCF's grid; r2SCAN's are small."""
    monkeypatch.setattr(angular, "ATOMS", {symbol: angular.ATOMS[symbol]})
    _, where, open_spin = angular.ATOMS[symbol]

    class Steep(R2SCAN):
        def energy_density(self, features):
            return super().energy_density(features) * (1 + torch.tanh(3 * (Channel(features).alpha[open_spin] - 1)))

    mol, dms = angular.axial_density(symbol)
    assert np.trace(dms[open_spin] @ mol.intor("int1e_ovlp")) == pytest.approx(mol.nelec[open_spin])
    zz = np.einsum("iipq,qp->i", mol.intor("int1e_rr").reshape(3, 3, mol.nao, mol.nao), dms[open_spin])
    assert zz[0] == pytest.approx(zz[1])
    assert (zz[2] > zz[0]) == (where == "along")
    grids = dft.gen_grid.Grids(mol).build()
    turned = []
    for axis in angular.axes():
        turn, _ = Rotation.align_vectors([[0, 0, 1]], [axis])
        features = features_at(mol, turn.apply(grids.coords), torch.from_numpy(dms), FULL_RANGE)
        turned.append(torch.from_numpy(grids.weights) @ Steep()(features))
    energies = torch.stack(turned) * KCAL
    assert energies.max() - energies.min() > 0.1
    found = angular.AngularGrids()
    errors = found.errors(Steep())[0] * KCAL
    assert torch.allclose(errors - errors.mean(), energies - energies.mean(), rtol=0.05, atol=0.01)
    assert (found.errors(R2SCAN()) * KCAL).abs().max() < 0.01


def test_condensing_is_exact_for_linear_functions(rng):
    """Whatever the signs of the weights; squares come near."""
    points, weights = rng.uniform(size=(2, 3000)), rng.normal(size=3000)
    energies = np.stack([weights, weights * points[1]])
    means, (sums, carried) = condense(points, weights, energies, 128)
    assert sums.shape == (128,)
    assert sums @ (3 + means[0] - 2 * means[1]) == pytest.approx(weights @ (3 + points[0] - 2 * points[1]))
    assert carried == pytest.approx(sums * means[1])
    assert sums @ means[0] ** 2 == pytest.approx(weights @ points[0] ** 2, rel=0.02)
    whole = condense(points, weights, energies, 2)[1][0]
    assert whole == pytest.approx([weights[weights > 0].sum(), weights[weights < 0].sum()])
    assert condense(np.zeros((2, 5)), np.ones(5), np.ones((1, 5)), 3)[1].tolist() == [[5.0]]


def test_split_keeps_graphs_apart(benchmark_folder):
    template = read_systems(benchmark_folder)["h2"]
    systems = {str(i): dataclasses.replace(template, id=str(i), graph_key=str(i // 2)) for i in range(32)}
    rows = [Reaction("W4-17", i, {i: 1}, 0.0, "train") for i in systems]
    inside, outside = split(rows, systems, seed=0)
    assert len(inside) == 28
    assert len(outside) == 4
    graphs = [{systems[r.name].graph_key for r in part} for part in (inside, outside)]
    assert not graphs[0] & graphs[1]
    assert split(rows, systems, seed=1) != (inside, outside)


def test_selection_and_broken_folders(benchmark_folder, tmp_path):
    systems, rows = read_systems(benchmark_folder), read_reactions(benchmark_folder)
    assert len(select(rows, systems, ("W4-17",), "train", frozenset("HF"), 3)) == 2
    assert len(select(rows, systems, ("W4-17",), "train", frozenset("H"), 3)) == 1
    assert not select(rows, systems, ("W4-17",), "dev", frozenset("HF"), 3)
    with pytest.raises(InputError, match="cannot read"):
        read_systems(tmp_path)
    (tmp_path / "systems.jsonl").write_text("{")
    with pytest.raises(InputError, match="line 1 is not a row"):
        read_systems(tmp_path)


def test_basis_limit(benchmark_folder, tmp_path):
    """Coarse grids tell what a basis lacks, and the energies of both phases have it."""
    system = read_systems(benchmark_folder)["hf"]
    settings = Data(basis="def2-svp", limit_basis="def2-tzvp", cache=tmp_path)
    cache.fill([system], settings)
    small, large = (
        converge(cache.kohn_sham(system, "r2scan", dataclasses.replace(settings, basis=b))).e_tot
        for b in ("def2-svp", "def2-tzvp")
    )
    data = Dataset({"hf": system}, [Reaction("x", "hf", {"hf": 1}, 0.0, "train", False)])
    densities = FixedDensities(data.species, tmp_path)
    assert large - small < -0.05
    assert float(densities.gains[0]) == pytest.approx(large - small, rel=3e-3)
    assert float(densities.e_r2scan[0]) == pytest.approx(small + float(densities.gains[0]), abs=1e-6)
    energies = []
    for gains in (None, densities.gains):
        phase = SelfConsistentPhase(NeuralLocalHybrid(4, 1), data, settings, (), Ranks(), gains=gains)
        state = phase.solve(data.inside, [])
        assert state.known.all()
        energies.append(float(state.energies[0].detach()))
    assert energies[1] - energies[0] == pytest.approx(float(densities.gains[0]), abs=1e-8)
    with pytest.raises(InputError, match="another functional, basis or grid"):
        cache.fill([system], dataclasses.replace(settings, limit_basis=""))
    known = dataclasses.replace(settings, gains=tmp_path / "gains.jsonl")
    for gain, agrees in ((round(float(densities.gains[0]), 6), True), (-0.01, False)):
        row = {"system": system.key, "basis": "def2-svp", "limit_basis": "def2-tzvp", "gain": gain}
        known.gains.write_text(json.dumps(row))
        with nullcontext() if agrees else pytest.raises(InputError, match="another gain"):
            cache.fill([system], known)


def test_a_molecule_that_breaks_off_is_left_out(benchmark_folder, tmp_path, monkeypatch, capsys):
    """And not tried again: the others can be trained on."""
    system = read_systems(benchmark_folder)["hf"]
    settings = Data(basis="sto-3g", grid_level=0, cache=tmp_path)

    def breaks(mf, dm0=None):
        raise RuntimeError("no such integral")

    monkeypatch.setattr(cache, "solved", breaks)
    cache.fill([system], settings)
    assert "LEFT OUT: RuntimeError('no such integral')" in capsys.readouterr().out
    cache.fill([system], settings)
    assert not capsys.readouterr().out
    assert "no such integral" in cache.attribute(tmp_path / f"{system.key}.h5", "failure")
    assert not FixedDensities([system], tmp_path).known.any()


def test_known_gains(benchmark_folder, tmp_path):
    """A gain that a file has for the same two basis sets is taken from there, others are computed."""
    system = read_systems(benchmark_folder)["hf"]
    file = tmp_path / "gains.jsonl"
    line = {"system": system.key, "basis": "def2-svp", "limit_basis": "def2-tzvp", "gain": -0.125}
    file.write_text(json.dumps(line) + "\n" + json.dumps(line | {"limit_basis": "def2-qzvp", "gain": 7.0}) + "\n")
    settings = Data(basis="def2-svp", limit_basis="def2-tzvp", grid_level=0, cache=tmp_path / "cache", gains=file)
    cache.fill([system], settings)
    assert cache.attribute(tmp_path / "cache" / f"{system.key}.h5", "limit_gain") == -0.125
    assert not cache.known_gains(dataclasses.replace(settings, basis="def2-tzvp"))
    file.write_text('{"system": 1}\n')
    with pytest.raises(InputError, match="cannot read the gains"):
        cache.known_gains(settings)


def test_errors_at_cached_densities(benchmark_folder, cached, capsys, monkeypatch):
    script = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "cached.py"))
    names = ["W4-17"]
    rows, found = script["errors"](benchmark_folder, cached, ["mlxc-mgga3", "mlxc-mgga3-d4"], names, 0)
    assert rows
    for row, plain, with_d4 in zip(rows, found["mlxc-mgga3"], found["mlxc-mgga3-d4"], strict=True):
        systems, _ = read_benchmark(benchmark_folder)
        d4 = sum(c * d4_energy(systems[i].mole("sto-3g"), "r2scan") for i, c in row.stoichiometry.items())
        assert float(with_d4 - plain) == pytest.approx(d4 * KCAL, abs=1e-6)
    assert not torch.allclose(found["r2scan"], found["mlxc-mgga3"], atol=1e-3)
    (heavy,) = script["errors"](benchmark_folder, cached, [], names, 1)[0]
    assert heavy.name == "bond2"  # H2 has no heavy atom
    with pytest.raises(InputError, match="no functional of mlxc"):
        script["errors"](benchmark_folder, cached, ["pbe"], names, 0)
    words = ["--data", benchmark_folder, "--cache", cached, "--xc", "mlxc-mgga3", "--sets", "W4-17"]
    call(script["main"], monkeypatch, *words)
    assert f"W4-17 r2scan               {len(rows)} rows, MAE" in capsys.readouterr().out
