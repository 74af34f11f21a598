"""One system to build: what it is, what it costs, and whether it can be computed at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pyscf import gto

from mlxc import models
from mlxc.errors import InputError
from mlxc.geometry import coinciding, count_electrons, make_mole
from mlxc.reference.methods import check_possible, core_orbitals


@dataclass(frozen=True)
class Task:
    """All that the result of a system depends on, but for the memory (`mlxc.reference.coupled_cluster.triples_room`).

    atoms : (symbol, (x, y, z)) in Angstrom; optimize : "" or functional/basis; density, energy : tables of the recipe
    """

    name: str
    atoms: tuple[tuple[str, tuple[float, float, float]], ...]
    charge: int
    spin: int
    optimize: str
    density: dict[str, Any]
    energy: dict[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of the task."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def symbols(self) -> tuple[str, ...]:
        """Elements of the atoms."""
        return tuple(s for s, _ in self.atoms)

    @property
    def coords(self) -> np.ndarray:
        """Coordinates (natm, 3) in Angstrom, before any optimisation."""
        return np.array([x for _, x in self.atoms])

    @property
    def cost(self) -> float:
        """Arbitrary units: the steps of CCSD(T) for atoms of about thirty functions each."""
        size = sum(20 if s in ("H", "He") else 45 for s in self.symbols)
        electrons = count_electrons(self.symbols, self.charge)
        return float((electrons + 1) ** 3 * size**4 * (1 + 2 * (self.spin > 0)))

    def mole(self, basis: Any, coords: np.ndarray | None = None) -> gto.Mole:
        """The molecule in a basis, at `coords` (natm, 3) in Angstrom or at its own.

        Raises InputError for a basis that is unknown, lacks an element, or has core potentials.
        """
        atoms = zip(self.symbols, map(tuple, self.coords if coords is None else coords), strict=True)
        mol = make_mole(atoms, basis, self.charge, self.spin)
        if mol.has_ecp():
            raise InputError(
                f"{basis} has core potentials, which the files of references do not hold: take one for all electrons"
            )
        return mol

    def fault(self) -> str:
        """Why the system cannot be computed; empty where nothing speaks against it."""
        try:
            self._check()
        except InputError as err:
            return str(err)
        return ""

    def _check(self) -> None:
        """Raises InputError for what a calculation would fail with."""
        pair = coinciding(self.coords.tolist())
        if pair:
            raise InputError(f"atoms {pair[0] + 1} and {pair[1] + 1} lie on top of each other")
        if self.optimize:
            xc, basis = self.optimize.split("/")
            if models.resolve(xc) is not None:
                raise InputError(
                    f"geometries are optimised with functionals of libxc, b3lyp for example, not with {xc}"
                )
            self.mole(basis)
        for level, bases in ((self.density, [self.density["basis"]]), (self.energy, self.energy.get("bases", []))):
            for basis in bases:
                mol = self.mole(basis)
                check_possible(mol, level["method"], level.get("frozen_core", False))
        if "core_basis" in self.energy and core_orbitals(mol):
            check_possible(self.mole(self.energy["core_basis"]), self.energy["method"], False)
