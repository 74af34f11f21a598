"""Tables of potentials of auxiliary functions on a grid, compressed by compact groups of points.

Within a compact group the potentials of all functions are smooth functions of few degrees of freedom: some of the
points determine all others, so that a product with the table of many functions and many points becomes two with few.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from pyscf import lib

from mlxc.parallel import each
from mlxc.potentials import AuxiliaryPotentials

#: Points of a group.
POINTS = 1024
#: Error of the interpolation within a group, relative to the largest potential there.
INTERPOLATION = 1e-6
#: Random mixtures in which `interpolation` first looks for the rank of a table; doubled until they suffice.
MIXTURES = 256


class Store:
    """Arrays in memory while they fit into max_memory (MB), then on disk for as long as this object lives."""

    def __init__(self, max_memory: float):
        self._free = max_memory * 1e6
        self._disk: Any = None
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, int]) -> Any:
        """Room for an array: a numpy array or an HDF5 dataset."""
        size = shape[0] * shape[1] * 8
        with self._lock:
            if size < self._free:
                self._free -= size
                return np.empty(shape)
            self._disk = self._disk or lib.H5TmpFile()
            # Not in chunks, which HDF5 would keep in memory, several MB for every array.
            return self._disk.create_dataset(str(len(self._disk)), shape, "f8")

    def keep(self, array: np.ndarray) -> Any:
        """A copy of an array."""
        kept = self.empty(array.shape)
        kept[:] = array
        return kept


class Kept:
    """Arrays by their keys, while they fit into max_memory (MB); those that do not are made anew each time."""

    def __init__(self, max_memory: float):
        self._room = self._free = max_memory * 1e6
        self._arrays: dict[Hashable, np.ndarray] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> float:
        """Memory of what is kept, MB."""
        return 1e-6 * (self._room - self._free)

    def find(self, key: Hashable) -> np.ndarray | None:
        """The array of this key, if it is kept."""
        return self._arrays.get(key)

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of this key."""
        found = self.find(key)
        if found is None:
            found = make()
            with self._lock:
                if found.nbytes < self._free:
                    self._free -= found.nbytes
                    self._arrays[key] = found
        return found


def interpolation(rows: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Points k (n,) of a table rows (m, g) and weights T (g, n) with rows[:, g] = sum_k T_g,k rows[:, k].

    The points are the pivots of a Gaussian elimination on random mixtures of the rows, which stops where what is left
    has fallen below `tolerance` times the largest pivot: a randomised interpolative decomposition (Halko, Martinsson,
    Tropp, SIAM Rev. 53, 217 (2011), section 5.2).
    """
    m, g = rows.shape
    mixtures = min(MIXTURES, m, g)
    while True:
        mixed = rows.T @ np.random.default_rng(0).normal(size=(m, mixtures))
        lu, pivots, _ = scipy.linalg.lapack.dgetrf(mixed, overwrite_a=True)
        size = abs(np.diagonal(lu))
        rank = int((size > tolerance * size.max()).sum())
        if rank < 0.9 * mixtures or mixtures == min(m, g):
            break
        mixtures = min(2 * mixtures, m, g)
    order = np.arange(g)
    for i, p in enumerate(pivots):
        order[[i, p]] = order[[p, i]]
    # rows.T mixed and reordered is L U; the first `rank` of its rows generate the others by L (L of these)^-1.
    weights = np.empty((g, rank))
    weights[order[:rank]] = np.eye(rank)
    rest = lu[rank:, :rank].T
    weights[order[rank:]] = scipy.linalg.solve_triangular(
        lu[:rank, :rank], rest, trans=1, lower=True, unit_diagonal=True
    ).T
    return order[:rank], weights


def compact_groups(coords: np.ndarray, size: int) -> list[np.ndarray]:
    """Indices of points (G, 3) in compact groups of at most `size`: boxes halved across their longest edge."""

    def split(points: np.ndarray, groups: int) -> list[np.ndarray]:
        if groups <= 1:
            return [points]
        x = coords[points]
        ordered = points[np.argsort(x[:, np.ptp(x, axis=0).argmax()], kind="stable")]
        cut = len(points) * (groups // 2) // groups
        return split(ordered[:cut], groups // 2) + split(ordered[cut:], groups - groups // 2)

    return split(np.arange(len(coords)), -(-len(coords) // size))


class Group(NamedTuple):
    """Points of a compact group and the potentials V_P(g) = sum_k weights_g,k table_k,P there.

    points : slice of a block's points; weights : (g, n), None for unity; table : (n, naux)
    """

    points: slice
    weights: np.ndarray | None
    table: np.ndarray

    def spread(self, coefficients: np.ndarray) -> np.ndarray:
        """sum_P c_P V_P(g) for c (m, naux), (m, g)."""
        at_some = coefficients @ self.table.T
        return at_some if self.weights is None else at_some @ self.weights.T

    def gather(self, values: np.ndarray) -> np.ndarray:
        """sum_g x_g V_P(g) for x (m, g), (m, naux)."""
        return self._at_some(values) @ self.table

    def gather_into(self, out: np.ndarray, values: np.ndarray) -> None:
        """Add what `gather` gives to out (m, naux), in rows, without an array of this size in between."""
        if out.size:
            scipy.linalg.blas.dgemm(1.0, self.table.T, self._at_some(values).T, beta=1.0, c=out.T, overwrite_c=True)

    def _at_some(self, values: np.ndarray) -> np.ndarray:
        """sum_g x_g weights_g,k."""
        return values if self.weights is None else values @ self.weights


class PotentialTable:
    """V_P(g) for points (G, 3) in Bohr, in an order of compact groups: `coords` are those given, taken at `order`."""

    def __init__(self, potentials: AuxiliaryPotentials, coords: np.ndarray, store: Store):
        groups = compact_groups(coords, POINTS)
        self.order = np.concatenate(groups)
        self.coords = coords[self.order]
        self._starts = np.cumsum([0, *map(len, groups)])
        self._store = store  # what it holds on disk lives as long as the store
        self._tables = each(
            lambda ends: self._table(potentials, self.coords[slice(*ends)], store), pairwise(self._starts)
        )

    @staticmethod
    def _table(potentials: AuxiliaryPotentials, coords: np.ndarray, store: Store) -> tuple[Any, Any]:
        """Weights and table of a Group."""
        rows, source, factor = potentials.reduced(coords)
        naux, g = len(source), len(coords)
        if naux > MIXTURES:
            chosen, weights = interpolation(rows, INTERPOLATION)
        if naux <= MIXTURES or len(chosen) * (naux + g) > naux * g:
            # Two products would cost more than the one that they replace.
            return None, store.keep((rows[source] * factor[:, None]).T)
        return store.keep(weights), store.keep((rows[:, chosen][source] * factor[:, None]).T)

    def blocks(self, size: int):
        """Blocks of about `size` points, each of whole groups: first point and the one after the last."""
        start = 0
        for a, b in pairwise(self._starts):
            if b - start > size and a > start:
                yield start, a
                start = a
        if self._starts[-1] > start:
            yield start, self._starts[-1]

    def slices(self, p0: int, p1: int) -> list[slice]:
        """Where in the block of points p0 ... p1 its groups are."""
        first, last = np.searchsorted(self._starts, (p0, p1))
        return [slice(a - p0, b - p0) for a, b in pairwise(self._starts[first : last + 1])]

    def groups(self, p0: int, p1: int):
        """The groups of the block of points p0 ... p1."""
        first = int(np.searchsorted(self._starts, p0))
        for k, points in enumerate(self.slices(p0, p1), first):
            weights, table = self._tables[k]
            yield Group(points, None if weights is None else weights[()], table[()])
