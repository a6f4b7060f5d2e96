from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, pairwise_distances

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.partitions import k_medoids


def _points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centre = np.repeat(np.arange(6), 40)
    return rng.normal(size=(240, 3)) + 12 * np.eye(6)[centre][:, :3] + 12 * np.eye(6)[centre][:, 3:], centre


def test_finds_planted_clusters_and_nothing_depends_on_more_than_the_seed() -> None:
    points, centre = _points()
    distance = pairwise_distances(points).astype(np.float32)
    found = k_medoids(distance, 3, seed=1)
    assert sorted(set(found)) == [0, 1, 2]
    assert adjusted_mutual_info_score(found, centre % 3) == pytest.approx(1)
    assert (found == k_medoids(distance, 3, seed=1)).all()


def test_no_single_swap_of_a_medoid_lowers_the_cost() -> None:
    points = np.random.default_rng(2).normal(size=(60, 2))
    distance = pairwise_distances(points).astype(np.float32)
    found = k_medoids(distance, 4, seed=0)
    members = [np.flatnonzero(found == c) for c in range(4)]
    medoids = [m[distance[np.ix_(m, m)].sum(axis=1).argmin()] for m in members]
    cost = distance[:, medoids].min(axis=1).sum()
    for i in range(4):
        for other in range(60):
            swapped = [*medoids[:i], other, *medoids[i + 1 :]]
            assert distance[:, swapped].min(axis=1).sum() >= cost - 1e-4


@pytest.mark.parametrize("k", [1, 5, 9])
def test_k_that_does_not_fit_is_refused(k: int) -> None:
    with pytest.raises(PolytopeError, match=f"k = {k} clusters of 5 tokens"):
        k_medoids(np.zeros((5, 5), dtype=np.float32), k, seed=0)
