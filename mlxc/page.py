"""Pages of HTML that need nothing outside them: the style and the figures of all reports."""

from __future__ import annotations

import io
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.4 sans-serif; margin: 2em auto; max-width: 72em; color: #222 }
table { border-collapse: collapse } td, th { padding: .2em .6em; border: 1px solid #ccc; text-align: left }
td.number { text-align: right } td.best { background: #d9f2d9 }
td.pass { background: #d9f2d9 } td.fail { background: #f9d9d6 } td.not { background: #eee; color: #777 }
td.unknown { background: #fff3c4 } section { margin-top: 2.5em } svg { max-width: 100%; height: auto }
.small { font-size: 85%; color: #555 }
"""


def svg(figure: Any) -> str:
    """A figure of matplotlib as an SVG element; the same figure gives the same text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mlxc"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue().split("?>", 1)[1].split(">", 1)[1]


def page(title: str, body: str) -> str:
    """A page."""
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )
