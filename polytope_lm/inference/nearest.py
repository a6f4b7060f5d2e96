"""1-NN accuracy: does the nearest other token have the same label, leave-one-out.

Among all tokens, or only among tokens of one identity, where the word explains nothing: then every token is
read by the nearest other use of the same word. Beside it stands the share that the most frequent label of the
*other* allowed tokens gets, which needs no representation at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.neighbours import strict_neighbours

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class NearestLabel:
    """Leave-one-out accuracy of the nearest neighbour's label.

    Attributes:
        accuracy: share of tokens whose nearest allowed token has their label; None where no token has one.
        majority: share whose label is the most frequent one among the other allowed tokens.
        tokens: tokens counted.
        without: tokens without any allowed neighbour, left out.
        correct: whether each token's neighbour agrees, False for those without one.
        found: which tokens have a neighbour.

    """

    accuracy: float | None
    majority: float | None
    tokens: int
    without: int
    correct: Bool[np.ndarray, " n"]
    found: Bool[np.ndarray, " n"]


def nearest_label(
    distance: Float[np.ndarray, "n n"],
    labels: Int[np.ndarray, " n"],
    *,
    excluded: Int[np.ndarray, "n g"] | None = None,
    within: Int[np.ndarray, " n"] | None = None,
) -> NearestLabel:
    """Read each token's label off its nearest allowed token; ties go to the lower index.

    Args:
        distance: all pairwise distances.
        labels: id of each token's label.
        excluded: ids; two tokens with the same non-negative id in any column (one document, say) are no
            neighbours.
        within: stratum of each token, such as its identity: only tokens of one stratum are neighbours.

    Raises:
        PolytopeError: shapes that do not fit, or a distance that is not finite.

    """
    n = len(labels)
    if distance.shape != (n, n) or any(len(x) != n for x in (excluded, within) if x is not None):
        raise PolytopeError(
            f"distances of shape {distance.shape} do not fit {n} labels; give one row and column a token"
        )
    barred = np.full((n, 1), -1, dtype=np.int32) if excluded is None else excluded
    stratum = np.zeros(n, dtype=np.int64) if within is None else np.unique(within, return_inverse=True)[1]
    near, guess = np.full(n, -1), np.full(n, -1)
    order = np.argsort(stratum, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(stratum))[:-1]):
        part = np.ascontiguousarray(distance[np.ix_(rows, rows)], dtype=np.float32)
        local = strict_neighbours(part, barred[rows], 1)[:, 0]
        near[rows] = np.where(local >= 0, rows[local], -1)
        guess[rows] = _most_frequent(labels[rows], barred[rows])
    found = near >= 0
    correct = found & (labels[near] == labels)
    by_majority = float((guess == labels)[found].mean()) if found.any() else None
    accuracy = float(correct[found].mean()) if found.any() else None
    return NearestLabel(accuracy, by_majority, int(found.sum()), int((~found).sum()), correct, found)


def _most_frequent(labels: Int[np.ndarray, " m"], barred: Int[np.ndarray, "m g"]) -> Int[np.ndarray, " m"]:
    """Return, for each token, the most frequent label of the tokens that it may be compared with."""
    names, label = np.unique(labels, return_inverse=True)
    one_hot = np.eye(len(names), dtype=np.int32)[label]
    out = np.empty(len(labels), dtype=np.int64)
    for i in range(len(labels)):
        shared = ((barred == barred[i]) & (barred[i] >= 0)).any(axis=1)
        shared[i] = True
        counts = one_hot[~shared].sum(axis=0)
        out[i] = names[counts.argmax()] if counts.any() else -1
    return out
