"""Kinetic energy counts positively in the tails of small closed shells with the shipped models."""

import pytest
import torch

import mlxc
from mlxc.analytic import R2SCAN
from mlxc.constraints.mass import effective_mass, ground_state, kinetic_potential, shared_shell
from mlxc.functional import Functional


class FallingTau(Functional):
    """r2SCAN whose energy falls twice as fast in tau as the kinetic energy rises."""

    name, xctype = "falling-tau", "MGGA"

    def energy_density(self, features):
        return R2SCAN().energy_density(features) - 2 * features.multiplicity * features.tau.sum(0)


SHELLS = (
    ("H 0 0 0; H 0 0 0.74", 0, 0),
    ("Be 0 0 0", 0, 0),
    ("Li 0 0 0; H 0 0 1.5957", 0, 0),
    ("Al 0 0 0", 0, 1),
    ("Be 0 0 0", 1, 1),
)


@pytest.mark.parametrize(("atom", "charge", "spin"), SHELLS)
@pytest.mark.parametrize("name", mlxc.models.names())
def test_effective_mass_is_positive(name, atom, charge, spin):
    features = ground_state(atom, charge, spin, "def2-svpd")
    v = kinetic_potential(mlxc.load(name), features)
    assert float(v.detach().min()) > -0.6


def test_effective_mass_of_a_known_shift():
    features = ground_state(*SHELLS[0], "def2-svpd")
    shifted = kinetic_potential(FallingTau(), features) - kinetic_potential(R2SCAN(), features)
    assert torch.allclose(shifted, torch.full_like(shifted, -2.0), atol=1e-6)


@pytest.mark.parametrize("name", mlxc.models.names())
def test_shells_shared_by_both_spins(name):
    """As in a bond that is stretched far."""
    features = shared_shell("H", "def2-svpd")
    assert float(kinetic_potential(mlxc.load(name), features).detach().min()) > -0.6
    assert torch.allclose(features.rho[0], features.rho[1], rtol=1e-6)


def test_penalty_finds_negative_masses():
    mass = effective_mass()
    assert float(mass(R2SCAN()).detach()) < 1e-3
    assert float(mass(FallingTau()).detach()) > 1
