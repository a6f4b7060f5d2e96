"""Exact nearest neighbours between rows of any representation: the graph that density clustering needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes import hamming
from polytope_lm.errors import PolytopeError
from polytope_lm.representations.distances import in_blocks

if TYPE_CHECKING:
    from jaxtyping import Float, Int32

    from polytope_lm.inference.partitions import Between
    from polytope_lm.representations.registry import Rows

_BLOCK = 512


def nearest_rows(
    rows: Rows, k: int, name: str = "these rows", between: Between | None = None
) -> tuple[Int32[np.ndarray, "T k"], Float[np.ndarray, "T k"]]:
    """Return each row's k nearest others, nearest first, ties by lower index, and the distances to them.

    Hamming neighbours come from the packed bits; others from distances in blocks, never all at once.

    Args:
        rows: one row a token.
        k: how many.
        name: what an error calls them.
        between: distances between two lists of rows, where they are at hand.

    Raises:
        PolytopeError: k is not between 1 and the number of other rows, or a zero row under cosine.

    """
    n = len(rows.values)
    if not 1 <= k < n:
        msg = f"{k} neighbours of each of {n} tokens; give a number from 1 to {n - 1}"
        raise PolytopeError(msg)
    if rows.metric == "Hamming":
        found = hamming.nearest(rows.values, rows.values, k, exclude_self=True)
        return found.indices, found.distances.astype(np.float32)
    between = in_blocks(rows, name) if between is None else between
    everything = np.arange(n)
    indices, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for start in range(0, n, _BLOCK):
        own = everything[start : start + _BLOCK]
        indices[own], distances[own] = _least(between(own, everything), own, k)
    return indices, distances


def _least(
    distance: Float[np.ndarray, "A T"], own: np.ndarray, k: int
) -> tuple[Int32[np.ndarray, "A k"], Float[np.ndarray, "A k"]]:
    """Return the k least of each row, its own column left out, through keys `distance * 2^32 + column`.

    A float32 that is not negative orders as its bits do, so ties go to the lower column exactly.
    """
    distance[np.arange(len(own)), own] = np.inf
    keys = (distance + np.float32(0)).view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(distance.shape[1], dtype=np.uint64)
    keys = np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1)
    columns = (keys & np.uint64(2**32 - 1)).astype(np.int32)
    return columns, (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
