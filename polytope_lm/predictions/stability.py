"""Stability: would other documents have given the same regions.

The documents are cut at random into three parts of (nearly) equal numbers of documents. The tokens of the
first and those of the second are clustered, each on their own, and every token of the third goes to its
nearest medoid of either clustering: AMI between the two assignments. Repeated over seeds, each of which cuts
anew. A clustering that is not stable can not be a fact about the model, whatever it scores; a stable one need
not mean anything.

A medoid is the member with the smallest sum of distances to its cluster: where FasterPAM has ended, it could
not be exchanged with profit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.ami import adjusted_mutual_information
from polytope_lm.inference.partitions import k_medoids
from polytope_lm.predictions.chosen import SPLITS
from polytope_lm.predictions.seeds import MEDOIDS, derived

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

REPEATS = 5


@dataclass(frozen=True)
class Stability:
    """How far clusterings of two disjoint thirds of the documents agree on the last third.

    Attributes:
        ami: mean over the cuts.
        sd: its standard deviation between cuts (not of the mean); None for a single cut.
        each: AMI of each cut.
        k: clusters of each third.
        tokens: tokens assigned, on average over the cuts.

    """

    ami: float
    sd: float | None
    each: tuple[float, ...]
    k: int
    tokens: float


def stability(
    distance: Float[np.ndarray, "n n"],
    documents: Int[np.ndarray, " n"],
    k: int,
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Stability:
    """Cluster two thirds of the documents apart and compare what they make of the last one.

    Args:
        distance: all pairwise distances of one representation.
        documents: each token's document.
        k: clusters of each third.
        repeats: cuts.
        seed: of the cuts and of the first medoids.

    Raises:
        PolytopeError: fewer than 3 documents, a third with no more than k tokens, or shapes that do not fit.

    """
    if distance.shape != (len(documents), len(documents)) or repeats < 1:
        raise PolytopeError(
            f"distances of shape {distance.shape} for {len(documents)} tokens and {repeats} cuts; give one "
            "row and column a token, and at least 1 cut"
        )
    scores, sizes = [], []
    for number in range(repeats):
        first, second, last = thirds(documents, derived(seed, SPLITS, number))
        least = int(min(first.sum(), second.sum()))
        if k >= least or not last.any():
            raise PolytopeError(
                f"a third of the documents has {least} tokens, which k = {k} clusters do not fit; ask for "
                "fewer clusters or more tokens"
            )
        start = derived(seed, MEDOIDS, number)
        one, two = (_assigned(distance, part, last, k, start) for part in (first, second))
        scores.append(adjusted_mutual_information(one, two))
        sizes.append(int(last.sum()))
    spread = float(np.std(scores, ddof=1)) if repeats > 1 else None
    return Stability(float(np.mean(scores)), spread, tuple(scores), k, float(np.mean(sizes)))


def thirds(
    documents: Int[np.ndarray, " n"], seed: int
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Cut the documents at random into three disjoint parts; return which tokens each part has.

    Raises:
        PolytopeError: fewer than 3 documents.

    """
    names, document = np.unique(documents, return_inverse=True)
    if len(names) < 3:
        raise PolytopeError(f"{len(names)} documents can not be cut into thirds; add documents")
    part = np.random.default_rng(seed).permutation(len(names)) % 3
    mine = part[document]
    return mine == 0, mine == 1, mine == 2


def medoids(distance: Float[np.ndarray, "n n"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """Return each cluster's medoid, by cluster id: the member with the smallest sum of distances to it.

    Args:
        distance: all pairwise distances.
        labels: cluster id of each token, -1 for none; a tie goes to the lower index.

    """
    out = []
    for cluster in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == cluster)
        out.append(members[distance[np.ix_(members, members)].sum(axis=1, dtype=np.float64).argmin()])
    return np.array(out, dtype=np.int64)


def _assigned(
    distance: Float[np.ndarray, "n n"],
    part: Bool[np.ndarray, " n"],
    last: Bool[np.ndarray, " n"],
    k: int,
    seed: int,
) -> Int[np.ndarray, " m"]:
    """Cluster one part, and send the last part's tokens to the nearest medoids."""
    rows = np.flatnonzero(part)
    own = np.ascontiguousarray(distance[np.ix_(rows, rows)])
    centres = rows[medoids(own, k_medoids(own, k, seed=seed))]
    return np.asarray(distance[np.ix_(np.flatnonzero(last), centres)].argmin(axis=1))
