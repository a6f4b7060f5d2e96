"""Distances between rows, all of them or in blocks, in the metric that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.hamming import distances as hamming_distances
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.inference.partitions import Between
    from polytope_lm.representations.registry import Rows


def pairwise(rows: Rows, name: str = "these rows") -> Float[np.ndarray, "T T"]:
    """Return the float32 distances between all rows: bits that differ (or should), or `1 - cos` (0 to 2).

    Expected Hamming of probabilities p, q is `sum p (1 - q) + q (1 - p)`; of a row with itself, too.

    Args:
        rows: one row a token.
        name: what an error calls them.

    Raises:
        PolytopeError: a zero row under cosine; the message names it.

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

    Args:
        rows: one row a token.
        name: what an error calls them.

    Raises:
        PolytopeError: a zero row under cosine; the message names it.

    """
    if rows.metric == "Hamming":
        return lambda a, b: hamming_distances(rows.values[a], rows.values[b]).astype(np.float32)
    values = np.asarray(rows.values, dtype=np.float32)
    if rows.metric == "expected Hamming":
        return lambda a, b: _expected_hamming(values[a], values[b])
    unit = _unit(values, name)

    def cosine(a: Int[np.ndarray, " A"], b: Int[np.ndarray, " B"]) -> Float[np.ndarray, "A B"]:
        out: Float[np.ndarray, "A B"] = unit[a] @ unit[b].T
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
        msg = f"row {row} of {name} is the zero vector, which has no cosine; leave that token out"
        raise PolytopeError(msg)
    unit: Float[np.ndarray, "T W"] = (values / norms[:, None]).astype(np.float32)
    return unit


def _expected_hamming(p: Float[np.ndarray, "A N"], q: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "A B"]:
    on = [each.sum(axis=1, dtype=np.float64).astype(np.float32) for each in (p, q)]
    out: Float[np.ndarray, "A B"] = p @ q.T
    out *= -2
    out += on[0][:, None] + on[1]
    np.maximum(out, 0, out=out)
    return out
