"""The documentation: Markdown of docs/ and of the top folder, built by Sphinx as `make docs` says.

The top folder is the source, so that links between pages, to scripts and to records are the same here and in a viewer
of the repository.  Nothing on a page comes from a network: the theme brings its own files, MathJax is a package.
"""

import re

from mlxc.version import __version__

project = "mlxc"
copyright = "the mlxc authors, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx-mathjax-offline", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "data/README.md", "benchmarks/flagship/README.md"]
exclude_patterns = [".*", "build", "dist", "mlxc", "tests"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints = "none"

html_theme = "furo"
html_title = f"mlxc {release}"
html_extra_path = ["top"]
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_show_sphinx = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"

#: A row of a list like that of arguments: names, two spaces or more, what they are.
_ROW = re.compile(r"^[\w*, /]+?(?: {2,}| : )\S")


def _as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text: aligned lists stay as they are, single backticks are code, and nothing is markup."""
    out = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        rows = [line for line in paragraph.splitlines() if not set(line) <= set("- ")]
        if sum(bool(_ROW.match(line)) for line in rows) >= 2 or paragraph.startswith("    "):
            out += ["::", "", *(f"    {line}" for line in rows), ""]
        else:
            pieces = re.split(r"`+([^`]+)`+", "\n".join(rows))  # text and code in turn
            pieces[::2] = [re.sub(r"([\\*|_])", r"\\\1", piece) for piece in pieces[::2]]
            pieces[1::2] = [rf"``{piece}``\ " for piece in pieces[1::2]]
            out += ["".join(pieces), ""]
    lines[:] = "\n".join(out).splitlines()


def setup(app) -> None:
    app.connect("autodoc-process-docstring", _as_rst)
