"""Functionals as files of TorchScript: what is written, that it comes back the same, and that no code runs unasked."""

import hashlib
import io
import json
import pickle
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from pyscf.dispersion.dftd3 import DFTD3Dispersion

import mlxc
from mlxc.analytic import PBE, R2SCAN, SlaterPW92
from mlxc.cli import main
from mlxc.errors import InputError, ModelFileError
from mlxc.functional import Functional
from mlxc.libxc import LibxcFunctional
from mlxc.torchscript import points

FUNCTIONALS = {"mlxc-mgga3": lambda: mlxc.load("mlxc-mgga3"), "r2scan": R2SCAN, "pbe": PBE, "lda": SlaterPW92}


@pytest.fixture(scope="module", params=FUNCTIONALS)
def pair(request, tmp_path_factory):
    """A functional and the same from its file."""
    functional = FUNCTIONALS[request.param]()
    path = tmp_path_factory.mktemp("fun") / "f.fun"
    sha256 = mlxc.export(functional, path)
    return functional, mlxc.load(path, sha256=sha256)


@pytest.mark.parametrize("name", ["H2O", "CH3", "O"])
def test_energy_potential_and_kernel_come_back(pair, mole, name):
    """Closed and open shells, with parallel gradients everywhere in the atom."""
    ours, theirs = pair
    mol = mole(name, "sto-3g")
    before, after = (mlxc.KS(mol, f).set(verbose=0) for f in (ours, theirs))
    before.grids.level = after.grids.level = 1
    before.kernel()
    dm = before.make_rdm1()
    after.initialize_grids(mol, dm)
    want, got = before.get_veff(mol, dm), after.get_veff(mol, dm)
    assert got.exc == pytest.approx(want.exc, abs=1e-10)
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), atol=1e-10)
    ao = mol.eval_gto("GTOval_sph_deriv1", before.grids.coords[::50])
    dms = dm if mol.spin else dm[None]
    kind = ours.xctype
    rho = np.array([before._numint.eval_rho(mol, ao[0] if kind == "LDA" else ao, d, xctype=kind) for d in dms])
    rho = rho if mol.spin else rho[0]
    want, got = (mf._numint.eval_xc_eff(mf.xc, rho, deriv=2)[2] for mf in (before, after))
    dense = rho.reshape(len(dms), -1, rho.shape[-1])[:, 0].min(0) > 1e-3
    assert got.shape == want.shape
    np.testing.assert_allclose(got[..., dense], want[..., dense], rtol=1e-8, atol=1e-8)


def test_forces_and_excitations_come_back(pair, mole):
    results = []
    for functional in pair:
        mf = mlxc.KS(mole("H2", "sto-3g"), functional).set(conv_tol=1e-12)
        mf.grids.level = 1
        mf.kernel()
        results.append([mf.e_tot, *mf.nuc_grad_method().kernel()[:, 2], *mf.TDA().run(nstates=1).e])
    np.testing.assert_allclose(results[0], results[1], atol=1e-9)


def test_another_process_reads_the_file(pair):
    functional = pair[1]
    again = pickle.loads(pickle.dumps(functional))
    assert (again.name, again.sha256, again.xctype) == (functional.name, functional.sha256, functional.xctype)


def test_energy_density_of_features(pair, mole):
    """What `mlxc check` and uncertainties see, from products of gradients; it has no derivatives, and says so."""
    ours, theirs = pair
    mf = mlxc.KS(mole("CH3", "sto-3g"), ours)
    mf.grids.level = 0
    mf.kernel()
    features = mlxc.ongrid.needed_features(mf, mf.make_rdm1())
    np.testing.assert_allclose(theirs.energy_density(features), ours.energy_density(features), atol=1e-10)
    features.rho.requires_grad_()
    with pytest.raises(InputError, match="calculations only"):
        theirs.energy_density(features)


def test_the_protocol(tmp_path):
    """Names, JSON and units of the methods, as GauXC and Skala read them."""
    path = tmp_path / "f.fun"
    functional = mlxc.load("mlxc-mgga3")
    sha256 = mlxc.export(functional, path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    extra = dict.fromkeys(("metadata", "features", "expected_d3_settings", "protocol_version"), "")
    script = torch.jit.load(str(path), _extra_files=extra)
    extra = {k: json.loads(v) for k, v in extra.items()}
    assert extra.pop("metadata")["model_sha256"] == mlxc.models.sha256("mlxc-mgga3")
    assert extra == {
        "features": ["density", "grad", "kin", "grid_weights"], "expected_d3_settings": None, "protocol_version": 2,
    }  # fmt: skip
    mol = {k: x.requires_grad_() for k, x in points(9).items()}
    density = script.get_exc_density(mol=mol)  # C++ passes it by this name
    assert density.shape == (9,)
    assert density.dtype == torch.float64
    energy = script.get_exc(mol=mol)
    assert energy.item() == pytest.approx((density * mol["grid_weights"]).sum().item())
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(energy, list(mol.values())))
    assert not list(script.parameters())


def test_the_same_functional_gives_the_same_bytes(tmp_path):
    """Also of a class that torch has named differently since; and nothing of this machine is in them."""
    paths = [tmp_path / "a.fun", tmp_path / "b.fun"]
    for path in paths:
        mlxc.export(mlxc.load("mlxc-mgga3"), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with zipfile.ZipFile(paths[0]) as archive:
        assert archive.testzip() is None
        code = [archive.read(n).decode() for n in archive.namelist() if "/code/" in n]
        pickled = archive.read("archive/data.pkl")
    assert len(code) == 1
    for stray in ("device", "mangle", ".venv", str(tmp_path)):
        assert stray not in code[0]
        assert stray.encode() not in pickled


class Nonlocal(Functional):
    """Its energy density at a point is that of all points."""

    name, xctype = "nonlocal", "LDA"

    def energy_density(self, features):
        return features.total_rho.sum() * features.total_rho


class Detour(Functional):
    """Leaves torch on its way, where nothing is recorded."""

    name, xctype = "detour", "LDA"

    def energy_density(self, features):
        return features.total_rho * torch.from_numpy(np.exp(features.total_rho.detach().numpy()))


def test_what_is_not_exported(tmp_path):
    path = tmp_path / "f.fun"
    d4 = R2SCAN()
    d4.disp = "d4:r2scan"
    for functional, reason in (
        (mlxc.load("mlxc-lh7"), "local hybrid"),
        (d4, "D3 only"),
        (LibxcFunctional("pbe"), "torch cannot record it"),
        (Detour(), "more than torch can record"),
    ):
        with pytest.raises(InputError, match=reason):
            mlxc.export(functional, path)
    with pytest.raises(InputError, match="cannot write"):
        mlxc.export(PBE(), tmp_path / "absent" / "f.fun")
    assert list(tmp_path.iterdir()) == []


def test_a_file_runs_only_by_its_hash(tmp_path, monkeypatch):
    path = tmp_path / "f.fun"
    sha256 = mlxc.export(PBE(), path)
    assert mlxc.load(f"{path}@{sha256}").name == mlxc.load(path, sha256=sha256.upper()).name == "pbe"
    monkeypatch.setattr(torch.jit, "load", lambda *args, **kwargs: pytest.fail("it was run"))
    with pytest.raises(InputError, match=sha256):
        mlxc.load(path)
    with pytest.raises(InputError, match="holds code"):
        mlxc.models.resolve(str(path))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="is not the file that you trust"):
        mlxc.load(path, sha256=sha256)
    with pytest.raises(ModelFileError, match="No such file"):
        mlxc.load(tmp_path / "absent.fun", sha256=sha256)


def with_entry(path, name, content=""):
    """The bytes of a .fun file with another content of one of its entries."""
    image = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(image, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == f"archive/{name}" else old.read(entry))
    return image.getvalue()


def test_foreign_files_that_are_refused(tmp_path):
    """Of another version, with features that mlxc does not compute, nonlocal, no functional, no archive."""
    path = tmp_path / "f.fun"
    mlxc.export(PBE(), path)
    changed = partial(with_entry, path)
    skala = '["density", "grad", "kin", "grid_coords", "grid_weights", "coarse_0_atomic_coords"]'
    mlxc.export(Nonlocal(), tmp_path / "nonlocal.fun")
    for content, error, reason in (
        (changed("extra/protocol_version", "1"), ModelFileError, "protocol version 1"),
        (changed("extra/protocol_version", "{"), ModelFileError, "not a functional"),
        (changed("extra/metadata", "3"), ModelFileError, "not as the protocol"),
        (changed("extra/features", '"density"'), ModelFileError, "not as the protocol"),
        (changed("extra/features", skala), InputError, "needs grid_coords, coarse_0_atomic_coords"),
        (changed("extra/features", '["density"]'), ModelFileError, "no get_exc_density that works"),
        (changed("data.pkl"), ModelFileError, "not a functional"),
        ((tmp_path / "nonlocal.fun").read_bytes(), InputError, "not semilocal"),
        (b"no archive", ModelFileError, "not a functional"),
        (b"", ModelFileError, "not a functional"),
    ):
        path.write_bytes(content)
        with pytest.raises(error, match=reason):
            mlxc.load(path, sha256=hashlib.sha256(content).hexdigest())


def test_dispersion_that_a_file_names_is_part_of_the_energy(tmp_path, mole):
    path = tmp_path / "f.fun"
    mlxc.export(PBE(), path)
    content = with_entry(path, "extra/expected_d3_settings", '"pbe"')
    path.write_bytes(content)
    functional = mlxc.load(path, sha256=hashlib.sha256(content).hexdigest())
    mol = mole("H2O", "sto-3g")
    energies = [mlxc.KS(mol, f).set(conv_tol=1e-11).kernel() for f in (functional, PBE())]
    expected = DFTD3Dispersion(mol, xc="pbe", version="d3bj").get_dispersion()["energy"]
    assert expected < -1e-6
    assert energies[0] - energies[1] == pytest.approx(expected, abs=1e-9)


def test_attached_functionals_follow_each_other(tmp_path, mole):
    """Nothing of a functional from TorchScript stays where another one takes its place, and GKS is refused."""
    path = tmp_path / "f.fun"
    functional = mlxc.load(path, sha256=mlxc.export(PBE(), path))
    mf = mlxc.KS(mole("H2", "sto-3g"), functional)
    mlxc.attach(mf, "r2scan").kernel()
    assert mf.e_tot == pytest.approx(mole("H2", "sto-3g").RKS(xc="r2scan").kernel(), abs=1e-9)
    with pytest.raises(InputError, match="GKS is not for it"):
        mlxc.attach(mole("H2", "sto-3g").GKS(), functional)
    with pytest.raises(InputError, match="not define_xc_"):
        mf.define_xc_(functional.eval_xc, "GGA").kernel()


def test_command_line(tmp_path, refused, capsys):
    path, xyz, out = tmp_path / "f.fun", tmp_path / "h2.xyz", tmp_path / "out.json"
    xyz.write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    assert main(["models", "mlxc-mgga3", "--export", str(path)]) == 0
    sha256 = capsys.readouterr().out.split()[-1]
    run = ["run", str(xyz), "--basis", "sto-3g", "--json", str(out), "--xc"]
    assert main([*run, "mlxc-mgga3"]) == 0
    want = json.loads(out.read_text())["energy_hartree"]
    assert main([*run, f"{path}@{sha256}"]) == 0
    result = json.loads(out.read_text())
    assert result["energy_hartree"] == pytest.approx(want, abs=1e-10)
    assert (result["xc"], result["model_hash"]) == ("mlxc-mgga3", sha256)
    assert main(["models", f"{path}@{sha256}"]) == 0
    capsys.readouterr()
    assert sha256 in refused(*run, path)
    assert "local hybrid" in refused("models", "mlxc-lh7", "--export", tmp_path / "lh.fun")
    assert "libxc" in refused("models", "pbe0", "--export", tmp_path / "pbe0.fun")
    assert not (tmp_path / "lh.fun").exists()
