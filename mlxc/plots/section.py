"""Planes through molecules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf.data.nist import BOHR

from mlxc.errors import InputError

#: What is shown beyond the outermost atoms, Bohr, and how many points a plane has, about.
MARGIN, POINTS = 3.5, 10000
#: Atoms so far from the plane (Bohr) belong to it.
NEAR = 0.3
#: Singular values of coordinates (Bohr) below this say that atoms lie on a line or on a point.
FLAT = 1e-3


@dataclass(frozen=True)
class Plane:
    """Points origin + u axes[0] + v axes[1], Bohr; u (nu,), v (nv,).  Linear molecules lie at v = 0, in the middle.

    rank : 0 of an atom, 1 of a linear molecule, 2 of others
    """

    origin: np.ndarray
    axes: np.ndarray
    u: np.ndarray
    v: np.ndarray
    rank: int

    def points(self) -> np.ndarray:
        """(nv nu, 3), v by v."""
        v, u = np.meshgrid(self.v, self.u, indexing="ij")
        return self.origin + u.reshape(-1, 1) * self.axes[0] + v.reshape(-1, 1) * self.axes[1]

    def projected(self, coords: np.ndarray) -> np.ndarray:
        """(u, v, distance from the plane) of coords (n, 3), Bohr: (n, 3)."""
        return (coords - self.origin) @ np.vstack([self.axes, np.cross(*self.axes)]).T

    def content(self, symbols: Sequence[str], coords: np.ndarray) -> dict[str, Any]:
        """What saved results say of the plane and of the atoms in it."""
        places = self.projected(coords)
        atoms = [
            {"symbol": s, "u_bohr": float(u), "v_bohr": float(v)}
            for s, (u, v, w) in zip(symbols, places, strict=True)
            if abs(w) < NEAR
        ]
        return {"u_bohr": self.u.tolist(), "v_bohr": self.v.tolist(), "rank": self.rank, "atoms": atoms,
                "origin_bohr": self.origin.tolist(), "axes": self.axes.tolist()}  # fmt: skip


def _rank(sizes: np.ndarray) -> int:
    return int((sizes > FLAT).sum())


def plane_of(coords: np.ndarray, atoms: Sequence[int] | None = None) -> Plane:
    """The plane through three atoms (numbers from 1), or the best plane of all, of coordinates (natm, 3) in Bohr.

    The best plane is spanned by the first two principal axes.  Raises InputError for atoms that span none.
    """
    centre = coords.mean(0)
    _, sizes, axes = np.linalg.svd(np.vstack([coords - centre, np.zeros((3, 3))]), full_matrices=False)
    rank = min(2, _rank(sizes))
    if atoms is not None:
        centre, axes = _through(coords, atoms)
    # The sign of a principal axis is arbitrary: the same molecule is to give the same picture.
    axes = np.array([a * np.sign(a[np.argmax(abs(a) > 0.5 * abs(a).max())]) for a in axes[:2]])
    inside = (coords - centre) @ axes.T
    low, high = inside.min(0) - MARGIN, inside.max(0) + MARGIN
    step = np.sqrt(np.prod(high - low) / POINTS)
    # An odd number of points: one is in the middle, on the axis of a linear molecule.
    u, v = (np.linspace(a, b, 2 * round((b - a) / step / 2) + 1) for a, b in zip(low, high, strict=True))
    return Plane(centre, axes, u, v, rank)


def _through(coords: np.ndarray, atoms: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Centre of three atoms and two axes of their plane, the first along the line from the first to the second."""
    if len(set(atoms)) != 3 or not all(1 <= k <= len(coords) for k in atoms):
        raise InputError(f"--atoms takes three different numbers from 1 to {len(coords)}, not {list(atoms)}")
    a, b, c = coords[[k - 1 for k in atoms]]
    if np.linalg.norm(np.cross(b - a, c - a)) < FLAT:
        raise InputError(f"atoms {', '.join(map(str, atoms))} lie on a line: leave --atoms out, or name other atoms")
    first = (b - a) / np.linalg.norm(b - a)
    second = (c - a) - (c - a) @ first * first
    return (a + b + c) / 3, np.array([first, second / np.linalg.norm(second)])


def extent(plane: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, right, lower and upper end of a saved plane, Angstrom."""
    u, v = (np.array(plane[k], dtype=float) * BOHR for k in ("u_bohr", "v_bohr"))
    return float(u[0]), float(u[-1]), float(v[0]), float(v[-1])


def mark_atoms(axes: Any, plane: dict[str, Any]) -> None:
    """The symbols of the atoms that lie in a saved plane."""
    import matplotlib.patheffects

    halo = [matplotlib.patheffects.withStroke(linewidth=2, foreground="white")]
    for atom in plane["atoms"]:
        place = atom["u_bohr"] * BOHR, atom["v_bohr"] * BOHR
        axes.text(*place, atom["symbol"], ha="center", va="center", fontsize=9, path_effects=halo)
