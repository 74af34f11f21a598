"""Features at fixed densities, one HDF5 file per molecule, so that training needs no SCF.

    python -m mlxc.train.cache --data FOLDER --out CACHE [--max-heavy 3] [--part 0/2] [--seen DBH24]

Each molecule is carried to self-consistency with r2SCAN or the functional that the settings name.
A file appears only when it is complete; a killed run resumes where it stopped.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from pyscf import dft
from pyscf.scf.addons import project_dm_nr2nr

from mlxc import models
from mlxc.analytic import R2SCAN
from mlxc.errors import FAILURES, UNREADABLE, InputError, MlxcError
from mlxc.features import Features
from mlxc.files import make_folder, write_atomic
from mlxc.functional import Functional
from mlxc.hybridscf import LocalHybridSCF
from mlxc.ongrid import dense_features, spin_densities
from mlxc.reference.benchmark import System, select
from mlxc.reference.folders import read_reactions, read_systems
from mlxc.scf import KS, fractional, solved
from mlxc.train.config import Data

SETS = ("W4-17", "BH76", "G21IP")
#: Development rows of these sets are cached as well, where training has not seen all their molecules.
DEV_SETS = ("G2-97", "DBH24", "G2RC", "PA26", "SIE4x4", "BHROT27", "PX13", "INV24", "NBPRC", "WCPT18")
ELEMENTS = frozenset(
    {"H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar"}
)
BASIS = Data.basis
#: Convergence of the energy, Eh.
CONV_TOL = 1e-8
#: Finest grid of the SCF.  Energies at its density, on the grid of the settings, err in second order: of the transition
#: state C2H5 by 0.008 kcal/mol for a local hybrid.
SCF_GRID = 1
#: Grid and convergence (Eh) of the calculations that tell what the basis misses.
LIMIT_GRID, LIMIT_TOL = 1, 1e-6
#: Gains that differ by less are the same, Eh: files of them are rounded, and the calculations converged to LIMIT_TOL.
SAME_GAIN = 1e-5


def kohn_sham(system: System, xc: str | Functional, settings: Data) -> Any:
    """A density-fitted Kohn-Sham object of a species, not yet run; restricted for singlets.  Raises InputError."""
    mol = system.mole(settings.basis)
    mf = fractional(mol, system.occupations, xc) if system.occupations else KS(mol, xc)
    mf = mf.density_fit()
    mf.grids.level = settings.grid_level
    return mf


def limit_gain(system: System, converged: Any, settings: Data) -> float:
    """What r2SCAN's energy changes by from the basis to `limit_basis`, Eh.  Raises ConvergenceError.

    Other functionals miss nearly the same in a finite basis.  Coarse grids serve, whose errors cancel.  The start is
    the density of a converged calculation in the basis.
    """
    if not settings.limit_basis:
        return 0.0
    energies = []
    for basis in (settings.basis, settings.limit_basis):
        mf = kohn_sham(system, "r2scan", replace(settings, basis=basis, grid_level=LIMIT_GRID)).set(conv_tol=LIMIT_TOL)
        mf = solved(mf, project_dm_nr2nr(converged.mol, converged.make_rdm1(), mf.mol))
        energies.append(float(mf.e_tot))
    return energies[1] - energies[0]


def known_gains(settings: Data) -> dict[str, float]:
    """Gains of the file that the settings name, from their basis to their limit, by the keys of species, Eh.

    Raises InputError where it has lines of another form.
    """
    if settings.gains is None or not settings.limit_basis:
        return {}
    try:
        lines = [json.loads(line) for line in settings.gains.read_text().splitlines() if line.strip()]
        wanted = [d for d in lines if (d["basis"], d["limit_basis"]) == (settings.basis, settings.limit_basis)]
        return {d["system"]: float(d["gain"]) for d in wanted}
    except UNREADABLE as err:
        raise InputError(f"cannot read the gains in {settings.gains}: {err!r}") from err


def identity(xc: str | Path) -> str:
    """What tells one functional from all others: its name, or the hash of a model."""
    return models.sha256(xc) or str(xc)


def write(path: Path, system: System, settings: Data, gains: dict[str, float]) -> str:
    """Compute and store one molecule; returns why it has no density, if so.  `gains` are those that are known."""
    start = time.perf_counter()
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, Any] = {"converged": False}
    try:
        arrays, numbers = _computed(system, settings, gains)
    except InputError:  # of the settings: no other species would fare better
        raise
    except FAILURES as err:
        numbers["failure"] = repr(err)
    image = io.BytesIO()
    with h5py.File(image, "w") as f:
        for name, values in arrays.items():
            f[name] = values
        f.attrs.update(
            id=system.id,
            basis=settings.basis,
            grid_level=settings.grid_level,
            densities=identity(settings.densities),
            limit_basis=settings.limit_basis,
            wall_s=time.perf_counter() - start,
            **numbers,
        )
    write_atomic(path, image.getvalue())
    return str(numbers.get("failure", ""))


def _computed(system: System, settings: Data, gains: dict[str, float]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Features and weights of a molecule on its grid, and what else its file has.  Raises ConvergenceError."""
    coarse = replace(settings, grid_level=min(SCF_GRID, settings.grid_level))
    mf = kohn_sham(system, str(settings.densities), coarse).set(conv_tol=CONV_TOL)
    if isinstance(mf, LocalHybridSCF):
        mf.unoccupied = False
    mf = solved(mf)
    mf.grids = dft.Grids(mf.mol).set(level=settings.grid_level).build()
    gain = gains[system.key] if system.key in gains else limit_gain(system, mf, settings)
    features, weights = dense_features(mf, spin_densities(mf))
    with torch.no_grad():
        exc_r2scan = float(torch.from_numpy(weights) @ R2SCAN()(features))
    arrays = {name: getattr(features, name).numpy() for name in ("rho", "sigma", "tau", "ex")} | {"weights": weights}
    e_r2scan = sum(mf.scf_summary[k] for k in ("e1", "coul", "nuc")) + exc_r2scan
    return arrays, {"e_r2scan": e_r2scan, "limit_gain": gain, "converged": True}


def damaged(path: Path, err: BaseException) -> InputError:
    """What to raise for a file that cannot be read."""
    return InputError(f"{path} is damaged ({err}): remove it, and it is computed again")


def attribute(path: Path, name: str) -> Any:
    """One of the numbers and names beside the features in a file.  Raises InputError where it is damaged."""
    try:
        with h5py.File(path) as f:
            return f.attrs[name]
    except UNREADABLE as err:
        raise damaged(path, err) from err


def read_molecule(path: Path) -> tuple[Features, torch.Tensor]:
    """Features and weights (G,) on the grid of a cached molecule.  Raises InputError where the file is damaged."""
    try:
        with h5py.File(path) as f:
            features = Features(*(torch.from_numpy(f[k][:]) for k in ("rho", "sigma", "tau", "ex")))
            return features, torch.from_numpy(f["weights"][:])
    except UNREADABLE as err:
        raise damaged(path, err) from err


def cache_of(settings: Data) -> Path:
    """The folder of cached densities.  Raises InputError where there is none."""
    if settings.cache is None:
        raise InputError("these settings have no cache: give them a folder for one")
    return settings.cache


def fill(species: list[System], settings: Data, report: Callable[[str], None] = print) -> None:
    """Make the files that are not there yet.  Raises InputError for one of another basis or grid."""
    cache = cache_of(settings)
    make_folder(cache)
    densities, gains = identity(settings.densities), known_gains(settings)
    for k, system in enumerate(species):
        path = cache / f"{system.key}.h5"
        if path.exists():
            found = [attribute(path, k) for k in ("densities", "basis", "grid_level", "limit_basis")]
            if found != [densities, settings.basis, settings.grid_level, settings.limit_basis]:
                raise InputError(
                    f"{path} is of another functional, basis or grid: give these settings a cache of their own"
                )
            compared = system.key in gains and attribute(path, "converged")
            if compared and abs(gains[system.key] - attribute(path, "limit_gain")) > SAME_GAIN:
                raise InputError(f"{path} has another gain than {settings.gains}: remove it, and it is computed again")
        else:
            start = time.perf_counter()
            failure = write(path, system, settings, gains)
            outcome = f"LEFT OUT: {failure} (without {path.name} it is tried again)" if failure else "converged"
            report(f"cache {k + 1}/{len(species)} {system.id} {outcome} {time.perf_counter() - start:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--basis", default=BASIS)
    parser.add_argument("--max-heavy", type=int, default=3)
    parser.add_argument(
        "--part", default="0/1", help="K/N: every N-th molecule from the K-th on, K from 0 to N - 1, for N processes"
    )
    parser.add_argument("--seen", default="", help="sets A,B of which development rows seen in training are made too")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="pyscf")
    part = re.fullmatch(r"(\d+)/(\d+)", args.part)
    if not part or int(part[1]) >= int(part[2]):
        parser.error(f"--part {args.part}: give K/N, with K from 0 to N - 1")
    try:
        ordered = _chosen(args.data, args.max_heavy, tuple(args.seen.split(",")))
        fill(ordered[int(part[1]) :: int(part[2])], Data(cache=args.out, basis=args.basis))
    except MlxcError as err:
        parser.error(" ".join(str(err).split()))


def _chosen(data: Path, max_heavy: int, seen: tuple[str, ...]) -> list[System]:
    systems, reactions = read_systems(data), read_reactions(data)
    ordered = []
    for sets, role in ((SETS, "train"), ((*DEV_SETS, *seen), "dev")):
        rows = select(reactions, systems, sets, role, ELEMENTS, max_heavy)
        rows = [r for r in rows if not r.seen_in_training or r.set in seen]
        wanted = {systems[i].key: systems[i] for r in rows for i in r.stoichiometry}
        ordered += sorted(wanted.values(), key=lambda s: (len(s.symbols), s.key))
    return ordered


if __name__ == "__main__":
    main()
