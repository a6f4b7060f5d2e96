"""All pairwise distances between rows, in the metric that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.hamming import distances as hamming_distances
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float

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
        return _expected_hamming(values)
    # In float64: the squares of a float32 row may leave its range.
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    if (norms == 0).any():
        row = int(np.flatnonzero(norms == 0)[0])
        msg = f"row {row} of {name} is the zero vector, which has no cosine; leave that token out"
        raise PolytopeError(msg)
    unit = (values / norms[:, None]).astype(np.float32)
    out: Float[np.ndarray, "T T"] = unit @ unit.T
    np.subtract(1, out, out=out)
    np.maximum(out, 0, out=out)
    np.fill_diagonal(out, 0)
    return out


def _expected_hamming(p: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T T"]:
    on = p.sum(axis=1, dtype=np.float64).astype(np.float32)
    out: Float[np.ndarray, "T T"] = p @ p.T
    out *= -2
    out += on[:, None] + on
    np.maximum(out, 0, out=out)
    return out
