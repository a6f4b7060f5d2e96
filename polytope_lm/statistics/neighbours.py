"""Neighbours under exclusions: do a token's nearest *other* words share its label.

*Strict neighbour agreement.* For each token the k nearest tokens that share none of its groups (lemma, form,
token, document); the score is the mean over tokens of the share of those neighbours with the token's own
label. Without the exclusions the score mostly counts repeated words and repeated passages (figures are .1 to
.3 higher). Its variance comes from sums over documents on the fixed graph (see `DocumentSums`): a half's
neighbours would come from twice as deep, where representations overlap more, and halves gave .43 to .45 of the
true variance of a difference. Ties in distance are broken by a random order of the tokens.

*Hubs.* The in-degree of a token is how many others name it. A skewed in-degree means that a few tokens speak
for many (Radovanovic, Nanopoulos & Ivanovic, "Hubs in space", JMLR 2010).

*1-NN accuracy.* Does the nearest other token have the same label, leave-one-out: among all tokens, or only
among tokens of one identity, where the word explains nothing, for every token is then read by the nearest
other use of the same word. Beside it stands the share that the most frequent label of the *other* allowed
tokens gets, which needs no representation at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numba
import numpy as np
from scipy.stats import skew

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int


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
    distance: Float[np.ndarray, "q n"],
    groups: Int[np.ndarray, "n g"],
    k: int,
    order: Int[np.ndarray, " n"] | None = None,
    asked: Int[np.ndarray, " q"] | None = None,
) -> Int[np.ndarray, "q k"]:
    """Return each token's k nearest tokens that share no group with it, nearest first.

    The rows of `distance` are those of the tokens in `asked`; None: of all, in order.

    Two tokens with the same non-negative int32 id in any column of `groups` are no neighbours. Rows with fewer
    allowed tokens end in -1. Of tokens at the same distance the one that comes first in `order` (a permutation;
    None: by index) is nearer.
    """
    asked = np.arange(len(groups)) if asked is None else asked
    if distance.shape != (len(asked), len(groups)):
        msg = f"distances of shape {distance.shape} do not fit {len(groups)} tokens; give one row and column a token"
        raise PolytopeError(msg)
    if not np.isfinite(distance).all():
        row = int(np.argwhere(~np.isfinite(distance))[0, 0])
        raise PolytopeError(f"a distance of token {row} is not finite; look for NaN in the representation's rows")
    places = np.arange(len(groups)) if order is None else order
    there = (np.ascontiguousarray(groups, dtype=np.int32), k, places.astype(np.int32), asked.astype(np.int32))
    return np.asarray(_nearest(distance, *there))


@compiled(parallel=True)
def _nearest(
    distance: Float[np.ndarray, "q n"],
    groups: Int[np.ndarray, "n g"],
    k: int,
    order: Int[np.ndarray, " n"],
    asked: Int[np.ndarray, " q"],
) -> Int[np.ndarray, "q k"]:
    out = np.full((len(asked), k), -1, dtype=np.int32)
    for row in numba.prange(len(asked)):
        i = asked[row]
        best = np.full(k, np.inf, dtype=np.float32)
        for j in order:
            d = distance[row, j]
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
                out[row, at] = out[row, at - 1]
                at -= 1
            best[at] = d
            out[row, at] = j
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


@dataclass(frozen=True, eq=False)
class DocumentSums:
    """An agreement score of a fixed neighbour graph, as sums over documents.

    With `w_i = 1 / (n k_i)` the weight of each edge of token i, n the tokens with a neighbour and `k_i` their
    neighbours, the score is `theta = sum_ij w_i 1[l_i = l_j]` over edges. A document moves it in two ways. Its own
    tokens are asked about: each edge adds `w_i (1[l_i = l_j] - theta)`. And its tokens are neighbours of others, which
    would name their next ones if it were not there: an edge adds what token j has beyond i's other neighbours,
    `w_i (1[l_i = l_j] - p_ij)`, p_ij their share of i's label. (To take theta instead counts a class of words that is
    easy twice, as those who ask and as those who are named: with real labels the standard error was up to three times
    the true one.) With `x_d` the sum of both over document d,

        variance = D / (D - 1) sum_d x_d^2 - Q:

    an infinitesimal jackknife over documents, which counts chance agreement of two documents for both (Efron & Stein,
    "The jackknife estimate of variance", Annals of Statistics 1981: too great by the part of second order). Exchanges
    of labels between documents leave nothing else, so the score's variance over them, Q, is taken off once. A few
    documents that are everyone's neighbours can make a sum over documents right on average and much too small mostly
    (on one set of codes 16 % of nulls excluded 0); exchanges know such hubs, so at least Q is taken.

    Differences are taken document by document. A null is a mean over few exchanges of labels: its own variance,
    theirs over their number, counts besides.

    Attributes:
        value: the score, less its null where `less` took it off.
        sums: `x_d` of each document.
        extra: variance that is not the documents': of the mean over few draws of a random control.
        null: the score of each exchange of labels; empty where no null was taken off.

    """

    value: float
    sums: Float[np.ndarray, " documents"]
    extra: float = 0.0
    null: Float[np.ndarray, " exchanges"] = field(default_factory=lambda: np.empty(0))

    def __sub__(self, other: DocumentSums) -> DocumentSums:
        sums, extra = self.sums - other.sums, self.extra + other.extra
        return DocumentSums(self.value - other.value, sums, extra, self.null - other.null)

    def less(self, null: Float[np.ndarray, " exchanges"]) -> DocumentSums:
        """Return the score less the mean of what exchanged labels score."""
        return DocumentSums(self.value - float(null.mean()), self.sums, self.extra, null)

    @staticmethod
    def mean_of_draws(each: Sequence[DocumentSums]) -> DocumentSums:
        """Return a random control's mean over its draws, whose own variance `s^2 / d` counts besides."""
        values = np.array([one.value for one in each])
        spread = float(values.var(ddof=1)) / len(each) if len(each) > 1 else 0.0
        sums, null = (np.mean(several, axis=0) for several in ([x.sums for x in each], [x.null for x in each]))
        return DocumentSums(float(values.mean()), sums, spread, null)

    def by_documents(self, freedom: float | None) -> Estimate:
        """Return the score with `value +/- t sd`."""
        jackknife = float((self.sums**2).sum()) * len(self.sums) / max(len(self.sums) - 1, 1)
        chance = float(self.null.var(ddof=1)) if len(self.null) > 1 else 0.0
        across = max(jackknife - chance, chance) + chance / max(len(self.null), 1) + self.extra
        return Estimate.around(self.value, float(np.sqrt(across)), freedom)


def agreement_sums(
    neighbours: Int[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], documents: Int[np.ndarray, " n"]
) -> DocumentSums:
    """Return strict neighbour agreement with its sums over documents (numbered from 0).

    A token without any neighbour (-1) is left out, one with fewer than k averages over those it has.
    """
    row, to, weight = _edges(neighbours)
    same = (labels[row] == labels[to]).astype(np.float64)
    value = float(weight @ same)
    found, agreed = np.bincount(row), np.bincount(row, weights=same)
    # An only neighbour has no others to be compared with.
    others = np.where(found[row] > 1, (agreed[row] - same) / np.maximum(found[row] - 1, 1), value)
    count = int(documents.max()) + 1
    asked = np.bincount(documents[row], weights=weight * (same - value), minlength=count)
    named = np.bincount(documents[to], weights=weight * (same - others), minlength=count)
    return DocumentSums(value, asked + named)


def agreements(neighbours: Int[np.ndarray, "n k"], labelings: Int[np.ndarray, "m n"]) -> Float[np.ndarray, " m"]:
    """Return the agreement score of each of several labelings on one graph."""
    row, to, weight = _edges(neighbours)
    return np.array([float(weight @ (labels[row] == labels[to])) for labels in labelings])


def _edges(
    neighbours: Int[np.ndarray, "n k"],
) -> tuple[Int[np.ndarray, " e"], Int[np.ndarray, " e"], Float[np.ndarray, " e"]]:
    """Return each edge's two tokens and its weight in the score."""
    there = neighbours >= 0
    found = there.sum(axis=1)
    if not found.any():
        raise PolytopeError(f"none of {len(neighbours)} tokens has a strict neighbour; add documents with other words")
    row = np.nonzero(there)[0]
    return row, neighbours[there], 1 / (found[row] * int((found > 0).sum()))


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
    order: Int[np.ndarray, " n"] | None = None,
) -> NearestLabel:
    """Read each token's label off its nearest allowed token; ties go to the one that comes first in `order`.

    Two tokens with the same non-negative id in any column of `excluded` (one document, say) are no neighbours;
    where `within` gives strata, such as token identities, only tokens of one stratum are. `order` is a permutation;
    None: by index.
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
    first = np.arange(n) if order is None else order
    placed = first[np.argsort(stratum[first], kind="stable")]
    ends = np.cumsum(np.bincount(stratum))
    label = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    near, guess = _read(distance, label, blocked, placed, ends[stratum])
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

    `order` has the tokens of one stratum side by side; `end` says where a token's stratum ends in it.
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
