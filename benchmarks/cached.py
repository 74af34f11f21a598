"""Errors of functionals at densities that training has cached, without an SCF.

    python benchmarks/cached.py --data FOLDER --cache CACHE --xc mlxc-lh7-d4,mlxc-mgga3-d4 --sets W4-17 --least-heavy 5

CACHE is the `cache` of `mlxc train`, or what `python -m mlxc.train.cache` has filled.  Rows all of whose species are
there count, if one of them has so many heavy atoms.  Energies are r2SCAN's and what the functional changes them by.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mlxc import models
from mlxc.errors import InputError
from mlxc.reference.benchmark import Reaction
from mlxc.reference.folders import read_benchmark
from mlxc.train.dataset import Dataset
from mlxc.train.densities import FixedDensities


def errors(
    folder: Path, cache: Path, names: list[str], sets: list[str], least_heavy: int
) -> tuple[list[Reaction], dict[str, torch.Tensor]]:
    """The rows, and the errors of r2SCAN and of each functional, kcal/mol.  Raises InputError."""
    systems, reactions = read_benchmark(folder)
    data = Dataset(systems, [r for r in reactions if r.set in sets])
    densities = FixedDensities(data.species, cache)
    rows = [
        r
        for r in data.complete(data.inside, densities.known)
        if max(systems[i].nheavy for i in r.stoichiometry) >= least_heavy
    ]
    needed = {systems[i].key for r in rows for i in r.stoichiometry}
    densities.known &= torch.tensor([s.key in needed for s in data.species])
    energies = {"r2scan": densities.e_r2scan}
    for name in names:
        functional = models.resolve(name)
        if functional is None:
            raise InputError(f"{name} is no functional of mlxc")
        energies[name] = densities.full_grid(functional)
    return rows, {name: data.errors(rows, e) for name, e in energies.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--xc", type=lambda s: s.split(","), required=True)
    parser.add_argument("--sets", type=lambda s: s.split(","), required=True)
    parser.add_argument("--least-heavy", type=int, default=0)
    args = parser.parse_args()
    rows, found = errors(args.data, args.cache, args.xc, args.sets, args.least_heavy)
    for k, row in enumerate(rows):
        print(f"{row.set} {row.name:16s}", *(f"{name} {e[k]:7.2f}" for name, e in found.items()))
    for s in args.sets:
        mine = [r.set == s for r in rows]
        for name, e in found.items():
            print(f"{s} {name:20s} {sum(mine)} rows, MAE {e[mine].abs().mean():.2f}, ME {e[mine].mean():.2f}")


if __name__ == "__main__":
    main()
