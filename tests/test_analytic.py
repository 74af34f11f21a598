"""The analytic functionals against libxc: energies and derivatives to third order, and their behaviour at extremes."""

import numpy as np
import pytest
import torch
from conftest import random_rho
from pyscf.dft import libxc

from mlxc.analytic import PBE, R2SCAN, SlaterPW92
from mlxc.backend import Backend
from mlxc.scf import KS

PAIRS = [(SlaterPW92(), "slater,pw_mod"), (PBE(), "pbe"), (R2SCAN(), "r2scan")]
IDS = [code for _, code in PAIRS]


def rows(rho, xctype):
    return rho[..., : {"LDA": 1, "GGA": 4, "MGGA": 5}[xctype], :]


@pytest.mark.parametrize("spin", [0, 1])
@pytest.mark.parametrize(("functional", "code"), PAIRS, ids=IDS)
def test_derivatives_match_libxc(functional, code, spin, rng):
    rho = random_rho(rng, spin)
    deriv = 3 if functional.xctype != "MGGA" else 2  # PySCF's libxc build stops at second order for r2SCAN
    theirs = rows(rho, functional.xctype)
    if functional.xctype == "LDA":
        theirs = theirs[..., 0, :]
    want = libxc.eval_xc1(code, theirs, spin, deriv)
    got = Backend(functional).eval_xc1(code, rows(rho, functional.xctype), spin, deriv)
    assert got.shape == want.shape
    scale = np.abs(want).max(axis=1, keepdims=True)
    assert np.all(scale[want.any(axis=1)] > 0)
    # r2SCAN's interpolation is only piecewise smooth, and libxc cuts at other thresholds: judge by the bulk.
    close = np.abs(got - want) <= 1e-9 * np.abs(want) + 1e-13 * scale
    assert close.mean() > (0.99 if functional.xctype == "MGGA" else 0.9999)


@pytest.mark.parametrize("spin", [0, 1])
@pytest.mark.parametrize(("functional", "code"), PAIRS, ids=IDS)
def test_libxc_layout_of_eval_xc(functional, code, spin, rng):
    rho = rows(random_rho(rng, spin, points=20), functional.xctype)
    theirs = rho[..., 0, :] if functional.xctype == "LDA" else rho
    deriv = 3 if functional.xctype != "MGGA" else 2  # PySCF's libxc build stops at second order for r2SCAN
    want = libxc.eval_xc(code, theirs, spin, deriv=deriv)
    got = functional.eval_xc(code, rho, spin, deriv=deriv)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-9)
    for order in range(1, deriv + 1):
        assert len(got[order]) == len(want[order])
        for a, b in zip(got[order], want[order], strict=True):
            if b is None:
                assert a is None
                continue
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9 * np.abs(b).max())


@pytest.mark.parametrize("name", ["H2O", "O2", "CH3", "LiH", "Ne"])
@pytest.mark.parametrize(("functional", "code"), PAIRS, ids=IDS)
def test_total_energies_match_pyscf(functional, code, name, mole):
    ours, theirs = (KS(mole(name), xc) for xc in (functional, code))
    for mf in (ours, theirs):
        mf.conv_tol = 1e-11
        mf.kernel()
        assert mf.converged
    assert ours.e_tot == pytest.approx(theirs.e_tot, abs=1e-8)


@pytest.mark.parametrize(("functional", "code"), PAIRS, ids=IDS)
def test_finite_from_empty_space_to_the_core(functional, code):
    n = np.logspace(-14, 5, 40)
    flat = np.zeros_like(n)
    steep = 3 * n  # |grad n| of exp(-3 r)
    alone = np.stack([n, steep, flat, flat, steep**2 / (8 * n)])
    for rho in (alone, np.stack([alone, 0 * alone]), np.stack([0 * alone, alone]), np.stack([alone, alone])):
        spin = 0 if rho.ndim == 2 else 1
        values = Backend(functional).eval_xc1(code, rows(rho, functional.xctype), spin, 3)
        assert np.isfinite(values).all()
        assert (values[0] <= 0).all()
    assert not Backend(functional).eval_xc1(code, rows(0 * alone, functional.xctype), 0, 1)[0].any()


@pytest.mark.parametrize("spin", [0, 1])
def test_slightly_negative_densities_hold_nothing(spin, rng):
    """A density matrix that is not positive makes them."""
    rho = random_rho(rng, spin)
    rho[..., 0, ::2] = -1e-10
    exc, vxc, *_ = R2SCAN().eval_xc("", rho, spin)
    assert np.isfinite(exc).all()
    assert all(np.isfinite(v).all() for v in vxc if v is not None)
    if spin == 0:
        assert (exc[::2] == 0).all()


def test_restricted_equals_two_equal_spins(rng):
    functional = R2SCAN()
    total = random_rho(rng, 0)
    closed = functional.eval_xc("", total, 0, deriv=1)
    pair = functional.eval_xc("", np.stack([total / 2, total / 2]), 1, deriv=1)
    np.testing.assert_allclose(pair[0], closed[0], rtol=1e-12)
    np.testing.assert_allclose(pair[1][0], closed[1][0][:, None] * [1, 1], rtol=1e-9)
    assert torch.get_default_dtype() == torch.float32  # mlxc leaves torch's global state alone
