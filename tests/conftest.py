"""Shared fixtures.  Every random number in the tests comes from a fixed seed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyscf import gto

from mlxc.bench import species
from mlxc.cli import main
from mlxc.errors import MlxcError
from mlxc.neural import NeuralLocalHybrid, NeuralMetaGGA
from mlxc.reference import build
from mlxc.reference.benchmark import graph_key


def slope(f, step):
    """Derivative at 0 of f, whose values may be arrays, by differences with an error of fourth order in the step."""
    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


def random_rho(rng, spin, points=400, low=-4, high=2):
    """PySCF rho arrays (n, grad n, tau) per spin that some wavefunction could have: tau >= tau_W."""
    shape = (1 + spin, points)
    n = 10 ** rng.uniform(low, high, shape)
    s = 10 ** rng.uniform(-1.5, 0.7, shape)
    direction = rng.normal(size=(3, *shape))
    direction /= np.linalg.norm(direction, axis=0)
    grad = 2 * (3 * np.pi**2) ** (1 / 3) * n ** (4 / 3) * s * direction
    tau = (grad**2).sum(0) / (8 * n) + 10 ** rng.uniform(-1, 0.8, shape) * n ** (5 / 3)
    rho = np.stack([n, *grad, tau], axis=1)
    return rho if spin else rho[0]


def run_bench(folder, out, *more, xc="pbe0", basis="6-31g"):
    """`mlxc bench` and its report."""
    argv = ["bench", "--data", folder, "--xc", xc, "--protocol", "fast", "--basis", basis, "--out", out, *more]
    status = main([str(a) for a in argv])
    return status, json.loads((Path(out) / "report.json").read_text())


#: The recipe of a hydrogen atom.
HYDROGEN = """
description = "hydrogen"
[density]
method = "FCI"
basis = "6-31g"
[[system]]
name = "H"
"""


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture
def refused(capsys):
    """refused(*argv): the one line on standard error of a command that must exit with status 2."""

    def run(*argv):
        assert main([str(a) for a in argv]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("mlxc: error: ")
        return line

    return run


@pytest.fixture
def in_turn(monkeypatch):
    """No worker processes: tasks are done one after the other in this one; returns the names of those that were."""
    names = []

    def results(work, tasks, *_, **__):
        for task in tasks:
            names.append(task.name)
            try:
                found = work(task)
            except MlxcError as err:
                found = err
            yield task, found

    for module in (species, build):
        monkeypatch.setattr(module, "results", results)
    return names


def _shake(functional, seed):
    """Large random weights: what no limit may break."""
    torch.manual_seed(seed)
    for parameter in functional.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return functional.requires_grad_(False)


@pytest.fixture(scope="session")
def shaken():
    """A neural functional with large random weights."""
    return _shake(NeuralMetaGGA(name="shaken"), 3)


@pytest.fixture(scope="session")
def shaken_hybrid():
    """A neural local hybrid with large random weights."""
    return _shake(NeuralLocalHybrid(name="shaken-hybrid"), 4)


MOLECULES = {
    "H2O": ("O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", 0),
    "O2": ("O 0 0 0; O 0 0 1.2075", 2),
    "CH3": ("C 0 0 0; H 0 1.079 0; H 0.934443 -0.5395 0; H -0.934443 -0.5395 0", 1),
    "LiH": ("Li 0 0 0; H 0 0 1.5957", 0),
    "Ne": ("Ne 0 0 0", 0),
    "Be": ("Be 0 0 0", 0),
    "O": ("O 0 0 0", 2),
    "NaH": ("Na 0 0 0; H 0 0 1.887", 0),
    "H2": ("H 0 0 0; H 0 0 0.74", 0),
}


@pytest.fixture(scope="session")
def mole():
    """mole(name, basis): one of the test molecules."""

    def make(name, basis="def2-svp"):
        atom, spin = MOLECULES[name]
        return gto.M(atom=atom, spin=spin, basis=basis, verbose=0)

    return make


SYSTEMS = {
    "h": (2, ["H"], [[0, 0, 0]]),
    "h2": (1, ["H", "H"], [[0, 0, 0], [0, 0, 0.74]]),
    "f": (2, ["F"], [[0, 0, 0]]),
    "hf": (1, ["H", "F"], [[0, 0, 0], [0, 0, 0.92]]),
}
REACTIONS = [("bond1", {"h": 2, "h2": -1}, 109.5), ("bond2", {"h": 1, "f": 1, "hf": -1}, 141.0)]


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory):
    """A benchmark folder of two atomization energies."""
    path = tmp_path_factory.mktemp("data")
    rows = [
        {
            "id": i, "set": "W4-17", "charge": 0, "multiplicity": m, "symbols": s, "coords_angstrom": x,
            "nheavy": sum(a != "H" for a in s), "graph_key": graph_key(s, x, 0, m),
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
