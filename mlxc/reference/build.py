"""Building references: one task per system, on Dask workers, each result written as soon as it is there.

Finished systems wait in `OUT.parts/`, one file each, until all are there and OUT is written; a killed build goes on
from them, and from an OUT of an earlier version of the recipe.
"""

from __future__ import annotations

import platform
import shutil
import time
import warnings
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pyscf import dft, gto, lib
from pyscf.data.nist import BOHR

from mlxc.errors import BREAKS, ConvergenceError, InputError, MlxcError, ReferenceFileError
from mlxc.files import sole_use, write_atomic
from mlxc.optimization import optimize
from mlxc.reference import methods, store
from mlxc.reference.recipe import Recipe
from mlxc.reference.schema import CONVERGED, Reference
from mlxc.reference.task import Task
from mlxc.workers import results


def build_system(task: Task, max_memory: float | None = None) -> Reference:
    """Compute one system within so many MB (PySCF's setting by default).

    Whatever does not converge is an outcome; of the energies called `best`, one that provenance["best"] names.
    Raises InputError for what cannot be computed.
    """
    start = time.perf_counter()
    reference = _compute(task, max_memory)
    provenance = {
        "task": task.hash,
        "geometry": task.optimize or "as given",
        "max_memory_mb": max_memory or lib.param.MAX_MEMORY,
        "versions": {name: version(name) for name in ("mlxc", "pyscf", "numpy", "scipy")},
        "machine": platform.machine(),
        "wall_s": round(time.perf_counter() - start, 1),
        "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }
    return replace(reference, provenance=provenance | reference.provenance)


def _mole(task: Task, coords: np.ndarray, basis: Any, max_memory: float | None) -> gto.Mole:
    """The molecule of a task at coordinates (natm, 3) in Angstrom, within so many MB."""
    mol = task.mole(basis, coords)
    mol.max_memory = max_memory or mol.max_memory
    return mol


def _optimized(task: Task, max_memory: float | None) -> tuple[np.ndarray, bool]:
    """Coordinates (natm, 3) in Angstrom at a stationary point with the symmetry of the start, and whether it is one."""
    xc, basis = task.optimize.split("/")
    mf = dft.KS(_mole(task, task.coords, basis, max_memory), xc=xc)
    mf.grids.level, mf.conv_tol = 4, 1e-10
    try:
        mol, done = optimize(mf)
    except ConvergenceError:
        return task.coords, False
    return (mol.atom_coords() * BOHR if done else task.coords), done


def _without_density(task: Task, mol: gto.Mole, outcome: str) -> Reference:
    """What is known of a system before anything is solved."""
    frozen = methods.core_orbitals(mol) if task.density.get("frozen_core") else 0
    return Reference(
        task.name, task.symbols, mol.atom_coords(), task.charge, task.spin, mol._basis, task.density["method"], frozen,
        outcome=outcome,
    )  # fmt: skip


def _compute(task: Task, max_memory: float | None) -> Reference:
    coords, settled, level = task.coords, True, task.density
    if task.optimize:
        coords, settled = _optimized(task, max_memory)
    mol = _mole(task, coords, level["basis"], max_memory)
    if not settled:
        return _without_density(task, mol, "the geometry did not converge")
    found = methods.solve(mol, level["method"], level.get("frozen_core", False))
    energies = {k.lower(): v for k, v in found.energies.items()}
    known = replace(_without_density(task, mol, found.outcome), energies=energies, diagnostics=found.diagnostics)
    if found.outcome != CONVERGED or found.dm1 is None:
        return known
    parts, dipole, occupations = methods.properties(mol, found.dm1)
    energies |= parts | {"total": found.total}
    best, outcome = ({"best": found.total}, CONVERGED) if not task.energy else _best(task, mol, found, max_memory)
    return replace(
        known, energies=energies | best, dm1=found.dm1, dipole=dipole, natural_occupations=occupations,
        provenance={} if outcome == CONVERGED else {"best": outcome},
    )  # fmt: skip


def _best(
    task: Task, at: gto.Mole, density: methods.Solution, max_memory: float | None
) -> tuple[dict[str, float], str]:
    """The energies of the table `energy`, Eh, `best` among them where all went well, and the outcome.

    `density` is what gave the density matrix of the molecule `at`, and need not be computed again.
    """
    level, coords = task.energy, at.atom_coords() * BOHR
    alike = all(level.get(k, False) == task.density.get(k, False) for k in ("method", "frozen_core"))
    out: dict[str, float] = {}
    pairs = []
    for n, basis in enumerate(level["bases"], level.get("cardinal", 0)):
        mol, found = _mole(task, coords, basis, max_memory), density
        if not (alike and mol._basis == at._basis):
            found = methods.solve(mol, level["method"], level.get("frozen_core", False), density=False)
        if found.outcome != CONVERGED:
            return out, f"{found.outcome} with {basis}"
        pairs.append((found.energies["HF"], found.total - found.energies["HF"]))
        out |= {f"hf/{n}": found.energies["HF"], f"{level['method'].lower()}/{n}": found.total}
    hf, correlation = pairs[-1]
    if len(pairs) == 2:
        hf, correlation = methods.extrapolated(pairs[0], pairs[1], level["cardinal"])
        out |= {"hf/limit": hf, f"{level['method'].lower()}/limit": hf + correlation}
    core = 0.0
    if "core_basis" in level and methods.core_orbitals(at):
        mol = _mole(task, coords, level["core_basis"], max_memory)
        both = [methods.solve(mol, level["method"], frozen, density=False) for frozen in (False, True)]
        for found in both:
            if found.outcome != CONVERGED:
                return out, f"{found.outcome} with {level['core_basis']}"
        core = both[0].total - both[1].total
        out["core"] = core
    return out | {"best": hf + correlation + core}, CONVERGED


def _packed(task: Task, max_memory: float | None) -> bytes:
    """What a worker sends back: a file of one system.  A calculation that breaks off is an outcome; raises InputError
    where there can be none.
    """
    try:
        return store.packed([build_system(task, max_memory)])
    except InputError:
        raise
    except BREAKS as err:
        broken = _without_density(task, task.mole(task.density["basis"]), f"the calculation broke off: {err!r}")
        return store.packed([replace(broken, provenance={"task": task.hash})])


def finished(recipe: Recipe, out: Path) -> dict[str, Reference]:
    """Systems of the recipe that OUT and its parts hold already.

    Warns of a damaged part, which is built again.  Raises ReferenceFileError where OUT is damaged, and InputError where
    it holds other systems alone.
    """
    wanted = {t.name: t.hash for t in recipe.tasks}
    libraries = [store.read(out)] if out.exists() else []
    if libraries and not wanted.keys() & libraries[0].keys():
        raise InputError(f"{out} holds none of the recipe's systems: give another file, or remove it")
    for path in sorted(parts_of(out).glob("*.h5")):
        try:
            libraries.append(store.read(path))
        except ReferenceFileError as err:
            warnings.warn(f"built again: {err}", stacklevel=2)
    return {
        k: r for library in libraries for k, r in library.items() if r.provenance.get("task") == wanted.get(k, "none")
    }


def parts_of(out: Path) -> Path:
    """The folder of finished systems beside OUT."""
    return out.with_name(out.name + ".parts")


def build(
    recipe: Recipe,
    out: Path,
    jobs: int = 1,
    scheduler: str | None = None,
    max_memory: float | None = None,
    again: Collection[str] = (),
) -> dict[str, Reference]:
    """Build all systems of a recipe into the file `out`; returns them by name, in the order of the recipe.

    `jobs` local workers share the threads (OMP_NUM_THREADS, or the cores); or `scheduler`, the address of a Dask
    cluster, whose workers use as many threads as OMP_NUM_THREADS gives them.  Those in `again` are computed whether
    they are there or not.  Raises InputError where Dask is missing or cannot be reached, for names in `again` that the
    recipe lacks, where a system cannot be computed (`Task.fault`), before anything is, and where a worker fails for
    good; the others are finished first.  For files that are there already see `finished`.
    """
    unknown = set(again) - {t.name for t in recipe.tasks}
    if unknown:
        raise InputError(f"the recipe has no system {', '.join(sorted(unknown))}")

    def state() -> tuple[dict[str, Reference], list[Task]]:
        done = {k: r for k, r in finished(recipe, out).items() if k not in again}
        return done, sorted((t for t in recipe.tasks if t.name not in done), key=lambda t: t.cost, reverse=True)

    faults = [f"{t.name}: {fault}" for t in state()[1] if (fault := t.fault())]
    if faults:
        raise InputError(f"{len(faults)} systems cannot be computed, none was started: {'; '.join(faults)}")
    with sole_use(parts_of(out)):
        done, tasks = state()  # another process may have been at work until now
        errors = []
        work = partial(_packed, max_memory=max_memory)
        for task, content in results(work, tasks, jobs, scheduler, len(done)) if tasks else ():
            if isinstance(content, bytes):
                write_atomic(parts_of(out) / f"{task.hash[:16]}.h5", content)
                done |= store.unpacked(content, task.name)[0]
            else:
                errors.append(f"{task.name}: {content if isinstance(content, MlxcError) else repr(content)}")
        if errors:
            raise InputError(
                f"{len(errors)} systems failed, so that {out} is not written: {'; '.join(errors)}. "
                f"The others wait in {parts_of(out)}: change the recipe, or the machine, and start again"
            )
        ordered = {t.name: done[t.name] for t in recipe.tasks}
        store.write(out, ordered.values(), recipe.description)
        shutil.rmtree(parts_of(out), ignore_errors=True)
    return ordered
