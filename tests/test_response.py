"""Linear response of local hybrids: finite differences of the Fock matrix, Hartree-Fock as oracle, its users."""

import numpy as np
import pytest
from pyscf import dft, gto, scf

import mlxc
from mlxc.exx_analytic import AnalyticExchange
from mlxc.integrate import LocalHybridNumInt
from mlxc.localhybrid import HartreeFock, IsoOrbitalHybrid
from mlxc.response import Response


def orbitals(mol, seed):
    """Occupied orbitals per spin (one entry for a closed shell) and random changes of them."""
    mf = mol.KS(xc="pbe").run()
    coefficients = [mf.mo_coeff] if mol.spin == 0 else list(mf.mo_coeff)
    occupied = [c[:, :n] for c, n in zip(coefficients, mol.nelec, strict=False)]
    rng = np.random.default_rng(seed)
    return occupied, [rng.normal(size=(mol.nao, mol.nao)) for _ in occupied]


@pytest.mark.parametrize("name", ["H2O", "CH3"])
@pytest.mark.parametrize("kind", ["fixed", "neural"])
def test_kernel_is_the_derivative_of_the_potential(mole, name, kind, shaken_hybrid):
    mol = mole(name)
    grids = dft.gen_grid.Grids(mol)
    grids.atom_grid = (20, 50)
    grids.build()
    ni = LocalHybridNumInt(IsoOrbitalHybrid() if kind == "fixed" else shaken_hybrid)
    occupied, random = orbitals(mol, 5)
    overlap = mol.intor("int1e_ovlp")
    dms = np.array([c @ c.T for c in occupied])
    changes = np.array([0.1 * x @ overlap @ d for x, d in zip(random, dms, strict=True)])
    changes = changes + changes.transpose(0, 2, 1)
    step = 1e-5
    up, down = (ni.integrate(mol, grids, dms + h * changes)[2] for h in (step, -step))
    (got,) = Response(ni, mol, grids, occupied, 2000)(changes[None])
    for u, d, f, c in zip(up, down, got, occupied, strict=True):
        expected = (u - d) / (2 * step) @ c
        assert abs(f @ c - expected).max() < 1e-6 * abs(expected).max()


def test_kernel_has_nonlocal_correlation(mole, rng):
    """VV10 that was added to a local hybrid."""
    mf = mlxc.KS(mole("H2O", "sto-3g"), "t-lmf").density_fit()
    mf.nlc, mf.grids.level, mf.nlcgrids.level = "vv10", 0, 0
    mf.run(conv_tol=1e-11)
    occupied, dm = mf.mo_coeff[:, mf.mo_occ > 0], mf.make_rdm1()
    change = 0.1 * rng.normal(size=dm.shape) @ mf.get_ovlp() @ dm
    change = change + change.T
    up, down = (mf.get_veff(dm=dm + h * change) for h in (1e-4, -1e-4))
    expected = (np.asarray(up) - np.asarray(down)) / 2e-4 @ occupied
    whole, without = (mf.gen_response(hermi=1, with_nlc=w)(change) @ occupied for w in (True, False))
    assert abs(whole - expected).max() < 1e-8
    assert abs(without - expected).max() > 1e-5


@pytest.mark.parametrize("hermi", [0, 1, 2])
@pytest.mark.parametrize("singlet", [None, True, False, "unrestricted"])
def test_response_of_hartree_fock(mole, singlet, hermi, rng):
    mol = mole("CH3" if singlet == "unrestricted" else "H2O")
    reference = scf.UHF(mol).run() if mol.spin else scf.RHF(mol).run()
    mf = mlxc.KS(mol, HartreeFock())
    options = {"hermi": hermi} if mol.spin else {"hermi": hermi, "singlet": singlet}
    dm = np.asarray(reference.make_rdm1())
    change = rng.normal(size=dm.shape) @ mol.intor("int1e_ovlp") @ dm
    if hermi:
        change = change + (1 if hermi == 1 else -1) * change.swapaxes(-1, -2)
    state = reference.mo_coeff, reference.mo_occ
    got = mf.build().gen_response(*state, **options)(change)
    expected = reference.gen_response(*state, **options)(change)
    for difference in (got - expected, (got - expected).swapaxes(-1, -2)):
        assert abs(difference @ dm).max() < 2e-3 * abs(expected @ dm).max()


def test_antisymmetric_response_is_exchange_with_local_weights(mole):
    """No density changes, so only the exchange operator with its weights w(g) = dE/dex acts: against analytic pairs."""
    mol = mole("H2O")
    grids = dft.gen_grid.Grids(mol)
    grids.atom_grid = (20, 50)
    grids.build()
    ni, (occupied, (random,)) = LocalHybridNumInt(IsoOrbitalHybrid()), orbitals(mol, 6)
    change = 0.1 * random @ mol.intor("int1e_ovlp") @ occupied[0] @ occupied[0].T
    change = change - change.T
    response = Response(ni, mol, grids, occupied, 2000)
    ((got,),) = response(change[None, None])
    weights = np.concatenate([response.first[p0][-1] for p0, _ in response.ranges])
    coords = ni.tables(mol, grids, 2000).potentials.coords
    volumes = grids.weights[ni.tables(mol, grids, 2000).potentials.order]
    assert (weights[volumes > 1e-9] / volumes[volumes > 1e-9]).std() > 0.05
    phi = mol.eval_gto("GTOval_sph", coords)
    v = AnalyticExchange(mol, coords).pair_potentials(0, len(coords))
    right, left = (np.einsum("gmn,gn->gm", v, phi @ d.T) for d in (change, change.T))
    expected = -0.5 * ((weights[:, None] * right).T @ phi + (weights[:, None] * phi).T @ left)
    for difference in (got - expected, (got - expected).T):
        assert abs(difference @ occupied[0]).max() < 2e-3 * abs(expected @ occupied[0]).max()


def test_excitations_are_those_of_hartree_fock():
    mol = gto.M(atom="H 0 0 0; F 0 0 0.92", basis="def2-svp", verbose=0)
    reference, mf = scf.RHF(mol).run(), mlxc.KS(mol, HartreeFock()).run()
    assert np.allclose(mf.TDA().run(nstates=2).e, reference.TDA().run(nstates=2).e, atol=1e-4)
    assert np.allclose(mf.TDDFT().run(nstates=1).e, reference.TDHF().run(nstates=1).e, atol=1e-4)


def test_second_order_solver_and_stability():
    mol = gto.M(atom="H 0 0 0; H 0 0 2.5", basis="def2-svp", verbose=0)
    mf = mlxc.KS(mol, IsoOrbitalHybrid()).run(conv_tol=1e-10)
    second = mlxc.KS(mol, IsoOrbitalHybrid()).newton()
    assert second.kernel() == pytest.approx(mf.e_tot, abs=1e-8)
    assert second.converged
    # Stretched H2 breaks its spin symmetry; at its bond length it does not.
    assert not mf.stability(external=True, return_status=True)[3]
    mol.set_geom_("H 0 0 0; H 0 0 0.74")
    assert mlxc.KS(mol, IsoOrbitalHybrid()).run().stability(external=True, return_status=True)[3]
