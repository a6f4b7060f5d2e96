"""k-medoids on a given distance matrix: the same clusterer for every representation.

FasterPAM (Schubert & Rousseeuw, "Fast and Eager k-Medoids Clustering", Information Systems 2021) with k
random tokens as first medoids. All representations start from the *same* random tokens, so that a difference
between two of them is not the luck of two starts; the more careful `build` start costs O(n^2 k) and FasterPAM
ends as low without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import kmedoids
import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int


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
    n = len(distance)
    if not 2 <= k < n:
        msg = f"k = {k} clusters of {n} tokens; k must be at least 2 and below the number of tokens"
        raise PolytopeError(msg)
    start = np.sort(np.random.default_rng(seed).choice(n, size=k, replace=False)).astype(np.uint64)
    found = kmedoids.fasterpam(np.ascontiguousarray(distance, dtype=np.float32), start, max_iter=100, n_cpu=1)
    return np.asarray(found.labels, dtype=np.int32)
