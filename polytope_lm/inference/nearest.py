"""1-NN accuracy: does the nearest other token have the same label, leave-one-out.

Among all tokens, or only among tokens of one identity, where the word explains nothing: then every token is
read by the nearest other use of the same word. Beside it stands the share that the most frequent label of the
*other* allowed tokens gets, which needs no representation at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, no_type_check

import numba
import numpy as np

from polytope_lm.errors import PolytopeError

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
    if not np.isfinite(distance).all():
        row = int(np.argwhere(~np.isfinite(distance))[0, 0])
        raise PolytopeError(f"a distance of token {row} is not finite; look for NaN in the rows")
    barred = np.full((n, 1), -1, dtype=np.int32) if excluded is None else excluded.astype(np.int32)
    stratum = np.zeros(n, dtype=np.int64) if within is None else np.unique(within, return_inverse=True)[1]
    order = np.argsort(stratum, kind="stable")
    ends = np.cumsum(np.bincount(stratum))
    label = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    near, guess = _read(distance, label, barred, order, ends[stratum])
    found = near >= 0
    correct = found & (labels[near] == labels)
    by_majority = float((guess == label)[found].mean()) if found.any() else None
    accuracy = float(correct[found].mean()) if found.any() else None
    return NearestLabel(accuracy, by_majority, int(found.sum()), int((~found).sum()), correct, found)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _read(
    distance: Float[np.ndarray, "n n"],
    label: Int[np.ndarray, " n"],
    barred: Int[np.ndarray, "n g"],
    order: Int[np.ndarray, " n"],
    end: Int[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return each token's nearest allowed token, and the most frequent label of all that are allowed.

    `order` has the tokens of one stratum side by side, each in ascending order; `end` says where a token's
    stratum ends in it.
    """
    n = len(label)
    near = np.full(n, -1, dtype=np.int64)
    guess = np.full(n, -1, dtype=np.int64)
    counts = np.zeros(label.max() + 1, dtype=np.int64)
    first = 0
    while first < n:
        last = end[order[first]]
        for i in order[first:last]:
            counts[:] = 0
            for j in order[first:last]:
                shared = i == j
                for g in range(barred.shape[1]):
                    shared = shared or (barred[i, g] >= 0 and barred[i, g] == barred[j, g])
                if shared:
                    continue
                counts[label[j]] += 1
                if near[i] < 0 or distance[i, j] < distance[i, near[i]]:
                    near[i] = j
            if near[i] >= 0:
                guess[i] = counts.argmax()
        first = last
    return near, guess
