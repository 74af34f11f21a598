"""`mlxc bench`: benchmark sets by self-consistent calculations with several functionals, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyscf
from pyscf import gto

from mlxc import models
from mlxc.bench import report
from mlxc.bench.judge import judged
from mlxc.bench.protocol import PROTOCOLS, Protocol
from mlxc.bench.species import Species, compute
from mlxc.bench.suite import load
from mlxc.errors import BREAKS, InputError, MlxcError
from mlxc.files import make_folder
from mlxc.version import __version__
from mlxc.workers import results


def bench(
    data: Path | None,
    xcs: list[str],
    out: Path,
    sets: Iterable[str] = (),
    role: str | None = None,
    elements: Iterable[str] = (),
    max_heavy: int | None = None,
    protocol: str = "standard",
    basis: str | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Compute, print the table, and write the files of `mlxc.bench.report` into `out`; returns what report.json holds.

    data : a folder of systems.jsonl, reactions.jsonl and properties.jsonl, one of GMTKN55's layout, a file of reference
        data, or None for those that come with mlxc
    sets, role, elements, max_heavy : the rows to compute (`Suite.chosen`), all by default
    basis : instead of the protocol's
    jobs, scheduler : local processes, which share the cores, or the address of a Dask cluster

    Every species has a file in `out`/species, from which an interrupted run goes on.  Raises InputError and its
    relatives before anything is computed.
    """
    settings = _settings(protocol, basis)
    suite = load(data).chosen(sets, role, elements, max_heavy)
    functionals = {xc: _checked(xc, settings) for xc in dict.fromkeys(xcs)}
    needed = suite.needed()
    tasks = {
        (xc, key): Species(
            system, xc, sha256, settings, extras, suite.references[system.id] if "density" in extras else None
        )
        for xc, sha256 in functionals.items()
        for key, (system, extras) in needed.items()
    }
    for system, _ in needed.values():  # a basis that lacks an element
        atoms = list(zip(system.symbols, system.coords, strict=True))
        settings.mole(atoms, system.charge, system.multiplicity - 1)
    folder = out / "species"
    make_folder(folder)
    known = {k: found for k, task in tasks.items() if (found := task.stored(folder)) is not None}
    waiting = sorted((t for k, t in tasks.items() if k not in known), key=lambda t: -t.cost)
    if waiting:
        keys = {id(t): k for k, t in tasks.items()}
        threads = None if scheduler else max(1, (os.cpu_count() or 1) // jobs)
        for task, result in results(
            partial(compute, threads=threads), waiting, jobs, scheduler, len(known), extra="bench"
        ):
            if isinstance(result, MlxcError):
                raise result
            if isinstance(result, BaseException):
                result = {"converged": False, "rung": "none", "faults": [f"the worker failed: {result!r}"]}
            else:
                task.store(folder, result)
            known[keys[id(task)]] = result
    found = {
        "mlxc": __version__,
        "pyscf": pyscf.__version__,
        "data": suite.name,
        "protocol": settings.settings(),
        "functionals": [
            {"name": models.describe(xc)["name"] if sha256 else xc, "xc": xc, "sha256": sha256}
            | judged(suite, {k: known[xc, k] for k in needed})
            for xc, sha256 in functionals.items()
        ],
    }
    times = {xc: {needed[k][0].id: known[xc, k].get("wall_s") for k in needed} for xc in functionals}
    print(report.table(found))
    print(*report.write(out, found, times), sep="\n")
    return found


def _settings(protocol: str, basis: str | None) -> Protocol:
    if protocol not in PROTOCOLS:
        raise InputError(f"no protocol {protocol!r}: there are {', '.join(PROTOCOLS)}")
    settings = PROTOCOLS[protocol]
    return replace(settings, name=f"{protocol}, {basis}", basis=basis) if basis else settings


def _checked(xc: str, protocol: Protocol) -> str | None:
    """The hash of a model's weights, None for others, once a helium atom has shown that PySCF can run it.

    A dispersion correction without its package or parameters is found so.
    """
    models.resolve(xc)
    helium = gto.M(atom="He", basis="def2-svp", verbose=0)
    try:
        mf = protocol.calculation(helium, xc)
        mf.grids.level = mf.nlcgrids.level = 0
        mf.kernel()
    except MlxcError:
        raise
    except (ImportError, NotImplementedError, *BREAKS) as err:
        more = "; dispersion corrections need pip install 'mlxc[bench]'" if "-d" in xc.lower() else ""
        raise InputError(f"PySCF cannot run {xc!r}: {err or type(err).__name__}{more}") from err
    return models.sha256(xc)
