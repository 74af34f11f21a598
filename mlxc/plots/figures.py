"""How all pictures look, and how they become files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlxc.errors import InputError
from mlxc.extras import need
from mlxc.files import make_folder, write_atomic

#: Colours that people with any colour vision tell apart: Okabe, Ito, "Color Universal Design" (2008), without the
#: yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Of the first functionals, of those after them, and so on.
LINES = ("-", "--", ":")
#: What all functionals are compared with.
EXACT = {"color": "black", "linestyle": "-", "linewidth": 3.0, "zorder": 1.5}
MARKER = 3.5
#: Colours of a quantity that grows, and of one with a sign.
GROWING, SIGNED = "cividis", "RdBu_r"


@contextmanager
def style() -> Iterator[None]:
    """Figures made and written inside look alike, and the same figure gives the same file."""
    need("a plot", "plot", "matplotlib")
    import matplotlib
    from cycler import cycler

    lines = cycler(linestyle=LINES) * cycler(color=COLOURS)
    with matplotlib.rc_context(
        {
            "axes.prop_cycle": lines, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10.0,
            "axes.titlesize": 10.0, "legend.frameon": False, "lines.linewidth": 1.6, "svg.hashsalt": "mlxc",
        }
    ):  # fmt: skip
        yield


def line(k: int) -> dict[str, Any]:
    """How the k-th functional's line looks in every panel: where lines coincide, those before it are wider."""
    colour, dashes = COLOURS[k % len(COLOURS)], LINES[k // len(COLOURS) % len(LINES)]
    return {"color": colour, "linestyle": dashes, "linewidth": max(2.6 - 0.6 * k, 0.9)}


def figure(width: float, height: float) -> Any:
    """An empty figure of matplotlib, inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def write(figures: dict[str, Any], out: Path) -> list[Path]:
    """Every figure, by its name, as a PNG and an SVG file in `out`.

    Raises InputError where that cannot be written, and, before anything is, where a name has a formula that is none.
    """
    contents = {}
    for name, drawn in figures.items():
        for form, settings in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
            file = io.BytesIO()
            try:
                drawn.savefig(file, format=form, **settings)
            except ValueError as err:
                if "Parse" not in str(err):  # pyparsing's, of a formula
                    raise
                raise InputError(f"cannot draw {name}, what is between dollar signs is no formula: {err}") from err
            contents[out / f"{name}.{form}"] = file.getvalue()
    make_folder(out)
    for path, content in contents.items():
        write_atomic(path, content)
    return list(contents)
