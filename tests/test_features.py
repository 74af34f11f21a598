"""The map D -> Features against PySCF's densities, and its vjp against exact differences."""

import numpy as np
import pytest
import torch
from pyscf import dft

from mlxc.features import GridMap


@pytest.fixture(params=[False, True], ids=["spherical", "cartesian"])
def setting(request, mole):
    mol = mole("CH3", "def2-tzvp")
    mol.cart = request.param
    mol.build(False, False)
    rng = np.random.default_rng(1)
    coords = rng.normal(scale=1.5, size=(50, 3))
    c = rng.normal(size=(2, mol.nao, 4)) / 5
    return mol, coords, np.einsum("spi,sqi->spq", c, c)


def test_features_match_pyscf(setting):
    mol, coords, dm = setting
    features = GridMap(mol, coords)(torch.from_numpy(dm))
    ni = dft.numint.NumInt()
    ao = ni.eval_ao(mol, coords, deriv=1)
    rho = np.stack([ni.eval_rho(mol, ao, d, xctype="MGGA", with_lapl=False) for d in dm])
    np.testing.assert_allclose(features.rho, rho[:, 0], rtol=1e-10)
    np.testing.assert_allclose(features.tau, rho[:, 4], rtol=1e-10)
    pairs = [(0, 0), (0, 1), (1, 1)]
    sigma = [(rho[s, 1:4] * rho[t, 1:4]).sum(0) for s, t in pairs]
    np.testing.assert_allclose(features.sigma, sigma, rtol=1e-8, atol=1e-12)
