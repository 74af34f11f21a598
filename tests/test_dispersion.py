"""D4 as part of a model's name."""

import numpy as np
import pytest
from pyscf import gto, scf
from pyscf.data.nist import BOHR
from pyscf.dispersion import dftd3, dftd4

import mlxc
from mlxc import models
from mlxc.analytic import PBE, R2SCAN
from mlxc.bench.species import identity_of
from mlxc.dispersion import d4_energy
from mlxc.errors import InputError, UnknownFunctionalError
from mlxc.geometry import gradient_method
from mlxc.neural import NeuralMetaGGA


@pytest.fixture(scope="module")
def mol():
    return gto.M(atom="H 0 0 0; F 0 0 0.92; Ne 0 0.3 4", basis="def2-svp", verbose=0)


def test_dispersion_is_added_to_energy_and_gradient(mol):
    bare, mf = (mlxc.KS(mol, xc).density_fit().run(conv_tol=1e-10) for xc in ("mlxc-lh7", "mlxc-lh7-d4"))
    found = dftd4.DFTD4Dispersion(mol, xc="pbe0", atm=True).get_dispersion(grad=True)
    assert str(mf.xc) == "mlxc-lh7-d4"
    assert found["energy"] < -1e-5
    assert mf.e_tot - bare.e_tot == pytest.approx(float(found["energy"]), abs=1e-9)
    slopes = [x.nuc_grad_method().kernel() for x in (mf, bare)]
    assert np.allclose(slopes[0] - slopes[1], found["gradient"], atol=1e-7)


@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga3"])
def test_d3_of_somebody_s_own_wish(mol, xc):
    mf = mlxc.KS(mol, xc).density_fit().set(disp="d3bj:pbe0").run(conv_tol=1e-10)
    bare = mlxc.KS(mol, xc).density_fit().run(conv_tol=1e-10)
    found = dftd3.DFTD3Dispersion(mol, xc="pbe0", version="d3bj").get_dispersion(grad=True)
    assert found["energy"] < -1e-5
    assert mf.e_tot - bare.e_tot == pytest.approx(float(found["energy"]), abs=1e-8)
    slopes = [gradient_method(x).kernel() for x in (mf, bare)]
    assert np.allclose(slopes[0] - slopes[1], found["gradient"], atol=1e-7)


def test_smearing_keeps_dispersion(monkeypatch):
    """Of large molecules too, with orbitals that are partly occupied; forces are those of the free energy."""
    monkeypatch.setattr("mlxc.hybridscf.WHOLE_FOCK", 0)

    def smeared(xc, length=2.5):
        mol = gto.M(atom=f"H 0 0 0; H 0 0 {length}; He 0 0 6", basis="def2-svp", verbose=0)
        mf = mlxc.KS(mol, xc).smearing(sigma=0.05)
        mf.grids.level = 1
        return mf.run(conv_tol=1e-11, conv_tol_grad=1e-7)

    mf, bare = smeared("mlxc-lh7-d4"), smeared("mlxc-lh7")
    assert ((mf.mo_occ > 0.2) & (mf.mo_occ < 1.8)).sum() == 2
    expected = d4_energy(mf.mol, "pbe0")
    assert expected < -1e-5
    for name in ("e_tot", "e_free", "e_zero"):
        assert getattr(mf, name) - getattr(bare, name) == pytest.approx(expected, abs=1e-8)
    force = gradient_method(mf).kernel()[1, 2]
    free = [smeared("mlxc-lh7-d4", 2.5 + d).e_free for d in (1e-3, -1e-3)]
    assert force == pytest.approx((free[0] - free[1]) / 2e-3 * BOHR, abs=2e-5)


def test_smearing_that_would_lose_dispersion_is_refused(mol):
    with pytest.raises(InputError, match="leave dispersion out"):
        scf.addons.smearing(mlxc.KS(mol), sigma=1e-3).run()
    with pytest.raises(InputError, match="before the solvent"):
        mlxc.KS(mol).PCM().smearing(sigma=1e-3)
    fitted, attached = mlxc.KS(mol).smearing(sigma=1e-3).density_fit(), mlxc.attach(mol.RKS().smearing(sigma=1e-3))
    assert fitted.run().scf_summary["dispersion"] == pytest.approx(d4_energy(mol, "pbe0"), abs=1e-10)
    assert fitted.e_tot == pytest.approx(attached.run().e_tot, abs=1e-3)
    assert fitted.undo_smearing().run().e_tot == pytest.approx(fitted.e_tot, abs=1e-6)


def test_ghosts_have_no_dispersion():
    """Basis functions of a neighbour change the energy by far less than its dispersion."""
    atoms = "Ne 0 0 0; Ar 0 0 3.4"
    lone, ghostly = (gto.M(atom=a, basis="def2-svp", verbose=0) for a in ("Ne 0 0 0", "Ne 0 0 0; ghost-Ar 0 0 3.4"))
    expected = d4_energy(lone, "pbe0")
    assert d4_energy(ghostly, "pbe0") == pytest.approx(expected, abs=1e-12)
    assert d4_energy(gto.M(atom=atoms, basis="def2-svp", verbose=0), "pbe0") < 2 * expected - 1e-5
    mf, bare = (mlxc.KS(ghostly, xc).run(conv_tol=1e-10) for xc in ("mlxc-lh7-d4", "mlxc-lh7"))
    assert mf.e_tot - bare.e_tot == pytest.approx(expected, abs=1e-8)
    assert mf.mol is ghostly
    slopes = [x.nuc_grad_method().kernel() for x in (mf, bare)]
    assert np.allclose(*slopes, atol=1e-7)
    with pytest.raises(InputError, match="ghost"):  # PySCF's, which a semilocal functional is left with
        mlxc.KS(ghostly, "mlxc-mgga3-d4")


def test_gradients_of_some_atoms_have_their_dispersion(mol):
    gradients = mlxc.KS(mol).density_fit().run().nuc_grad_method()
    whole = gradients.kernel()
    for some in ([2], [1, 0]):
        assert np.allclose(gradients.kernel(atmlst=some), whole[some], atol=1e-10)


def test_another_dispersion_counts_from_the_next_kernel_on(mol):
    mf = mlxc.KS(mol).density_fit().run()
    without = mf.e_tot - mf.scf_summary["dispersion"]
    assert mf.set(disp="d4:r2scan").kernel() == pytest.approx(without + d4_energy(mol, "r2scan"), abs=1e-7)


def test_hartree_fock_does_not_take_dispersion_over(mol):
    mf = mlxc.KS(mol).run()
    plain, relativistic = mol.RHF(), mol.RHF().x2c()
    for other, own in ((mf, plain), (mf.to_uks(), plain), (mlxc.KS(mol).x2c(), relativistic)):
        other = other.to_hf()
        assert other.disp is None
        assert other.run(conv_tol=1e-10).e_tot == pytest.approx(own.run(conv_tol=1e-10).e_tot, abs=1e-8)
    assert mf.to_uks().disp == mf.disp == "d4:pbe0"
    mf.disp = "d4:hf"  # somebody's own wish stays
    assert mf.to_hf().disp == "d4:hf"


def test_the_default_has_dispersion_and_another_functional_does_not_take_it_over(mol):
    mf = mlxc.KS(mol)
    assert mf.disp == "d4:pbe0"
    assert mlxc.attach(mf, "mlxc-lh7").disp is None
    mf.disp = "d4:pbe"  # somebody's own wish stays
    assert mlxc.attach(mf, "mlxc-mgga3").disp == "d4:pbe"


def test_an_object_that_has_run_gets_the_dispersion_of_its_next_functional(mol):
    expected = mlxc.KS(mol, "r2scan-d4").run().e_tot
    for make in (lambda mf: mf, lambda mf: mf.newton()):
        mf = mlxc.attach(make(mlxc.KS(mol, "pbe-d4")).run(), "r2scan-d4")
        assert not mf.converged
        assert mf.run().e_tot == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("functional", [PBE(), R2SCAN()])
def test_functionals_have_the_parameters_of_their_own_names(mol, functional):
    energies = [mlxc.KS(mol, functional).set(disp=disp).run().e_tot for disp in ("d4", None)]
    expected = dftd4.DFTD4Dispersion(mol, xc=functional.name.lower(), atm=True).get_dispersion()["energy"]
    assert energies[0] - energies[1] == pytest.approx(float(expected), abs=1e-8)


def test_dispersion_can_be_taken_away(mol):
    expected = mlxc.KS(mol, "mlxc-lh7").run().e_tot
    assert mlxc.KS(mol, "mlxc-lh7-d4").set(disp=None).run().e_tot == pytest.approx(expected, abs=1e-8)


def test_results_with_and_without_dispersion_are_kept_apart():
    assert identity_of("mlxc-lh7") != identity_of("mlxc-lh7-d4") == identity_of("default")


def test_a_model_without_parameters_or_a_machine_without_the_library_says_so(mol, tmp_path, monkeypatch):
    models.save(NeuralMetaGGA(width=4, depth=1), tmp_path, card={})
    with pytest.raises(UnknownFunctionalError, match="D4 was not fitted"):
        mlxc.KS(mol, f"{tmp_path}-d4")
    monkeypatch.setattr("mlxc.dispersion.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pyscf-dispersion"):
        mlxc.KS(mol, "mlxc-lh7-d4")
