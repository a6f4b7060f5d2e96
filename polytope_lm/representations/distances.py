"""Distances between rows, all of them or in blocks, in the metric that they ask for.

Exact nearest neighbours between rows of any representation: the graph that density clustering needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.hamming import distances as hamming_distances
from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import tie_order

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Int32, Int64

    from polytope_lm.representations.registry import Rows
    from polytope_lm.statistics.clustering import Between

_BLOCK = 512


def pairwise(rows: Rows, name: str = "these rows") -> Float[np.ndarray, "T T"]:
    """Return the float32 distances between all rows: bits that differ (or should), or `1 - cos` (0 to 2).

    Expected Hamming of probabilities p, q is `sum p (1 - q) + q (1 - p)`; of a row with itself, too. A zero row has
    no cosine: the error calls the rows by `name`.
    """
    if rows.metric == "Hamming":
        return hamming_distances(rows.values, rows.values).astype(np.float32)
    values = np.asarray(rows.values, dtype=np.float32)
    if rows.metric == "expected Hamming":
        return _expected_hamming(values, values)
    unit = _unit(values, name)
    out: Float[np.ndarray, "T T"] = unit @ unit.T
    np.subtract(1, out, out=out)
    np.maximum(out, 0, out=out)
    np.fill_diagonal(out, 0)
    return out


def in_blocks(rows: Rows, name: str = "these rows") -> Between:
    """Return a function of two lists of row numbers: the float32 distances between them, as `pairwise` has.

    Lengths are divided out once, here, so that many blocks cost no more than one.
    """
    if rows.metric == "Hamming":
        return lambda a, b: hamming_distances(rows.values[a], rows.values[b]).astype(np.float32)
    values = np.asarray(rows.values, dtype=np.float32)
    if rows.metric == "expected Hamming":
        return lambda a, b: _expected_hamming(values[a], values[b])
    unit = _unit(values, name)

    def cosine(a: Int[np.ndarray, " A"], b: Int[np.ndarray, " B"]) -> Float[np.ndarray, "A B"]:
        every = len(b) == len(unit) and np.array_equal(b, np.arange(len(b)))
        out: Float[np.ndarray, "A B"] = unit[a] @ (unit if every else unit[b]).T
        np.subtract(1, out, out=out)
        np.maximum(out, 0, out=out)
        # A row has no distance to itself, which rounding would give it.
        out[a[:, None] == b] = 0
        return out

    return cosine


def _unit(values: Float[np.ndarray, "T W"], name: str) -> Float[np.ndarray, "T W"]:
    # In float64: the squares of a float32 row may leave its range.
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    if (norms == 0).any():
        row = int(np.flatnonzero(norms == 0)[0])
        raise PolytopeError(f"row {row} of {name} is the zero vector, which has no cosine; leave that token out")
    unit = np.empty_like(values)
    for start in range(0, len(values), _BLOCK):  # the quotients are float64: never all of them at once
        rows = slice(start, start + _BLOCK)
        unit[rows] = values[rows] / norms[rows, None]
    return unit


def _expected_hamming(p: Float[np.ndarray, "A N"], q: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "A B"]:
    on = [each.sum(axis=1, dtype=np.float64).astype(np.float32) for each in (p, q)]
    out: Float[np.ndarray, "A B"] = p @ q.T
    out *= -2
    out += on[0][:, None] + on[1]
    np.maximum(out, 0, out=out)
    return out


def nearest_rows(
    rows: Rows, k: int, name: str = "these rows", between: Between | None = None, seed: int = 0
) -> tuple[Int32[np.ndarray, "T k"], Float[np.ndarray, "T k"]]:
    """Return each row's k nearest others, nearest first, ties in the order that `seed` draws, and the distances.

    Hamming neighbours come from the packed bits; others from distances in blocks (`between`, where they are at
    hand), never all at once.
    """
    n = len(rows.values)
    if not 1 <= k < n:
        raise PolytopeError(f"{k} neighbours of each of {n} tokens; give a number from 1 to {n - 1}")
    if rows.metric == "Hamming":
        found = hamming.nearest(rows.values, rows.values, k, exclude_self=True, seed=seed)
        return found.indices, found.distances.astype(np.float32)
    between = in_blocks(rows, name) if between is None else between
    everything, order = np.arange(n), tie_order(n, seed)
    place = np.argsort(order)
    indices, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for start in range(0, n, _BLOCK):
        own = everything[start : start + _BLOCK]
        indices[own], distances[own] = _least(between(own, everything), own, k, order, place)
    return indices, distances


def _least(
    distance: Float[np.ndarray, "A T"], own: np.ndarray, k: int, order: Int64[np.ndarray, " T"],
    place: Int64[np.ndarray, " T"],
) -> tuple[Int32[np.ndarray, "A k"], Float[np.ndarray, "A k"]]:  # fmt: skip
    """Return the k least of each row, its own column left out, through keys `distance * 2^32 + place`.

    A float32 that is not negative orders as its bits do, so ties go to the lower place in `order` exactly.
    """
    distance[np.arange(len(own)), own] = np.inf
    keys = (distance + np.float32(0)).view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= place.astype(np.uint64)
    keys = np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1)
    columns = order[(keys & np.uint64(2**32 - 1)).astype(np.int64)].astype(np.int32)
    return columns, (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
