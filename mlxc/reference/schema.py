"""What a reference file holds of one system, and how it is laid out in HDF5.

One group `/systems/NAME` per system.  Attributes: charge, spin (2S), method (of the density matrix), frozen (core
orbitals left out of the correlation), outcome ("converged" or what went wrong), diagnostics and provenance (JSON), and
digest.  Datasets, each with its unit as an attribute (UNITS): symbols, coords, basis (JSON, as PySCF takes it; so that
no basis library is needed to read a density), energies (JSON), and, where the outcome is "converged", dm1, dipole and
natural_occupations.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from pyscf import gto, lib

from mlxc.errors import UNREADABLE, ReferenceFileError
from mlxc.geometry import count_electrons

CONVERGED = "converged"
#: Unit of every dataset.
UNITS = {
    "symbols": "",
    "coords": "bohr",
    "basis": "PySCF basis, JSON",
    "energies": "hartree, JSON",
    "dm1": "electrons, lower triangle by rows, one row for two equal spins",
    "dipole": "e bohr",
    "natural_occupations": "electrons",
}


@dataclass(frozen=True)
class Reference:
    """One system: geometry, how it was computed, density matrix and energies.

    coords : (natm, 3), Bohr
    spin : 2S
    basis : element -> PySCF's internal form of a basis
    method : level of dm1, for example "CCSD(T)"
    dm1 : (2, nao, nao) spin density matrices in PySCF's spherical atomic orbitals; None where nothing converged
    energies : Eh; `total` belongs to `method` and `basis`, `best` is what to train on and to compare with
    dipole : (3,), e Bohr, with the nuclei, about the origin
    natural_occupations : (nao,), descending, of the sum of both spins
    """

    name: str
    symbols: tuple[str, ...]
    coords: np.ndarray
    charge: int
    spin: int
    basis: dict[str, Any]
    method: str
    frozen: int = 0
    dm1: np.ndarray | None = None
    energies: dict[str, float] = field(default_factory=dict)
    dipole: np.ndarray | None = None
    natural_occupations: np.ndarray | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)
    outcome: str = CONVERGED
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        """Whether there is a density matrix."""
        return self.outcome == CONVERGED

    @property
    def fractional(self) -> bool:
        """Whether it is an ensemble, of a number of electrons or a spin that is not whole."""
        return "ensemble" in self.provenance

    @property
    def nelectron(self) -> int:
        """Number of electrons."""
        return count_electrons(self.symbols, self.charge)

    def mole(self) -> gto.Mole:
        """The PySCF molecule in whose basis dm1 is given."""
        atoms = list(zip(self.symbols, self.coords, strict=True))
        return gto.M(atom=atoms, basis=self.basis, charge=self.charge, spin=self.spin, unit="Bohr", verbose=0)

    def can_turn(self) -> bool:
        """Whether an atom's or linear molecule's density is less symmetric than its nuclei: one of a degenerate level.

        Second moments tell: all three are equal in a spherical atom, both across the axis in a linear molecule.
        """
        place = self.coords - self.coords[0]
        _, sizes, axes = np.linalg.svd(place)
        fixed = int((sizes > 1e-3).sum()) if len(place) > 1 else 0
        if fixed > 1:
            return False
        mol = self.mole()
        with mol.with_common_origin(self.coords[0]):
            second = mol.intor("int1e_rr")
        moments = np.einsum("xmn,nm->x", second, np.asarray(self.dm1).sum(0)).reshape(3, 3)
        across = axes[fixed:]
        spread = np.ptp(np.linalg.eigvalsh(across @ moments @ across.T))
        return bool(spread > 1e-3 * abs(moments).max())

    def save(self, systems: h5py.Group) -> None:
        """Write the group of this system."""
        group = systems.create_group(self.name)
        group.attrs.update({k: getattr(self, k) for k in ("charge", "spin", "method", "frozen", "outcome")})
        group.attrs.update({k: json.dumps(getattr(self, k), sort_keys=True) for k in ("diagnostics", "provenance")})
        content: dict[str, Any] = {
            "symbols": json.dumps(self.symbols),
            "coords": self.coords,
            "basis": json.dumps(self.basis, sort_keys=True),
            "energies": json.dumps(self.energies, sort_keys=True),
        }
        if self.dm1 is not None:
            spins = self.dm1[:1] if np.array_equal(*self.dm1) else self.dm1
            content |= {"dm1": lib.pack_tril(spins), "dipole": self.dipole}
            content["natural_occupations"] = self.natural_occupations
        for key, value in content.items():
            raw = np.frombuffer(value.encode(), np.uint8) if isinstance(value, str) else np.asarray(value)
            group.create_dataset(key, data=raw, compression="gzip", shuffle=True, fletcher32=True)
            group[key].attrs["unit"] = UNITS[key]
        group.attrs["digest"] = digest(group)

    @classmethod
    def load(cls, group: h5py.Group) -> Reference:
        """Read the group of a system.  Raises ReferenceFileError where it is damaged."""
        name = "?"
        try:
            name = group.name.rsplit("/", 1)[-1]
            if digest(group) != group.attrs["digest"]:
                raise ReferenceFileError(f"system {name} does not match its digest")
            attributes = {k: group.attrs[k].item() for k in ("charge", "spin", "frozen")}
            attributes |= {k: str(group.attrs[k]) for k in ("method", "outcome")}
            attributes |= {k: json.loads(group.attrs[k]) for k in ("diagnostics", "provenance")}
            texts = {k: json.loads(group[k][()].tobytes()) for k in ("symbols", "basis", "energies")}
            arrays = {k: group[k][()] for k in ("coords", "dipole", "natural_occupations") if k in group}
            if "dm1" in group:
                spins = lib.unpack_tril(group["dm1"][()])
                arrays["dm1"] = np.array([spins[0], spins[-1]])
            texts["symbols"] = tuple(texts["symbols"])
            return cls(name=name, **attributes, **texts, **arrays)
        except UNREADABLE as err:
            raise ReferenceFileError(f"system {name} cannot be read ({err})") from err


def digest(group: h5py.Group) -> str:
    """SHA-256 over all datasets and attributes of a system but the digest itself."""
    sha = hashlib.sha256()

    def add(where: str, owner: Any) -> None:
        for key in sorted(owner.attrs):
            if key != "digest":
                value = np.asarray(owner.attrs[key])
                sha.update(f"{where}@{key}={value.dtype.kind}{value.shape}{value.tolist()}".encode())

    add("", group)
    for key in sorted(group):
        data = group[key][()]
        sha.update(f"{key}{data.dtype}{data.shape}".encode() + np.ascontiguousarray(data).tobytes())
        add(key, group[key])
    return sha.hexdigest()
