"""Potentials of auxiliary functions: libcint's two-centre integrals as oracle, and their compressed tables."""

import numpy as np
import pytest
import scipy.special
from pyscf import df, gto

from mlxc.exx import auxiliary_mole
from mlxc.potentials import AuxiliaryPotentials, boys
from mlxc.tables import INTERPOLATION, Kept, PotentialTable, Store, compact_groups, interpolation

MOLECULES = {"H2O": "O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", "HBr": "Br 0 0 0; H 0 0 1.41"}


@pytest.mark.parametrize("order", range(7))
def test_boys_function(order):
    x = np.concatenate([np.linspace(1e-3, 60, 997), [1e-9, 41.999, 42.001, 1e4]])
    a = order + 0.5
    expected = 0.5 * scipy.special.gamma(a) * scipy.special.gammainc(a, x) / x**a
    assert boys(order, np.zeros(1))[0] == pytest.approx(1 / (2 * order + 1), rel=1e-11)
    assert np.allclose(boys(order, x), expected, rtol=3e-12, atol=0)


def libcint(mol, coords, omega):
    with mol.with_range_coulomb(omega):
        return gto.intor_cross("int2c2e", mol, gto.fakemol_for_charges(coords))


@pytest.mark.parametrize("omega", [0.0, 0.4])
@pytest.mark.parametrize("cart", [False, True])
@pytest.mark.parametrize("name", MOLECULES)
def test_potentials_are_those_of_libcint(name, cart, omega, rng):
    mol = gto.M(atom=MOLECULES[name], basis="def2-tzvp", cart=cart, verbose=0)
    auxmol = df.make_auxmol(mol)
    near, far = rng.normal(scale=1.5, size=(60, 3)), 30 + rng.normal(size=(20, 3))
    for coords in (near, far, np.concatenate([near, far, mol.atom_coords()])):
        expected = libcint(auxmol, coords, omega)
        assert abs(AuxiliaryPotentials(auxmol, omega)(coords) - expected).max() < 1e-11 * abs(expected).max()


@pytest.mark.parametrize("omega", [0.0, 0.4])
@pytest.mark.parametrize("cart", [False, True])
def test_gradient_is_the_derivative_of_the_potential(cart, omega, rng):
    mol = gto.M(atom=MOLECULES["HBr"], basis="def2-svp", cart=cart, verbose=0)
    potentials = AuxiliaryPotentials(df.make_auxmol(mol), omega)
    coords = rng.normal(scale=1.5, size=(40, 3))
    gradient = potentials.gradient(coords)
    for x in range(3):
        step = 2e-5 * np.eye(3)[x]
        expected = (potentials(coords + step) - potentials(coords - step)) / 4e-5
        assert abs(gradient[x] - expected).max() < 1e-7 * abs(gradient[x]).max()


def test_functions_far_away_share_rows(rng):
    auxmol = df.make_auxmol(gto.M(atom=MOLECULES["H2O"], basis="def2-tzvp", verbose=0))
    rows, source, factor = AuxiliaryPotentials(auxmol).reduced(40 + rng.normal(size=(30, 3)))
    assert len(rows) < len(source) / 2
    assert sorted(set(source)) == list(range(len(rows)))
    # The length of the factors that share a row is one, so that the row has the size of what it stands for.
    assert np.allclose(np.bincount(source, factor**2), 1)


@pytest.fixture(scope="module")
def chain():
    """Auxiliary functions of eight carbon atoms."""
    return auxiliary_mole(gto.M(atom=[("C", (0, 0, 1.3 * k)) for k in range(8)], basis="def2-tzvp", verbose=0))


def test_interpolation_restores_the_table_from_few_points(chain, rng):
    coords = rng.uniform(-1, 1, (700, 3)) + np.array([0, 1.5, 3.0])
    table = AuxiliaryPotentials(chain)(coords)
    chosen, weights = interpolation(table, 1e-6)
    assert len(chosen) < 0.5 * len(table)
    assert abs(table[:, chosen] @ weights.T - table).max() < 2e-5 * abs(table).max()
    loose, _ = interpolation(table, 1e-3)
    assert len(loose) < len(chosen) / 1.5


def test_compact_groups_are_a_partition_and_compact(rng):
    coords = rng.uniform(size=(5000, 3))
    groups = compact_groups(coords, 256)
    assert sorted(np.concatenate(groups)) == list(range(5000))
    assert max(map(len, groups)) <= 256
    assert max(np.ptp(coords[g], axis=0).max() for g in groups) < 0.6


@pytest.mark.parametrize("memory", [1000.0, 0.01])
def test_table_spreads_and_gathers(memory, chain, rng):
    coords = rng.normal(scale=2, size=(3000, 3))
    points = PotentialTable(AuxiliaryPotentials(chain), coords, Store(memory))
    exact = AuxiliaryPotentials(chain)(coords)[:, points.order]
    coefficients, values = rng.normal(size=(3, chain.nao)), rng.normal(size=(3, 3000))
    gathered, compressed = 0, 0
    for p0, p1 in points.blocks(1500):
        for group in points.groups(p0, p1):
            at = slice(p0 + group.points.start, p0 + group.points.stop)
            expected = coefficients @ exact[:, at]
            assert abs(group.spread(coefficients) - expected).max() < 100 * INTERPOLATION * abs(exact).max()
            gathered = gathered + group.gather(values[:, at])
            compressed += group.weights is not None
    assert compressed > 0
    assert abs(gathered - values @ exact.T).max() < 1e3 * INTERPOLATION * abs(exact).max()


def test_arrays_are_kept_while_there_is_room():
    kept, made = Kept(1.0), []

    def make(size):
        made.append(size)
        return np.full(size, float(len(made)))

    first = kept.get("a", lambda: make(100_000))  # 0.8 MB
    assert kept.get("a", lambda: make(100_000)) is first
    for _ in range(2):
        assert kept.get("b", lambda: make(100_000))[0] > 1
    assert kept.get("c", lambda: make(10)) is kept.get("c", lambda: make(10))
    assert made == [100_000, 100_000, 100_000, 10]
