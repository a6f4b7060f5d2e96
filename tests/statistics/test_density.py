from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_mutual_info_score, pairwise_distances

from polytope_lm.codes.hamming import hamming
from polytope_lm.errors import PolytopeError
from polytope_lm.statistics import clustering as density
from polytope_lm.statistics.clustering import hdbscan

if TYPE_CHECKING:
    from collections.abc import Callable


def _planted(
    n: int = 600, width: int = 256, seed: int = 0, background: float = 0.2, *, zipf: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Eight groups of codes, alike or of unlike size and tightness, on codes that belong to none."""
    rng = np.random.default_rng(seed)
    prototype = rng.random((8, width)) < 0.3
    share = 1 / np.arange(1, 9) if zipf else np.ones(8)
    label = rng.choice(8, n, p=share / share.sum())
    flipped = rng.uniform(0.08, 0.2, 8)[label] if zipf else np.full(n, 0.1)
    bits = prototype[label] ^ (rng.random((n, width)) < flipped[:, None])
    alone = rng.random(n) < background
    bits[alone] = rng.random((alone.sum(), width)) < 0.3
    return bits, np.where(alone, -1, label)


def _bits(packed: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda a, b: hamming.distances(packed[a], packed[b]).astype(np.float32)


def _of(distance: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda a, b: distance[np.ix_(a, b)].astype(np.float32)


def _nearest(distance: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(distance + 1e9 * np.eye(len(distance)), axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distance, order, axis=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_what_scikit_learn_finds_on_all_hamming_distances(seed: int) -> None:
    bits, label = _planted(seed=seed)
    packed = hamming.pack(bits)
    near = hamming.nearest(packed, packed, 30, exclude_self=True)
    found = hdbscan(near.indices, near.distances, _bits(packed), min_cluster_size=10)
    peer = HDBSCAN(metric="hamming", min_cluster_size=10, min_samples=10, copy=True).fit_predict(bits)
    # Distances are whole numbers: scikit-learn breaks ties by the order of the tokens.
    assert adjusted_mutual_info_score(found, peer) > 0.95
    assert abs((found < 0).mean() - (peer < 0).mean()) < 0.02
    # The background is noise, and it stays so.
    assert (found[label < 0] == -1).mean() > 0.9
    assert len(set(found)) == 9


def test_with_every_neighbour_it_is_scikit_learns_hdbscan() -> None:
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(c, s, (70, 4)) for c, s in ((0, 0.4), (3, 0.5), (7, 1.2))])
    points = np.concatenate([points, rng.uniform(-3, 10, (50, 4))])
    distance = pairwise_distances(points)
    found = hdbscan(*_nearest(distance, len(points) - 1), _of(distance), min_cluster_size=8, min_samples=5)
    peer = HDBSCAN(metric="precomputed", min_cluster_size=8, min_samples=5, copy=True).fit_predict(distance)
    assert adjusted_mutual_info_score(found, peer) == pytest.approx(1)
    assert len(set(peer)) > 2


@pytest.mark.parametrize("k", [10, 15, 20])
def test_clusters_with_more_tokens_than_neighbours_keep_their_background_out(k: int) -> None:
    """The graph is in parts. Joined at infinite distance, no token would be noise."""
    bits, label = _planted(1200, 3072, background=0.05, zipf=True)
    packed = hamming.pack(bits)
    near = hamming.nearest(packed, packed, k, exclude_self=True)
    graph = csr_matrix((np.ones(1200 * k), near.indices.ravel(), np.arange(0, 1200 * k + 1, k)), (1200, 1200))
    assert connected_components(graph)[0] > 1
    found = hdbscan(near.indices, near.distances, _bits(packed))
    everyone = hamming.nearest(packed, packed, 1199, exclude_self=True)
    whole = hdbscan(everyone.indices, everyone.distances, _bits(packed))
    assert adjusted_mutual_info_score(found, whole) > (0.99 if k == 20 else 0.97)
    assert adjusted_mutual_info_score(found, label) > 0.97
    assert (found < 0).mean() == pytest.approx((label < 0).mean(), abs=0.02)


def test_parts_are_joined_by_their_shortest_edges() -> None:
    """Against Kruskal on all mutual reachability distances, parts of all sizes, blocks cut anywhere."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(90, 3))
    distance = pairwise_distances(points).astype(np.float32)
    part, core = (rng.permutation(np.repeat([0, 1, 2, 3, 4], (40, 3, 1, 30, 16))), rng.random(90).astype(np.float32))
    reach = np.maximum(np.maximum(distance, core), core[:, None])
    least = np.array([[reach[np.ix_(part == i, part == j)].min() for j in range(5)] for i in range(5)])
    expected = minimum_spanning_tree(np.triu(least, 1)).sum()
    for at_once in (1, 90 * 40, 2**17):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(density, "_AT_ONCE", at_once)
            a, b, d = density._bridges(part, core, _of(distance))
        np.testing.assert_array_equal(d, distance[a, b])
        assert reach[a, b].sum() == pytest.approx(expected)
        assert len({frozenset((part[i], part[j])) for i, j in zip(a, b, strict=True)}) == 4


def test_islands_of_repeated_codes_are_a_cluster_each() -> None:
    """Every distance inside an island is 0, none of the neighbours is outside."""
    rng = np.random.default_rng(0)
    packed = np.repeat(rng.integers(0, 256, (3, 32), dtype=np.uint8), 40, axis=0)
    near = hamming.nearest(packed, packed, 20, exclude_self=True)
    found = hdbscan(near.indices, near.distances, _bits(packed), min_cluster_size=10)
    assert [len(set(found[i : i + 40])) for i in (0, 40, 80)] == [1, 1, 1]
    assert set(found) == {0, 1, 2}


def test_the_same_neighbours_give_the_same_clusters() -> None:
    packed = hamming.pack(_planted(seed=4)[0])
    near = hamming.nearest(packed, packed, 15, exclude_self=True)
    first = hdbscan(near.indices, near.distances, _bits(packed))
    assert all((hdbscan(near.indices, near.distances, _bits(packed)) == first).all() for _ in range(3))


def test_a_missing_neighbour_is_no_edge() -> None:
    distance = pairwise_distances(np.random.default_rng(0).normal(size=(60, 2)))
    indices, distances = _nearest(distance, 12)
    cut = hdbscan(indices[:, :9], distances[:, :9], _of(distance), min_cluster_size=5)
    indices[:, 9:] = -1
    np.testing.assert_array_equal(hdbscan(indices, distances, _of(distance), min_cluster_size=5), cut)


def test_bad_input_is_one_line() -> None:
    distance = pairwise_distances(np.random.default_rng(0).normal(size=(30, 2)))
    (indices, distances), between = _nearest(distance, 5), _of(distance)
    with pytest.raises(PolytopeError, match="min_samples = 10 needs 9 neighbours a token"):
        hdbscan(indices, distances, between)
    with pytest.raises(PolytopeError, match="min_cluster_size = 1"):
        hdbscan(indices, distances, between, min_cluster_size=1)
    distances[7, 2] = np.nan
    with pytest.raises(PolytopeError, match="a distance of token 7 is negative or not finite"):
        hdbscan(indices, distances, between, min_cluster_size=4)
