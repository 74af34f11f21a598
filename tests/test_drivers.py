"""Drivers of PySCF and the programs of this repository that move atoms."""

import json
import logging
import runpy
from pathlib import Path

import numpy as np
import pytest
from pyscf import gto

import mlxc
from mlxc.cli import main
from mlxc.errors import ConvergenceError, InputError
from mlxc.geometry import gradient_method
from mlxc.optimization import optimize, search
from mlxc.scf import second_order

XC = ("mlxc-lh7-d4", "mlxc-mgga3")


def h2(xc, length):
    mol = gto.M(atom=f"H 0 0 0; H 0 0 {length}", basis="sto-3g", verbose=0)
    mf = mlxc.KS(mol, xc).density_fit()
    mf.grids.level, mf.conv_tol = 0, 1e-10
    return mf


@pytest.mark.parametrize("xc", XC)
def test_scanners(xc):
    """Of energies and of gradients, against fresh calculations."""
    fresh = h2(xc, 0.8).run()
    energies, gradients = h2(xc, 0.7).as_scanner(), gradient_method(h2(xc, 0.7)).as_scanner()
    energies(h2(xc, 0.7).mol)
    gradients(h2(xc, 0.7).mol)
    assert energies(fresh.mol) == pytest.approx(fresh.e_tot, abs=1e-8)
    energy, gradient = gradients(fresh.mol)
    assert energy == pytest.approx(fresh.e_tot, abs=1e-8)
    assert np.allclose(gradient, gradient_method(fresh).kernel(), atol=1e-6)
    assert gradient[1, 2] > 0.01
    gradients.base.max_cycle = 1
    with pytest.raises(ConvergenceError, match="scanner"):
        gradients(h2(xc, 1.5).mol)


def test_gradients_are_of_results():
    """PySCF takes whatever orbitals there are."""
    mf = h2("mlxc-mgga3", 0.8)
    gradients = gradient_method(mf)
    assert abs(gradients.kernel()[1, 2]) > 0.01  # runs the SCF
    mf.reset(h2("pbe", 0.9).mol)
    with pytest.raises(InputError, match="gradients need a converged"):
        gradients.kernel()
    mf.run()
    gradients.kernel()
    mlxc.attach(mf, "pbe")
    with pytest.raises(InputError, match="gradients need a converged"):
        gradient_method(mf).kernel()
    mf.reset(h2("pbe", 4.0).mol).run(max_cycle=1, conv_tol=1e-14)
    assert not mf.converged
    with pytest.raises(InputError, match="gradients need a converged"):
        gradient_method(mf).kernel()


@pytest.mark.parametrize("xc", XC)
def test_minimum(xc):
    start, energies = h2(xc, 0.8), []
    mol, done = optimize(start)
    assert done
    last, done = search(start, lambda envs: energies.append(envs["energy"]))
    assert done
    assert last.e_tot == energies[-1]
    assert np.allclose(last.mol.atom_coords(), mol.atom_coords(), atol=1e-6)
    found = start.copy().reset(mol).run()
    assert abs(gradient_method(found).kernel()).max() < 4.5e-4  # geomeTRIC's limit
    assert found.e_tot < start.run().e_tot - 1e-4


def test_minimum_needs_converged_energies(monkeypatch):
    """Where DIIS fails on the way the second-order solver takes over; where that fails too, nothing goes on."""
    start = mlxc.KS(gto.M(atom="H 0 0 0; F 0 0 1.05", basis="sto-3g", verbose=0), "mlxc-mgga3").density_fit()
    start.grids.level = 0
    usual = optimize(start)[0].atom_coords()
    start.max_cycle = 2
    rescued = []
    monkeypatch.setattr("mlxc.scf.second_order", lambda mf: rescued.append(1) or second_order(mf.set(max_cycle=50)))
    assert np.allclose(optimize(start)[0].atom_coords(), usual, atol=1e-3)
    assert rescued
    monkeypatch.setattr("mlxc.scf.second_order", lambda mf: mf)
    with pytest.raises(ConvergenceError, match="did not converge"):
        optimize(start)


@pytest.mark.parametrize("xc", XC)
def test_transition_state(xc, capfd, monkeypatch):
    """Of H + H2: linear, as long on both sides, the energy falls along the way to H2 and rises when all stretches."""
    mol = gto.M(atom="H 0 0 0; H 0 0 0.93; H 0 0.02 1.87", basis="sto-3g", spin=1, verbose=0)
    mf = mlxc.KS(mol, xc).density_fit()
    mf.grids.level = 1  # on level 0 the barrier has ripples
    monkeypatch.setattr(logging.root, "handlers", [])  # as outside of pytest, which has some
    found, done = optimize(mf.run(), transition=True)
    assert done
    assert capfd.readouterr().err == ""  # nothing of geomeTRIC's log
    a, b, c = x = found.atom_coords()
    assert np.linalg.norm(a - b) == pytest.approx(np.linalg.norm(b - c), abs=0.05)
    assert np.linalg.norm(a - c) == pytest.approx(np.linalg.norm(a - b) + np.linalg.norm(b - c), abs=1e-3)
    energy = mf.as_scanner()
    step = 0.05 * (c - a)
    shifts = np.zeros((3, 3)), np.array([0 * step, step, 0 * step]), np.array([-step, 0 * step, step])
    top, reacting, stretched = (energy(found.set_geom_(x + s, unit="Bohr", inplace=False)) for s in shifts)
    assert reacting < top < stretched


def test_transition_state_from_the_command_line(tmp_path, capsys, monkeypatch):
    path, out = tmp_path / "h2.xyz", tmp_path / "out.json"
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    kinds = []

    def search(mf, callback, transition):
        kinds.append(transition)
        return mf, True

    monkeypatch.setattr("mlxc.run.search", search)
    for task in ("optimize", "ts"):
        arguments = ["--xc", "pbe", "--basis", "sto-3g", "--task", task, "--json", str(out)]
        assert main(["run", str(path), *arguments]) == 0
    assert kinds == [False, True]
    assert json.loads(out.read_text())["geometry_converged"]
    assert "transition state" in (tmp_path / "h2.ts.xyz").read_text()
    assert "minimum" in (tmp_path / "h2.opt.xyz").read_text()


def md(*arguments):
    """Run benchmarks/md.py."""
    path = Path(__file__).parents[1] / "benchmarks" / "md.py"
    runpy.run_path(str(path))["main"]([str(a) for a in arguments])


def test_dynamics_go_on_where_they_were_stopped(tmp_path, capsys):
    path = tmp_path / "h2.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    command = [path, "--xc", "pbe", "--basis", "sto-3g", "--grid-level", 0, "--conv-tol", 1e-11, "--timestep", 0.2]
    md(*command, "--steps", 4, "--out", tmp_path / "whole")
    md(*command, "--steps", 2, "--out", tmp_path / "parts")
    md(*command, "--steps", 4, "--out", tmp_path / "parts")
    whole, _, parts = map(json.loads, capsys.readouterr().out.replace("}\n{", "}\0{").split("\0"))
    assert (whole["steps"], parts["steps"]) == (4, 4)
    key = "rms_hartree_per_atom"
    assert parts[key] == pytest.approx(whole[key], abs=1e-9)
    assert 0 < whole[key] < 1e-5
    assert json.loads((tmp_path / "parts" / "md.json").read_text()) == parts
    with pytest.raises(InputError, match="other settings"):
        md(*command, "--seed", 1, "--steps", 5, "--out", tmp_path / "parts")
