"""k-medoids of many tokens from their distances to one random batch of them.

OneBatchPAM (de Mathelin, Deheeger, Mougeot & Vayatis, "OneBatchPAM: A Fast and Frugal K-Medoids Algorithm", AAAI 2025,
arXiv 2501.19285): the sum of distances to the nearest medoid is estimated on one batch of `m = 100 ln(k n)` tokens,
while every token may become a medoid. Swaps are FasterPAM's (Schubert & Rousseeuw 2021), eager, over n x m distances in
place of n x n. A token of the batch counts as often as there are tokens of which it is the nearest in the batch (the
paper's nearest-neighbour weights). From itself it is taken to be as far as the farthest pair, or tokens of the batch
would be better medoids than others. In the end all tokens are assigned to their nearest medoid.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.compiled import compiled
from polytope_lm.statistics.clustering import SampledMedoids, assign, check_k

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.statistics.clustering import Between

EXACT = 20_000
"""Beyond so many tokens their distances are not held all at once: 1.6 GB."""
_BLOCK = 4096
_PASSES = 5  # more overfit the batch: on 200,000 tokens the deviation of all did not fall after three


def one_batch_k_medoids(n: int, k: int, between: Between, *, seed: int, size: int | None = None) -> SampledMedoids:
    """Cluster n tokens; the seed is of the batch and of the first medoids. Memory: 4 n m bytes.

    Args:
        n: how many tokens.
        k: how many clusters.
        between: distances between two lists of tokens.
        seed: a whole number from 0.
        size: m, tokens in the batch; by default `100 ln(k n)`, at least 2 k, at most n.

    Raises:
        PolytopeError: not `2 <= k < n`.

    """
    check_k(k, n)
    rng = np.random.default_rng(seed)
    size = min(n, max(math.ceil(100 * math.log(k * n)), 2 * k) if size is None else size)
    batch = np.sort(rng.choice(n, size, replace=False))
    distance = np.empty((n, size), np.float32)
    weight = np.zeros(size)
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        distance[rows] = between(rows, batch)
        weight += np.bincount(distance[rows].argmin(axis=1), minlength=size)
    medoids = np.sort(rng.choice(n, k, replace=False))
    if size < n:
        distance[batch, np.arange(size)] = distance.max()
    _swap(distance, weight, medoids, _PASSES)
    medoids.sort()
    labels, deviation = assign(n, medoids, between)
    return SampledMedoids(labels, medoids, deviation, (deviation,), size)


@compiled(error_model="numpy")
def _swap(
    distance: Float[np.ndarray, "n m"], weight: Float[np.ndarray, " m"], medoids: Int[np.ndarray, " k"], passes: int
) -> int:
    """Swap medoids with tokens while the estimate falls, in place; return how many swaps there were."""
    n, m = distance.shape
    k = medoids.size
    is_medoid = np.zeros(n, np.bool_)
    is_medoid[medoids] = True
    near, first, second = np.empty(m, np.int64), np.empty(m), np.empty(m)
    lost = np.empty(k)
    _rank(distance, weight, medoids, near, first, second, lost)
    swaps, since = 0, 0
    gain = np.empty(k)
    for _ in range(passes):
        for x in range(n):
            if since > n:
                return swaps
            since += 1
            if is_medoid[x]:
                continue
            gain[:] = lost
            shared = 0.0
            for o in range(m):
                d = distance[x, o]
                if d < first[o]:
                    shared += weight[o] * (d - first[o])
                    gain[near[o]] += weight[o] * (first[o] - second[o])
                elif d < second[o]:
                    gain[near[o]] += weight[o] * (d - second[o])
            best = np.argmin(gain)
            if gain[best] + shared < -1e-9 * weight.sum():
                is_medoid[medoids[best]] = False
                medoids[best] = x
                is_medoid[x] = True
                _rank(distance, weight, medoids, near, first, second, lost)
                swaps += 1
                since = 0
    return swaps


@compiled(error_model="numpy")
def _rank(
    distance: Float[np.ndarray, "n m"],
    weight: Float[np.ndarray, " m"],
    medoids: Int[np.ndarray, " k"],
    near: Int[np.ndarray, " m"],
    first: Float[np.ndarray, " m"],
    second: Float[np.ndarray, " m"],
    lost: Float[np.ndarray, " k"],
) -> None:
    """Find the two nearest medoids of each token of the batch, and what each medoid's loss would cost."""
    first[:], second[:], lost[:] = np.inf, np.inf, 0.0
    for i in range(medoids.size):
        for o in range(near.size):
            d = distance[medoids[i], o]
            if d < first[o]:
                second[o] = first[o]
                first[o], near[o] = d, i
            elif d < second[o]:
                second[o] = d
    for o in range(near.size):
        lost[near[o]] += weight[o] * (second[o] - first[o])
