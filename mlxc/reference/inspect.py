"""What a file of references holds, and whether it is what it says it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from pyscf import scf
from pyscf.data.nist import AU2DEBYE

from mlxc.errors import ReferenceFileError
from mlxc.reference import methods
from mlxc.reference.schema import Reference
from mlxc.reference.store import read, read_described

#: Largest deviation of electron numbers, occupations, and energies (Eh) worked out again from a density matrix.
TOLERANCE = 1e-6


def _cell(value: float | None, width: int, digits: int) -> str:
    """A number so wide, or that there is none."""
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def table(path: Path) -> str:
    """Description and one line per system.  Raises ReferenceFileError."""
    library, description = read_described(path)
    head = f"{'system':24s} {'charge':>6s} {'2S':>3s} {'method':9s} {'nao':>4s} {'best / Eh':>16s} {'dipole / D':>10s}"
    lines = [description, f"{head} {'T1':>6s}"]
    for r in library.values():
        line = f"{r.name:24s} {r.charge:6d} {r.spin:3d} {r.method:9s}"
        if r.dm1 is None or r.dipole is None:
            lines.append(f"{line} {r.outcome}")
            continue
        t1 = r.diagnostics.get("t1")
        norm = float(np.linalg.norm(r.dipole)) * AU2DEBYE if r.charge == 0 else None
        shown = f"{_cell(r.energies.get('best'), 16, 8)} {_cell(norm, 10, 4)} {_cell(t1, 6, 3)}"
        if t1 is not None and t1 > methods.T1_WARNING:
            shown += " !"
        if "triples_virtuals" in r.diagnostics:
            shown += f" ~{r.diagnostics['triples_virtuals']:.0f}"
        lines.append(f"{line} {r.dm1.shape[1]:4d} {shown}")
    lines.append("- not there: dipoles of ions depend on the origin, T1 needs two active electrons and coupled cluster")
    lines.append("! T1 diagnostic above 0.02: one determinant is a poor start")
    lines.append("~ triples change the density in so many natural virtual orbitals only, for want of memory")
    return "\n".join(lines)


def faults(reference: Reference) -> list[str]:
    """What is wrong with a system: its density matrix and what follows from it, and energies that belong together.

    Of an ensemble, which has no whole number of electrons, only what does not depend on that.
    """
    if reference.dm1 is None:
        return ["it has no density although it converged"] if reference.converged else []
    pure = not reference.fractional
    mol = reference.mole()
    energies, dipole, occupations = methods.properties(mol, reference.dm1)
    numbers = np.einsum("smn,nm->s", reference.dm1, mol.intor_symmetric("int1e_ovlp"))
    stored = reference.energies
    again = {k: (energies[k], stored.get(k, np.nan)) for k in energies}
    if pure and reference.method.lower() in stored:
        again["total"] = stored[reference.method.lower()], stored.get("total", np.nan)
    if "hf/limit" in stored and "best" in stored:  # of the method of energies, which need not be that of the density
        limit = next((k for k in stored if k.endswith("/limit") and k != "hf/limit"), "hf/limit")
        again["best"] = stored[limit] + stored.get("core", 0.0), stored["best"]
    if reference.method == "HF" and pure:
        mean_field = scf.UHF(mol)
        again["total"] = float(mean_field.energy_tot(reference.dm1)), stored.get("total", np.nan)
    found = [f"{k} is {b:.8f} Eh, its density gives {a:.8f}" for k, (a, b) in again.items() if not _near(a, b)]
    if pure and not _near(numbers, mol.nelec):
        found.append(f"its density has {numbers[0]:.6f} and {numbers[1]:.6f} electrons of each spin, not {mol.nelec}")
    if not -TOLERANCE <= occupations[-1] <= occupations[0] <= 2 + TOLERANCE:
        found.append(f"natural occupations from {occupations[-1]:.2e} to {occupations[0]:.6f} are outside 0 ... 2")
    if reference.natural_occupations is None or not _near(occupations, reference.natural_occupations):
        found.append("its natural occupations are not those of its density")
    if reference.dipole is None or not _near(dipole, reference.dipole):
        found.append("its dipole is not that of its density")
    return found


def _near(a: ArrayLike, b: ArrayLike) -> bool:
    """Whether numbers, or all of two arrays, agree; nan agrees with nothing."""
    return bool(np.max(np.abs(np.subtract(a, b))) <= TOLERANCE)


def verify(path: Path, progress: Callable[[str], None] = lambda name: None) -> int:
    """Check hash, digests and the physics of every density; the number of systems.

    `progress` is told each system that is done.  Raises ReferenceFileError.
    """
    library = read(path)
    bad = []
    for r in library.values():
        bad += [f"{r.name}: {fault}" for fault in faults(r)]
        progress(r.name)
    if bad:
        raise ReferenceFileError(f"{path}: {'; '.join(bad)}")
    return len(library)
