"""k-medoids from distances to one batch, against all swaps, the exact clusters and samples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, pairwise_distances

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.clustering import k_medoids, sampled_k_medoids
from polytope_lm.statistics.one_batch import one_batch_k_medoids


def made(n, seed=5):
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, 7, n)
    return 8 * rng.normal(size=(7, 6))[centre] + rng.normal(size=(n, 6)), centre


def blocks(points, asked=None):
    def between(a, b):
        if asked is not None:
            asked.append(len(a) * len(b))
        return pairwise_distances(points[a], points[b]).astype(np.float32)

    return between


def test_planted_clusters_are_found_from_one_batch():
    points, centre = made(3000)
    asked = []
    found = one_batch_k_medoids(3000, 7, blocks(points, asked), seed=0, size=200)
    assert adjusted_mutual_info_score(found.labels, centre) > 0.99
    assert sum(asked) == 3000 * (200 + 7)
    assert found.size == 200


@pytest.mark.parametrize("seed", range(3))
def test_with_all_tokens_in_the_batch_no_single_swap_lowers_the_cost(seed):
    points = np.random.default_rng(seed).normal(size=(60, 2))
    found = one_batch_k_medoids(60, 4, blocks(points), seed=seed, size=60)
    distance = pairwise_distances(points)
    cost = distance[:, found.medoids].min(axis=1).sum()
    assert found.deviation == pytest.approx(cost, rel=1e-5)
    for i in range(4):
        for other in range(60):
            swapped = [*found.medoids[:i], other, *found.medoids[i + 1 :]]
            assert distance[:, swapped].min(axis=1).sum() >= cost - 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_its_cost_is_near_the_exact_one_and_no_worse_than_that_of_samples(seed):
    points = np.random.default_rng(seed).normal(size=(2000, 8))
    distance = pairwise_distances(points).astype(np.float32)
    exact = k_medoids(distance, 20, seed=seed)
    groups = [np.flatnonzero(exact == c) for c in range(20)]
    least = sum(distance[np.ix_(g, g)].sum(axis=1).min() for g in groups)
    found = one_batch_k_medoids(2000, 20, blocks(points), seed=seed, size=700)
    assert found.deviation <= 1.02 * least
    assert found.deviation <= sampled_k_medoids(2000, 20, blocks(points), seed=seed, size=400).deviation


def test_tokens_of_the_batch_are_no_better_medoids_than_others():
    points = np.random.default_rng(0).normal(size=(3000, 4))
    batch = np.random.default_rng(1).choice(3000, 300, replace=False)  # the very first draw of this seed
    share = [np.isin(one_batch_k_medoids(3000, 30, blocks(points), seed=1, size=300).medoids, batch).mean()]
    assert share[0] < 0.35  # 0.1 of the tokens; all medoids, if a token's distance to itself counted


def test_a_seed_decides_everything_and_all_clusters_have_members():
    points, _ = made(800)
    one, same, other = (one_batch_k_medoids(800, 12, blocks(points), seed=s, size=100) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.labels, same.labels)
    assert (one.labels != other.labels).any()
    np.testing.assert_array_equal(one.labels[one.medoids], np.arange(12))
    alike = one_batch_k_medoids(50, 5, blocks(np.zeros((50, 2))), seed=0, size=20)
    assert sorted(set(alike.labels.tolist())) == list(range(5))


def test_k_that_does_not_fit_is_refused():
    with pytest.raises(PolytopeError, match="k = 50 clusters of 50 tokens"):
        one_batch_k_medoids(50, 50, blocks(np.zeros((50, 2))), seed=0)
