"""Clusterers that see distances alone: k-medoids, average linkage, HDBSCAN.

*k-medoids*, the primary one. Exact: FasterPAM (Schubert & Rousseeuw, "Fast and Eager k-Medoids Clustering",
Information Systems 2021) with k random tokens as first medoids. All representations start from the *same*
random tokens, so that a difference between two of them is not the luck of two starts; the more careful
`build` start costs O(n^2 k) and FasterPAM ends as low without it. Beyond some 20,000 tokens, see `one_batch`.
Sampled, where k is in the thousands: the same on several random samples, all tokens then assigned to the
nearest of each sample's medoids, the assignment with the least total deviation kept (CLARA: Kaufman &
Rousseeuw, "Finding Groups in Data", 1990, chapter 3). The best medoids so far are part of the next sample.
Distances are computed in blocks: n x k and size x size of them, never n x n.

*Average linkage*, cut at k clusters: offered, never headlined. The distance of two clusters is the mean over
their pairs of tokens (UPGMA: Sokal & Michener, 1958). It follows the density of the data: on real codes it
can leave 94 % of the tokens in one cluster, so read the sizes first.

*HDBSCAN* on a graph of nearest neighbours, one algorithm for any distance. The paper clustered with it. On
codes of thousands of bits it calls 31 to 95 % of the tokens noise and jumps from 2 to 73 clusters between
layers, so it is offered, never headlined, and its AMI is a score among the tokens that it did not throw away.
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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import kmedoids
import numpy as np
from scipy.cluster import hierarchy
from scipy.sparse import coo_array, csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import squareform

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
    """Return the cluster id of each of n tokens, 0 to k - 1 (int32), from symmetric float32 distances.

    The seed chooses the tokens that start as medoids; the swaps then go in index order on one thread, so that
    the result does not depend on the machine's cores.
    """
    check_k(k, len(distance))
    found = _fasterpam(distance, k, seed)
    return np.asarray(found.labels, dtype=np.int32)


def sampled_k_medoids(
    n: int, k: int, between: Between, *, seed: int, samples: int = SAMPLES, size: int | None = None
) -> SampledMedoids:
    """Cluster n tokens by k-medoids on random samples of 4,000 tokens, or 20 k if that is more.

    The seed is of the samples and of each one's first medoids.
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
        labels, deviation = assign(n, medoids, between)
        deviations.append(deviation)
        if best is None or deviation < best[0]:
            best = deviation, labels, medoids
    assert best is not None  # noqa: S101 -- there is at least one sample
    return SampledMedoids(best[1], best[2], best[0], tuple(deviations), size)


def check_k(k: int, n: int) -> None:
    """Check that n tokens can be parted into k clusters: 2 <= k < n."""
    if not 2 <= k < n:
        raise PolytopeError(f"k = {k} clusters of {n} tokens; k must be at least 2 and below the number of tokens")


def _fasterpam(distance: Float[np.ndarray, "n n"], k: int, seed: int) -> kmedoids.KMedoidsResult:
    start = np.random.default_rng(seed).choice(len(distance), size=k, replace=False)
    return kmedoids.fasterpam(
        np.ascontiguousarray(distance, dtype=np.float32), np.sort(start).astype(np.uint64), max_iter=100, n_cpu=1
    )


def _sample(rng: np.random.Generator, n: int, size: int, medoids: Int[np.ndarray, " k"]) -> Int[np.ndarray, " size"]:
    """Return `size` tokens, the medoids among them, ascending."""
    others = np.setdiff1d(np.arange(n), medoids, assume_unique=True)
    return np.sort(np.concatenate([medoids, rng.choice(others, size - len(medoids), replace=False)]))


def assign(n: int, medoids: Int[np.ndarray, " k"], between: Between) -> tuple[Int[np.ndarray, " n"], float]:
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


MOST = 20_000
"""Tokens whose tree fits in memory: 8 n^2 bytes beside the distances, 3.2 GB at 20,000."""


def average_tree(distance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "m 4"]:
    """Return scipy's linkage matrix of n tokens, n - 1 merges by height; the diagonal is not read."""
    if len(distance) > MOST:
        raise PolytopeError(
            f"average linkage of {len(distance)} tokens needs {8e-9 * len(distance) ** 2:.0f} GB; take at "
            f"most {MOST}, or k-medoids"
        )
    return np.asarray(hierarchy.linkage(squareform(distance, checks=False), method="average"))


def cut(tree: Float[np.ndarray, "m 4"], k: int) -> Int[np.ndarray, " n"]:
    """Return the clusters left when k of them are not merged yet, 0 to k - 1 (int32).

    Exactly k, also where heights are tied (scipy's `fcluster` then gives fewer).
    """
    n = len(tree) + 1
    check_k(k, n)
    merges = tree[: n - k, :2].astype(np.int64)
    parents = np.repeat(n + np.arange(n - k), 2)
    edges = coo_array((np.ones(len(parents), bool), (merges.ravel(), parents)), shape=(2 * n, 2 * n))
    ids = connected_components(edges, directed=False)[1][:n]
    return np.unique(ids, return_inverse=True)[1].astype(np.int32)


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
    """Return each token's cluster id, -1 for noise (int32), from its nearest neighbours.

    Args:
        indices: nearest first, itself left out; -1 where there are fewer than k.
        distances: distances to them, not negative.
        between: asked for blocks where the graph is in several parts.
        min_cluster_size: tokens that make a cluster.
        min_samples: neighbours that make a token dense, itself counted as in scikit-learn; by default
            `min_cluster_size`.

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
    model = HDBSCAN(metric="precomputed", min_cluster_size=min_cluster_size, min_samples=max(1, min_samples - 1))
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
    least: Float[np.ndarray, "n p"], part: Int[np.ndarray, " n"], core: Float[np.ndarray, " n"], between: Between
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
        raise PolytopeError(
            f"min_cluster_size = {min_cluster_size}, min_samples = {min_samples}; a cluster has at least 2 "
            "tokens, a dense token counts at least itself"
        )
    if indices.shape != distances.shape or indices.shape[1] < min_samples - 1:
        raise PolytopeError(
            f"neighbours of shape {indices.shape} with distances of shape {distances.shape}; min_samples = "
            f"{min_samples} needs {min_samples - 1} neighbours a token"
        )
    bad = (indices >= 0) & ~(np.isfinite(distances) & (distances >= 0))
    if bad.any():
        row = int(np.argwhere(bad)[0, 0])
        raise PolytopeError(f"a distance of token {row} is negative or not finite; look for NaN in its neighbours")
