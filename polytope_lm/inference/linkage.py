"""Average linkage, cut at k clusters: offered, never headlined.

The distance of two clusters is the mean over their pairs of tokens (UPGMA: Sokal & Michener, 1958). It
follows the density of the data: on real codes it can leave 94 % of the tokens in one cluster, so read the
sizes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster import hierarchy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.partitions import check_k

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MOST = 20_000
"""Tokens whose tree fits in memory: 8 n^2 bytes beside the distances, 3.2 GB at 20,000."""


def average_tree(distance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "m 4"]:
    """Return scipy's linkage matrix of n tokens, n - 1 merges by height.

    Args:
        distance: all pairwise distances, symmetric; the diagonal is not read.

    Raises:
        PolytopeError: more than 20,000 tokens.

    """
    if len(distance) > MOST:
        msg = (
            f"average linkage of {len(distance)} tokens needs {8e-9 * len(distance) ** 2:.0f} GB; take at "
            f"most {MOST}, or k-medoids"
        )
        raise PolytopeError(msg)
    return np.asarray(hierarchy.linkage(squareform(distance, checks=False), method="average"))


def cut(tree: Float[np.ndarray, "m 4"], k: int) -> Int[np.ndarray, " n"]:
    """Return the clusters left when k of them are not merged yet, 0 to k - 1 (int32).

    Exactly k, also where heights are tied (scipy's `fcluster` then gives fewer).

    Args:
        tree: from `average_tree`.
        k: clusters.

    Raises:
        PolytopeError: k is not between 2 and n - 1.

    """
    n = len(tree) + 1
    check_k(k, n)
    merges = tree[: n - k, :2].astype(np.int64)
    parents = np.repeat(n + np.arange(n - k), 2)
    edges = coo_array((np.ones(len(parents), bool), (merges.ravel(), parents)), shape=(2 * n, 2 * n))
    ids = connected_components(edges, directed=False)[1][:n]
    return np.unique(ids, return_inverse=True)[1].astype(np.int32)
