"""What README, the pages and the examples show runs: Python in a smaller basis; commands are those that there are."""

import argparse
import json
import logging
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from pyscf.dft import gen_grid

from mlxc import cli
from mlxc.run import run
from mlxc.train.config import read_config
from mlxc.version import __version__

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "data", "benchmarks/flagship")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py")) + sorted((ROOT / "examples").glob("*.ipynb"))
#: Blocks with this need what the tests do not have: a cluster.
ELSEWHERE = "dask_jobqueue"
SMALLER = {"def2-tzvp": "sto-3g", "grids.level = 4": "grids.level = 2"}
SMALLER_EXAMPLES = SMALLER | {"def2-svp": "sto-3g", "(0.74, 1.2, 1.8, 2.4, 3.0)": "(0.74, 2.4)"}
#: Examples that take more than ten seconds even so.
LONG = ("excitations", "optimize", "scan")
SHORTER_TRAINING = {
    '"ionization"]': '"ionization"], elements=["H", "F"]', "def2-tzvp": "sto-3g", "def2-qzvpp": "6-31g",
    "grid_level = 2": "grid_level = 1", "grids = 100.0": "grids = 0", "mass = 10.0": "mass = 0",
    "adam = 100": "adam = 2", "lbfgs = 400": "lbfgs = 1", "adam = 20": "adam = 1", "batch = 8": "batch = 1",
}  # fmt: skip


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def commands(page: Path) -> list[list[str]]:
    """The arguments of every command of mlxc in the blocks of a page."""
    found = []
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if "mlxc" in words:
            found.append(words[words.index("mlxc") + 1 :])
    return found


def with_blocks(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.fixture
def coarse(monkeypatch, tmp_path):
    """An empty folder to work in, coarse grids, and no handler of geomeTRIC's log, which it sets up when PySCF asks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gen_grid.Grids, "level", 1)
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def test_pages_are_found():
    """The patterns above find what is known to be there."""
    assert len(blocks(ROOT / "README.md", "python")) > 2
    assert ["models", "mlxc-lh7"] in commands(ROOT / "README.md")
    assert len(EXAMPLES) > 5
    for page in PAGES:  # commands in a block without its language would not be looked at
        assert not re.search(r"^(    |```\n)(mlxc|torchrun) ", page.read_text(), re.MULTILINE), page


@pytest.mark.parametrize("page", with_blocks("python"), ids=name_of)
def test_python_blocks_run(page, coarse):
    """One after the other with the same names."""
    names: dict = {}
    for block in blocks(page, "python"):
        if ELSEWHERE not in block:
            exec(compile(replaced(block, SMALLER), str(page), "exec"), names)


@pytest.mark.parametrize("page", [p for p in with_blocks("sh") if commands(p)], ids=name_of)
def test_commands_are_there(page):
    """Argparse ends the process where a command or an option is not."""
    for arguments in commands(page):
        assert callable(cli._parser().parse_args(cli.completed(arguments)).action)


def options(parser: argparse.ArgumentParser, command: str = "mlxc") -> set[tuple[str, str]]:
    """Commands, those within commands too, and their options with two hyphens."""
    found = {(command, o) for a in parser._actions for o in a.option_strings if o.startswith("--")}
    within = [a.choices.items() for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return found.union(*(options(p, f"{command} {name}") for parsers in within for name, p in parsers))


def test_every_option_is_on_a_page_of_its_command():
    found = {(command, option) for command, option in options(cli._parser()) if option != "--help"}
    assert {("mlxc run", "--json"), ("mlxc reference build", "--again"), ("mlxc plot charge", "--points")} < found
    texts = [page.read_text() for page in PAGES if page.name not in ("CHANGELOG.md", "CONTRIBUTING.md")]

    def missing(command, option):
        named = [text for text in texts if command.removesuffix(" draw") in text]  # `mlxc plot DIR` stands for it
        return not any(re.search(rf"(?<![\w-]){option}(?![\w-])", text) for text in named)

    assert not {pair for pair in found if missing(*pair)}


def test_every_key_of_a_run_is_on_a_page(coarse):
    """And no other: with a model that has all that a model can have, and every task."""
    table = (ROOT / "docs" / "commands.md").read_text().split("| key |")[1].split("\n## ")[0]
    documented = {k for line in table.splitlines() for k in re.findall(r"`(\w+)`", line.split("|")[1])}
    Path("h2.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    keys = {"reason"}  # of a run that broke off: tests/test_cli.py
    for task in ("gradient", "optimize", "frequencies", "excitations"):
        keys |= run(Path("h2.xyz"), xc="mlxc-mgga3", basis="6-31g", task=task, states=1, stability=True).keys()
    assert keys == documented


@pytest.mark.parametrize("page", with_blocks("toml"), ids=name_of)
def test_configurations_are_understood(page, tmp_path):
    for block in blocks(page, "toml"):
        path = tmp_path / "my.toml"
        path.write_text(block)
        assert read_config(path).phase
    for path in (ROOT / "examples" / "train.toml", *(ROOT / "benchmarks" / "flagship").glob("*.toml")):
        assert read_config(path).phase


def source(path: Path) -> str:
    """The Python of a script or a notebook."""
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=pytest.mark.slow) if p.stem in LONG else p for p in EXAMPLES], ids=name_of
)
def test_examples_run(path, coarse, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [path.name])
    code = compile(replaced(source(path), SMALLER_EXAMPLES), str(path), "exec")
    exec(code, {"__name__": "__main__", "__file__": str(path)})
    assert capsys.readouterr().out


@pytest.mark.slow
def test_the_scan_breaks_symmetry(coarse, monkeypatch, capsys):
    """The loop of examples/scan.py with one distance: unrestricted H2 far apart is two atoms, restricted H2 is not."""
    path = ROOT / "examples" / "scan.py"
    text = replaced(source(path), SMALLER_EXAMPLES).replace("(0.74, 2.4)", "(3.0,)")
    exec(compile(text, str(path), "exec"), {"__name__": "__main__"})
    _, restricted, unrestricted, spin = map(float, capsys.readouterr().out.splitlines()[-1].split())
    assert abs(unrestricted) < 5 < restricted
    assert spin == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_the_tutorial_runs(coarse, capsys):
    """Every command of its own, with fewer rows and steps."""
    page = ROOT / "docs" / "tutorial.md"
    for block in blocks(page, "python"):
        exec(replaced(block, SHORTER_TRAINING), {})
    Path("my.toml").write_text(replaced(blocks(page, "toml")[0], SHORTER_TRAINING))
    Path("water.xyz").write_text((ROOT / "examples" / "water.xyz").read_text())
    trained = False
    for arguments in commands(page):
        if arguments[0] == "train":
            if not trained:
                assert cli.main(["train", "my.toml"]) == 0
            trained = True
        elif arguments[0] not in ("bench", "check"):
            assert cli.main([*arguments, *(["--basis", "sto-3g"] if arguments[0] == "run" else [])]) == 0
    assert len(list(Path("my-functional").glob("*.png"))) == 4


def test_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == __version__
    assert __version__ in (ROOT / "CHANGELOG.md").read_text()
