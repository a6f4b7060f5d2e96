"""Neighbours under exclusions: do a token's nearest *other* words share its label.

*Strict neighbour agreement.* For each token the k nearest tokens that share none of its groups (lemma, form,
token, document); the score is the mean over tokens of the share of those neighbours with the token's own
label. Without the exclusions the score mostly counts repeated words and repeated passages (figures are .1 to
.3 higher).

*Hubs.* The in-degree of a token is how many others name it. A skewed in-degree means that a few tokens speak
for many (Radovanovic, Nanopoulos & Ivanovic, "Hubs in space", JMLR 2010).

*1-NN accuracy.* Does the nearest other token have the same label, leave-one-out: among all tokens, or only
among tokens of one identity, where the word explains nothing, for every token is then read by the nearest
other use of the same word. Beside it stands the share that the most frequent label of the *other* allowed
tokens gets, which needs no representation at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from scipy.stats import skew

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_TOGETHER = 128
"""Draws that one pass over the neighbours counts for at once."""


@dataclass(frozen=True)
class Hubs:
    """In-degrees of the strict neighbour graph: a score made by three hubs is no finding.

    Attributes:
        max_in_degree: how many tokens name the greatest hub among their neighbours (k on average).
        skew: the in-degrees' skewness (above about 1 the graph has hubs).
        never_named: share of tokens that are nobody's neighbour.

    """

    max_in_degree: int
    skew: float
    never_named: float


def strict_neighbours(
    distance: Float[np.ndarray, "n n"], groups: Int[np.ndarray, "n g"], k: int
) -> Int[np.ndarray, "n k"]:
    """Return each token's k nearest tokens that share no group with it, nearest first, ties by lower index.

    Two tokens with the same non-negative int32 id in any column of `groups` are no neighbours. Rows with fewer
    allowed tokens end in -1.
    """
    if distance.shape != (len(groups), len(groups)):
        msg = f"distances of shape {distance.shape} do not fit {len(groups)} tokens; give one row and column a token"
        raise PolytopeError(msg)
    if not np.isfinite(distance).all():
        row = int(np.argwhere(~np.isfinite(distance))[0, 0])
        raise PolytopeError(f"a distance of token {row} is not finite; look for NaN in the representation's rows")
    return np.asarray(_nearest(distance, np.ascontiguousarray(groups, dtype=np.int32), k))


@compiled(parallel=True)
def _nearest(distance: Float[np.ndarray, "n n"], groups: Int[np.ndarray, "n g"], k: int) -> Int[np.ndarray, "n k"]:
    n = len(groups)
    out = np.full((n, k), -1, dtype=np.int32)
    for i in numba.prange(n):
        best = np.full(k, np.inf, dtype=np.float32)
        for j in range(n):
            d = distance[i, j]
            # The distance first: nearly every candidate fails here, before its groups are read.
            if j == i or d >= best[k - 1]:
                continue
            shared = False
            for g in range(groups.shape[1]):
                if groups[i, g] >= 0 and groups[i, g] == groups[j, g]:
                    shared = True
                    break
            if shared:
                continue
            at = k - 1
            while at > 0 and best[at - 1] > d:
                best[at] = best[at - 1]
                out[i, at] = out[i, at - 1]
                at -= 1
            best[at] = d
            out[i, at] = j
    return out


def has_neighbours(
    groups: Int[np.ndarray, "n g"], labels: Int[np.ndarray, " n"], k: int
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return which tokens have k neighbours allowed by `strict_neighbours`, and which one with their own label."""
    found = _allowed(np.ascontiguousarray(groups, dtype=np.int32), labels.astype(np.int32), k)
    return found[:, 0] >= k, found[:, 1] > 0


@compiled
def _allowed(groups: Int[np.ndarray, "n g"], labels: Int[np.ndarray, " n"], k: int) -> Int[np.ndarray, "n 2"]:
    """Count each token's allowed neighbours until there are k in all and one of its label."""
    found = np.zeros((len(groups), 2), dtype=np.int32)
    for i in range(len(groups)):
        for j in range(len(groups)):
            if i == j or (found[i, 0] >= k and labels[i] != labels[j]):
                continue
            shared = False
            for g in range(groups.shape[1]):
                if groups[i, g] >= 0 and groups[i, g] == groups[j, g]:
                    shared = True
                    break
            if not shared:
                found[i, 0] += 1
                found[i, 1] += labels[i] == labels[j]
                if found[i, 0] >= k and found[i, 1] > 0:
                    break
    return found


def resampled_agreement(
    neighbours: Int[np.ndarray, "n depth"], labels: Int[np.ndarray, " n"], inside: Bool[np.ndarray, "draws n"], k: int
) -> Float[np.ndarray, " draws"]:
    """Return the agreement score on each of many subsets, with the neighbours that the subset has.

    Args:
        neighbours: strict neighbours, deeper than k so that a subset still finds its own k nearest (six times
            k finds them all but once in some thousands for a half); -1 where there is none.
        labels: label id of each token.
        inside: which tokens each draw keeps, as queries and as neighbours.
        k: neighbours counted, at most 255; a token with fewer averages over those it has, one with none is
            left out.

    """
    if k > 255:
        raise PolytopeError(f"k = {k} neighbours counted; at most 255 can be")
    # One row a token, so that what all draws say of a neighbour lies side by side.
    kept = np.ascontiguousarray(inside.T).view(np.uint8)
    return np.asarray(_agreement(neighbours, labels.astype(np.int32), kept, k))


@compiled(parallel=True)
def _agreement(
    neighbours: Int[np.ndarray, "n depth"], labels: Int[np.ndarray, " n"], kept: Int[np.ndarray, "n draws"], k: int
) -> Float[np.ndarray, " draws"]:
    draws = kept.shape[1]
    most = np.uint8(k)
    out = np.empty(draws)
    for block in numba.prange((draws + _TOGETHER - 1) // _TOGETHER):
        first = block * _TOGETHER
        width = min(_TOGETHER, draws - first)
        total = np.zeros(width)
        tokens = np.zeros(width, dtype=np.int64)
        for i in range(len(labels)):
            found = np.zeros(width, dtype=np.uint8)
            same = np.zeros(width, dtype=np.uint8)
            for rank in range(neighbours.shape[1]):
                j = neighbours[i, rank]
                if j < 0 or (rank >= 2 * k and rank % 4 == 0 and (found == most).all()):
                    break
                row = kept[j, first : first + width]
                # Small unsigned numbers throughout: the loop then does 16 or 32 draws in one instruction.
                alike = np.uint8(labels[i] == labels[j])
                for draw in range(width):
                    taken = np.uint8(row[draw] & np.uint8(found[draw] < most))
                    found[draw] = np.uint8(found[draw] + taken)
                    same[draw] = np.uint8(same[draw] + np.uint8(taken & alike))
            for draw in range(width):
                if kept[i, first + draw] and found[draw] > 0:
                    total[draw] += same[draw] / found[draw]
                    tokens[draw] += 1
        for draw in range(width):
            out[first + draw] = total[draw] / tokens[draw] if tokens[draw] > 0 else np.nan
    return out


def hubs(neighbours: Int[np.ndarray, "n k"]) -> Hubs:
    """Return the hub diagnostics of a neighbour graph (-1: no neighbour)."""
    degree = np.bincount(neighbours[neighbours >= 0], minlength=len(neighbours))
    spread = float(skew(degree)) if degree.std() > 0 else 0.0
    return Hubs(max_in_degree=int(degree.max()), skew=spread, never_named=float((degree == 0).mean()))


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

    Two tokens with the same non-negative id in any column of `excluded` (one document, say) are no neighbours;
    where `within` gives strata, such as token identities, only tokens of one stratum are.
    """
    n = len(labels)
    if distance.shape != (n, n) or any(len(x) != n for x in (excluded, within) if x is not None):
        raise PolytopeError(
            f"distances of shape {distance.shape} do not fit {n} labels; give one row and column a token"
        )
    if not np.isfinite(distance).all():
        row = int(np.argwhere(~np.isfinite(distance))[0, 0])
        raise PolytopeError(f"a distance of token {row} is not finite; look for NaN in the rows")
    blocked = np.full((n, 1), -1, dtype=np.int32) if excluded is None else excluded.astype(np.int32)
    stratum = np.zeros(n, dtype=np.int64) if within is None else np.unique(within, return_inverse=True)[1]
    order = np.argsort(stratum, kind="stable")
    ends = np.cumsum(np.bincount(stratum))
    label = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    near, guess = _read(distance, label, blocked, order, ends[stratum])
    found = near >= 0
    correct = found & (labels[near] == labels)
    by_majority = float((guess == label)[found].mean()) if found.any() else None
    accuracy = float(correct[found].mean()) if found.any() else None
    return NearestLabel(accuracy, by_majority, int(found.sum()), int((~found).sum()), correct, found)


@compiled
def _read(
    distance: Float[np.ndarray, "n n"],
    label: Int[np.ndarray, " n"],
    blocked: Int[np.ndarray, "n g"],
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
                for g in range(blocked.shape[1]):
                    shared = shared or (blocked[i, g] >= 0 and blocked[i, g] == blocked[j, g])
                if shared:
                    continue
                counts[label[j]] += 1
                if near[i] < 0 or distance[i, j] < distance[i, near[i]]:
                    near[i] = j
            if near[i] >= 0:
                guess[i] = counts.argmax()
        first = last
    return near, guess
