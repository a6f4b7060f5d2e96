"""k-medoids: the same clusterer for every representation, exact up to some 20,000 tokens, sampled beyond.

*Exact*: FasterPAM (Schubert & Rousseeuw, "Fast and Eager k-Medoids Clustering", Information Systems 2021)
with k random tokens as first medoids. All representations start from the *same* random tokens, so that a
difference between two of them is not the luck of two starts; the more careful `build` start costs O(n^2 k)
and FasterPAM ends as low without it.

*Sampled*: the same on several random samples, all tokens then assigned to the nearest of each sample's
medoids, the assignment with the least total deviation kept (CLARA: Kaufman & Rousseeuw, "Finding Groups in
Data", 1990, chapter 3). The best medoids so far are part of the next sample. Distances are computed in
blocks: n x k and size x size of them, never n x n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import kmedoids
import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int

    Between = Callable[[Int[np.ndarray, " a"], Int[np.ndarray, " b"]], Float[np.ndarray, "a b"]]
    """Distances between two lists of tokens, by their numbers."""

SAMPLES = 5
SAMPLE_SIZE = 4_000
PER_CLUSTER = 20
"""A sample has at least so many tokens a cluster; CLARA's own 40 + 2k leaves clusters of two."""

_BLOCK = 4096


@dataclass(frozen=True)
class SampledMedoids:
    """What k-medoids on samples found.

    Attributes:
        labels: cluster id of each of the n tokens, 0 to k - 1 (int32).
        medoids: the token in the middle of each cluster.
        deviation: sum over all tokens of the distance to their medoid; the least over the samples.
        deviations: the same of each sample.
        size: tokens in a sample.

    """

    labels: Int[np.ndarray, " n"]
    medoids: Int[np.ndarray, " k"]
    deviation: float
    deviations: tuple[float, ...]
    size: int


def k_medoids(distance: Float[np.ndarray, "n n"], k: int, *, seed: int) -> Int[np.ndarray, " n"]:
    """Return the cluster id of each of n tokens, 0 to k - 1 (int32).

    Args:
        distance: all pairwise distances, float32, symmetric.
        k: clusters.
        seed: of the tokens that start as medoids; the swaps then go in index order on one thread, so that the
            result does not depend on the machine's cores.

    Raises:
        PolytopeError: k is not between 2 and n - 1.

    """
    check_k(k, len(distance))
    found = _fasterpam(distance, k, seed)
    return np.asarray(found.labels, dtype=np.int32)


def sampled_k_medoids(
    n: int, k: int, between: Between, *, seed: int, samples: int = SAMPLES, size: int | None = None
) -> SampledMedoids:
    """Cluster n tokens by k-medoids on random samples of them.

    Args:
        n: tokens.
        k: clusters.
        between: distances between two lists of tokens, float32; asked for blocks.
        seed: of the samples and of each one's first medoids.
        samples: how many samples.
        size: tokens in each; by default 4,000, or 20 k if that is more.

    Raises:
        PolytopeError: k is not between 2 and n - 1, no sample, or samples that do not hold k + 1 tokens.

    """
    check_k(k, n)
    size = min(n, max(SAMPLE_SIZE, PER_CLUSTER * k) if size is None else size)
    if samples < 1 or size <= k:
        msg = f"{samples} samples of {size} tokens for k = {k}; give 1 sample or more, of more than k tokens"
        raise PolytopeError(msg)
    rng = np.random.default_rng(seed)
    best: tuple[float, Int[np.ndarray, " n"], Int[np.ndarray, " k"]] | None = None
    deviations = []
    for _ in range(samples):
        chosen = _sample(rng, n, size, np.empty(0, np.int64) if best is None else best[2])
        found = _fasterpam(between(chosen, chosen), k, int(rng.integers(2**32)))
        medoids = np.sort(chosen[np.asarray(found.medoids, dtype=np.int64)])
        labels, deviation = _assign(n, medoids, between)
        deviations.append(deviation)
        if best is None or deviation < best[0]:
            best = deviation, labels, medoids
    assert best is not None  # noqa: S101 -- there is at least one sample
    return SampledMedoids(best[1], best[2], best[0], tuple(deviations), size)


def check_k(k: int, n: int) -> None:
    """Check that n tokens can be parted into k clusters.

    Raises:
        PolytopeError: k is not between 2 and n - 1.

    """
    if not 2 <= k < n:
        msg = f"k = {k} clusters of {n} tokens; k must be at least 2 and below the number of tokens"
        raise PolytopeError(msg)


def _fasterpam(distance: Float[np.ndarray, "n n"], k: int, seed: int) -> kmedoids.KMedoidsResult:
    start = np.random.default_rng(seed).choice(len(distance), size=k, replace=False)
    return kmedoids.fasterpam(
        np.ascontiguousarray(distance, dtype=np.float32),
        np.sort(start).astype(np.uint64),
        max_iter=100,
        n_cpu=1,
    )


def _sample(
    rng: np.random.Generator, n: int, size: int, medoids: Int[np.ndarray, " k"]
) -> Int[np.ndarray, " size"]:
    """Return `size` tokens, the medoids among them, ascending."""
    others = np.setdiff1d(np.arange(n), medoids, assume_unique=True)
    return np.sort(np.concatenate([medoids, rng.choice(others, size - len(medoids), replace=False)]))


def _assign(n: int, medoids: Int[np.ndarray, " k"], between: Between) -> tuple[Int[np.ndarray, " n"], float]:
    """Return each token's nearest medoid, ties to the first, and the sum of the distances to them."""
    labels = np.empty(n, dtype=np.int32)
    total = 0.0
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        distance = between(rows, medoids)
        nearest = distance.argmin(axis=1)
        # A medoid is a member of its own cluster even where another one is as near.
        inside = np.searchsorted(medoids, rows)
        own = (inside < len(medoids)) & (medoids[np.minimum(inside, len(medoids) - 1)] == rows)
        nearest[own] = inside[own]
        labels[rows] = nearest
        total += float(distance[np.arange(len(rows)), nearest].sum(dtype=np.float64))
    return labels, total
