"""Local hybrids inside PySCF: Hartree-Fock as oracle, potentials against finite differences, every kind of SCF."""

import copy

import numpy as np
import pytest
import torch
from pyscf import df, dft, gto, lib, scf, symm, tdscf

import mlxc
from mlxc.analytic import LDA_X, Total, pw92, r2scan_correlation
from mlxc.backend import Label
from mlxc.errors import InputError
from mlxc.exx import auxiliary_basis, energy_density
from mlxc.features import Features
from mlxc.integrate import LocalHybridNumInt
from mlxc.limits import MIXING, bounded_mixing, scaled_correlation, tail_gate
from mlxc.localhybrid import HartreeFock, IsoOrbitalHybrid, iso_orbital
from mlxc.neural import NeuralLocalHybrid
from mlxc.ongrid import needed_features, semilocal_features, spin_densities
from mlxc.properties import polarizability


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


ONE_ELECTRON = {
    "H": ("H 0 0 0", 0),
    "He+": ("He 0 0 0", 1),
    "Li2+": ("Li 0 0 0", 2),
    "C5+": ("C 0 0 0", 5),
    **{f"H2+ {r}": (f"H 0 0 0; H 0 0 {r}", 1) for r in (0.5, 1.0, 3.0, 10.0)},
}


def one_electron(name, functional, newton=False):
    """Self-interaction error of an SCF from the Hartree-Fock orbitals, Eh."""
    atom, charge = ONE_ELECTRON[name]
    mol = gto.M(atom=atom, charge=charge, spin=1, basis="def2-qzvp", verbose=0)
    reference = scf.UHF(mol).run()
    mf = mlxc.KS(mol, functional)
    mf.grids.level = 4
    if newton:
        mf = mf.newton()
        mf.kernel(reference.mo_coeff, reference.mo_occ)
    else:
        mf.kernel(reference.make_rdm1())
    assert mf.converged
    return mf.e_tot - reference.e_tot


@pytest.mark.parametrize("name", ONE_ELECTRON)
def test_one_electron_has_no_self_interaction(name, shaken_hybrid):
    # Random weights may place unoccupied orbitals below the occupied one: a solver that fills by energy would leave it.
    assert abs(one_electron(name, shaken_hybrid, newton=True)) < 1e-5
    assert abs(one_electron(name, mlxc.load("mlxc-lh7"))) < 1e-5


def test_one_electron_test_finds_self_interaction():
    assert abs(one_electron("H2+ 3.0", IsoOrbitalHybrid())) > 1e-3


def random_features(rng, size=2000):
    """Spin-polarised densities over many orders of magnitude, tau above tau_W, exact exchange near the local one."""
    n = torch.from_numpy(10 ** rng.uniform(-8, 2, (2, size)))
    s2, alpha, y = (torch.from_numpy(10 ** rng.uniform(-3, 3, (2, size))) for _ in range(3))
    sigma = s2 * 4 * (6 * np.pi**2) ** (2 / 3) * n ** (8 / 3)
    tau = sigma / (8 * n) + alpha * 0.3 * (6 * np.pi**2) ** (2 / 3) * n ** (5 / 3)
    cross = (sigma[0] * sigma[1]).sqrt() * torch.from_numpy(rng.uniform(-1, 1, size))
    ex = 2 ** (1 / 3) * LDA_X * n ** (4 / 3) * y
    return Features(n, torch.stack([sigma[0], cross, sigma[1]]), tau, ex)


def mixing_of(functional, features):
    channel, _ = functional.variables(features)
    return functional.mixing_function(channel), channel


def test_mixing_function_is_bounded_and_exact_in_tails(shaken_hybrid, rng):
    a, _channel = mixing_of(shaken_hybrid, random_features(rng))
    assert a.min() >= 0
    assert a.max() <= 1
    assert a.min() < MIXING  # that of a new one where no limit fixes it
    s2 = torch.tensor([1e3, 1e5], dtype=torch.float64)
    far = bounded_mixing(torch.tensor(-10.0), *torch.zeros(2), tail_gate(s2, torch.zeros(2)))
    assert torch.allclose(1 - far, torch.tensor([1e-4, 1e-8], dtype=far.dtype), rtol=0.05)
    flat = bounded_mixing(torch.tensor(-10.0), *torch.zeros(2), tail_gate(torch.tensor(0.0), torch.tensor(200.0)))
    assert flat > 1 - 1e-5


def test_the_published_formula(rng):
    """0.48 tau_W / tau, regularised, of Bahmann et al. (2007), with Slater exchange and PW92 correlation."""
    f, functional = random_features(rng), IsoOrbitalHybrid()
    uniform = 0.3 * (6 * np.pi**2) ** (2 / 3) * f.rho ** (5 / 3)
    weizsaecker, a = f.sigma_same / (8 * f.rho), functional.local_mixing(f)
    assert torch.allclose(a, 0.48 * (weizsaecker + 0.01 * uniform) / (f.tau + 0.01 * uniform), rtol=1e-6)
    slater = 0.5 * LDA_X * (2 * f.rho) ** (4 / 3)
    total = Total(f)
    dense = (f.rho > 1e-6).all(0)
    expected = (a * f.ex + (1 - a) * slater).sum(0) + total.n * pw92(total)[0]
    assert torch.allclose(functional(f)[dense], expected[dense], rtol=1e-6)


def test_exchange_is_exact_in_tails(shaken_hybrid):
    """e_xc - e_c = ex where s^2 is 10^4: the tail of an orbital 5 Bohr from its nucleus."""
    rho = torch.logspace(-6, -3, 20, dtype=torch.float64).expand(2, -1)
    sigma = 1e4 * (2 * (6 * np.pi**2) ** (1 / 3)) ** 2 * rho ** (8 / 3)
    features = Features(rho, torch.stack([sigma[0]] * 3), 1.3 * sigma / (8 * rho), -rho / 10)
    _, total = shaken_hybrid.variables(features)
    e_c = scaled_correlation(r2scan_correlation(total), shaken_hybrid.correlation_shift(total))
    exchange = shaken_hybrid.energy_density(features) - total.n_switched * e_c
    assert torch.allclose(exchange, features.ex.sum(0), rtol=1e-4, atol=0)


def test_new_neural_local_hybrid_is_a_quarter_exact(rng):
    features = random_features(rng)
    a, channel = mixing_of(NeuralLocalHybrid(), features)
    inner = (channel.p < 1).all(0) & (channel.y < 3).all(0) & (iso_orbital(features)[0].prod(0) < 0.1)
    assert inner.sum() > 50
    assert a[:, inner].min() >= 0.25
    assert a[:, inner].median() < 0.35


def test_uniform_gas_and_spin_swap(shaken_hybrid, rng):
    n = torch.from_numpy(10 ** rng.uniform(-3, 2, (2, 50)))
    zero = torch.zeros(3, 50, dtype=torch.float64)
    local = 2 ** (1 / 3) * LDA_X * n ** (4 / 3)
    gas = Features(n, zero, 0.3 * (6 * np.pi**2) ** (2 / 3) * n ** (5 / 3), local)
    assert torch.allclose(shaken_hybrid(gas), local.sum(0) + pw92_energy(gas), rtol=1e-9)
    f = random_features(rng)
    swapped = Features(f.rho.flip(0), f.sigma.flip(0), f.tau.flip(0), f.exact_exchange.flip(0))
    assert torch.allclose(shaken_hybrid(f), shaken_hybrid(swapped), rtol=1e-12)


def test_exchange_scales_uniformly(shaken_hybrid, rng):
    f, gamma = random_features(rng), 3.0
    scaled = Features(f.rho * gamma**3, f.sigma * gamma**8, f.tau * gamma**5, f.exact_exchange * gamma**4)
    a, b = (mixing_of(shaken_hybrid, x)[0] for x in (f, scaled))
    dense = (f.rho > 1e-6).all(0)
    assert torch.allclose(a[:, dense], b[:, dense], rtol=1e-7)


def pw92_energy(features):
    total = Total(features)
    return total.n * pw92(total)[0]


@pytest.mark.parametrize("name", ["H2O", "CH3"])
@pytest.mark.parametrize("kind", ["fixed", "neural"])
def test_potential_is_the_derivative_of_the_energy(mole, coarse, name, kind, shaken_hybrid, rng):
    mol = mole(name)
    grids, ni = coarse(mol), LocalHybridNumInt(IsoOrbitalHybrid() if kind == "fixed" else shaken_hybrid)
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


def test_restricted_open_shells_of_hartree_fock(mole):
    mol = mole("CH3")
    mf = mlxc.attach(mol.ROKS(), HartreeFock()).run(conv_tol=1e-10)
    expected = scf.ROHF(mol).run(conv_tol=1e-10).e_tot
    assert mf.e_tot == pytest.approx(expected, abs=5e-5)
    assert scf.UHF(mol).run().e_tot < expected - 1e-3


def test_restricted_is_unrestricted_and_every_scf_converges(mole):
    mol = mole("H2O")
    energies = []
    for mf in (mol.RKS(), mol.UKS(), mol.ROKS()):
        mf = mlxc.attach(mf, IsoOrbitalHybrid())
        mf.conv_tol = 1e-10
        energies.append(mf.kernel())
        assert mf.converged
    assert np.ptp(energies) < 1e-8


@pytest.fixture(scope="module")
def plain(mole):
    """CH3 by an SCF without options."""
    return mlxc.KS(mole("CH3"), IsoOrbitalHybrid()).run(conv_tol=1e-10)


@pytest.mark.parametrize("change", ["density_fit", "level_shift", "damp", "restart"])
@pytest.mark.parametrize("whole", [0, 100])
def test_scf_options_reach_the_same_energy(mole, change, whole, plain, monkeypatch):
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", whole)
    mf = mlxc.KS(mole("CH3"), IsoOrbitalHybrid())
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
    if change == "density_fit":  # fitted Coulomb potentials move high unoccupied orbitals by 1e-3 Eh
        assert np.allclose(mf.mo_energy[:, :10], plain.mo_energy[:, :10], atol=3e-4)
    else:
        assert np.allclose(mf.mo_energy, plain.mo_energy, atol=1e-5)


def test_dynamic_level_shift(mole, plain, monkeypatch):
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", 0)
    mf = scf.addons.dynamic_level_shift(mlxc.KS(mole("CH3"), IsoOrbitalHybrid()).set(conv_tol=1e-10))
    assert mf.kernel() == pytest.approx(plain.e_tot, abs=1e-8)


def test_lists_of_density_matrices_are_refused(mole):
    for name in ("H2O", "CH3"):
        mf = mlxc.KS(mole(name), "t-lmf")
        dm = mf.get_init_guess()
        with pytest.raises(InputError, match="one density at a time"):
            mf.get_veff(dm=np.stack([dm, dm], axis=-3))


def test_unoccupied_orbitals_may_be_left_alone(mole, plain, monkeypatch):
    """What an energy does not need: occupied orbitals are the same without."""
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", 0)
    mf = mlxc.KS(mole("CH3"), IsoOrbitalHybrid()).set(unoccupied=False).run(conv_tol=1e-10)
    assert mf.converged
    assert abs(mf.e_tot - plain.e_tot) < 1e-8
    occupied = plain.mo_occ > 0
    assert np.allclose(mf.mo_energy[occupied], plain.mo_energy[occupied], atol=1e-5)
    assert abs(mf.mo_energy[~occupied] - plain.mo_energy[~occupied]).max() > 1e-3
    for property in (mf.TDA, mf.TDDFT, lambda: polarizability(mf)):
        with pytest.raises(InputError, match="unoccupied"):
            property()


def test_empty_spin_and_fractional_guess():
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
    excited = mf.TDA().run(nstates=1)
    refused = (
        lambda: excited.nuc_grad_method().kernel(),
        lambda: mf.Hessian().kernel(),
        lambda: mf.CasidaTDDFT(),
        lambda: mf.TDDFTNoHybrid(),
        lambda: tdscf.dRPA(mf),
        lambda: mf.dTDA(),
        lambda: mlxc.KS(mol, IsoOrbitalHybrid()).COSX().run(),
        lambda: mf.NMR(),
        lambda: mf.NSR(),
    )
    for use in refused:
        with pytest.raises(InputError, match="local hybrid"):
            use()
    with pytest.raises(InputError, match="local hybrid"):
        mlxc.attach(mol.GKS(), IsoOrbitalHybrid())
    with pytest.raises(InputError, match="local hybrid"):
        mf.to_gks()
    for excitations in ("TDA", "TDDFT"):
        with pytest.raises(InputError, match="to_uks"):
            getattr(mlxc.attach(mole("CH3").ROKS(), IsoOrbitalHybrid()), excitations)()
    with pytest.raises(InputError, match="spin flips"):
        mlxc.KS(mole("CH3"), IsoOrbitalHybrid()).run().stability(external=True)


def test_a_calculation_can_be_copied_as_a_whole(mole):
    mf = mlxc.KS(mole("H2O", "sto-3g"), "t-lmf").density_fit().run()
    other = copy.deepcopy(mf)
    assert other._numint._tables == []
    assert other.kernel() == pytest.approx(mf.e_tot, abs=1e-9)
    assert mf._numint.occupied()._tables is mf._numint._tables


def test_fixed_form_by_name(mole):
    assert isinstance(mlxc.KS(mole("H2O"), "t-lmf")._numint.functional, IsoOrbitalHybrid)


def test_without_cycles_the_orbitals_are_those_of_the_first_fock_matrix(mole, monkeypatch):
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", 0)
    mf = mlxc.KS(mole("H2O"), "t-lmf")
    mf.max_cycle = 0
    dm = mf.get_init_guess()
    mf.kernel(dm)
    assert np.allclose(mf.mo_coeff.T @ mf.get_fock(dm=dm) @ mf.mo_coeff, np.diag(mf.mo_energy), atol=1e-8)


def test_second_order_solver_of_a_restricted_open_shell(mole):
    mf = mlxc.attach(mole("CH3").ROKS(), "t-lmf").run(conv_tol=1e-10)
    second = mlxc.attach(mole("CH3").ROKS(), "t-lmf").newton()
    assert second.kernel() == pytest.approx(mf.e_tot, abs=1e-8)
    assert second.converged
    assert mf.stability(return_status=True)[2]


def test_solvent_responds_and_comes_last(mole):
    mf = mlxc.KS(mole("H2O"), "t-lmf").density_fit().PCM().run()
    assert mf.converged
    gas = mlxc.KS(mole("H2O"), "t-lmf").density_fit().run()
    assert mf.e_tot < gas.e_tot - 5e-3
    mf.with_solvent.equilibrium_solvation = True
    assert np.trace(mlxc.polarizability(mf)) > np.trace(mlxc.polarizability(gas)) + 0.5
    with pytest.raises(InputError, match="before the solvent"):
        mlxc.attach(mole("H2O").RKS().PCM(), "t-lmf")
    with pytest.raises(InputError, match="before the solvent"):
        mf.density_fit()


@pytest.mark.parametrize("whole", [0, 100])
def test_fractional_occupations(whole, mole, monkeypatch):
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", whole)
    mf = scf.addons.frac_occ(mlxc.KS(mole("O"), "t-lmf"))
    mf.kernel()
    assert mf.converged
    assert np.allclose(mf.mo_occ[1][:6], [1, 1, 1 / 3, 1 / 3, 1 / 3, 0])
    fock = mf.get_fock(dm=mf.make_rdm1())
    for c, e, f in zip(mf.mo_coeff, mf.mo_energy, fock, strict=True):
        assert np.allclose(np.diag(c.T @ f @ c), e, atol=1e-4)
    with pytest.raises(InputError, match="fractional"):
        mf.gen_response()


@pytest.mark.parametrize("memory", [4000, 1])
@pytest.mark.parametrize("name", ["H2O", "CH3"])
def test_features_are_those_of_the_density_matrix(name, memory, mole, rng):
    """In the grid's order, of matrices that are not positive too, whether basis functions are kept or not."""
    mf = mlxc.KS(mole(name), "t-lmf").set(max_memory=memory)
    mf.grids.level = 0
    mf.run(max_cycle=1)
    dms = spin_densities(mf)
    change = rng.normal(size=dms.shape)
    for dm in (dms, dms - abs(dms).max() * (change + change.swapaxes(1, 2))):
        found, expected = needed_features(mf, dm), semilocal_features(mf, dm)
        tables = mf._numint.tables(mf.mol, mf.grids, memory)
        ex = np.stack([energy_density(tables, d) for d in dm])
        for k in ("rho", "sigma", "tau"):
            assert np.allclose(getattr(found, k), getattr(expected, k), rtol=1e-8, atol=1e-8), k
        assert np.allclose(found.ex, ex, rtol=1e-8, atol=1e-8)
    assert (found.rho < -1e-3).any()


def test_checkpoint_holds_the_final_orbitals(mole, monkeypatch, tmp_path):
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", 0)
    mf = mlxc.KS(mole("H2O"), "t-lmf").set(chkfile=str(tmp_path / "h2o.chk")).run()
    assert np.allclose(lib.chkfile.load(mf.chkfile, "scf/mo_energy"), mf.mo_energy)


def test_open_shells_with_point_group_symmetry(mole):
    mol = mole("CH3").copy().set(symmetry=True).build()
    mf = mlxc.KS(mol, "t-lmf").run()
    assert isinstance(mf.TDDFT(), tdscf.uks.TDDFT)
    assert mf.TDA().run(nstates=1).e[0] > 0.1
    with pytest.raises(InputError, match="local hybrid"):
        mlxc.attach(mol.GKS(), "t-lmf")


@pytest.mark.parametrize(("name", "kind"), [("H2O", "RKS"), ("CH3", "UKS"), ("CH3", "ROKS")])
def test_orbitals_with_point_group_symmetry_are_in_order(name, kind, mole, monkeypatch):
    mol = mole(name)
    plain = mlxc.attach(getattr(mol, kind)(), "t-lmf").run(conv_tol=1e-10)
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", 0)
    mol = mol.copy().set(symmetry=True).build()
    mf = mlxc.attach(getattr(mol, kind)(), "t-lmf").run(conv_tol=1e-10)
    assert np.allclose(mf.mo_energy, plain.mo_energy, atol=1e-4)
    for c, labels in zip(
        np.reshape(mf.mo_coeff, (-1, mol.nao, mol.nao)), np.reshape(mf.get_orbsym(), (-1, mol.nao)), strict=True
    ):
        assert list(symm.label_orb_symm(mol, mol.irrep_id, mol.symm_orb, c)) == list(labels)


def test_restricted_open_shell_made_unrestricted_has_excitations(mole):
    mf = mlxc.attach(mole("CH3").ROKS(), "t-lmf").run().to_uks().run()
    assert mf.TDA().run(nstates=1).e[0] > 0.1
    assert np.trace(mlxc.polarizability(mf)) > 10


def test_potential_of_a_complex_density_matrix_is_refused(mole):
    mf = mlxc.KS(mole("H2O"), "t-lmf")
    with pytest.raises(InputError, match="real"):
        mf.get_veff(dm=mf.get_init_guess() * (1 + 0j))


def test_density_fitting_twice(mole):
    mf = mlxc.KS(mole("H2")).density_fit()
    energy = mf.kernel()
    assert mf.density_fit().kernel() == pytest.approx(energy, abs=1e-9)


def test_auxiliary_basis_serves_exchange_too(mole):
    mf = mlxc.KS(mole("H2O"), "t-lmf").density_fit(auxbasis="def2-universal-jkfit")
    assert mf._numint.auxbasis == "def2-universal-jkfit"
    other = mlxc.attach(mole("H2O").RKS().density_fit(auxbasis="def2-universal-jkfit"), "t-lmf")
    assert other.kernel() == pytest.approx(mf.kernel(), abs=1e-9)
    mf.with_df = df.DF(mf.mol, "cc-pvtz-jkfit")
    assert mf.kernel() != pytest.approx(other.e_tot, abs=1e-7)
    assert mf._numint.auxbasis == "cc-pvtz-jkfit"


@pytest.mark.parametrize("fitted", ["after", "lda", "pbe", "pbe0", "pbe, then pbe0"])
def test_exchange_is_never_fitted_in_a_basis_for_coulomb_alone(mole, fitted):
    mol = mole("H2O")
    if fitted == "after":
        mf = mlxc.KS(mol, HartreeFock()).density_fit()
    else:
        first, _, then = fitted.partition(", then ")
        mf = mol.RKS(xc={"lda": "LDA,VWN"}.get(first, first)).density_fit()
        if fitted == "pbe":
            mf.run(max_cycle=1)  # with integrals in the basis for Coulomb alone, which have to go
        if then:
            mf.xc = then  # which leaves PySCF's choice as it was
        mf = mlxc.attach(mf.set(max_cycle=50), HartreeFock())
    assert mf.kernel() == pytest.approx(scf.RHF(mol).kernel(), abs=1e-4)
    assert mf.with_df.auxbasis == mf._numint.auxbasis == auxiliary_basis(mol)


def test_a_hybrid_of_libxc_gets_a_fit_of_exchange(mole):
    mf = mlxc.KS(mole("H2O"), "mlxc-mgga3").density_fit()
    assert "jfit" in str(mf.run(max_cycle=1).with_df.auxbasis)
    fitted = mlxc.attach(mf.set(max_cycle=50), "pbe0").kernel()
    assert fitted == pytest.approx(mole("H2O").RKS(xc="pbe0").kernel(), abs=1e-4)


def test_a_copy_leaves_the_fit_of_its_original_alone(mole):
    mf = mole("H2O").RKS(xc="pbe").density_fit()
    before = mf.with_df.auxbasis
    copied = mlxc.attach(mf.copy(), "t-lmf")
    assert mf.with_df.auxbasis == before != copied.with_df.auxbasis
    second_order = mlxc.attach(mf.newton(), "t-lmf")
    assert second_order.with_df is second_order._scf.with_df


def test_initial_guess_of_an_open_shell():
    """Half of its electrons in each spin, PySCF's guess, is no start for nitrogen: the SCF ends above, or nowhere."""
    mol = gto.M(atom="N", spin=3, basis="def2-tzvp", verbose=0)
    mf = mlxc.KS(mol).density_fit()
    before = (mf.xc, mf.disp, mf.grids.level, mf.conv_tol, mf.conv_tol_grad, mf.max_cycle, mf.callback, mf.chkfile)
    mf.kernel()
    assert mf.converged
    assert mf.cycles < 12
    assert before == (
        mf.xc, mf.disp, mf.grids.level, mf.conv_tol, mf.conv_tol_grad, mf.max_cycle, mf.callback, mf.chkfile
    )  # fmt: skip
    semilocal = mlxc.KS(mol, "r2scan").density_fit().run()
    assert mlxc.KS(mol).density_fit().kernel(semilocal.make_rdm1()) == pytest.approx(mf.e_tot, abs=1e-7)
    assert np.array_equal(mf.get_init_guess(key="atom"), mol.UKS().get_init_guess(key="atom"))


def test_where_r2scan_settles_nothing_closed_shells_start_from_pyscf_s_guess(mole, monkeypatch):
    """LiF at 4 Angstrom, whose gap r2SCAN closes; open shells start from what r2SCAN has come to."""
    apart = gto.M(atom="Li 0 0 0; F 0 0 4", basis="def2-svp", verbose=0)
    guess = {name: mol.KS().get_init_guess() for name, mol in (("LiF", apart), ("CH3", mole("CH3")))}
    assert np.array_equal(mlxc.KS(apart).density_fit().get_init_guess(), guess["LiF"])
    monkeypatch.setattr("mlxc.guess.CYCLES", 1)
    assert abs(mlxc.KS(mole("CH3")).density_fit().get_init_guess() - guess["CH3"]).max() > 0.1


@pytest.mark.parametrize("kind", ["ROKS", "newton", "symmetry", "x2c", "without density fitting"])
def test_every_object_finds_its_initial_guess(kind, mole):
    mol = mole("O")
    if kind == "symmetry":
        mol = mol.copy().set(symmetry=True).build()
    mf = mlxc.attach(mol.ROKS()) if kind == "ROKS" else mlxc.KS(mol)
    if kind != "without density fitting":
        mf = mf.density_fit()
    if kind in ("newton", "x2c"):
        mf = getattr(mf, kind)()
    dm = mf.get_init_guess()
    electrons = np.einsum("...ij,ji->...", dm, mol.intor("int1e_ovlp"))
    assert electrons == pytest.approx([5, 3])
    assert mf.run().converged
