"""Crystals: the semilocal family through mlxc against libxc's r2SCAN, and what local hybrids say."""

import numpy as np
import pytest
from pyscf.dispersion.dftd4 import DFTD4Dispersion
from pyscf.pbc import gto

import mlxc
from mlxc.analytic import R2SCAN
from mlxc.errors import InputError


def hydrogen(strain=0.0, spin=0):
    """H2 in a cubic cell, stretched along z with everything in it."""
    stretch = np.diag([1, 1, 1 + strain])
    return gto.M(
        a=4 * stretch, atom=[("H", [0, 0, 0]), ("H", [0.2, 0, 0.74 * (1 + strain)])], basis="gth-szv",
        pseudo="gth-pade", mesh=[21] * 3, spin=spin, verbose=0,
    )  # fmt: skip


def crystal(xc, kind="KRKS", strain=0.0):
    """With two k-points; unrestricted with two unpaired electrons in two cells."""
    cell = hydrogen(strain, 2 if kind == "KUKS" else 0)
    mf = mlxc.attach(getattr(cell, kind)(kpts=cell.make_kpts([1, 1, 2])), xc)
    return mf.run(conv_tol=1e-11)


@pytest.mark.parametrize("kind", ["KRKS", "KUKS"])
def test_energy_and_stress(kind):
    """Stress is dE / d strain / V; PySCF has it from version 2.10 on."""
    ours, theirs = crystal(R2SCAN(), kind), crystal("r2scan", kind)
    assert ours.converged
    assert ours.e_tot == pytest.approx(theirs.e_tot, abs=1e-8)
    pytest.importorskip("pyscf.pbc.grad.krks_stress")
    stress, expected = (mf.nuc_grad_method().get_stress() for mf in (ours, theirs))
    assert np.allclose(stress, expected, atol=1e-8)
    if kind == "KRKS":
        up, down = (crystal(R2SCAN(), kind, h).e_tot for h in (1e-3, -1e-3))
        assert stress[2, 2] == pytest.approx((up - down) / 2e-3 / ours.cell.vol, abs=1e-7)
    assert abs(stress[2, 2]) > 1e-5


def test_dispersion_of_a_shipped_model_is_periodic():
    bare, mf = crystal("mlxc-mgga3"), crystal("mlxc-mgga3-d4")
    assert bare.converged
    expected = DFTD4Dispersion(mf.cell, xc="r2scan", atm=True).get_dispersion()["energy"]
    assert mf.e_tot - bare.e_tot == pytest.approx(float(expected), abs=1e-9)
    alone = DFTD4Dispersion(mf.cell.to_mol(), xc="r2scan", atm=True).get_dispersion()["energy"]
    assert expected < alone - 1e-5


def test_what_crystals_do_not_have_is_refused():
    cell = hydrogen()
    for make in (cell.RKS, cell.UKS, cell.KRKS, cell.KUKS):
        with pytest.raises(InputError, match=r"for .*KS take a semilocal model"):
            mlxc.attach(make(), "t-lmf")
    with pytest.raises(InputError, match="semilocal"):
        mlxc.KS(cell)
    mf = crystal("mlxc-mgga3")
    with pytest.raises(NotImplementedError, match="metaGGA"):  # PySCF's
        mf.nuc_grad_method().kernel()
    for use in (mlxc.vibrations, mlxc.excitations, mlxc.polarizability):
        with pytest.raises(InputError, match="for molecules"):
            use(mf)
