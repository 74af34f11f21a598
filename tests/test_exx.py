"""Exact exchange on the grid: fitting against the analytic integrals, derivatives against finite differences."""

import numpy as np
import pytest
from pyscf import df, dft, gto, scf

import mlxc
from mlxc.errors import InputError
from mlxc.exx import FittedExchange, auxiliary_basis, auxiliary_mole, energy_density, factorize, occupied_fock
from mlxc.exx_analytic import AnalyticExchange

SYSTEMS = {
    "H2O": ("O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", 0, 0),
    "OH": ("O 0 0 0; H 0 0 0.97", 0, 1),
    "OH-": ("O 0 0 0; H 0 0 0.97", -1, 0),
    "H2+": ("H 0 0 0; H 0 0 10", 1, 1),
    "Br": ("Br 0 0 0", 0, 1),
}


def hartree_fock(name, basis="def2-tzvp"):
    """(mol, alpha density matrix) of a Hartree-Fock calculation."""
    atom, charge, spin = SYSTEMS[name]
    mol = gto.M(atom=atom, charge=charge, spin=spin, basis=basis, verbose=0)
    return mol, scf.UHF(mol).run().make_rdm1()[0]


@pytest.mark.parametrize("omega", [0.0, 0.3])
@pytest.mark.parametrize("name", SYSTEMS)
def test_fitted_energy_density_is_the_analytic_one(name, omega, rng):
    mol, dm = hartree_fock(name)
    grids = dft.gen_grid.Grids(mol).build()
    ao = mol.eval_gto("GTOval_sph", grids.coords)
    rho = np.einsum("gm,mn,gn->g", ao, dm, ao)
    chosen = rng.choice(np.flatnonzero(rho > 1e-12), 400, replace=False)
    fitted = energy_density(FittedExchange(mol, grids.coords[chosen], omega), dm)
    analytic = energy_density(AnalyticExchange(mol, grids.coords[chosen], omega), dm)
    assert np.all(fitted < 0)
    errors = abs(fitted / analytic - 1)
    assert np.median(errors) < 5e-4
    assert np.quantile(errors, 0.95) < 5e-3


@pytest.mark.parametrize("kind", ["positive", "indefinite", "zero"])
def test_factorization_restores_the_density_matrix(kind, rng):
    x = rng.normal(size=(12, 4)) * (kind != "zero")
    signs = np.array([1, 1, 1, -1 if kind == "indefinite" else 1])
    dm = (x * signs) @ x.T
    local, found = factorize(dm)
    assert np.allclose((local * found) @ local.T, dm, atol=1e-9)
    assert sorted(found) == ([] if kind == "zero" else sorted(signs))


def test_fock_from_its_occupied_columns(rng):
    a, f = rng.normal(size=(2, 9, 9))
    overlap, f = a @ a.T + np.eye(9), f + f.T
    local = rng.normal(size=(9, 4))
    rebuilt, projector = occupied_fock(f @ local, local, overlap)
    assert np.allclose(rebuilt @ local, f @ local)
    assert np.allclose(rebuilt, rebuilt.T)
    assert np.allclose(rebuilt + projector @ f @ projector.T, f)


@pytest.fixture(scope="module")
def small():
    """Water on a coarse grid: molecule, coordinates, AO values, weights of a made-up mixing function, dm, tables."""
    mol, dm = hartree_fock("H2O", "def2-svp")
    grids = dft.gen_grid.Grids(mol)
    grids.atom_grid = (12, 26)
    grids.build()
    ao = mol.eval_gto("GTOval_sph", grids.coords)
    b = grids.weights / (1 + (grids.coords**2).sum(1))
    return mol, grids.coords, ao, b, dm, FittedExchange(mol, grids.coords)


def whole_fock(exchange, dm, ao, b):
    pairs = exchange.pairs(*factorize(dm))
    order = exchange.potentials.order
    return pairs.full(b[order], [(0, len(b))], lambda p0, p1: ao[order])


@pytest.mark.parametrize("kind", ["idempotent", "indefinite"])
def test_whole_fock_is_the_derivative_of_the_energy(small, kind, rng):
    _, _, ao, b, dm, exchange = small
    change = rng.normal(size=dm.shape)
    change = change + change.T
    if kind == "indefinite":
        dm = dm + 0.1 * change
    step = 1e-4
    up, down = (energy_density(exchange, dm + h * change) @ b for h in (step, -step))
    expected = (whole_fock(exchange, dm, ao, b) * change).sum()
    assert (up - down) / (2 * step) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("route", [FittedExchange, AnalyticExchange])
def test_columns_are_those_of_the_whole_fock(small, route):
    mol, coords, ao, b, dm, exchange = small
    tables = route(mol, coords)
    pairs, order = tables.pairs(*factorize(dm)), tables.potentials.order
    phi = ao[order] @ pairs.local
    h = pairs.potential(phi, 0)
    pairs.gather(b[order], phi, 0)
    columns = -0.5 * (ao[order].T @ (b[order, None] * h) + pairs.columns())
    expected = whole_fock(exchange, dm, ao, b) @ pairs.local
    assert abs(columns - expected).max() < (1e-10 if route is FittedExchange else 3e-4)


def test_tables_on_disk_serve_as_well(small):
    mol, coords, _, _, dm, exchange = small
    on_disk = FittedExchange(mol, coords, max_memory=0.1)
    assert not any(isinstance(table, np.ndarray) for _, table in on_disk.potentials._tables)
    assert np.allclose(energy_density(on_disk, dm), energy_density(exchange, dm), atol=1e-13)


def test_compressed_tables_serve_as_well(monkeypatch):
    """Ethane has enough auxiliary functions for compression to pay."""
    atoms = """C 0 0 0.765; H 1.02 0 1.163; H -0.51 0.883 1.163; H -0.51 -0.883 1.163
        C 0 0 -0.765; H -1.02 0 -1.163; H 0.51 0.883 -1.163; H 0.51 -0.883 -1.163"""
    mol = gto.M(atom=atoms, basis="def2-svp", verbose=0)
    dm = scf.RHF(mol).run().make_rdm1() / 2
    grids = dft.gen_grid.Grids(mol).set(level=1).build()
    compressed = FittedExchange(mol, grids.coords)
    assert any(weights is not None for weights, _ in compressed.potentials._tables)
    monkeypatch.setattr("mlxc.tables.MIXTURES", compressed.naux)
    plain = FittedExchange(mol, grids.coords)
    assert all(weights is None for weights, _ in plain.potentials._tables)
    ex, expected = (energy_density(tables, dm) for tables in (compressed, plain))
    assert abs(ex - expected).max() < 1e-5 * abs(expected).max()
    assert grids.weights @ ex == pytest.approx(grids.weights @ expected, abs=1e-6)
    basis, b = mol.eval_gto("GTOval", compressed.potentials.coords), grids.weights[compressed.potentials.order]
    fock, expected = (
        tables.pairs(*factorize(dm)).full(b, [(0, len(b))], lambda p0, p1: basis[p0:p1])
        for tables in (compressed, plain)
    )
    assert np.allclose(fock, expected, atol=1e-6)


@pytest.mark.parametrize("basis", ["sto-3g", "6-31g*"])
def test_hydrogen_needs_more_than_the_products_of_its_own_functions(basis):
    """It has s functions alone here: products with those of another atom are of all momenta."""
    mol = gto.M(atom="H 0 0 0; H 0 0 0.74", basis=basis, spin=2, verbose=0)
    dm = scf.UHF(mol).run().make_rdm1()[0]
    auxmol = auxiliary_mole(mol)
    exact = np.einsum("ijkl,jk,il", mol.intor("int2e"), dm, dm)
    three, two = df.incore.aux_e2(mol, auxmol), auxmol.intor("int2c2e")
    half = np.einsum("ijP,jk->ikP", three, dm)
    assert np.einsum("ikP,PQ,kiQ", half, np.linalg.pinv(two), half) == pytest.approx(exact, abs=5e-4)


def test_elements_that_are_not_there():
    """cc-pVQZ-JKfit has nothing for He, and a molecule's basis may have He where no atom is one."""
    functions = {symbol: gto.basis.load("6-31g", symbol) for symbol in ("H", "He")}
    assert auxiliary_mole(gto.M(atom="H 0 0 0; H 0 0 0.74", basis=functions, verbose=0)).nao > 0
    mol = gto.M(atom="He 0 0 0; H 0 0 0.8", basis="cc-pvqz", charge=1, verbose=0)
    assert auxiliary_mole(mol).nao > 2 * mol.nao


def test_ghosts_have_the_functions_of_their_atoms():
    ghosts, atoms = (
        gto.M(atom=f"{g}H 0 0 0; {g}He 0 0 1; Ne 0 0 3", basis="def2-svp", spin=s, verbose=0)
        for g, s in (("ghost-", 0), ("", 1))
    )
    found, expected = auxiliary_basis(ghosts), auxiliary_basis(atoms)
    for symbol in ("H", "He"):
        assert str(found[f"GHOST-{symbol}"]) == str(expected[symbol])


def test_another_molecule_needs_auxiliary_functions_of_its_own():
    mf = mlxc.KS(gto.M(atom="He 0 0 0", basis="def2-svp", verbose=0), "t-lmf").density_fit()
    mf.kernel()
    assert mf.reset(gto.M(atom="He 0 0 1", basis="def2-svp", verbose=0)).kernel() < -2
    with pytest.raises(InputError, match="nothing for Ne"):
        mf.reset(gto.M(atom="Ne 0 0 0", basis="def2-svp", verbose=0)).kernel()


def test_basis_without_auxiliary_functions_is_refused():
    mol = gto.M(atom="Ne 0 0 0", basis="def2-svp", verbose=0)
    with pytest.raises(InputError, match="auxiliary basis"):
        FittedExchange(mol, np.zeros((1, 3)), auxbasis="no-such-basis")
