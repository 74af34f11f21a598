"""Gradients with respect to a functional's parameters against differences of complete SCF calculations."""

import numpy as np
import pytest
import torch
from conftest import slope
from pyscf import gto
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import mlxc
from mlxc.errors import InputError
from mlxc.neural import NeuralLocalHybrid, NeuralMetaGGA
from mlxc.scf import attach, converge, fractional, shifted
from mlxc.train.adjoint import energy_gradient, response_gradient

SYSTEMS = {
    "water": lambda xc: mlxc.KS(gto.M(atom="O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", basis="6-31g", verbose=0), xc),
    "OH": lambda xc: mlxc.KS(gto.M(atom="O 0 0 0; H 0 0.2 0.95", spin=1, basis="6-31g", verbose=0), xc),
    "fractional Li": lambda xc: fractional(gto.M(atom="Li", spin=1, basis="6-31g", verbose=0), ([1, 0.4], [1]), xc),
    "fractional LiH": lambda xc: fractional(
        gto.M(atom="Li 0 0 0; H 0 0 1.6", basis="6-31g", verbose=0), ([1, 1], [1, 0.5]), xc
    ),
}


@pytest.fixture(params=[NeuralMetaGGA, NeuralLocalHybrid])
def trained(request):
    """A functional with weights of the size that training gives."""
    torch.manual_seed(1)
    functional = request.param(width=4, depth=1)
    for p in functional.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return functional


def run(make, functional, start=None):
    mf = make(functional)
    mf.conv_tol, mf.conv_tol_grad, mf.max_cycle = 1e-13, 1e-9, 200  # differences magnify what is not converged
    mf.grids.atom_grid, mf.grids.prune = (30, 50), None
    mf.kernel(start)
    assert mf.converged
    return mf


def results(mf):
    """Energy, a function of the density alone, one of orbital energies alone, and the slopes of the last two."""
    dm = np.asarray(mf.make_rdm1())
    r = mf.mol.intor_symmetric("int1e_rr").reshape(3, 3, mf.mol.nao, -1)
    operator = np.array([r[0, 0] + 0.5 * r[2, 2], r[1, 1] - r[0, 2]])[: 1 if dm.ndim == 2 else 2].reshape(dm.shape)
    size = float((operator * dm).sum())
    weights = np.zeros_like(mf.mo_energy)
    weights[..., 0], weights[..., 1] = 0.3, 1.0
    weights *= mf.mo_occ > 0
    levels = float((weights * mf.mo_energy).sum())
    return (mf.e_tot, size**2, levels), (2 * size * operator, weights)


@pytest.mark.parametrize("whole", [100, 0])
@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients_of_self_consistent_results(trained, name, whole, monkeypatch):
    """Also of large molecules, whose Fock matrix is whole at the end of the SCF only."""
    if not whole and trained.exx_omega is None:
        pytest.skip("semilocal functionals always have the whole Fock matrix")
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", whole)
    mf = run(SYSTEMS[name], trained)
    _, (operator, weights) = results(mf)
    got = [
        energy_gradient(mf),
        response_gradient(mf, density=operator),
        response_gradient(mf, orbital_energies=weights),
    ]
    parameters = list(trained.parameters())
    start, step = parameters_to_vector(parameters).detach(), 6e-3
    direction = torch.randn(len(start), dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def moved(step):
        vector_to_parameters(start + step * direction, parameters)
        return np.array(results(run(SYSTEMS[name], trained, mf.make_rdm1()))[0])

    for gradient, expected in zip(got, slope(moved, step), strict=True):
        assert float(gradient @ direction) == pytest.approx(expected, rel=1e-5)


def test_what_has_no_gradient():
    molecule = gto.M(atom="Li 0 0 0", spin=1, basis="6-31g", verbose=0)
    with pytest.raises(InputError, match="not a functional of mlxc"):
        energy_gradient(mlxc.KS(molecule, "pbe").run())
    with pytest.raises(InputError, match="requires_grad_"):
        energy_gradient(mlxc.KS(molecule).run())
    trainable = NeuralMetaGGA(width=2, depth=1)
    mf = mlxc.KS(molecule, trainable).run()
    with pytest.raises(InputError, match="unoccupied"):
        response_gradient(mf, orbital_energies=np.ones_like(mf.mo_energy))
    restricted = mlxc.attach(molecule.ROKS(), trainable).run()
    with pytest.raises(InputError, match="UKS"):
        response_gradient(restricted, density=np.zeros((2, molecule.nao, molecule.nao)))


def test_occupations_between_integers():
    """A semilocal functional bends E(N) of H down, a local hybrid without self-interaction keeps it straight."""
    molecule = gto.M(atom="H", spin=1, basis="def2-tzvp", verbose=0)
    for xc, lowest, highest in (("pbe", -0.06, -0.04), ("default", -1e-6, 1e-6)):
        half, whole = (fractional(molecule, ([n], []), xc).run().e_tot for n in (0.5, 1.0))
        assert lowest < half - whole / 2 < highest
        assert whole == pytest.approx(mlxc.KS(molecule, xc).run().e_tot, abs=1e-8)


def test_occupations_that_need_a_level_shift():
    """`converge` goes on where a few cycles of DIIS were not enough."""
    molecule = gto.M(atom="F", spin=1, basis="6-31g", verbose=0)
    mf = fractional(molecule, ([1] * 5, [1, 1, 0.8, 0.8, 0.4]), "pbe")
    mf.max_cycle = 3
    mf.kernel()
    assert not mf.converged
    mf.max_cycle = 200
    assert mlxc.converge(mf).converged


@pytest.mark.parametrize(
    "occupations", [([1.2], []), ([-0.1], [1]), ([1] * 3, []), [1, 1], ([], []), ([[1]], [1]), (["x"], [1])]
)
def test_impossible_occupations(occupations):
    with pytest.raises(InputError):
        fractional(gto.M(atom="H", spin=1, basis="sto-3g", verbose=0), occupations)


@pytest.mark.parametrize(
    "made",
    [
        lambda *what: fractional(*what, "pbe"),
        lambda *what: fractional(*what, "pbe").density_fit(),
        lambda *what: fractional(*what, "t-lmf").density_fit().density_fit(),
        lambda *what: attach(fractional(*what, "pbe"), "t-lmf"),
    ],
)
def test_fixed_occupations_refuse_what_knows_whole_electrons_only(made):
    mf = made(gto.M(atom="H", spin=1, basis="sto-3g", verbose=0), ([0.5], [])).run()
    assert mf.mo_occ.sum() == 0.5
    for method in (mf.newton, mf.stability, mf.TDA, mf.TDDFT, mf.nuc_grad_method, mf.Hessian):
        with pytest.raises(InputError, match="fixed occupations"):
            method()


def test_occupations_that_follow_degenerate_orbitals():
    """By order of energies the half-filled p orbital of carbon and the empty one change places again and again."""
    carbon = gto.M(atom="C", spin=2, basis="def2-svp", verbose=0)

    def solved(share):
        mf = fractional(carbon, ([1, 1, 1, share], [1, 1]), "lda,pw").set(conv_tol=1e-11)
        assert not mf.run().converged
        mf = converge(fractional(carbon, ([1, 1, 1, share], [1, 1]), "lda,pw").set(conv_tol=1e-11))
        assert mf.converged
        assert mf.held is None
        return mf

    half, more, less = map(solved, (0.5, 0.51, 0.49))
    occupied = half.mo_energy[0][half.mo_occ[0] == 0.5][0]
    assert half.mo_energy[0][half.mo_occ[0] == 0].min() == pytest.approx(float(occupied), abs=0.02)
    # Janak, Phys. Rev. B 18, 7165 (1978): dE/dn is the energy of the orbital.
    assert (more.e_tot - less.e_tot) / 0.02 == pytest.approx(float(occupied), abs=1e-4)


def test_an_excited_state_of_fixed_occupations_does_not_count():
    """Held to them, the electron of H stays in 2s; a hole that is asked for is no disorder."""
    hydrogen = gto.M(atom="H", spin=1, basis="6-31g", verbose=0)
    mf = fractional(hydrogen, ([1], []), "hf").run()
    assert mf.disorder() == 0
    mf.mo_occ = mf.mo_occ[:, ::-1]
    assert not shifted(mf).converged
    assert mf.disorder() > 0.3
    hole = fractional(hydrogen, ([0, 1], []), "hf").run()
    assert hole.converged
    assert hole.disorder() == 0
