"""What holds at any point of any density, which hypothesis looks for: far beyond the ranges of `mlxc check`."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxc.analytic import R2SCAN
from mlxc.constraints.points import features_of_points
from mlxc.features import Features
from mlxc.neural import NeuralLocalHybrid, NeuralMetaGGA

MIXED = ((0.0, 1.0),)
#: Exponents of ten of r_s: densities of 1e-11 to 1e8 electrons / Bohr^3.
POINTS = st.fixed_dictionaries(
    {
        "rs": st.floats(-3, 3.3).map(lambda x: 10**x),
        "zeta": st.floats(-1, 1),
        **{f"{k}_{s}": st.floats(0, 50) for k in ("s", "alpha") for s in "ab"},
        **{f"y_{s}": st.floats(0, 20) for s in "ab"},
        "cosine": st.floats(-1, 1),
    }
)
BATCH = st.lists(POINTS, min_size=1, max_size=40)


def features(points):
    x = {k: np.array([p[k] for p in points]) for k in points[0]}
    return features_of_points(MIXED, x)


def swapped(f):
    return Features(f.rho.flip(0), f.sigma.flip(0), f.tau.flip(0), f.ex.flip(0))


@pytest.fixture(scope="module", params=["r2scan", "shaken", "shaken_hybrid"])
def functional(request):
    return R2SCAN() if request.param == "r2scan" else request.getfixturevalue(request.param)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(points=BATCH)
def test_energies_are_finite_bounded_and_know_no_up_and_down(functional, points):
    f = features(points)
    energy = functional.energy_density(f)
    assert torch.isfinite(energy).all()
    torch.testing.assert_close(functional.energy_density(swapped(f)), energy, rtol=1e-10, atol=1e-300)
    if isinstance(functional, NeuralMetaGGA) and not isinstance(functional, NeuralLocalHybrid):
        exchange, correlation = functional.parts(f)
        assert (exchange <= 0).all()
        assert (correlation <= 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(points=BATCH)
def test_derivatives_are_finite(functional, points):
    """Potentials of every variable, wherever the density is."""
    f = features(points)
    leaves = [x.clone().requires_grad_(True) for x in (f.rho, f.sigma, f.tau, f.ex)]
    energy = functional.energy_density(Features(*leaves)).sum()
    found = torch.autograd.grad(energy, leaves, allow_unused=True)
    assert all(torch.isfinite(g).all() for g in found if g is not None)
    assert found[0] is not None


@settings(max_examples=30, deadline=None, derandomize=True)
@given(points=BATCH, gamma=st.floats(0.1, 10))
def test_exchange_of_a_scaled_density(shaken, points, gamma):
    """gamma^3 n(gamma r) at r / gamma: the energy density of exchange is gamma^4 times as large."""
    f = features([p | {"rs": min(max(p["rs"], 0.05), 5.0)} for p in points])  # none of them cut off
    g = Features(f.rho * gamma**3, f.sigma * gamma**8, f.tau * gamma**5, f.ex)
    exchange, scaled = shaken.parts(f)[0], shaken.parts(g)[0]
    torch.testing.assert_close(scaled, gamma**4 * exchange, rtol=1e-8, atol=0)
