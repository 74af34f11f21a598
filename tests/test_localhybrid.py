"""Local hybrids inside PySCF: Hartree-Fock as oracle, potentials against finite differences, every kind of SCF."""

import numpy as np
import pytest
from pyscf import dft, gto, scf

import mlxc
from mlxc.errors import InputError
from mlxc.integrate import LocalHybridNumInt
from mlxc.localhybrid import HartreeFock, IsoOrbitalHybrid
from mlxc.numint import Label


@pytest.fixture(scope="module")
def coarse():
    def make(mol):
        grids = dft.gen_grid.Grids(mol)
        grids.atom_grid = (30, 86)
        return grids.build()

    return make


@pytest.mark.parametrize("name", ["H2O", "CH3", "Ne"])
def test_hartree_fock_is_reproduced(mole, name):
    mol = mole(name, "def2-tzvp")
    mf = mlxc.KS(mol, HartreeFock()).run()
    reference = scf.UHF(mol).run() if mol.spin else scf.RHF(mol).run()
    assert mf.converged
    assert abs(mf.e_tot - reference.e_tot) < 5e-5
    assert np.allclose(mf.mo_energy[..., :10], reference.mo_energy[..., :10], atol=5e-4)


@pytest.mark.parametrize("distance", [0.5, 1.0, 3.0, 10.0])
def test_one_electron_has_no_self_interaction(distance):
    mol = gto.M(atom=f"H 0 0 0; H 0 0 {distance}", charge=1, spin=1, basis="def2-qzvp", verbose=0)
    mf = mlxc.KS(mol, HartreeFock())
    mf.grids.level = 4
    assert abs(mf.kernel() - scf.UHF(mol).run().e_tot) < 1e-5


@pytest.mark.parametrize("name", ["H2O", "CH3"])
def test_potential_is_the_derivative_of_the_energy(mole, coarse, name, rng):
    mol = mole(name)
    grids, ni = coarse(mol), LocalHybridNumInt(IsoOrbitalHybrid())
    dm = np.asarray(mol.KS(xc="pbe").run().make_rdm1())
    dm = dm if mol.spin else dm[None] / 2
    change = rng.normal(size=dm.shape)
    change = 0.01 * (change + change.transpose(0, 2, 1))
    # Along occupied-any rotations densities stay positive, as in an SCF.
    overlap = mol.intor("int1e_ovlp")
    change = change @ overlap @ dm + dm @ overlap @ change
    step = 1e-4
    up, down = (ni.integrate(mol, grids, dm + h * change)[1] for h in (step, -step))
    _, _, fock = ni.integrate(mol, grids, dm)
    expected = (fock * change).sum() * (2 if not mol.spin else 1)
    assert (up - down) / (2 * step) == pytest.approx(expected, rel=1e-6)


def test_potential_of_the_cycles_acts_alike_on_occupied_orbitals(mole, coarse):
    mol = mole("CH3")
    grids, ni = coarse(mol), LocalHybridNumInt(IsoOrbitalHybrid())
    mf = mol.UKS(xc="pbe").run()
    dm = mf.make_rdm1()
    label = Label("t-lmf")
    whole, cycle = (n.nr_uks(mol, grids, label, dm) for n in (ni, ni.occupied()))
    assert np.allclose(whole[0], cycle[0])
    assert whole[1] == pytest.approx(cycle[1])
    for s in range(2):
        occupied = mf.mo_coeff[s][:, mf.mo_occ[s] > 0]
        assert np.allclose(whole[2][s] @ occupied, cycle[2][s] @ occupied, atol=1e-9)


def test_restricted_is_unrestricted_and_every_scf_converges(mole):
    mol = mole("H2O")
    energies = []
    for mf in (mol.RKS(), mol.UKS(), mol.ROKS()):
        mf = mlxc.attach(mf, IsoOrbitalHybrid())
        mf.conv_tol = 1e-10
        energies.append(mf.kernel())
        assert mf.converged
    assert np.ptp(energies) < 1e-8


@pytest.mark.parametrize("change", ["density_fit", "level_shift", "damp", "restart"])
def test_scf_options_reach_the_same_energy(mole, change):
    mol = mole("CH3")
    plain = mlxc.KS(mol, IsoOrbitalHybrid()).run(conv_tol=1e-10)
    mf = mlxc.KS(mol, IsoOrbitalHybrid())
    mf.conv_tol = 1e-10
    if change == "density_fit":
        mf = mf.density_fit()
    elif change == "restart":
        mf.kernel(dm0=plain.make_rdm1())
    else:
        mf.set(**{change: 0.3})
    mf.kernel()
    assert mf.converged
    assert abs(mf.e_tot - plain.e_tot) < (2e-4 if change == "density_fit" else 1e-8)


def test_empty_spin_and_fractional_guess(coarse):
    mol = gto.M(atom="H 0 0 0", spin=1, basis="def2-svp", verbose=0)
    mf = mlxc.KS(mol, HartreeFock())
    mf.kernel(dm0=0.5 * np.array([np.eye(mol.nao)] * 2))
    assert abs(mf.e_tot - scf.UHF(mol).run().e_tot) < 1e-5


def test_attaching_another_functional_takes_everything_back(mole):
    mol = mole("H2O")
    mf = mlxc.attach(mlxc.KS(mol, IsoOrbitalHybrid()), "pbe")
    assert type(mf) is type(mol.RKS())
    assert mf.kernel() == pytest.approx(mol.RKS(xc="pbe").kernel(), abs=1e-9)


def test_what_is_not_there_is_refused(mole):
    mol = mole("H2O")
    mf = mlxc.KS(mol, IsoOrbitalHybrid()).run()
    for use in (lambda: mf.nuc_grad_method().kernel(), lambda: mf.TDA().kernel(), lambda: mf.newton().kernel()):
        with pytest.raises(InputError, match="local hybrid"):
            use()
    with pytest.raises(InputError, match="local hybrid"):
        mlxc.attach(mol.GKS(), IsoOrbitalHybrid())
