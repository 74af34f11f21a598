"""Benchmark folders: JSON lines and GMTKN55's layout, made here, read, checked and converted."""

import json
import re
from dataclasses import replace

import pytest

from mlxc.cli import main
from mlxc.errors import InputError
from mlxc.reference.benchmark import Property, Reaction, System, faults, graph_key
from mlxc.reference.folders import read_benchmark, read_properties, read_reactions, read_systems, write_folder
from mlxc.reference.gmtkn55 import expanded, read_gmtkn55

BOHR = 0.529177210544
HEAD = 'if [ "$TMER" == "" ]\nthen\n  tmer=tmer2++\nelse\n  tmer=$TMER\nfi\nf=$1\nw=$2\n\n'
MOLECULES = {
    "BOND/h2": "2\n\nH 0 0 0\nH 0 0 0.74\n",
    "BOND/h": "1\n\nH 0 0 0\n",
    "BOND/h2p": "2\n\nH 0 0 0\nH 0 0 1.06\n",
    "BOND/he": "1\n\nHe 0 0 0\n",
    "BOND/heh": "2\n\nHe 0 0 0\nH 0 0 0.77\n",
}
TABLES = {
    "BOND/.res": """# comment
$tmer {h2,h}/$f  x -1 2 $w 109.493  0 1 # trailing
tmer2++ h2{,p}/$f x -1 1 $w 355.0
$tmer  he/$f  heh/$f  x 1 -1  $w 42.5
""",
    "BOND/.resRC": "$tmer {h,h2}/$f x -2 1 $w -109.5\n",
    "SHIFT/.res": """d0=$( $tmer {E,P}1/$f x -1 1 $w $d0 | awk '{ print $6; }' )
$tmer {E,P}2/$f x -1 1 $w $d0 -15.3
""",
}


@pytest.fixture
def gmtkn55(tmp_path):
    """A small collection of GMTKN55's layout."""
    for name, text in MOLECULES.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "struc.xyz").write_text(text)
    for name in ("E1", "P1", "E2", "P2"):
        (tmp_path / "SHIFT" / name).mkdir(parents=True)
        z = {"E1": 1.0, "P1": 1.5, "E2": 2.0, "P2": 2.5}[name]
        coord = f"$coord\n 0.0 0.0 0.0 h\n 0.0 0.0 {z} h\n$eht charge=0 unpaired=0\n$end\n"
        (tmp_path / "SHIFT" / name / "coord").write_text(coord)
    for name, text in TABLES.items():
        (tmp_path / name).write_text(HEAD + text)
    for name in ("h", "h2p"):
        (tmp_path / "BOND" / name / ".UHF").write_text("1\n")
    for name in ("h2p", "heh"):
        (tmp_path / "BOND" / name / ".CHRG").write_text("1")
    (tmp_path / ".res").write_text("#!/usr/bin/env bash\nbash .res $func\n")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("h2o/$f", ["h2o/$f"]),
        ("{A,B}/$f", ["A/$f", "B/$f"]),
        ("1{,A,B}", ["1", "1A", "1B"]),
        ("B_{T,G}", ["B_T", "B_G"]),
        ("{a,b}{1,2}", ["a1", "a2", "b1", "b2"]),
    ],
)
def test_braces_are_the_shells(word, words):
    assert list(expanded(word)) == words


def test_gmtkn55_layout(gmtkn55):
    systems, reactions = read_gmtkn55(gmtkn55)
    rows = {r.name: (r.stoichiometry, r.ref_kcal) for r in reactions}
    assert rows == {
        "BOND_1": ({"BOND/h2": -1, "BOND/h": 2}, 109.493),
        "BOND_2": ({"BOND/h2": -1, "BOND/h2p": 1}, 355.0),
        "BOND_3": ({"BOND/he": 1, "BOND/heh": -1}, 42.5),
        "BONDRC_1": ({"BOND/h": -2, "BOND/h2": 1}, -109.5),
        "SHIFT_1": ({"SHIFT/E2": -1, "SHIFT/P2": 1, "SHIFT/E1": 1, "SHIFT/P1": -1}, -15.3),
    }
    assert (systems["BOND/h2p"].charge, systems["BOND/h2p"].multiplicity) == (1, 2)
    assert (systems["BOND/heh"].charge, systems["BOND/heh"].multiplicity) == (1, 1)
    assert systems["SHIFT/P2"].coords[1] == pytest.approx((0, 0, 2.5 * BOHR), abs=1e-6)
    assert not faults(systems, reactions)
    one_set, rows = read_gmtkn55(gmtkn55 / "SHIFT")
    assert one_set == {k: s for k, s in systems.items() if k.startswith("SHIFT/")}
    assert rows == reactions[-1:]


def test_import_converts_and_what_was_converted_is_read_again(gmtkn55, tmp_path, capsys):
    out = tmp_path / "converted"
    assert main(["reference", "import", str(gmtkn55), "--out", str(out)]) == 0
    assert "9 systems, 5 reactions" in capsys.readouterr().out
    assert read_benchmark(out) == read_gmtkn55(gmtkn55)
    assert {r.role for r in read_reactions(out)} == {"dev"}  # nothing is trained on unless someone says so
    assert main(["reference", "import", str(out)]) == 0
    assert "BONDRC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("BOND/.res", "x -1 2 $w", "x -1 $w", "line 11: 1 coefficients and more species"),
        ("BOND/.res", "$w 355.0", "", "line 12: expected"),
        ("BOND/.res", "$w 355.0", "$w $lost 1.0", "not a number"),
        ("BOND/.res", "{h2,h}/", "{h2,missing}/", "neither struc.xyz nor coord"),
        ("BOND/.res", "x -1 2 $w", "x -1 1 $w", "BOND_1: nuclei of H on one side only"),
        ("BOND/.res", "he/$f  heh/$f  x 1 -1  $w 42.5", "h/$f x -1 $w 313.6", None),  # to a proton
        ("BOND/.res", "$w 42.5", "$w 42.5kcal", "not a number"),
        ("BOND/.res", "heh/$f  x 1 -1", "heh/$f  x 2 -1", "nuclei of He on one side only"),
        ("BOND/h/.UHF", "1", "one", "whole number"),
        ("BOND/h/.UHF", "1", "2", "1 electrons cannot have multiplicity 3"),
        ("SHIFT/E1/coord", "$coord", "$grad", "Turbomole"),
        ("SHIFT/E1/coord", "0.0 0.0 1.0 h", "0.0 0.0 h", "Turbomole"),
        ("SHIFT/E1/coord", "1.0", "0.01", "on top of each other"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(gmtkn55, capsys, file, old, new, message):
    path = gmtkn55 / file
    path.write_text(path.read_text().replace(old, new))
    status = main(["reference", "import", str(gmtkn55)])
    if message is None:
        assert status == 0
    else:
        assert status == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("reactions.jsonl", ": -1", ": -0.5"),
        ("systems.jsonl", '"charge": 0', '"charge": 0.5'),
        ("systems.jsonl", '"multiplicity": 1', '"multiplicity": 1.5'),
    ],
)
def test_parts_of_whole_numbers_are_refused(gmtkn55, tmp_path, capsys, file, old, new):
    out = tmp_path / "json"
    write_folder(out, *read_gmtkn55(gmtkn55))
    text = (out / file).read_text()
    assert old in text
    (out / file).write_text(text.replace(old, new, 1))
    assert main(["reference", "import", str(out)]) == 2
    assert "is not a whole number" in capsys.readouterr().err


def test_properties_come_with_what_is_imported(gmtkn55, tmp_path):
    out, again = tmp_path / "json", tmp_path / "again"
    systems, reactions = read_gmtkn55(gmtkn55)
    write_folder(out, systems, reactions, [Property("dipoles", next(iter(systems)), "dipole_norm", 1.5, "debye")])
    assert main(["reference", "import", str(out), "--out", str(again)]) == 0
    assert [p.value for p in read_properties(again)] == [1.5]
    write_folder(again, systems, reactions)
    assert read_properties(again) == []


def test_what_training_has_seen_is_true_or_false(gmtkn55, tmp_path):
    write_folder(tmp_path, *read_gmtkn55(gmtkn55))
    path = tmp_path / "reactions.jsonl"
    path.write_text(path.read_text().replace('"seen_in_training": false', '"seen_in_training": "false"'))
    with pytest.raises(InputError, match="true or false"):
        read_reactions(tmp_path)


def test_derived_columns_are_worked_out(gmtkn55, tmp_path, capsys):
    out = tmp_path / "json"
    write_folder(out, *read_gmtkn55(gmtkn55))
    systems = read_systems(out)
    rows = [json.loads(line) for line in (out / "systems.jsonl").read_text().splitlines()]
    short = [{k: v for k, v in row.items() if k not in ("nheavy", "graph_key")} for row in rows]
    (out / "systems.jsonl").write_text("\n".join(map(json.dumps, short)))
    assert read_systems(out) == systems
    others = [{**row, "graph_key": f"{row['id']} of another program"} for row in rows]
    (out / "systems.jsonl").write_text("\n".join(map(json.dumps, others)))
    assert read_systems(out) == systems
    (out / "systems.jsonl").write_text("\n".join(map(json.dumps, [*short, short[0]])))
    with pytest.raises(InputError, match=f"several systems called {re.escape(short[0]['id'])}"):
        read_systems(out)
    for change in ({"charge": None}, {"charge": "x"}, {"symbols": 5}, {"coords_angstrom": [["a", 0, 0]]}):
        (out / "systems.jsonl").write_text("\n".join(map(json.dumps, [short[0], {**short[1], **change}])))
        with pytest.raises(InputError, match="line 2 is not a row as expected"):
            read_systems(out)
    for text in ("{", "[]", '{"set": "A"}', '{"stoichiometry": [1]}', '{"stoichiometry": {}, "ref_kcal": "x"}'):
        (out / "reactions.jsonl").write_text(text)
        with pytest.raises(InputError, match="line 1 is not a row as expected"):
            read_reactions(out)
    assert main(["reference", "import", str(tmp_path / "nowhere")]) == 2
    assert "neither systems.jsonl nor" in capsys.readouterr().err


def test_graph_key_knows_isomers_and_not_conformers():
    water = [(0, 0, 0), (0, 0.757, 0.587), (0, -0.757, 0.587)]
    key = graph_key(["O", "H", "H"], water, 0, 1)
    assert key.startswith("H2O|0|1|")
    assert graph_key(["H", "O", "H"], [water[1], water[0], water[2]], 0, 1) == key
    assert graph_key(["O", "H", "H"], [(0, 0, 0), (0, 0, 0.97), (0, 0.97, 0)], 0, 1) == key
    assert graph_key(["O", "H", "H"], [(0, 0, 0), (0, 0, 0.97), (0, 0, 5)], 0, 1) != key
    assert graph_key(["C", "H", "N", "O"], [(0, 0, 9 * k) for k in range(4)], 0, 1).startswith("CHNO|")


def test_faults_of_systems():
    good = System("x", 0, 1, ("H", "H"), ((0, 0, 0), (0, 0, 1)), 0, "")
    assert not faults({"x": good}, [])
    for change, message in (
        ({"symbols": ("H", "Q")}, "Q is not an element"),
        ({"coords": ((0, 0, 0), (0, 0))}, "three numbers"),
        ({"coords": ((0, 0, 0), (0, 0, float("nan")))}, "three numbers"),
        ({"multiplicity": 2}, "multiplicity 2"),
        ({"charge": 2}, "0 electrons"),
    ):
        (found,) = faults({"x": replace(good, **change)}, [])
        assert message in found


def test_hydrogen_may_be_missing_from_its_ionization_alone():
    h = System("h", 0, 2, ("H",), ((0, 0, 0),), 0, "")
    h2 = System("h2", 0, 1, ("H", "H"), ((0, 0, 0), (0, 0, 1)), 0, "")
    systems = {"h": h, "h2": h2}
    assert not faults(systems, [Reaction("A", "ip", {"h": -1}, 313.6, "train")])
    (found,) = faults(systems, [Reaction("A", "bond", {"h2": -1}, 109.5, "train")])
    assert "nuclei of H on one side only" in found
