"""Nuclear gradients of local hybrids: finite differences on coarse grids, Hartree-Fock as oracle, PySCF's users."""

import numpy as np
import pytest
from conftest import slope
from pyscf import dft, gto, qmmm, scf
from pyscf.data.nist import BOHR
from pyscf.geomopt import geometric_solver

import mlxc
from mlxc import gradient
from mlxc.errors import InputError
from mlxc.geometry import gradient_method
from mlxc.gradient import xc_gradient
from mlxc.integrate import LocalHybridNumInt
from mlxc.localhybrid import HartreeFock, IsoOrbitalHybrid

STEP = 5e-4


class LongRangeHybrid(IsoOrbitalHybrid):
    name, exx_omega = "t-lmf-lr", 0.3


MOLECULES = {
    "H2O": {"atom": "O 0 0 0; H 0 0.757 0.587; H 0.1 -0.757 0.687"},
    "OH": {"atom": "O 0 0 0; H 0 0.1 0.97", "spin": 1},
    "H2+": {"atom": "H 0 0 0; H 0 0 1.2", "spin": 1, "charge": 1},
    "AgH": {"atom": "Ag 0 0 0; H 0 0 1.6", "ecp": {"Ag": "def2-svp"}},
    "H2O + ghost": {"atom": "O 0 0 0; H 0 0.757 0.587; H 0.1 -0.757 0.687; ghost-F 1 0 -1"},
}


def molecule(name):
    return gto.M(**MOLECULES[name], basis="def2-svp", verbose=0)


def moved(mol, displacement):
    """The molecule with its atoms displaced by (natm, 3), in Bohr."""
    return mol.set_geom_(mol.atom_coords() + displacement, unit="Bohr", inplace=False)


def direction(mol, rng):
    """A random displacement (natm, 3) of unit length."""
    x = rng.normal(size=(mol.natm, 3))
    return x / np.linalg.norm(x)


def coarse(mol, **options):
    grids = dft.gen_grid.Grids(mol).set(atom_grid=(20, 50), **options)
    return grids.build()


def slope_along(energy, mol, along):
    """Derivative of energy(mol) along a displacement."""
    return slope(lambda step: energy(moved(mol, step * along)), STEP)


@pytest.mark.parametrize(
    "kind", ["restricted", "unrestricted", "indefinite", "long range", "neural", "core potential", "ghost"]
)
def test_derivative_at_fixed_density_matrix(kind, shaken_hybrid, rng):
    names = {"unrestricted": "OH", "neural": "OH", "core potential": "AgH", "ghost": "H2O + ghost"}
    mol = molecule(names.get(kind, "H2O"))
    functional = {"neural": shaken_hybrid, "long range": LongRangeHybrid()}.get(kind, IsoOrbitalHybrid())
    dms = np.asarray(mol.KS(xc="pbe").run().make_rdm1())
    dms = dms if mol.spin else dms[None] / 2
    if kind == "indefinite":
        dms[:, 3, 3] -= 0.1  # an inner p function of oxygen: the density stays positive
        assert np.linalg.eigvalsh(dms[0])[0] < -0.01
    ni, along = LocalHybridNumInt(functional), direction(mol, rng)
    got = xc_gradient(ni, mol, coarse(mol), dms)
    expected = slope_along(lambda m: ni.integrate(m, coarse(m), dms)[1], mol, along)
    assert (got * along).sum() == pytest.approx(expected, abs=1e-8 * abs(got).max())
    assert abs(got).max() > 0.1
    assert abs(got.sum(0)).max() < 1e-11


@pytest.mark.parametrize(
    ("owner", "part"),
    [
        (gradient.AuxiliaryPotentials, "gradient"),
        (gradient, "basis_gradient"),
        (gradient, "weight_gradient"),
        (gradient, "fit_gradient"),
    ],
)
def test_no_part_is_negligible(owner, part, monkeypatch):
    mol = molecule("H2O")
    ni, grids, dm = LocalHybridNumInt(IsoOrbitalHybrid()), coarse(mol), mol.KS(xc="pbe").run().make_rdm1()[None] / 2
    whole, use = xc_gradient(ni, mol, grids, dm), getattr(owner, part)
    monkeypatch.setattr(owner, part, lambda *args: 0 * use(*args))
    assert abs(xc_gradient(ni, mol, grids, dm) - whole).max() > 1e-3


def test_little_memory_is_enough():
    mol = molecule("OH")
    grids, dms = coarse(mol), mol.KS(xc="pbe").run().make_rdm1()
    few, many = (xc_gradient(LocalHybridNumInt(IsoOrbitalHybrid()), mol, grids, dms, m) for m in (1, 2000))
    assert np.allclose(few, many, atol=1e-11)


def calculation(mol, kind, functional):
    """A converged SCF on a coarse grid."""
    mf = mol.ROKS() if kind == "ROKS" else mol.KS()
    mf = mlxc.attach(mf, functional)
    if kind == "density_fit":
        mf = mf.density_fit()
    mf.grids.atom_grid = (20, 50)
    return mf.run(conv_tol=1e-11)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("H2O", "RKS"), ("OH", "UKS"), ("OH", "ROKS"), ("H2O", "density_fit"), ("OH", "density_fit"), ("H2+", "UKS")],
)
def test_gradient_is_the_derivative_of_the_scf_energy(name, kind, shaken_hybrid, rng):
    mol = molecule(name)
    functional = shaken_hybrid if kind == "UKS" else IsoOrbitalHybrid()
    along = direction(mol, rng)
    got = calculation(mol, kind, functional).nuc_grad_method().kernel()
    expected = slope_along(lambda m: calculation(m, kind, functional).e_tot, mol, along)
    assert (got * along).sum() == pytest.approx(expected, abs=1e-7)
    assert abs(got).max() > 1e-3


@pytest.mark.parametrize("name", ["AgH", "H2O + ghost"])
@pytest.mark.parametrize("xc", ["pbe", "mlxc-mgga3"])
def test_semilocal_gradients_with_core_potentials_and_ghosts(name, xc, rng):
    mol = molecule(name)
    along = direction(mol, rng)

    def run(mol):
        mf = mlxc.KS(mol, xc).density_fit()
        mf.grids.atom_grid = (20, 50)
        return mf.run(conv_tol=1e-11)

    mf = run(mol)
    expected = slope_along(lambda m: run(m).e_tot, mol, along)
    assert (gradient_method(mf).kernel() * along).sum() == pytest.approx(expected, abs=2e-6)
    pyscf = mf.nuc_grad_method().set(grid_response=True).kernel()
    assert abs((pyscf * along).sum() - expected) > 1e-4
    second = moved(mol, 0.05 * along)
    _, scanned = gradient_method(run(mol)).as_scanner()(second)
    assert np.allclose(scanned, gradient_method(run(second)).kernel(), atol=1e-6)


def test_hartree_fock_gradient_is_reproduced(mole):
    mol = mole("H2O", "def2-tzvp")
    expected = scf.RHF(mol).run().nuc_grad_method().kernel()
    assert abs(mlxc.KS(mol, HartreeFock()).run().Gradients().kernel() - expected).max() < 1e-5


def test_scanner_and_optimisation():
    mol = gto.M(atom="H 0 0 0; H 0 0 0.9", basis="def2-svp", verbose=0)
    mf = calculation(mol, "RKS", IsoOrbitalHybrid())
    scanner = mf.nuc_grad_method().as_scanner()
    second = moved(mol, np.array([[0, 0, 0.2], [0, 0, 0]]))
    fresh = calculation(second, "RKS", IsoOrbitalHybrid())
    energy, force = scanner(second)
    assert energy == pytest.approx(fresh.e_tot, abs=1e-9)
    assert np.allclose(force, fresh.nuc_grad_method().kernel(), atol=1e-6)
    with pytest.raises(InputError, match="its own geometry"):  # the scanner has taken the grid along
        gradient_method(mf)
    assert mf.kernel() == pytest.approx(calculation(mol, "RKS", IsoOrbitalHybrid()).e_tot, abs=1e-9)
    found = geometric_solver.optimize(mf, maxsteps=10)
    assert abs(calculation(found, "RKS", IsoOrbitalHybrid()).nuc_grad_method().kernel()).max() < 5e-4


def test_what_would_not_be_the_derivative_is_refused():
    mol = molecule("H2+")
    mf = calculation(mol, "UKS", IsoOrbitalHybrid())
    assert mf.nuc_grad_method().set(grid_response=True).grid_response
    with pytest.raises(InputError, match="motion of the grid"):
        mf.nuc_grad_method().set(grid_response=False)
    mf.grids.becke_scheme = dft.gen_grid.stratmann
    with pytest.raises(InputError, match="Becke"):
        mf.run().nuc_grad_method().kernel()


def test_what_pyscf_would_leave_out_is_refused():
    mol = gto.M(atom="H 0 0 0; F 0 0 1", basis="sto-3g", verbose=0)
    charged = [
        qmmm.mm_charge(mf, [(0, 0, 4.0)], [0.5]) for mf in (mlxc.KS(mol, "pbe"), mlxc.KS(mol, "pbe").density_fit())
    ]
    mf = charged[1].run(conv_tol=1e-11)
    slope = gradient_method(mf).kernel()[1, 2]
    energies = [
        mf.copy().reset(mol.set_geom_(np.array([(0, 0, 0), (0, 0, 1 + d)]), inplace=False)).kernel()
        for d in (1e-3, -1e-3)
    ]
    assert slope == pytest.approx((energies[0] - energies[1]) / 2e-3 * BOHR, abs=1e-5)
    for hidden in (
        charged[0].density_fit(),
        charged[0].density_fit().PCM(),
        qmmm.mm_charge(mlxc.KS(mol, "pbe").PCM().density_fit(), [(0, 0, 4.0)], [0.5]),
    ):
        with pytest.raises(InputError, match="the charges"):
            gradient_method(hidden)
    with pytest.raises(InputError, match="the charges"):
        qmmm.mm_charge(mlxc.KS(mol, "t-lmf"), [(0, 0, 4.0)], [0.5]).density_fit().nuc_grad_method()
    mf = mlxc.KS(mol, "pbe")
    hcore = mf.get_hcore()
    mf.get_hcore = lambda *_: hcore
    with pytest.raises(InputError, match="get_hcore"):
        gradient_method(mf)


def test_hartree_fock_as_a_functional_has_forces():
    mf = mlxc.KS(gto.M(atom="H 0 0 0; F 0 0 1", basis="6-31g", verbose=0), "hf").run()
    assert np.allclose(gradient_method(mf).kernel(), mf.to_hf().nuc_grad_method().kernel(), atol=1e-6)
