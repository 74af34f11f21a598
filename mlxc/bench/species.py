"""One species of a benchmark: what determines its result, the calculation, and the file that keeps it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
import torch
from pyscf import lib

from mlxc import models
from mlxc.bench.ladder import climb, settled
from mlxc.bench.protocol import Protocol
from mlxc.bench.quantities import EXTRAS
from mlxc.ensemble import ensemble_energies
from mlxc.errors import BREAKS
from mlxc.files import write_atomic
from mlxc.geometry import count_electrons
from mlxc.reference.benchmark import System
from mlxc.reference.schema import Reference
from mlxc.version import __version__

#: <S^2> that exceeds S(S + 1) by more is reported.
CONTAMINATION = 0.3


@dataclass(frozen=True)
class Species:
    """A system, a functional and how it is computed.

    xc : a libxc name, an mlxc model's name or folder; sha256 : that of a model's weights
    extras : of mlxc.bench.quantities.EXTRAS, in alphabetical order
    reference : for density errors
    """

    system: System
    xc: str
    sha256: str | None
    protocol: Protocol
    extras: tuple[str, ...] = ()
    reference: Reference | None = None

    @property
    def name(self) -> str:
        """For a progress bar."""
        return f"{self.xc}: {self.system.id}"

    @property
    def cost(self) -> float:
        """Arbitrary units: the fourth power of the number of electrons and atoms."""
        electrons = count_electrons(self.system.symbols, self.system.charge)
        spins = 1 + (self.system.multiplicity > 1)
        return float(spins * (electrons + 5 * len(self.system.symbols)) ** 3 * (1 + 20 * len(self.extras)))

    @property
    def identity(self) -> dict[str, Any]:
        """All that the result depends on.

        A model counts by its weights, wherever its folder is.
        """
        density = (
            None if self.reference is None else hashlib.sha256(np.asarray(self.reference.dm1).tobytes()).hexdigest()
        )
        return {
            "system": self.system.key,
            "xc": None if self.sha256 else self.xc,
            "sha256": self.sha256,
            "protocol": self.protocol.settings(),
            "extras": list(self.extras),
            "density": density,
            "mlxc": __version__,
            "pyscf": pyscf.__version__,
        }

    def path(self, folder: Path) -> Path:
        """The file of its result in a folder."""
        return folder / f"{hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:20]}.json"

    def stored(self, folder: Path) -> dict[str, Any] | None:
        """The result that the folder has; None where there is none, or a damaged one, or that of something else."""
        try:
            content = json.loads(self.path(folder).read_text())
            return content["result"] if content["of"] == self.identity else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def store(self, folder: Path, result: dict[str, Any]) -> None:
        """Write the file of a result.  Raises OSError."""
        content = {"of": self.identity, "id": self.system.id, "result": result}
        write_atomic(self.path(folder), json.dumps(content, indent=1) + "\n")


def compute(species: Species, threads: int | None = None) -> dict[str, Any]:
    """The result of a species, on so many threads; what breaks off or does not converge is a result as well.

    energy_hartree, converged, rung, attempts, cycles, stable, s2, homo_hartree, dipole_debye, faults (what casts doubt
    on it), member_hartree (total energies of a model's ensemble), what the extras give, and wall_s.
    """
    began = time.perf_counter()
    with lib.with_omp_threads(threads):
        if threads:
            torch.set_num_threads(threads)
        try:
            result = _computed(species)
        except BREAKS as err:
            result = {"converged": False, "rung": "none", "faults": [f"broke off: {' '.join(repr(err).split())}"]}
    return _rounded(result) | {"wall_s": round(time.perf_counter() - began, 2)}


def _rounded(value: Any) -> Any:
    """Numbers to ten decimals: the last bits of sums are not the same from run to run, reports are to be."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 10) if isinstance(value, float) else value


def _computed(species: Species) -> dict[str, Any]:
    system, protocol = species.system, species.protocol
    atoms = list(zip(system.symbols, system.coords, strict=True))
    mol = protocol.mole(atoms, system.charge, system.multiplicity - 1)
    solution = climb(lambda xc=species.xc: protocol.calculation(mol, xc))
    if solution.rung == "none":
        return {"converged": False, "rung": "none", "attempts": [asdict(a) for a in solution.attempts], "faults": []}
    examined = protocol.stability == "all" or (
        protocol.stability == "open" and (mol.spin > 0 or solution.rung != "diis")
    )
    if examined and mol.nelectron > 1:
        solution = settled(solution, protocol.broken_symmetry)
    mf, faults = solution.mf, solution.faults()
    s2 = float(mf.spin_square()[0])
    if s2 - mol.spin / 2 * (mol.spin / 2 + 1) > CONTAMINATION:
        faults.append(f"<S^2> = {s2:.2f}")
    result = {
        "energy_hartree": float(mf.e_tot),
        "converged": True,
        "rung": solution.rung,
        "attempts": [asdict(a) for a in solution.attempts],
        "cycles": sum(a.cycles for a in solution.attempts),
        "stable": solution.stable,
        "s2": s2,
        "homo_hartree": float(np.asarray(mf.mo_energy)[np.asarray(mf.mo_occ) > 0].max()),
        "dipole_debye": [float(x) for x in mf.dip_moment(verbose=0)],
        "faults": faults,
    }
    members = models.load_members(species.xc) if species.sha256 else []
    if members:
        result["member_hartree"] = ensemble_energies(mf, members).tolist()
    for extra in species.extras:
        try:
            result |= EXTRAS[extra](mf, species.reference)
        except BREAKS as err:
            faults.append(f"no {extra}: {' '.join(str(err).split())}")
    return result
