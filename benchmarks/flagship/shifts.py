"""References for a hydrogen that moves from one atom to another of its molecule: barriers of 1,2 and 1,3 shifts.

    python benchmarks/flagship/shifts.py --out benchmarks/flagship/shifts

Minima and transition states of PBE0/def2-SVP, each a stationary point with no or one imaginary frequency, are in
`shifts/geometries.json`; those of WCPT18 are not among them.  CCSD(T) as in `protons.py`, what is beyond second order
in cc-pVTZ.  An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from protons import energy
from rows import Rows

#: What a molecule's name is followed by where it stands for its transition state.
BARRIER = " shift"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = Rows("shifts", args.out, partial(energy, higher_in="cc-pvtz"))
    geometries = json.loads((Path(__file__).with_name("shifts") / "geometries.json").read_text())
    for name, atoms in geometries.items():
        rows.add_system(name, [(s, tuple(x)) for s, *x in atoms], 0)
        if name.endswith(BARRIER):
            rows.add_reaction(name, {name: 1, name.removesuffix(BARRIER): -1})
    rows.write()


if __name__ == "__main__":
    main()
