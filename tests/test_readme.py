"""What README and the pages of docs/ show in Python runs."""

import logging
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Blocks with this need what the tests do not have: a cluster.
ELSEWHERE = "dask_jobqueue"
PAGES = {
    page: blocks
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if (blocks := re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
}


def test_readme_has_examples():
    assert len(PAGES[ROOT / "README.md"]) > 2


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_python_blocks_run(page, monkeypatch, tmp_path):
    """One after the other with the same names, in a smaller basis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])  # geomeTRIC, asked through PySCF, sets up its own
    names: dict = {}
    for block in PAGES[page]:
        if ELSEWHERE not in block:
            exec(compile(block.replace("def2-tzvp", "def2-svp"), str(page), "exec"), names)
