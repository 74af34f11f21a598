"""One species of a benchmark: what determines its result, the calculation, and the file that keeps it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyscf

from mlxc import models
from mlxc.bench.ladder import climb, settled
from mlxc.bench.protocol import Protocol, has_nonlocal, nonlocal_part
from mlxc.bench.quantities import EXTRAS, Calculation, Result
from mlxc.ensemble import ensemble_energies
from mlxc.errors import BREAKS, FAILURES, UNREADABLE, InputError, MlxcError
from mlxc.files import digest, write_atomic
from mlxc.geometry import count_electrons
from mlxc.hybridscf import LocalHybridSCF
from mlxc.properties import contaminated, highest_occupied
from mlxc.reference.benchmark import System
from mlxc.reference.schema import Reference
from mlxc.version import __version__
from mlxc.workers import results

#: What a user's settings of PySCF change functionals by.
SWITCHES = ("B3LYP_WITH_VWN5", "DFTD4_RECOMMENDATIONS")


def identity_of(xc: str) -> dict[str, Any]:
    """What the results of a functional depend on: weights of a model, wherever its folder is; name; versions.

    And those of SWITCHES that are on.
    """
    sha256 = models.sha256(xc)
    found: dict[str, Any] = {"xc": xc.lower(), "mlxc": __version__, "pyscf": pyscf.__version__}
    dispersion = "-d" in xc.lower()
    if sha256:
        described = models.describe(xc)
        members, disp = described.get("members", {}).get("sha256"), described.get("disp")
        found |= {"xc": None, "sha256": sha256, "members": members, "disp": disp}
        dispersion = disp is not None
    if dispersion:
        with suppress(PackageNotFoundError):
            found["dispersion"] = version("pyscf-dispersion")
    return found | {name: True for name in SWITCHES if getattr(pyscf.__config__, name, False)}


@dataclass(frozen=True)
class Species:
    """A system, a functional and how it is computed.

    xc : a libxc name, an mlxc model's name or folder; functional : `identity_of` it
    extras : of mlxc.bench.quantities.EXTRAS
    references : for density errors, by their ids
    """

    system: System
    xc: str
    functional: dict[str, Any]
    protocol: Protocol
    extras: frozenset[str] = frozenset()
    references: dict[str, Reference] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For a progress bar."""
        return f"{self.xc}: {self.system.id}"

    @property
    def cost(self) -> float:
        """Arbitrary units: the third power of a measure of electrons and atoms."""
        electrons = count_electrons(self.system.symbols, self.system.charge)
        spins = 1 + (self.system.multiplicity > 1)
        return float(spins * (electrons + 5 * len(self.system.symbols)) ** 3 * (1 + 20 * len(self.extras)))

    @property
    def identity(self) -> dict[str, Any]:
        """All that the energy depends on."""
        settings = {k: v for k, v in self.protocol.settings().items() if k != "name"}
        xc = self.functional["xc"]
        if not (settings["nlc_after"] and xc is not None and has_nonlocal(xc)):
            del settings["nlc_after"]
        return {"system": self.system.key, **self.functional, "protocol": settings}

    @property
    def more(self) -> dict[str, Any]:
        """What is asked beside the energy: the extras, and the densities to compare with by the hashes of these."""
        hashes = {i: hashlib.sha256(np.asarray(r.dm1).tobytes()).hexdigest() for i, r in self.references.items()}
        return {**dict.fromkeys(sorted(self.extras)), **hashes}

    def path(self, folder: Path) -> Path:
        """The file of its result in a folder."""
        return folder / f"{hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:20]}.json"

    def _content(self, folder: Path) -> tuple[dict[str, Any], Result] | None:
        """What the folder has: `more` and the result; None where there is nothing, or something damaged or else."""
        try:
            content = json.loads(self.path(folder).read_text())
            more, result = dict(content["more"]), content["result"]
            found = digest(result)
            # Files of earlier versions have no hash.
            whole = content.get("sha256", found) == found and isinstance(result["converged"], bool)
            return (more, result) if whole and content["of"] == self.identity else None
        except UNREADABLE:
            return None

    def stored(self, folder: Path) -> Result | None:
        """The result that the folder has; None where there is none, or one of less or something else."""
        found = self._content(folder)
        return found[1] if found and found[0].items() >= self.more.items() else None

    def store(self, folder: Path, result: Result) -> Result:
        """Write the file of a result, together with what the folder has and that does not hold: other extras.

        Returns both together.  Raises InputError where it cannot be written.
        """
        more, before = self._content(folder) or ({}, {})
        if not (result["converged"] and before.get("converged")):
            more, before = {}, {}
        kept = [f for f in before.get("faults", []) if f.removeprefix("no ").split(":")[0] in set(EXTRAS) - self.extras]
        densities = {**before.get("densities", {}), **result.get("densities", {})}
        result = {**before, **result, "faults": [*result["faults"], *kept]}
        if densities:
            result["densities"] = densities
        content = {"of": self.identity, "more": more | self.more, "id": self.system.id, "result": result}
        content["sha256"] = digest(result)
        write_atomic(self.path(folder), json.dumps(content, indent=1) + "\n")
        return result


def compute(species: Species) -> Result:
    """The result of a species.

    converged, rung, attempts, faults (what casts doubt on it), wall_s and, once converged, energy_hartree, cycles,
    stable, s2, homo_hartree, dipole_debye, member_hartree (total energies of a model's ensemble) and what the extras
    give.  A calculation that breaks off has not converged, and `broke_off` says why.  Raises InputError where the
    functional, or the programs, are not those that the species names.
    """
    found = identity_of(species.xc)
    if found != species.functional:
        raise InputError(f"a worker has {found}, not {species.functional}: start it with the same versions and models")
    began = time.perf_counter()
    try:
        result = _computed(species)
    except BREAKS as err:
        result = _broken(err)
    return _rounded(result) | {"wall_s": round(time.perf_counter() - began, 2)}


def _broken(err: BaseException) -> Result:
    why = " ".join(repr(err).split())
    return {"converged": False, "rung": "none", "faults": [f"broke off: {why}"], "broke_off": why}


def _rounded(value: Any) -> Any:
    """Numbers to ten decimals: the last bits of sums are not the same from run to run, reports are to be."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 10) if isinstance(value, float) else value


def _computed(species: Species) -> Result:
    system, protocol = species.system, species.protocol
    mol = system.mole(protocol.basis)
    needs_unoccupied = "polarizability" in species.extras or protocol.broken_symmetry

    def start(xc: str = species.xc) -> Any:
        mf = protocol.without_nonlocal(protocol.calculation(mol, xc))
        if isinstance(mf, LocalHybridSCF):
            mf.unoccupied = needs_unoccupied
        return mf

    solution = climb(start)
    if solution.rung == "none":
        return {"converged": False, "rung": "none", "attempts": [asdict(a) for a in solution.attempts], "faults": []}
    if mol.nelectron > 1 and protocol.examines(mol.spin, solution.rung):
        solution = settled(solution, protocol.broken_symmetry)
    mf, faults = solution.mf, solution.faults()
    later, potential = nonlocal_part(mf) if mf.nlc == 0 else (0.0, None)
    s2 = float(mf.spin_square()[0])
    if contaminated(s2, mol.spin):
        faults.append(f"<S^2> = {s2:.2f}")
    result = {
        "energy_hartree": float(mf.e_tot) + later,
        "converged": True,
        "rung": solution.rung,
        "attempts": [asdict(a) for a in solution.attempts],
        "cycles": sum(a.cycles for a in solution.attempts),
        "stable": solution.stable,
        "s2": s2,
        "homo_hartree": highest_occupied(mf, potential),
        "dipole_debye": [float(x) for x in mf.dip_moment(verbose=0)],
        "faults": faults,
    }
    members = models.load_members(species.xc) if "sha256" in species.functional else []
    if members:
        result["member_hartree"] = ensemble_energies(mf, members).tolist()
    calculation = Calculation(mf, lambda mol: protocol.calculation(mol, species.xc), species.references)
    for extra in sorted(species.extras):
        try:
            result |= EXTRAS[extra](calculation)
        except FAILURES as err:
            faults.append(f"no {extra}: {' '.join(str(err).split())}")
    return result


def compute_all(species: Iterable[Species], folder: Path, jobs: int = 1, scheduler: str | None = None) -> list[Result]:
    """The results of all species in their order: those that `folder` has, and the others, which are put there.

    Species of one file are computed once, with all that any of them asks.  What breaks off, or has lost its worker, has
    no file and is tried again when this is called again.  Raises InputError and its relatives, those of workers too.
    """
    species = list(species)
    together: dict[Path, Species] = {}
    for s in species:
        path = s.path(folder)
        known = together.get(path, s)
        together[path] = replace(s, extras=known.extras | s.extras, references=known.references | s.references)
    found = {p: r for p, s in together.items() if (r := s.stored(folder)) is not None}
    waiting = sorted((s for p, s in together.items() if p not in found), key=lambda s: -s.cost)
    if waiting:
        for s, result in results(compute, waiting, jobs, scheduler, len(found), extra="bench"):
            if isinstance(result, MlxcError):
                raise result
            if isinstance(result, BaseException):
                result = _broken(result)
            elif "broke_off" not in result:
                result = s.store(folder, result)
            found[s.path(folder)] = result
    return [found[s.path(folder)] for s in species]
