"""Where the time of an SCF cycle of a local hybrid goes, and how far its products are from the machine's BLAS rate.

    OMP_NUM_THREADS=1 python benchmarks/breakdown.py [--cases benzene,naphthalene] [--out FILE.json]

One core, density fitting, Fock matrices for the occupied orbitals; the third Coulomb and exchange-correlation matrix of
a calculation, whose tables are there.  Rates count the multiplications and additions of the products alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
from pyscf import dft, gto, lib
from speed import CASES

import mlxc
from mlxc import integrate, models, pairs
from mlxc.exx import FittedExchange
from mlxc.files import write_atomic
from mlxc.integrate import Block, LocalHybridNumInt
from mlxc.tables import Group


class Clock:
    """Seconds and floating-point operations of the functions that it has wrapped, without those that they call."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self._inside = [0.0]

    def wrap(self, owner: Any, name: str, label: str, operations: Callable[..., int] | None = None) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent = time.perf_counter() - start
            self.seconds[label] += spent - self._inside.pop()
            self._inside[-1] += spent
            if operations is not None:
                self.operations[label] += operations(*args)
            return result

        setattr(owner, name, timed)


def group_products(group: Group, values: np.ndarray) -> int:
    """Operations of Group.spread and Group.gather on as many rows."""
    n, naux = group.table.shape
    interpolated = 0 if group.weights is None else len(group.weights)
    return 2 * len(values) * n * (naux + interpolated)


def gemm_rate(n: int = 2000) -> float:
    """Operations per second of a product of two matrices."""
    a = np.random.default_rng(0).normal(size=(n, n))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)


def breakdown(name: str, clock: Clock, rate: float) -> dict:
    """Share of every part in the time of one Fock matrix, and rates relative to `rate`."""
    atoms, basis, _ = CASES[name]
    mol = gto.M(atom=atoms, basis=basis, verbose=0)
    mf = mlxc.KS(mol).density_fit()
    dm = dft.RKS(mol, xc="pbe").density_fit().run(conv_tol=1e-6).make_rdm1()
    mf._numint = mf._numint.occupied()
    for _ in range(2):
        mf.get_veff(mol, dm)
    clock.seconds.clear()
    clock.operations.clear()
    start = time.perf_counter()
    mf.get_veff(mol, dm)
    total = time.perf_counter() - start
    seconds = {**clock.seconds, "everything else": total - sum(clock.seconds.values())}
    out = {
        "case": name,
        "nao": int(mol.nao),
        "seconds": round(total, 3),
        "share": {k: round(v / total, 3) for k, v in sorted(seconds.items(), key=lambda x: -x[1])},
        "of_gemm_rate": {k: round(n / clock.seconds[k] / rate, 2) for k, n in clock.operations.items()},
    }
    print(json.dumps(out, indent=2), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="benzene,naphthalene")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/breakdown.json"))
    args = parser.parse_args()
    lib.num_threads(1)
    rate, clock = gemm_rate(), Clock()
    clock.wrap(LocalHybridNumInt, "_evaluated", "basis functions on the grid")
    clock.wrap(Block, "__init__", "densities")
    clock.wrap(Block, "columns", "semilocal and local part of the Fock matrix")
    clock.wrap(Group, "spread", "pair potentials (products)", group_products)
    clock.wrap(Group, "gather_into", "their derivative (products)", lambda g, out, values: group_products(g, values))
    clock.wrap(pairs, "packed_product", "products of orbitals and pair potentials")
    clock.wrap(pairs, "packed_products", "products of orbitals")
    clock.wrap(integrate, "potentials_of", "functional and its derivatives")
    clock.wrap(FittedExchange, "transformed", "three-index integrals")
    clock.wrap(FittedExchange, "back_transformed", "three-index integrals")
    clock.wrap(FittedExchange, "solve", "solutions of the fit")
    clock.wrap(dft.rks.RKS, "get_j", "Coulomb matrix (PySCF)")
    record = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/breakdown.py --cases {args.cases}",
        "machine": f"{platform.machine()}, one of {os.cpu_count()} cores",
        "gemm_gflops": round(rate * 1e-9, 1),
        "pyscf": pyscf.__version__,
        "models": {"default": models.sha256("default")},
        "rows": [breakdown(name, clock, rate) for name in args.cases.split(",")],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
