"""Reference data: files that check themselves, wave functions against known answers, recipes, ensembles."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyscf import ao2mo, fci, gto, scf

from mlxc.errors import InputError, ReferenceFileError
from mlxc.reference import (
    Reference,
    coupled_cluster,
    fractional_charge,
    fractional_spin,
    inspect,
    methods,
    read,
    store,
    write,
)
from mlxc.reference.build import build, build_system
from mlxc.reference.recipe import Recipe, read_recipe

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
def library():
    return {t.name: build_system(t) for t in read_recipe_text(RECIPE)}


def read_recipe_text(text: str) -> tuple:
    """The tasks of a recipe."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.toml"
        path.write_text(text)
        return read_recipe(path).tasks


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
    content, named = store.packed(library.values()), []
    for at in (content.index(b"converged"), content.rindex(b"converged")):
        damaged = bytearray(content)
        damaged[at] ^= 1
        with pytest.raises(ReferenceFileError, match="systems: ") as error:
            store.unpacked(bytes(damaged), "r.h5")
        named.append([name for name in library if f"(systems: {name})" in str(error.value)])
    assert [len(names) for names in named] == [1, 1]
    assert named[0] != named[1]


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


def test_full_ci_of_four_electrons():
    mol = gto.M(atom="Be 0 0 0", basis="6-31g", verbose=0)
    exact, coupled = (methods.solve(mol, m, False).energies for m in ("FCI", "CCSD"))
    assert exact["FCI"] == pytest.approx(fci.FCI(scf.RHF(mol).run()).kernel()[0], abs=1e-8)
    assert abs(exact["FCI"] - coupled["CCSD"]) > 1e-6


@pytest.mark.parametrize("distance", [1.0, 8.0, 10.0])
def test_two_electrons_of_a_stretched_bond_are_in_their_ground_state(distance):
    """Where coupled cluster finds another state, or none."""
    mol = gto.M(atom=f"H 0 0 0; H 0 0 {distance}", basis="cc-pvdz", verbose=0)
    exact = methods.solve(mol, "FCI", False)
    other = fci.direct_spin1.FCI(mol)
    mf = scf.RHF(mol).run()
    h, eri = mf.mo_coeff.T @ mf.get_hcore() @ mf.mo_coeff, ao2mo.kernel(mol, mf.mo_coeff)
    energy, vector = other.kernel(h, eri, mol.nao, 2)
    assert exact.energies["FCI"] == pytest.approx(energy + mol.energy_nuc(), abs=1e-8)
    dm1 = mf.mo_coeff @ other.make_rdm1(vector, mol.nao, 2) @ mf.mo_coeff.T
    assert np.allclose(exact.dm1.sum(0), dm1, atol=1e-5)


def test_triplet_of_two_electrons():
    mol = gto.M(atom="He 0 0 0", spin=2, basis="aug-cc-pvtz", verbose=0)
    exact, coupled = (methods.solve(mol, m, False) for m in ("FCI", "CCSD"))
    assert exact.energies["FCI"] == pytest.approx(coupled.energies["CCSD"], abs=1e-8)
    assert np.allclose(exact.dm1, coupled.dm1, atol=1e-5)


def test_triples_in_natural_orbitals_approach_those_in_all_orbitals(monkeypatch):
    mol = gto.M(atom="N 0 0 0; H 0 0 1.04", spin=2, basis="cc-pvtz", verbose=0)

    def dipole(method):
        return np.linalg.norm(methods.properties(mol, methods.solve(mol, method, True).dm1)[1])

    whole = dipole("CCSD(T)")
    change = abs(dipole("CCSD") - whole)
    assert change > 0.003
    for keep, left in ((15, 0.5), (30, 0.3)):
        monkeypatch.setattr(coupled_cluster, "triples_room", lambda mycc, keep=keep: keep)
        assert abs(dipole("CCSD(T)") - whole) < left * change


def test_extrapolation_is_exact_for_its_own_law():
    def hf(n):
        return -1.0 + 3.0 * (n + 1) * np.exp(-9 * np.sqrt(n))

    limit = methods.extrapolated((hf(3), -0.3 + 0.2 / 27), (hf(4), -0.3 + 0.2 / 64), 3)
    assert limit == pytest.approx((-1.0, -0.3), abs=1e-12)


def test_t1_and_density_do_not_depend_on_the_form_of_a_closed_shell(monkeypatch):
    mol = gto.M(atom="H 0 0 0; F 0 0 0.95", basis="6-31g", verbose=0)
    restricted = methods.solve(mol, "CCSD(T)", True)
    monkeypatch.setattr(scf, "RHF", scf.UHF)
    unrestricted = methods.solve(mol, "CCSD(T)", True)
    assert unrestricted.diagnostics["t1"] == pytest.approx(restricted.diagnostics["t1"], abs=1e-5)
    assert unrestricted.energies == pytest.approx(restricted.energies, abs=1e-7)
    assert np.allclose(unrestricted.dm1, restricted.dm1, atol=1e-4)
    monkeypatch.undo()
    assert not np.allclose(restricted.dm1, methods.solve(mol, "CCSD", True).dm1, atol=1e-4)


@pytest.mark.parametrize(("atom", "cores"), [("H", 0), ("He", 0), ("Li", 1), ("Ne", 1), ("Na", 5), ("Ar", 5), ("K", 9)])
def test_cores_are_noble_gases(atom, cores):
    mol = gto.M(atom=[(atom, (0, 0, 0))], basis={atom: [[0, [1.0, 1.0]]]}, spin=None, verbose=0)
    assert methods.core_orbitals(mol) == cores


def test_fractional_electrons_lie_on_the_straight_line(library, tmp_path):
    atoms = {k: library[k] for k in ("Li", "Li+")}
    half = fractional_charge(atoms, ("Li",), 2.25)
    assert half.energies["total"] == pytest.approx(
        0.25 * atoms["Li"].energies["total"] + 0.75 * atoms["Li+"].energies["total"]
    )
    assert np.einsum("smn,nm->", half.dm1, half.mole().intor("int1e_ovlp")) == pytest.approx(2.25)
    assert half.natural_occupations.sum() == pytest.approx(2.25)
    write(tmp_path / "half.h5", [half])
    assert same(read(tmp_path / "half.h5")[half.name], half)
    for n, whole in ((2, "Li+"), (3, "Li")):
        end = fractional_charge(atoms, ("Li",), n)
        assert end.energies["total"] == atoms[whole].energies["total"]
        assert np.array_equal(end.dm1, atoms[whole].dm1)
    excited = replace(atoms["Li+"], name="excited", energies={"total": 0.0})
    assert same(fractional_charge({**atoms, "excited": excited}, ("Li",), 2.25), half)
    with pytest.raises(InputError, match="4 electrons"):
        fractional_charge(atoms, ("Li",), 3.5)


def test_fractional_charges_of_curves_keep_to_one_geometry():
    """Of H2 and H2+ at two distances each, the lowest H2 has no partner at its own."""
    start = RECIPE.split("[[system]]")[0]
    rows = [(0, 0.7), (0, 1.5), (1, 1.5)]
    systems = "".join(f'[[system]]\nname = "H2 {q} {r}"\natoms = "H 0 0 0; H 0 0 {r}"\ncharge = {q}\n' for q, r in rows)
    library = {t.name: build_system(t) for t in read_recipe_text(start + systems)}
    half = fractional_charge(library, ("H", "H"), 1.5)
    both = [library[f"H2 {q} 1.5"].energies["total"] for q in (0, 1)]
    assert half.energies["total"] == pytest.approx(sum(both) / 2)
    with pytest.raises(InputError, match="at one geometry"):
        fractional_charge({k: r for k, r in library.items() if k != "H2 0 1.5"}, ("H", "H"), 1.5)


def test_no_descent_breaks_the_symmetry_of_spin():
    """N2+, of which a lower determinant has <S^2> = 1.17 and gives coupled-cluster energies 2 kcal/mol higher."""
    mol = gto.M(atom="N 0 0 0; N 0 0 1.104", charge=1, spin=1, basis="cc-pvdz", verbose=0)
    found = methods.solve(mol, "CCSD(T)", True, density=False)
    assert found.diagnostics["s2_hf"] < 0.8
    assert found.diagnostics["spin_unstable"] == 1
    assert found.diagnostics["t1"] < 0.05


def test_half_an_electron_has_half_the_energy():
    path = RECIPE.split("[[system]]")[0].replace("CCSD", "HF")
    (task,) = read_recipe_text(path + '[[system]]\nname = "H"\n')
    hydrogen = build_system(task)
    half = fractional_charge({"H": hydrogen}, ("H",), 0.5)
    assert half.energies["total"] == pytest.approx(hydrogen.energies["total"] / 2)
    assert np.allclose(half.dm1, hydrogen.dm1 / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"dm1": 1.01 * r.dm1}, "electrons of each spin"),
        (lambda r: {"dm1": r.dm1[::-1]}, "electrons of each spin"),
        (lambda r: {"dipole": r.dipole + 1e-4}, "dipole"),
        (lambda r: {"energies": {**r.energies, "coulomb": 0.0}}, "coulomb is 0.0"),
        (lambda r: {"energies": {**r.energies, "total": 0.0}}, "total is 0.0"),
        (lambda r: {"energies": {"best": r.energies["best"]}}, "total is nan"),
        (lambda r: {"dipole": r.dipole * np.nan}, "dipole"),
        (lambda r: {"natural_occupations": r.natural_occupations * np.nan}, "not those of its density"),
        (lambda r: {"dm1": 1.01 * r.dm1}, "outside 0 ... 2"),
        (lambda r: {"natural_occupations": 0 * r.natural_occupations}, "not those of its density"),
        (lambda r: {"dm1": None}, "no density although"),
    ],
)
def test_faults_are_found(change, message):
    (task,) = read_recipe_text(RECIPE.split("[[system]]")[0].replace("CCSD", "HF") + '[[system]]\nname = "Li"\n')
    sound = build_system(task)
    assert inspect.faults(sound) == []
    assert any(message in fault for fault in inspect.faults(replace(sound, **change(sound))))
    assert inspect.faults(fractional_spin(sound, 0.5)) == []


def test_energies_and_density_of_different_methods():
    text = RECIPE.split("[[system]]")[0] + '[[system]]\nname = "He"\n[energy]\nmethod = "CCSD(T)"\ncardinal = 2\n'
    for method in ("CCSD", "HF"):
        (task,) = read_recipe_text(text.replace('CCSD"', f'{method}"') + 'bases = ["cc-pvdz", "cc-pvtz"]\n')
        found = build_system(task)
        assert inspect.faults(found) == []
        shifted = replace(found, energies={**found.energies, "best": found.energies["best"] + 1e-3})
        assert any("best" in fault for fault in inspect.faults(shifted))


@pytest.mark.parametrize("atoms", [[("He", (0.0, 0.0, 1.0))], [("H", (0.0, 1.0, -0.37)), ("H", (0.0, 1.0, 0.37))]])
def test_what_cannot_turn_cannot_anywhere(atoms):
    mol = gto.M(atom=atoms, basis="6-31g", verbose=0)
    dm = scf.RHF(mol).run().make_rdm1()
    symbols = tuple(s for s, _ in atoms)
    found = Reference("x", symbols, mol.atom_coords(), 0, 0, "6-31g", "HF", dm1=np.array([dm, dm]) / 2)
    assert not found.can_turn()


def test_frozen_cores_leave_something():
    lithium = gto.M(atom="Li", charge=1, basis="6-31g", verbose=0)
    frozen = methods.solve(lithium, "FCI", True)
    assert frozen.energies.keys() == {"HF"}
    assert np.allclose(frozen.dm1.sum(0), scf.RHF(lithium).run().make_rdm1(), atol=1e-6)
    with pytest.raises(InputError, match="at most 63 orbitals"):
        methods.check_possible(gto.M(atom="Li", spin=1, basis="aug-cc-pvqz", verbose=0), "FCI", False)
    with pytest.raises(InputError, match="do not fill 1 frozen"):
        methods.solve(gto.M(atom="Li", charge=2, spin=1, basis="6-31g", verbose=0), "CCSD", True)


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
        (('name = "Li+"', "name = 3"), "not a str"),
        (("charge = 1", 'charge = "1"'), "not a int"),
        (("charge = 1", "charge = true"), "not a int"),
        (('basis = "6-31g"', "basis = 6"), "not a str or a dict"),
        (('basis = "6-31g"', 'basis = "6-31g"\nfrozen_core = "yes"'), "not a bool"),
        (('description = "test"', 'energy = "x"'), "not a dict"),
        (("[0.7, 1.5]", "[]"), "is empty"),
        (('basis = "6-31g"', "basis = {Li = 6}"), "neither a name nor a table"),
        (("[[system]]", '[energy]\nmethod = "HF"\nbases = [["6-31g"]]\n[[system]]'), "neither a name nor a table"),
        (("[[system]]", '[energy]\nmethod = "HF"\nbases = "6-31g"\n[[system]]'), "not a list"),
        (("[[system]]", '[energy]\nmethod = "HF"\nbases = ["6-31g"]\ncardinal = "3"\n[[system]]'), "not a int"),
        (("[[system]]", '[energy]\nmethod = "HF"\nbases = ["6-31g"]\ncardinal = 1\n[[system]]'), "smaller basis"),
        (('description = "test"', 'optimize = "b3lyp"'), "functional and a basis"),
        (("R = [0.7", "S = [0.7"), "no {S} is in"),
        (
            ("[[system]]", '[energy]\nmethod = "CCSD"\nbases = ["6-31g"]\ncore_basis = "6-31g"\n[[system]]'),
            "frozen_core",
        ),
    ],
)
def test_faulty_recipe_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        read_recipe_text(RECIPE.replace(*change, 1))


def test_systems_that_are_no_tables_are_refused():
    with pytest.raises(InputError, match="'H2', not a table below a line"):
        read_recipe_text('system = ["H2"]\n[density]\nmethod = "HF"\nbasis = "6-31g"\n')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('basis = "6-31g"', 'basis = {Li = "6-31g"}'), "H2 R=0.7: basis .* has nothing for H"),
        (("[0.7,", "[0.01,"), "H2 R=0.01: atoms 1 and 2 lie on top"),
        (('method = "CCSD"\nbasis = "6-31g"', 'method = "CCSD"\nbasis = "6-32g"'), "Li: basis '6-32g' is unknown"),
        (('atoms = "Li"', 'atoms = "U"'), "Li[+]: basis '6-31g' is unknown or lacks one of U"),
        (('basis = "6-31g"', 'basis = "def2-svp"\n[[system]]\nname = "I"'), "I: def2-svp has core potentials"),
        (('atoms = "Li"', 'atoms = "Li 0 0 0; H 0 0 2"\noptimize = "b9/sto-3g"'), "Li[+]: unknown functional 'b9'"),
        (
            ("charge = 1\ndensity = {", 'charge = -7\ndensity = {basis = "cc-pvtz", '),
            "Li[+]: full CI of [(]5, 5[)] electrons",
        ),
    ],
)
def test_what_cannot_be_computed_is_known_before(tmp_path, change, message):
    recipe = Recipe("", read_recipe_text(RECIPE.replace(*change, 1)))
    with pytest.raises(InputError, match=f"none was started: {message}"):
        build(recipe, tmp_path / "out.h5")


def test_bases_without_a_core_basis_need_one_only_where_there_are_cores():
    energy = '[energy]\nmethod = "CCSD"\nbases = ["6-31g"]\nfrozen_core = true\ncore_basis = "cc-pcvdz"\n[[system]]'
    faults = {t.name: t.fault() for t in read_recipe_text(RECIPE.replace("[[system]]", energy, 1))}
    assert faults == {"Li": "", "Li+": "", "H2 R=0.7": "", "H2 R=1.5": ""}  # cc-pCVDZ has no H
