"""Reference data: files that check themselves, wave functions against known answers, recipes, ensembles."""

import numpy as np
import pytest
from pyscf import gto, scf

from mlxc.errors import InputError, ReferenceFileError
from mlxc.reference import Reference, fractional_charge, fractional_spin, methods, read, store, write
from mlxc.reference.build import build_system
from mlxc.reference.recipe import read_recipe

RECIPE = """
description = "test"
[density]
method = "CCSD"
basis = "6-31g"
[[system]]
name = "Li"
[[system]]
name = "Li+"
atoms = "Li"
charge = 1
density = {method = "FCI"}
[[system]]
name = "H2"
atoms = "H 0 0 0; H 0 0 {R}"
R = [0.7, 1.5]
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(RECIPE)
    return {t.name: build_system(t) for t in read_recipe(path).tasks}


def same(a: Reference, b: Reference) -> bool:
    return all(
        np.array_equal(x, vars(b)[k]) if isinstance(x, np.ndarray) else x == vars(b)[k] for k, x in vars(a).items()
    )


def test_a_file_gives_back_what_was_written(library, tmp_path):
    path = tmp_path / "r.h5"
    write(path, library.values())
    back = read(path)
    assert back.keys() == library.keys() == {"Li", "Li+", "H2 R=0.7", "H2 R=1.5"}
    assert all(same(library[k], back[k]) for k in back)
    assert not list(tmp_path.glob("*.tmp*"))


def test_any_altered_byte_and_any_truncation_is_found(library, tmp_path, rng):
    content = store.packed(library.values())
    path = tmp_path / "r.h5"
    for at in [0, 40, 100, 511, 512, len(content) - 1, *rng.integers(0, len(content), 40)]:
        altered = bytearray(content)
        altered[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        with pytest.raises(ReferenceFileError, match=r"r\.h5"):
            read(path)
    for length in (0, 10, 600, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ReferenceFileError):
            read(path)


def test_damaged_system_is_named(library):
    content = bytearray(store.packed(library.values()))
    at = bytes(content).index(b"converged")
    content[at] ^= 1
    with pytest.raises(ReferenceFileError, match=r"systems: (Li|H2)"):
        store.unpacked(bytes(content), "r.h5")


def test_density_belongs_to_the_stored_basis(library):
    for reference in library.values():
        mol = reference.mole()
        overlap = mol.intor("int1e_ovlp")
        assert np.einsum("smn,nm->s", reference.dm1, overlap) == pytest.approx(mol.nelec, abs=1e-9)
        energy = np.einsum("mn,nm->", scf.hf.get_hcore(mol), reference.dm1.sum(0))
        assert energy == pytest.approx(reference.energies["one_electron"], abs=1e-9)
        assert reference.natural_occupations.sum() == pytest.approx(reference.nelectron, abs=1e-9)
        assert -1e-6 < reference.natural_occupations.min() < reference.natural_occupations.max() < 2 + 1e-6


def test_two_electrons_full_ci_and_coupled_cluster_agree():
    mol = gto.M(atom="H 0 0 0; H 0 0 1.4", basis="cc-pvdz", verbose=0)
    exact, coupled = (methods.solve(mol, m, False) for m in ("FCI", "CCSD(T)"))
    assert exact.energies["FCI"] == pytest.approx(coupled.energies["CCSD(T)"], abs=1e-8)
    assert exact.energies["FCI"] < exact.energies["HF"] - 0.02
    assert np.allclose(exact.dm1, coupled.dm1, atol=1e-5)


def test_triples_in_natural_orbitals_approach_those_in_all_orbitals(monkeypatch):
    mol = gto.M(atom="N 0 0 0; H 0 0 1.04", spin=2, basis="cc-pvtz", verbose=0)

    def dipole(method):
        return np.linalg.norm(methods.properties(mol, methods.solve(mol, method, True).dm1)[1])

    whole = dipole("CCSD(T)")
    change = abs(dipole("CCSD") - whole)
    assert change > 0.003
    for keep, left in ((15, 0.5), (30, 0.3)):
        monkeypatch.setattr(methods, "triples_room", lambda mycc, keep=keep: keep)
        assert abs(dipole("CCSD(T)") - whole) < left * change


def test_extrapolation_is_exact_for_its_own_law():
    def hf(n):
        return -1.0 + 3.0 * (n + 1) * np.exp(-9 * np.sqrt(n))

    limit = methods.extrapolated((hf(3), -0.3 + 0.2 / 27), (hf(4), -0.3 + 0.2 / 64), 3)
    assert limit == pytest.approx((-1.0, -0.3), abs=1e-12)


def test_fractional_electrons_lie_on_the_straight_line(library):
    atoms = {k: library[k] for k in ("Li", "Li+")}
    half = fractional_charge(atoms, ("Li",), 2.25)
    assert half.energies["total"] == pytest.approx(
        0.25 * atoms["Li"].energies["total"] + 0.75 * atoms["Li+"].energies["total"]
    )
    assert np.einsum("smn,nm->", half.dm1, half.mole().intor("int1e_ovlp")) == pytest.approx(2.25)
    with pytest.raises(InputError, match="4 electrons"):
        fractional_charge(atoms, ("Li",), 3.5)


def test_fractional_spin_keeps_energy_and_density(library):
    mixed = fractional_spin(library["Li"], 0.0)
    assert mixed.energies["total"] == library["Li"].energies["total"]
    assert np.allclose(mixed.dm1[0], mixed.dm1[1])
    assert np.allclose(mixed.dm1.sum(0), library["Li"].dm1.sum(0))
    assert not np.allclose(library["Li"].dm1[0], library["Li"].dm1[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("basis", "bases"), "unknown key"),
        (('"CCSD"', '"CCSDTQ"'), "not one of"),
        (('name = "Li+"', 'name = "Li"'), "twice"),
        (("charge = 1", "charge = 1\nspin = 1"), "cannot be unpaired"),
        (("H 0 0 0;", "H 0 0;"), "Angstrom"),
        (("[[system]]", "[[system]"), "cannot read"),
    ],
)
def test_faulty_recipe_is_refused(tmp_path, change, message):
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.replace(*change))
    with pytest.raises(InputError, match=message):
        read_recipe(path)
