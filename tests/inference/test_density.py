from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_mutual_info_score, pairwise_distances

from polytope_lm.codes import hamming
from polytope_lm.errors import PolytopeError
from polytope_lm.inference.density import hdbscan


def _planted(
    n: int = 600, width: int = 256, classes: int = 8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Tight groups of codes on a background of codes that belong to none."""
    rng = np.random.default_rng(seed)
    prototype = rng.random((classes, width)) < 0.3
    label = rng.integers(0, classes, n)
    bits = prototype[label] ^ (rng.random((n, width)) < 0.1)
    alone = rng.random(n) < 0.2
    bits[alone] = rng.random((alone.sum(), width)) < 0.3
    return bits, np.where(alone, -1, label)


def _nearest(distance: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(distance + 1e9 * np.eye(len(distance)), axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distance, order, axis=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_what_scikit_learn_finds_on_all_hamming_distances(seed: int) -> None:
    bits, label = _planted(seed=seed)
    packed = hamming.pack(bits)
    near = hamming.nearest(packed, packed, 30, exclude_self=True)
    found = hdbscan(near.indices, near.distances, min_cluster_size=10)
    peer = HDBSCAN(metric="hamming", min_cluster_size=10, min_samples=10, copy=True).fit_predict(bits)
    assert adjusted_mutual_info_score(found, peer) > 0.98
    assert abs((found < 0).mean() - (peer < 0).mean()) < 0.02
    # The background is noise, and it stays so.
    assert (found[label < 0] == -1).mean() > 0.9
    assert len(set(found)) == 9


def test_with_every_neighbour_it_is_scikit_learns_hdbscan() -> None:
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(c, s, (70, 4)) for c, s in ((0, 0.4), (3, 0.5), (7, 1.2))])
    points = np.concatenate([points, rng.uniform(-3, 10, (50, 4))])
    distance = pairwise_distances(points)
    found = hdbscan(*_nearest(distance, len(points) - 1), min_cluster_size=8, min_samples=5)
    peer = HDBSCAN(metric="precomputed", min_cluster_size=8, min_samples=5, copy=True).fit_predict(distance)
    assert adjusted_mutual_info_score(found, peer) == pytest.approx(1)
    assert len(set(peer)) > 2


def test_parts_without_an_edge_between_them_are_clustered_together_with_repeated_codes() -> None:
    """Three islands of equal codes: every distance inside is 0, none leads out of an island."""
    rng = np.random.default_rng(0)
    packed = np.repeat(rng.integers(0, 256, (3, 32), dtype=np.uint8), 40, axis=0)
    near = hamming.nearest(packed, packed, 20, exclude_self=True)
    found = hdbscan(near.indices, near.distances, min_cluster_size=10)
    assert [len(set(found[i : i + 40])) for i in (0, 40, 80)] == [1, 1, 1]
    assert set(found) == {0, 1, 2}


def test_the_same_neighbours_give_the_same_clusters() -> None:
    packed = hamming.pack(_planted(seed=4)[0])
    near = hamming.nearest(packed, packed, 15, exclude_self=True)
    first = hdbscan(near.indices, near.distances)
    assert all((hdbscan(near.indices, near.distances) == first).all() for _ in range(3))


def test_a_missing_neighbour_is_no_edge() -> None:
    distance = pairwise_distances(np.random.default_rng(0).normal(size=(60, 2)))
    indices, distances = _nearest(distance, 12)
    cut = hdbscan(indices[:, :9], distances[:, :9], min_cluster_size=5)
    indices[:, 9:] = -1
    np.testing.assert_array_equal(hdbscan(indices, distances, min_cluster_size=5), cut)


def test_bad_input_is_one_line() -> None:
    indices, distances = _nearest(pairwise_distances(np.random.default_rng(0).normal(size=(30, 2))), 5)
    with pytest.raises(PolytopeError, match="min_samples = 10 needs 9 neighbours a token"):
        hdbscan(indices, distances)
    with pytest.raises(PolytopeError, match="min_cluster_size = 1"):
        hdbscan(indices, distances, min_cluster_size=1)
    distances[7, 2] = np.nan
    with pytest.raises(PolytopeError, match="a distance of token 7 is negative or not finite"):
        hdbscan(indices, distances, min_cluster_size=4)
