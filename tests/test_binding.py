"""Our r2SCAN through PySCF's machinery against libxc's r2SCAN: everything that an SCF object can do."""

import sys
from types import ModuleType

import numpy as np
import pytest
from pyscf import dft, gto, scf
from pyscf.pbc import gto as pbcgto
from pyscf.scf import cphf
from pyscf.scf.diis import CDIIS

import mlxc
from mlxc.analytic import PBE, R2SCAN, SlaterPW92
from mlxc.backend import Backend, Label
from mlxc.errors import InputError, UnknownFunctionalError

OURS = R2SCAN()


def pair(make, functional=OURS, code="r2scan"):
    """(ours, libxc's) of one kind of calculation, converged tightly on a small grid."""
    out = []
    for xc in (functional, code):
        mf = mlxc.attach(make(), xc)
        mf.conv_tol, mf.conv_tol_grad = 1e-10, 1e-6
        mf.grids.level = 1
        mf.kernel()
        assert mf.converged
        out.append(mf)
    return out


@pytest.fixture(scope="module")
def water(mole):
    return pair(lambda: dft.RKS(mole("H2O", "6-31g")))


@pytest.fixture(scope="module")
def methyl(mole):
    return pair(lambda: dft.UKS(mole("CH3", "6-31g")))


@pytest.mark.parametrize(
    "make",
    [
        lambda m: dft.RKS(m("H2O", "6-31g")).density_fit(),
        lambda m: dft.RKS(m("H2O", "6-31g")).newton(),
        lambda m: dft.RKS(m("H2O", "6-31g")).density_fit().newton(),
        lambda m: dft.RKS(m("H2O", "6-31g")).PCM(),
        lambda m: dft.RKS(m("H2O", "6-31g")).SMD(),
        lambda m: dft.RKS(m("H2O", "6-31g")).to_uks(),
        lambda m: dft.UKS(m("CH3", "6-31g")),
        lambda m: dft.ROKS(m("CH3", "6-31g")),
        lambda m: dft.GKS(m("CH3", "6-31g")),
    ],
    ids=["density-fit", "newton", "density-fit-newton", "pcm", "smd", "to_uks", "uks", "roks", "gks"],
)
def test_energy_of_every_kind(make, mole, water, methyl):
    ours, theirs = pair(lambda: make(mole))
    assert isinstance(ours._numint.libxc, Backend)
    assert ours.e_tot == pytest.approx(theirs.e_tot, abs=1e-8)
    # Neither may have lost its functional: the kind of calculation changes far less than another functional would.
    plain = water if ours.mol.spin == 0 else methyl
    assert ours.e_tot == pytest.approx(plain[0].e_tot, abs=0.05)


def test_plain_pyscf_hook_gives_the_same_energy(mole, water):
    mf = dft.RKS(mole("H2O", "6-31g")).define_xc_(OURS.eval_xc, "MGGA")
    mf.grids.level, mf.conv_tol = 1, 1e-11
    assert mf.kernel() == pytest.approx(water[0].e_tot, abs=1e-9)


@pytest.mark.parametrize("kind", ["water", "methyl"])
def test_gradients(kind, request):
    ours, theirs = (mf.nuc_grad_method().kernel() for mf in request.getfixturevalue(kind))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kind", ["water", "methyl"])
@pytest.mark.parametrize("method", ["TDA", "TDDFT"])
def test_excitations(kind, method, request):
    roots = []
    for mf in request.getfixturevalue(kind):
        td = getattr(mf, method)()
        td.nstates = 5
        td.conv_tol = 1e-7
        td.kernel()
        roots.append(td.e)
    assert len(roots[0]) == 5
    np.testing.assert_allclose(*roots, atol=1e-5)


def test_excited_state_gradient_by_differences(water):
    """Needs the third derivative, which PySCF cannot check against libxc: compare with energies of displaced atoms."""

    def excited(mf):
        td = mf.TDA()
        td.nstates, td.conv_tol = 2, 1e-9
        td.kernel()
        return td

    gradient = excited(water[0]).nuc_grad_method().kernel(state=1)
    energies = []
    for step in (1e-3, -1e-3):
        mol = water[0].mol.copy()
        coords = mol.atom_coords()
        coords[1, 1] += step
        mf = mlxc.attach(dft.RKS(mol.set_geom_(coords, unit="Bohr")), OURS)
        mf.grids.level, mf.conv_tol = 1, 1e-11
        energies.append(mf.kernel() + excited(mf).e[0])
    assert abs(gradient[1, 1]) > 0.05
    # PySCF's gradient leaves the motion of the grid out: that is the tolerance.
    assert gradient[1, 1] == pytest.approx((energies[0] - energies[1]) / 2e-3, abs=1e-3)


@pytest.mark.parametrize("kind", ["water", "methyl"])
def test_hessian(kind, request):
    ours, theirs = (mf.Hessian().kernel() for mf in request.getfixturevalue(kind))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("functional", "code"), [(SlaterPW92(), "slater,pw_mod"), (PBE(), "pbe")], ids=["lda", "gga"])
def test_derivative_properties_of_lda_and_gga(functional, code, mole):
    gradients, roots, hessians = [], [], []
    for mf in pair(lambda: dft.UKS(mole("CH3", "sto-3g")), functional, code):
        gradients.append(mf.nuc_grad_method().kernel())
        td = mf.TDDFT()
        td.nstates, td.conv_tol = 5, 1e-7
        roots.append(td.kernel()[0])
        hessians.append(mf.Hessian().kernel())
    np.testing.assert_allclose(*gradients, atol=1e-6)
    np.testing.assert_allclose(*roots, atol=1e-5)
    np.testing.assert_allclose(*hessians, atol=1e-5)


def test_static_polarizability(water):
    values = []
    for mf in water:
        occupied, empty = mf.mo_coeff[:, mf.mo_occ > 0], mf.mo_coeff[:, mf.mo_occ == 0]
        dipole = np.einsum("pa,xpq,qi->xai", empty, mf.mol.intor("int1e_r"), occupied)
        response = mf.gen_response(hermi=1)

        def induced(x, occupied=occupied, empty=empty, response=response):
            dm = 2 * np.einsum("pa,xai,qi->xpq", empty, x.reshape(-1, empty.shape[1], occupied.shape[1]), occupied)
            v = response(dm + dm.transpose(0, 2, 1))
            return np.einsum("pa,xpq,qi->xai", empty, v, occupied)

        x = cphf.solve(induced, mf.mo_energy, mf.mo_occ, dipole)[0]
        values.append(-4 * np.einsum("xai,yai->xy", x, dipole))
    assert np.linalg.eigvalsh(values[0]).min() > 1
    np.testing.assert_allclose(*values, atol=1e-4)


@pytest.mark.parametrize(("bond", "stable"), [(0.74, True), (2.5, False)])
def test_stability_analysis(bond, stable):
    """Stretched hydrogen's restricted solution is unstable towards the unrestricted one."""
    for mf in pair(lambda: dft.RKS(gto.M(atom=f"H 0 0 0; H 0 0 {bond}", basis="6-31g", verbose=0))):
        _, _, inside, outside = mf.stability(external=True, return_status=True)
        assert inside
        assert outside is stable


def test_nonlocal_correlation_can_be_added(mole):
    """`mf.nlc` adds PySCF's VV10 to either functional."""

    def make():
        mf = dft.RKS(mole("H2O", "sto-3g"))
        mf.nlc, mf.nlcgrids.level = "vv10", 0
        return mf

    ours, theirs = pair(make)
    assert ours.e_tot == pytest.approx(theirs.e_tot, abs=1e-8)
    assert abs(ours.e_tot - pair(lambda: dft.RKS(mole("H2O", "sto-3g")))[0].e_tot) > 1e-3


@pytest.mark.parametrize("kpts", [None, [1, 1, 2]], ids=["gamma", "k-points"])
def test_periodic_hydrogen(kpts):
    cell = pbcgto.M(
        a=np.eye(3) * 4.0, atom="H 0 0 0; H 0 0 0.74", basis="gth-szv", pseudo="gth-pade", verbose=0, mesh=[31] * 3
    )
    energies = []
    for xc in (OURS, "r2scan"):
        mf = cell.KS() if kpts is None else cell.KKS(kpts=cell.make_kpts(kpts))
        mlxc.attach(mf, xc).conv_tol = 1e-10
        energies.append(mf.kernel())
        assert mf.converged
    assert energies[0] == pytest.approx(energies[1], abs=1e-7)


def test_names_unknown_to_mlxc_go_to_libxc(mole):
    mf = mlxc.KS(mole("H2O", "sto-3g"), "pbe0")
    want = dft.RKS(mole("H2O", "sto-3g"), xc="pbe0")
    assert mf.kernel() == pytest.approx(want.kernel(), abs=1e-9)
    assert abs(mlxc.attach(want, OURS).kernel() - mf.e_tot) > 1e-3
    with pytest.raises(UnknownFunctionalError, match="nonsense"):
        mlxc.KS(mole("H2O", "sto-3g"), "nonsense")


def test_wrong_registration_is_named(mole):
    mf = dft.RKS(mole("H2O", "sto-3g")).define_xc_(OURS.eval_xc, "GGA")
    with pytest.raises(InputError, match=r'define_xc_\(functional.eval_xc, "MGGA"\)'):
        mf.kernel()


def test_what_pyscf_derives_from_an_attached_object(mole):
    """Objects made after `attach` keep the functional, although libxc does not know it."""
    want = pair(lambda: dft.RKS(mole("H2O", "def2-svp"), xc="r2scan").density_fit())[1].e_tot
    for derive in (lambda m: m.density_fit(), lambda m: m.to_uks().density_fit(), lambda m: m.density_fit().newton()):
        mf = derive(mlxc.KS(mole("H2O", "def2-svp"), OURS))
        mf.grids.level, mf.conv_tol = 1, 1e-10
        assert mf.kernel() == pytest.approx(want, abs=1e-8)


def test_changing_mf_xc_is_an_error(mole):
    mf = mlxc.KS(mole("H2O", "sto-3g"), OURS)
    mf.xc = "pbe"
    with pytest.raises(InputError, match=r"mlxc.attach\(mf, 'pbe'\)"):
        mf.kernel()


def test_a_lost_functional_is_never_silent(mole):
    """PySCF's converter to GKS makes a new integrator: that must not run without exchange and correlation."""
    with pytest.raises((TypeError, ValueError, AssertionError)):
        mlxc.KS(mole("H2O", "sto-3g"), OURS).to_gks().kernel()
    with pytest.raises(UnknownFunctionalError):
        mlxc.KS(mole("H2O", "sto-3g"), "")


@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga3", "pbe"])
def test_no_functional_is_lost_on_the_way_to_a_gpu(xc, mole, monkeypatch):
    """gpu4pyscf, which a stand-in replaces here, would make a NumInt of its own, with libxc."""
    rks = ModuleType("gpu4pyscf.dft.rks")
    rks.RKS = type("RKS", (dft.rks.RKS,), {"__module__": "gpu4pyscf.dft.rks"})
    for module in (ModuleType("cupy"), ModuleType("gpu4pyscf"), ModuleType("gpu4pyscf.dft"), rks):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for part in (gto.Mole, dft.gen_grid.Grids):
        monkeypatch.setattr(part, "to_gpu", lambda self: self)
    monkeypatch.setattr(dft.numint.NumInt, "to_gpu", lambda self: dft.numint.NumInt())
    mf = mlxc.KS(mole("H2O", "sto-3g"), xc)
    with pytest.raises(InputError, match="gpu4pyscf"):
        mf.to_gpu()
    del mf.DIIS
    if xc == "pbe":
        assert type(mf.to_gpu()) is rks.RKS
    else:
        with pytest.raises(InputError, match="gpu4pyscf"):
            mf.to_gpu()


def test_attach_and_define_xc_replace_each_other(mole):
    mol = mole("H2O", "sto-3g")
    pbe0, ours = mlxc.KS(mol, "pbe0").kernel(), mlxc.KS(mol, OURS).kernel()
    mf = dft.RKS(mol).define_xc_(OURS.eval_xc, "MGGA")
    assert mlxc.attach(mf, "pbe0").kernel() == pytest.approx(pbe0, abs=1e-8)
    mf = mlxc.KS(mol, PBE()).define_xc_(OURS.eval_xc, "MGGA")
    assert mf.kernel() == pytest.approx(ours, abs=1e-8)


def test_attach_wants_a_kohn_sham_object(mole):
    with pytest.raises(InputError, match="not a Kohn-Sham object"):
        mlxc.attach(scf.RHF(mole("H2O", "sto-3g")))


def test_second_order_fallback(mole):
    """DIIS is cut short; the second-order solver goes on to the same energy."""
    mf = mlxc.KS(mole("H2O", "6-31g"), OURS)
    mf.grids.level, mf.max_cycle = 1, 5
    result = mlxc.scf.converge(mf)
    assert result.converged
    assert not mf.converged
    full = mlxc.KS(mole("H2O", "6-31g"), OURS)
    full.grids.level = 1
    assert result.e_tot == pytest.approx(full.kernel(), abs=1e-7)


def test_attach_leaves_other_objects_alone(mole):
    mf = dft.RKS(mole("H2O", "sto-3g"), xc="pbe")
    other = mf.copy()
    mlxc.attach(mf, OURS)
    assert not isinstance(other._numint.libxc, Backend)
    assert not isinstance(dft.numint.NumInt().libxc, Backend)


def test_empty_basis_functions_far_away():
    """A ghost atom puts grid points where there is no density at all."""
    mol = gto.M(atom="He 0 0 0; ghost-He 0 0 40", basis="6-31g", verbose=0)
    mf = mlxc.KS(mol, OURS)
    mf.kernel()
    assert mf.converged
    assert np.isfinite(mf.get_fock()).all()


def test_labels_compare_as_names():
    assert Label("a") == Label("a") != Label("b")
    unlike = Label("a") != Label("a")
    assert not unlike
    assert len({Label("a"), Label("a"), Label("b"), ()}) == 3


def test_singular_equations_of_diis_do_not_stop_an_scf(mole, monkeypatch):
    """In the third cycle; PySCF itself stops there."""
    extrapolate = CDIIS.extrapolate
    calls = []

    def singular(self, nd=None):
        calls.append(nd)
        if len(calls) == 3:
            raise np.linalg.LinAlgError("Singular matrix")
        return extrapolate(self, nd)

    expected = mlxc.KS(mole("H2O"), "t-lmf").kernel()
    monkeypatch.setattr(CDIIS, "extrapolate", singular)
    mf = mlxc.KS(mole("H2O"), "t-lmf")
    assert mf.kernel() == pytest.approx(expected, abs=1e-8)
    assert mf.converged
    assert len(calls) > 3
