"""Pictures: the numbers in their files are those of the calculations, and files are drawn without any."""

import json
import sys

import numpy as np
import pytest
from pyscf import gto

from mlxc import models
from mlxc.cli import main
from mlxc.constraints.subject import LEVEL, Subject
from mlxc.errors import ConvergenceError, InputError
from mlxc.plots import charge, density, dissociation, plane, saved, section
from mlxc.reference import Reference, methods, write

WATER = "3\n\nO 0 0 0\nH 0 0.757 0.587\nH 0 -0.757 0.587\n"


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    monkeypatch.setattr(section, "POINTS", 600)


@pytest.fixture
def xyz(tmp_path):
    """xyz(name, text): a file."""

    def write(name, text):
        path = tmp_path / f"{name}.xyz"
        path.write_text(text)
        return path

    return write


def row(content, xc):
    return next(f for f in content["functionals"] if f["xc"] == xc)


def array(functional, name):
    return np.array(functional[name], dtype=float)


def test_plane_of_water(xyz):
    """Density, F_xc and shares of exact exchange; those of global hybrids, PBE and Slater hold by definition."""
    path = xyz("water", WATER)
    content = plane.compute(path, ["default", "pbe0", "lda,", "wb97x"], "sto-3g")
    frame = content["plane"]
    assert [a["symbol"] for a in frame["atoms"]] == ["O", "H", "H"]
    points = section.plane_of(np.array(content["molecule"]["coords_bohr"])).points()
    mf = gto.M(atom=WATER.split("\n", 2)[2], basis="sto-3g", verbose=0).KS(xc="pbe0")
    mf.grids.level = LEVEL
    mf.run()
    ao = mf.mol.eval_gto("GTOval", points)
    expected = np.einsum("gm,mn,gn->g", ao, mf.make_rdm1(), ao).reshape(len(frame["v_bohr"]), -1)
    pbe0, slater, neural = row(content, "pbe0"), row(content, "lda,"), row(content, models.DEFAULT)
    assert pbe0["energy_hartree"] == pytest.approx(mf.e_tot, abs=1e-7)
    np.testing.assert_allclose(array(pbe0, "density"), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(array(pbe0, "fraction"), 0.25, atol=1e-6)
    np.testing.assert_allclose(array(slater, "fraction"), 0)
    np.testing.assert_allclose(array(slater, "enhancement"), 1, atol=1e-5)
    assert np.ptp(array(neural, "fraction")) > 0.01
    assert 0 <= array(neural, "fraction").min() < array(neural, "fraction").max() <= 1
    assert neural["sha256"]
    # Between its shares at short and at long range: 0.157706 and 1.
    assert (
        0.15
        < array(row(content, "wb97x"), "fraction").min()
        < 0.9
        < array(row(content, "wb97x"), "fraction").max()
        <= 1
    )
    figures = plane.draw(content)
    assert list(figures) == [""]
    assert len(figures[""].axes) == 3 * 4 + 3


def test_one_electron_has_nothing_but_exact_exchange(xyz):
    content = plane.compute(xyz("h2+", "2\n\nH 0 0 0\nH 0 0 1.06\n"), ["default", "t-lmf"], "sto-3g", charge=1)
    functional, published = content["functionals"]
    np.testing.assert_allclose(array(functional, "mixing")[0], 1, atol=1e-6)
    np.testing.assert_allclose(array(functional, "fraction"), 1, atol=1e-6)
    np.testing.assert_allclose(array(published, "fraction"), 0.48, atol=1e-6)  # c tau_W / tau
    figures = plane.draw(content)
    assert list(figures) == ["", "-line"]
    titles = [axes.get_ylabel() for axes in figures["-line"].axes]
    assert "mixing function, spin up" in titles
    assert "mixing function, spin down" not in titles  # there is no such electron


def test_planes():
    rng = np.random.default_rng(3)
    coords = rng.normal(size=(5, 3))
    chosen = section.plane_of(coords, (2, 4, 5))
    np.testing.assert_allclose(chosen.projected(coords[[1, 3, 4]])[:, 2], 0, atol=1e-12)
    np.testing.assert_allclose(chosen.axes @ chosen.axes.T, np.eye(2), atol=1e-12)
    line = section.plane_of(np.array([[0, 0, 0], [1, 2, 2], [2, 4, 4]], dtype=float))
    assert line.rank == 1
    np.testing.assert_allclose(line.axes[0], [1 / 3, 2 / 3, 2 / 3])
    middle = line.points().reshape(len(line.v), len(line.u), 3)[len(line.v) // 2]
    np.testing.assert_allclose(np.cross(middle, line.axes[0]), 0, atol=1e-12)
    assert section.plane_of(np.zeros((1, 3))).rank == 0
    for atoms in ((1, 2, 3), (1, 2), (1, 2, 6), (1, 1, 2)):
        with pytest.raises(InputError, match="atoms"):
            section.plane_of(np.vstack([middle[:3], coords[:2]]), atoms)


def test_density_differences():
    """They hold no electrons; Hartree-Fock has no error for one electron."""
    content = density.compute("He", ["pbe", "hf"])
    pbe = row(content, "pbe")
    assert content["reference"]["method"] == "FCI"
    r, difference = np.array(content["radii_bohr"]), array(pbe, "radial_difference")
    assert np.trapezoid(difference, r) == pytest.approx(0, abs=2e-5)
    assert np.trapezoid(abs(difference), r) / 2 == pytest.approx(pbe["misplaced_electrons"], rel=2e-3)
    assert 0.005 < pbe["misplaced_electrons"] < 0.05
    assert row(content, "hf")["misplaced_electrons"] < pbe["misplaced_electrons"]
    ion = density.compute("H2+", ["pbe", "hf"], "ions")
    assert abs(row(ion, "pbe")["electrons_difference"]) < 2e-5
    assert row(ion, "hf")["misplaced_electrons"] < 1e-5
    assert abs(array(row(ion, "hf"), "difference")).max() < 1e-5
    assert abs(array(row(ion, "pbe"), "difference")).max() > 1e-3
    assert list(density.draw(ion)) == ["", "-line"]
    assert list(density.draw(content)) == [""]


def test_densities_of_degenerate_states_are_averaged():
    mol = gto.M(atom="O 0 0 0; H 0 0 1", basis="def2-svp", spin=1, verbose=0)
    alone = gto.M(atom="O", basis="def2-svp", spin=2, verbose=0)
    shells = [[i for i, label in enumerate(m.ao_labels()) if "O 2p" in label] for m in (mol, alone)]
    points = np.array([[0.3, 0.0, 0.2], [0.1, 0.4, -0.5]])
    x, y, _ = (np.diag(np.eye(mol.nao)[i]) for i in shells[0])
    assert abs(np.diff(density.density_at(mol, x, points))) > 1e-2
    axis = np.array([0.0, 0.0, 1.0])
    along = [density.turned(mol, dm, points, axis) for dm in (x, y)]
    np.testing.assert_allclose(*along, atol=1e-12)
    curves = [density.radial(alone, np.diag(np.eye(alone.nao)[i])) for i in shells[1]]
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-10)
    np.testing.assert_allclose(curves[0], curves[2], atol=1e-10)
    assert np.trapezoid(curves[0], density.RADII) == pytest.approx(1, abs=1e-4)
    away = density.radial(alone.set_geom_("O 0 0 2", inplace=False), np.diag(np.eye(alone.nao)[shells[1][0]]))
    np.testing.assert_allclose(away, curves[0], atol=1e-10)


@pytest.mark.parametrize(
    ("atoms", "turn"), [("B 0 0 0", {"x": "y", "y": "z", "z": "x"}), ("O 0 0 0; H 0 0 0.97", {"x": "y", "y": "x"})]
)
def test_a_hole_in_another_direction_is_no_error(atoms, turn, tmp_path):
    """A functional against its own density, turned."""
    mol = gto.M(atom=atoms, basis="6-31g", spin=1, verbose=0)
    mf = Subject("pbe").solve(mol)
    turned = np.eye(mol.nao)
    labels = [label.split() for label in mol.ao_labels()]
    for i, (*before, name) in enumerate(labels):
        if name[1] == "p" and name[2] in turn:
            to = turn[name[2]]
            turned[i] = 0
            turned[i, labels.index([*before, name[:2] + to])] = -1 if to == "x" else 1
    dm1 = turned.T @ mf.make_rdm1() @ turned
    assert abs(dm1 - mf.make_rdm1()).max() > 0.1
    _, dipole, natural = methods.properties(mol, dm1)
    file = tmp_path / "turned.h5"
    it = Reference(
        "it", tuple(mol.elements), mol.atom_coords(), 0, 1, mol._basis, "pbe",
        dm1=dm1, dipole=dipole, natural_occupations=natural, energies={"total": mf.e_tot, "best": mf.e_tot},
    )  # fmt: skip
    write(file, [it], "turned")
    found = row(density.compute("it", ["pbe"], str(file)), "pbe")
    assert found["misplaced_electrons"] < 2e-3


def test_energies_between_whole_numbers():
    content = charge.compute("H", ["pbe", "hf"], "def2-svp", points=2)
    assert content["number"] == [0, 0.5, 1, 1.5, 2]
    pbe, hf = (np.array(f["energy_hartree"]) for f in content["functionals"])
    for number, q, spin in ((2, 0, 1), (4, -1, 0)):
        mf = gto.M(atom="H", charge=q, spin=spin, basis="def2-svp", verbose=0).KS(xc="pbe")
        mf.grids.level = LEVEL
        assert pbe[number] == pytest.approx(mf.run().e_tot, abs=1e-7)
    assert hf[1] == pytest.approx((hf[0] + hf[2]) / 2, abs=1e-6)
    assert pbe[1] < (pbe[0] + pbe[2]) / 2 - 0.01
    assert content["exact"]["number"] == [0, 1, 2]
    assert content["exact"]["energy_hartree"] == pytest.approx([0, -0.5, -0.52775], abs=3e-4)
    left, right = charge.draw(content)[""].axes
    assert [line.get_label() for line in left.lines] == ["exact (reference data)", "pbe", "hf"]
    assert right.lines[1].get_ydata()[1] == pytest.approx((pbe[1] - (pbe[0] + pbe[2]) / 2) * 27.2114, rel=1e-4)


def test_exact_energies_of_ions():
    carbon = charge.exact("C")
    assert (carbon[5] - carbon[6]) * 27.2114 == pytest.approx(11.26, abs=0.02)  # ionization potential of C, eV
    assert (carbon[6] - carbon[7]) * 27.2114 == pytest.approx(1.262, abs=0.02)  # its electron affinity


def test_dissociation_of_one_electron():
    content = dissociation.compute("H2+", ["hf", "pbe"], "def2-svp", [1.057, 10])
    hf, pbe = (np.array(f["energy_kcal"]) for f in content["functionals"])
    assert hf == pytest.approx([-64.4, 0], abs=1.5)
    assert pbe[1] < -40
    upper, lower = dissociation.draw(content)[""].axes
    assert upper.get_legend().get_texts()[0].get_text() == "exact, mlxc reference data"
    assert lower.lines[1].get_ydata()[1] == pytest.approx(hf[1], abs=0.02)
    pair = dissociation.compute("H2", ["hf"], "6-31g", [0.7414, 10])
    assert pair["functionals"][0]["energy_kcal"][1] > 150  # both electrons in one orbital: half of it is H+ and H-
    assert "restricted" in dissociation.draw(pair)[""].get_suptitle()


def test_curves_to_compare_with():
    spectra, ours = dissociation.exact("N2", "any", [])
    known = dict(zip(spectra["distance_angstrom"], spectra["energy_kcal"], strict=True))
    for r, e in zip(ours["distance_angstrom"], ours["energy_kcal"], strict=True):
        nearest = min(known, key=lambda x: abs(x - r))
        assert abs(nearest - r) < 0.01
        assert e == pytest.approx(known[nearest], abs=1.5)
    (hydrogen,) = dissociation.exact("H2", "any", [])
    assert hydrogen["energy_kcal"][-1] == pytest.approx(0, abs=0.1)
    assert min(hydrogen["energy_kcal"]) == pytest.approx(-109.5, abs=0.5)  # D_e of H2: 109.5 kcal/mol
    (helium,) = dissociation.exact("He2+", "6-31g**", [1.081, 12.0])
    assert helium["energy_kcal"] == pytest.approx([-55, 0], abs=3)  # D_e of He2+: 57 kcal/mol
    assert helium["energy_kcal"][1] == pytest.approx(0, abs=0.1)
    with pytest.raises(InputError, match="at most 63"):
        dissociation.exact("He2+", "aug-cc-pvqz", [1.0])


def test_files_are_drawn_again_without_a_calculation(xyz, tmp_path, capsys, monkeypatch, refused):
    out = tmp_path / "out"
    command = ["plot", "plane", str(xyz("he", "1\n\nHe 0 0 0\n")), "--xc", "pbe,hf", "--basis", "sto-3g"]
    assert main([*command, "--out", str(out)]) == 0
    names = ["plane-he.json", "plane-he.png", "plane-he.svg", "plane-he-line.png", "plane-he-line.svg"]
    assert capsys.readouterr().out.split()[-5:] == [str(out / n) for n in names]
    content = json.loads((out / names[0]).read_text())
    assert content["basis"] == "sto-3g"
    assert content["versions"]["pyscf"]
    monkeypatch.setattr(Subject, "solve", None)
    assert "has results of hf" in refused(*command[:3], "--xc", "pbe", "--out", out)
    again = tmp_path / "again"
    assert main(["plot", str(out / names[0]), "--out", str(again)]) == 0
    for name in names[1:]:
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_what_does_not_converge_is_told(tmp_path, capsys, monkeypatch, xyz):
    """Points that are missing are null and the status is 3, also with nothing to draw."""
    energies = Subject.energy
    monkeypatch.setattr(
        Subject, "energy", lambda self, s, *a, **k: np.nan if "0.5" in s.id else energies(self, s, *a, **k)
    )
    assert (
        main(["plot", "charge", "H", "--xc", "hf", "--basis", "sto-3g", "--points", "2", "--out", str(tmp_path)]) == 3
    )
    assert "NOT converged, and missing there: hf" in capsys.readouterr().out
    content = json.loads((tmp_path / "charge-H.json").read_text())
    assert content["functionals"][0]["energy_hartree"][1] is None
    assert (tmp_path / "charge-H.svg").exists()
    solve = Subject.solve
    monkeypatch.setattr(Subject, "solve", lambda self, mol: solve(self, mol, max_cycle=1))
    command = ["plot", "plane", xyz("water", WATER), "--xc", "pbe", "--basis", "sto-3g", "--out", tmp_path]
    assert main([str(a) for a in command]) == 3
    assert "nothing to draw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["plane", "absent.xyz"], "No such file"),
        (["plane", "water.xyz", "--xc", "nonsense"], "'nonsense'"),
        (["plane", "water.xyz", "--xc", ","], "no functional"),
        (["plane", "water.xyz", "--basis", "nobasis"], "'nobasis' is unknown"),
        (["plane", "water.xyz", "--atoms", "1,2,9"], "from 1 to 3"),
        (["density", "water"], "no reference density 'water'"),
        (["density", "H2O", "--data", "none"], "no reference data 'none'"),
        (["charge", "K"], "not of 'K'"),
        (["charge", "H", "--basis", "nobasis"], "'nobasis' is unknown"),
        (["dissociation", "O2"], "not of 'O2'"),
        (["dissociation", "H2", "--distances", "0"], "at least 0.1"),
        (["absent.json"], "No such file"),
        (["water.xyz"], "no JSON"),
    ],
)
def test_mistakes(words, reason, tmp_path, refused, monkeypatch, xyz):
    monkeypatch.chdir(tmp_path)
    xyz("water", WATER)
    assert reason in refused("plot", *words)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100000, '{"picture": "plane"}', '{"picture": "no", "format": 1}',
     '{"picture": "plane", "format": 1}',
     '{"picture": "charge", "format": 1, "number": [0, 1], "neutral": 1, "symbol": 3, "basis": 1}',
     '{"picture": "dissociation", "format": 1, "molecule": "H2", "basis": "", "exact": []}'],
)  # fmt: skip
def test_damaged_files(text, tmp_path, refused):
    path = tmp_path / "damaged.json"
    path.write_text(text)
    assert "damaged.json" in refused("plot", path)
    assert list(tmp_path.iterdir()) == [path]


def test_formulas_that_are_none(tmp_path, refused):
    """Of the two figures of a file, neither is written."""
    content = {"picture": "charge", "format": 1, "number": [0, 1], "neutral": 1, "symbol": "H", "basis": r"$\q$"}
    content |= {
        "functionals": [{"xc": "pbe", "energy_hartree": [0, -0.5]}],
        "exact": {"number": [], "energy_hartree": []},
    }
    path = tmp_path / "formula.json"
    path.write_text(json.dumps(content))
    assert "no formula" in refused("plot", path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"objective,W4-17\n1.0,much\n", b"\xff\xfe"])
def test_damaged_logs(content, tmp_path, refused):
    (tmp_path / "log.csv").write_bytes(content)
    assert "does not hold a run" in refused("plot", tmp_path)


def test_full_ci_that_does_not_converge_is_no_curve(monkeypatch):
    monkeypatch.setattr(dissociation.fci.direct_spin1_symm.FCISolver, "max_cycle", 1)
    with pytest.raises(ConvergenceError, match="full CI"):
        dissociation.exact("He2+", "6-31g", [1.0])


def test_unwritable_folder(tmp_path, refused):
    (tmp_path / "file").touch()
    assert "cannot write" in refused("plot", "charge", "H", "--out", tmp_path / "file")


def test_matplotlib_is_asked_for(monkeypatch, tmp_path, refused):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "mlxc[plot]" in refused("plot", "charge", "H", "--out", tmp_path)


def test_names_of_files(tmp_path):
    assert saved.path_of(tmp_path, "density", "H2 R=0.7414").name == "density-H2_R=0.7414.json"
    assert saved.path_of(tmp_path, "density", "../x").parent == tmp_path
