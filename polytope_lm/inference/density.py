"""HDBSCAN on a graph of nearest neighbours: one algorithm for Hamming, cosine and any other distance.

The paper clustered with HDBSCAN. On codes of thousands of bits it calls 31 to 95 % of the tokens noise and
jumps from 2 to 73 clusters between layers, so it is offered, never headlined, and its AMI is a score among
the tokens that it did not throw away.

With core distance `c(a)` to the m-th neighbour, it takes the minimum spanning tree of `max(c(a), c(b),
d(a, b))` over the graph's edges and keeps the clusters that last longest (Campello, Moulavi & Sander,
"Density-based clustering based on hierarchical density estimates", PAKDD 2013). The nearest m neighbours are
in the graph, so core distances are exact. The graph is in several parts as soon as a cluster has more tokens
than a token has neighbours. Joined at infinite distance, each part would be one long-lived cluster with all
the background that hangs on it, and nothing would be noise: so the parts are joined by their true shortest
edges. Inside a part, an edge between two tokens of which neither is the other's neighbour is missing; planted
clusters keep their labels with 20 neighbours (AMI above .99 with those that all neighbours give).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.inference.partitions import Between

MIN_CLUSTER_SIZE = 10
NEIGHBOURS = 20

_AT_ONCE = 2**17
"""Distances between parts that are held at one time."""


def hdbscan(
    indices: Int[np.ndarray, "n k"],
    distances: Float[np.ndarray, "n k"] | Int[np.ndarray, "n k"],
    between: Between,
    *,
    min_cluster_size: int = MIN_CLUSTER_SIZE,
    min_samples: int | None = None,
) -> Int[np.ndarray, " n"]:
    """Return each token's cluster id, -1 for noise (int32).

    Args:
        indices: each token's nearest neighbours, itself left out, nearest first; -1 where there are fewer
            than k.
        distances: distances to them, not negative.
        between: distances between two lists of tokens, asked for blocks where the graph is in several parts.
        min_cluster_size: tokens that make a cluster.
        min_samples: neighbours that make a token dense, itself counted as in scikit-learn; by default
            `min_cluster_size`.

    Raises:
        PolytopeError: settings below 2 or 1, fewer neighbours than `min_samples`, or distances that are
            negative or not finite.

    """
    from fast_hdbscan import HDBSCAN  # noqa: PLC0415 -- slow to import

    min_samples = min_cluster_size if min_samples is None else min_samples
    _check(indices, distances, min_cluster_size, min_samples)
    n = len(indices)
    there = indices >= 0
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    graph = csr_matrix((distances[there].astype(np.float32), indices[there], ends), shape=(n, n))
    parts, part = connected_components(graph, directed=False)
    if parts > 1:
        core = np.zeros(n, np.float32) if min_samples < 2 else distances[:, min_samples - 2]
        graph = _joined(graph, *_bridges(part, np.asarray(core, np.float32), between))
    # fast_hdbscan does not count the token itself among its neighbours.
    model = HDBSCAN(
        metric="precomputed", min_cluster_size=min_cluster_size, min_samples=max(1, min_samples - 1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of distances 0 between equal codes, whose density is infinite
        return np.asarray(model.fit(graph).labels_, dtype=np.int32)


def _joined(
    graph: csr_matrix, a: Int[np.ndarray, " m"], b: Int[np.ndarray, " m"], d: Float[np.ndarray, " m"]
) -> csr_matrix:
    """Return the graph with more edges, distances 0 kept."""
    edges = graph.tocoo()
    rows, columns = np.concatenate([edges.row, a]), np.concatenate([edges.col, b])
    return csr_matrix((np.concatenate([edges.data, d]), (rows, columns)), shape=graph.shape)


def _bridges(
    part: Int[np.ndarray, " n"], core: Float[np.ndarray, " n"], between: Between
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Return the spanning tree of the parts: its tokens at both ends and their distances.

    One pass over the distances between tokens of different parts, in blocks, finds each token's least
    `max(c(a), c(b), d(a, b))` to each part; the spanning tree of the parts needs no more.
    """
    # The largest part first: only tokens of smaller parts are looked at from it.
    part = np.argsort(np.argsort(-np.bincount(part), kind="stable"), kind="stable")[part]
    order = np.argsort(part, kind="stable")
    starts = np.searchsorted(part[order], np.arange(part.max() + 2))
    least = np.full((len(part), part.max() + 1), np.inf, np.float32)
    size = max(32, _AT_ONCE // len(part))
    for first in range(0, starts[-2], size):
        rows = order[first : first + size]
        next_part = part[rows[0]] + 1
        others = order[starts[next_part] :]
        reach = np.maximum(between(rows, others), core[others])
        np.maximum(reach, core[rows][:, None], out=reach)
        cuts = starts[next_part:-1] - starts[next_part]
        least[rows, next_part:] = np.minimum.reduceat(reach, cuts, axis=1)
    return _shortest(least, part, core, between)


def _shortest(
    least: Float[np.ndarray, "n p"],
    part: Int[np.ndarray, " n"],
    core: Float[np.ndarray, " n"],
    between: Between,
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Return the edges of the parts' spanning tree, each by its shortest pair of tokens."""
    members = [np.flatnonzero(part == p) for p in range(part.max() + 1)]
    pairs = np.stack([least[rows].min(axis=0) for rows in members])
    # Below the diagonal a token's block may have held its own part; and 0 is no edge to scipy.
    tree = minimum_spanning_tree(np.triu(pairs + 1, k=1)).tocoo()
    a, b, d = [], [], []
    for one, other in zip(tree.row, tree.col, strict=True):
        a.append(members[one][least[members[one], other].argmin()])
        away = between(np.array([a[-1]]), members[other])[0]
        nearest = np.maximum(away, core[members[other]]).argmin()
        b.append(members[other][nearest])
        d.append(away[nearest])
    return np.array(a), np.array(b), np.array(d, dtype=np.float64)


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
