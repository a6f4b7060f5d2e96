"""HDBSCAN on a graph of nearest neighbours: one algorithm for Hamming, cosine and any other distance.

The paper clustered with HDBSCAN. On codes of thousands of bits it calls 31 to 95 % of the tokens noise and
jumps from 2 to 73 clusters between layers, so it is offered, never headlined, and its AMI is a score among
the tokens that it did not throw away.

With core distance `c(a)` to the m-th neighbour, it takes the minimum spanning tree of `max(c(a), c(b),
d(a, b))` over the graph's edges and keeps the clusters that last longest (Campello, Moulavi & Sander,
"Density-based clustering based on hierarchical density estimates", PAKDD 2013). Components of the graph are
joined at infinite distance. The nearest m neighbours are in the graph, so core distances are exact; an edge
of the tree between two tokens of which neither is the other's neighbour is missing, and with enough
neighbours hardly any is.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MIN_CLUSTER_SIZE = 10
NEIGHBOURS = 30


def hdbscan(
    indices: Int[np.ndarray, "n k"],
    distances: Float[np.ndarray, "n k"] | Int[np.ndarray, "n k"],
    *,
    min_cluster_size: int = MIN_CLUSTER_SIZE,
    min_samples: int | None = None,
) -> Int[np.ndarray, " n"]:
    """Return each token's cluster id, -1 for noise (int32).

    Args:
        indices: each token's nearest neighbours, itself left out; -1 where there are fewer than k.
        distances: distances to them, not negative.
        min_cluster_size: tokens that make a cluster.
        min_samples: neighbours that make a token dense, itself counted as in scikit-learn; by default
            `min_cluster_size`.

    Raises:
        PolytopeError: settings below 2, fewer neighbours than `min_samples`, or distances that are negative
            or not finite.

    """
    from fast_hdbscan import HDBSCAN  # noqa: PLC0415 -- slow to import

    min_samples = min_cluster_size if min_samples is None else min_samples
    _check(indices, distances, min_cluster_size, min_samples)
    n = len(indices)
    there = indices >= 0
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    graph = csr_matrix((distances[there].astype(np.float64), indices[there], ends), shape=(n, n))
    # fast_hdbscan does not count the token itself among its neighbours.
    model = HDBSCAN(
        metric="precomputed", min_cluster_size=min_cluster_size, min_samples=max(1, min_samples - 1)
    )
    with warnings.catch_warnings():
        # Joining components at infinite distance is what is wanted here.
        warnings.simplefilter("ignore")
        return np.asarray(model.fit(graph).labels_, dtype=np.int32)


def _check(indices: np.ndarray, distances: np.ndarray, min_cluster_size: int, min_samples: int) -> None:
    if min_cluster_size < 2 or min_samples < 1:
        msg = (
            f"min_cluster_size = {min_cluster_size}, min_samples = {min_samples}; a cluster has at least 2 "
            "tokens, a dense token counts at least itself"
        )
        raise PolytopeError(msg)
    if indices.shape != distances.shape or indices.shape[1] < min_samples - 1:
        msg = (
            f"neighbours of shape {indices.shape} with distances of shape {distances.shape}; min_samples = "
            f"{min_samples} needs {min_samples - 1} neighbours a token"
        )
        raise PolytopeError(msg)
    bad = (indices >= 0) & ~(np.isfinite(distances) & (distances >= 0))
    if bad.any():
        row = int(np.argwhere(bad)[0, 0])
        msg = f"a distance of token {row} is negative or not finite; look for NaN in its neighbours"
        raise PolytopeError(msg)
