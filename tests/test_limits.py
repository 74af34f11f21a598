"""Exact conditions that are built in: they hold for large random weights, and the tests can fail."""

import numpy as np
import pytest
import torch
from conftest import random_rho
from pyscf.dft import libxc

from mlxc.analytic import R2SCAN, Channel, SlaterPW92, Total, pw92, r2scan_enhancement
from mlxc.features import Features
from mlxc.limits import LIEB_OXFORD, bounded_enhancement, expansion_gate, scaled_correlation
from mlxc.neural import NeuralMetaGGA

TAU_UNIF = 0.3 * (3 * np.pi**2) ** (2 / 3)


def features(rho):
    """Features of unrestricted PySCF rho arrays (2, 5, G)."""
    rho = torch.from_numpy(rho)
    pairs = [(0, 0), (0, 1), (1, 1)]
    sigma = torch.stack([(rho[s, 1:4] * rho[t, 1:4]).sum(0) for s, t in pairs])
    return Features(rho[:, 0], sigma, rho[:, 4])


def exchange(functional, rho):
    """Exchange energy per volume."""
    channel = Channel(features(rho))
    return channel.energy(bounded_enhancement(r2scan_enhancement(channel), functional.exchange_shift(channel)))


def correlation(functional, rho):
    return functional.energy_density(features(rho)) - exchange(functional, rho)


def scaled(rho, gamma):
    """The density gamma^3 n(gamma r) at the points r / gamma."""
    power = np.array([3, 4, 4, 4, 5])[None, :, None]
    return rho * float(gamma) ** power


def test_new_network_is_its_starting_point(rng):
    f = features(random_rho(rng, 1))
    torch.testing.assert_close(NeuralMetaGGA().energy_density(f), R2SCAN().energy_density(f), rtol=1e-13, atol=0)


def test_weights_matter(shaken, rng):
    """Guards the tests below: the shaken functional is far from its starting point."""
    f = features(random_rho(rng, 1))
    ratio = shaken.energy_density(f) / R2SCAN().energy_density(f)
    assert ratio.std() > 0.02


@pytest.mark.parametrize("zeta", [0.0, 0.3, 1.0])
def test_uniform_gas(shaken, zeta):
    n = np.logspace(-3, 3, 13)
    spins = np.stack([n * (1 + zeta) / 2, n * (1 - zeta) / 2])
    tau = TAU_UNIF * 2 ** (2 / 3) * spins ** (5 / 3)
    rho = np.zeros((2, 5, len(n)))
    rho[:, 0], rho[:, 4] = spins, tau
    got, want = shaken.energy_density(features(rho)), SlaterPW92().energy_density(features(rho))
    # The gate vanishes with the regularisation of alpha; exactly at zeta = 0 and 1, and to rounding between.
    np.testing.assert_allclose(got, want, rtol=1e-9)
    lyp = n * libxc.eval_xc("slater,lyp", rho[:, :4], spin=1)[0]
    assert not np.allclose(lyp, want, rtol=1e-2)  # does not have the uniform gas's correlation


def test_the_gate_vanishes_in_the_uniform_gas_and_in_second_order_as_well():
    """Where a density varies slowly, alpha - 1 is of the order of p = s^2."""
    p = torch.tensor([0.0, 1e-6, 1e-4], dtype=torch.float64)
    alpha = 1 - 3 * p
    assert expansion_gate(p, alpha)[0] == 0
    assert float(expansion_gate(torch.tensor(1.0), torch.tensor(0.0))) > 0.9
    assert (expansion_gate(p, alpha)[1:] / p[1:]).max() < 0.02


def test_exchange_scales_uniformly_and_by_spin(shaken, rng):
    rho = random_rho(rng, 1, low=-2, high=1)
    for gamma in (0.5, 3.0):
        np.testing.assert_allclose(exchange(shaken, scaled(rho, gamma)), gamma**4 * exchange(shaken, rho), rtol=1e-9)
    parts = [exchange(shaken, np.stack([rho[s], rho[s]])) for s in (0, 1)]
    np.testing.assert_allclose(exchange(shaken, rho), (parts[0] + parts[1]) / 2, rtol=1e-12)
    # Correlation is not homogeneous: the same check must see that.
    assert not np.allclose(correlation(shaken, scaled(rho, 3.0)), 3.0**4 * correlation(shaken, rho), rtol=1e-2)


def test_spin_swap(shaken, rng):
    rho = random_rho(rng, 1)
    f, swapped = features(rho), features(rho[::-1].copy())
    np.testing.assert_allclose(shaken.energy_density(f), shaken.energy_density(swapped))
    channel, other = Channel(f), Channel(swapped)  # half of the exchange is one spin's: not symmetric
    assert not np.isclose(shaken.exchange_shift(channel)[0], shaken.exchange_shift(other)[0], rtol=1e-3).all()


def test_correlation_is_negative_and_zero_for_one_electron(shaken, rng):
    rho = random_rho(rng, 1, low=-3, high=2)
    assert (correlation(shaken, rho) <= 0).all()
    assert correlation(shaken, rho).min() < -1e-3
    orbital = rho.copy()
    orbital[1] = 0
    orbital[0, 4] = (orbital[0, 1:4] ** 2).sum(0) / (8 * orbital[0, 0])
    assert (correlation(shaken, orbital).abs() < 1e-9 * exchange(shaken, orbital).abs()).all()
    f = features(orbital)
    uniform = Total(f).n_switched * pw92(Total(f))[0]  # a correlation that does not vanish must be noticed
    assert not (uniform.abs() < 1e-9 * exchange(shaken, orbital).abs()).any()


def test_lieb_oxford():
    f0 = torch.linspace(1e-6, 1.17, 50, dtype=torch.float64)
    for u in (-20.0, -1.0, 0.0, 1.0, 20.0):
        f = bounded_enhancement(f0, torch.full_like(f0, u))
        assert ((f > 0) & (f <= LIEB_OXFORD)).all()
    assert torch.allclose(bounded_enhancement(f0, torch.zeros_like(f0)), f0)
    assert (f0 * np.exp(20.0) > LIEB_OXFORD).any()  # what an unbounded correction would do


def test_scaled_correlation_keeps_zeros():
    e0 = torch.tensor([-1.0, 0.0])
    assert scaled_correlation(e0, torch.tensor([0.3, 0.3])).tolist() == pytest.approx([-np.exp(0.3), 0.0])
