"""`mlxc bench`: benchmark sets by self-consistent calculations with several functionals, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyscf
from pyscf import gto

from mlxc import models
from mlxc.bench.judge import judged
from mlxc.bench.outputs import write
from mlxc.bench.protocol import PROTOCOLS, Protocol
from mlxc.bench.quantities import Result
from mlxc.bench.report import table
from mlxc.bench.species import Species, compute_all, identity_of
from mlxc.bench.suite import Suite, load
from mlxc.errors import InputError, run_by_pyscf
from mlxc.extras import need
from mlxc.files import check_writable, make_folder, sole_use
from mlxc.version import __version__


def bench(
    data: Path | None,
    xcs: list[str],
    out: Path,
    sets: Iterable[str] = (),
    role: str | None = None,
    elements: Iterable[str] = (),
    max_heavy: int | None = None,
    min_heavy: int = 0,
    protocol: str = "standard",
    basis: str | None = None,
    broken_symmetry: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Compute, print the table, and write the files of `mlxc.bench.outputs` into `out`; returns what report.json holds.

    data : a folder of systems.jsonl, reactions.jsonl and properties.jsonl, one of GMTKN55's layout, a file of reference
        data, or None for those that come with mlxc
    sets, role, elements, max_heavy, min_heavy : the rows to compute (`Suite.chosen`), all by default
    protocol, basis, broken_symmetry : a name of PROTOCOLS, and what to change in it
    jobs, scheduler : local processes, which share the threads (OMP_NUM_THREADS), or the address of a Dask cluster

    Every species has a file in `out`/species, from which an interrupted run goes on.  Raises InputError and its
    relatives before anything is computed, and where a worker or the folder is lost.
    """
    need("the report", "bench", "matplotlib")
    settings = _settings(protocol, basis, broken_symmetry)
    suite = load(data).chosen(sets, role, elements, max_heavy, min_heavy)
    functionals = _checked(xcs, settings)
    needed = suite.needed()
    for id in needed:  # a basis that lacks an element
        suite.systems[id].mole(settings.basis)
    if any("minimum" in extras for extras in needed.values()):
        need("geometry optimisation", "bench", "geometric")
    species = [
        Species(
            suite.systems[id], xc, identity, settings, frozenset(extras),
            {id: suite.references[id]} if "density" in extras else {},
        )
        for xc, identity in functionals.items()
        for id, extras in needed.items()
    ]  # fmt: skip
    with sole_use(out):
        folder = out / "species"
        make_folder(folder)
        check_writable(folder / "result.json")
        found = compute_all(species, folder, jobs, scheduler)
        content, times = _content(suite, settings, functionals, list(needed), found)
        print(table(content))
        print(*write(out, content, times), sep="\n")
    return content


def _content(
    suite: Suite, settings: Protocol, functionals: dict[str, dict[str, Any]], needed: list[str], found: list[Result]
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """What report.json and timings.json hold, from the results of each functional for all species that are needed."""
    by_xc = {xc: dict(zip(needed, found[k * len(needed) :], strict=False)) for k, xc in enumerate(functionals)}
    names = {xc: models.describe(xc)["name"] if "sha256" in of else xc for xc, of in functionals.items()}
    often = Counter(names.values())  # members of an ensemble have its name
    content = {
        "mlxc": __version__,
        "pyscf": pyscf.__version__,
        "data": suite.name,
        "choice": suite.choice,
        "protocol": settings.settings(),
        "functionals": [
            {"name": names[xc] if often[names[xc]] == 1 else xc, **identity, "xc": xc} | judged(suite, by_xc[xc], xc)
            for xc, identity in functionals.items()
        ],
    }
    times = {xc: {id: r["wall_s"] for id, r in results.items() if "wall_s" in r} for xc, results in by_xc.items()}
    return content, times


def _settings(name: str, basis: str | None, broken_symmetry: bool) -> Protocol:
    if name not in PROTOCOLS:
        raise InputError(f"no protocol {name!r}: there are {', '.join(PROTOCOLS)}")
    settings = PROTOCOLS[name]
    if basis:
        settings = replace(settings, name=f"{settings.name}, {basis}", basis=basis)
    if broken_symmetry:
        settings = replace(settings, name=f"{settings.name}, broken symmetry", broken_symmetry=True)
    return settings


def _checked(xcs: list[str], protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Each functional once, with what its results depend on, after a helium atom has shown that PySCF can run it.

    A dispersion correction without its package or parameters is found so.
    """
    found: dict[str, dict[str, Any]] = {}
    for xc in xcs:
        functional = models.resolve(xc)
        identity = identity_of(xc)
        if identity in found.values():
            continue
        helium = gto.M(atom="He", basis="def2-svp", verbose=0)
        with run_by_pyscf(xc, ours=functional is not None):
            mf = protocol.calculation(helium, xc)
            mf.grids.level = mf.nlcgrids.level = 0
            mf.kernel()
        found[xc] = identity
    if not found:
        raise InputError("no functional is given: --xc takes names with commas between them")
    return found
