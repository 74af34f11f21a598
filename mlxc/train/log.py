"""What a training run says of itself: a line of the terminal for each look, and all of them as a table."""

from __future__ import annotations

import csv
import io
import math
from typing import Any


def look_line(
    row: dict[str, Any], losses: dict[str, float], maes: dict[str, float], steps: int, rows: str, left: float
) -> str:
    """A look of a phase of so many steps for people.

    row    : kind, step, objective, judgement and scf_failures
    losses : of the last step, with their weights; empty before the first
    maes   : of the sets of `rows` ("kept out" or "trained on"), kcal/mol
    left   : seconds to the end of the phase, nan where that is not known
    """
    shown = "  ".join(f"{k} {v:.3g}" for k, v in losses.items())
    errors = ", ".join(f"{s} {m:.2f}" for s, m in maes.items())
    return (
        f"{row['kind']} {row['step']}/{steps}"
        + (f"  objective {row['objective']:.4g} ({shown})" if losses else "")
        + f"  judged {row['judgement']:.4g}"
        + (f" ({rows}, kcal/mol: {errors})" if maes else "")
        + f"  SCF failures {row['scf_failures']}"
        + (f"  {left / 60:.0f} min left" if math.isfinite(left) else "")
    )


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV, with the columns of all of them."""
    columns = list(dict.fromkeys(k for row in rows for k in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
