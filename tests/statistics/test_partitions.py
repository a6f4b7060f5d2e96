from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, pairwise_distances

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.clustering import k_medoids, sampled_k_medoids


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


class _Blocks:
    """Distances in blocks, with the shapes that were asked for."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points
        self.asked: list[tuple[int, int]] = []

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.asked.append((len(a), len(b)))
        return pairwise_distances(self.points[a], self.points[b]).astype(np.float32)


def _many(n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    centre = rng.integers(0, 7, n)
    return 8 * rng.normal(size=(7, 6))[centre] + rng.normal(size=(n, 6)), centre


def test_samples_find_planted_clusters_without_all_distances() -> None:
    points, centre = _many()
    blocks = _Blocks(points)
    found = sampled_k_medoids(len(points), 7, blocks, seed=0, samples=3, size=300)
    assert adjusted_mutual_info_score(found.labels, centre) > 0.99
    assert max(a * b for a, b in blocks.asked) < len(points) ** 2 / 50
    assert found.size == 300


@pytest.mark.parametrize("seed", range(6))
def test_every_token_is_with_its_nearest_medoid_and_the_best_sample_is_kept(seed: int) -> None:
    points, _ = _many(600)
    options = {"samples": 5, "size": 40}
    found = sampled_k_medoids(600, 12, _Blocks(points), seed=seed, **options)
    away = pairwise_distances(points, points[found.medoids])
    np.testing.assert_allclose(away[np.arange(600), found.labels], away.min(axis=1), rtol=1e-4, atol=1e-4)
    assert found.deviation == pytest.approx(away.min(axis=1).sum(), rel=1e-5)
    assert len(found.deviations) == 5
    assert found.deviation == min(found.deviations) < max(found.deviations)
    again = sampled_k_medoids(600, 12, _Blocks(points), seed=seed, **options)
    assert (again.labels == found.labels).all()
    other = sampled_k_medoids(600, 12, _Blocks(points), seed=seed + 10, **options)
    assert (other.labels != found.labels).any()


def test_a_sample_of_all_tokens_is_as_good_as_the_exact_clusters() -> None:
    points, _ = _many(400)
    distance = pairwise_distances(points).astype(np.float32)
    found = sampled_k_medoids(400, 9, _Blocks(points), seed=0, samples=2, size=400)
    exact = k_medoids(distance, 9, seed=0)
    members = [np.flatnonzero(exact == c) for c in range(9)]
    cost = sum(distance[np.ix_(m, m)].sum(axis=1).min() for m in members)
    assert found.deviation == pytest.approx(cost, rel=0.03)


def test_repeated_codes_leave_no_cluster_empty() -> None:
    """All distances 0: a medoid is still a member of its own cluster."""
    found = sampled_k_medoids(50, 5, _Blocks(np.zeros((50, 2))), seed=0, size=20)
    assert sorted(set(found.labels)) == list(range(5))
    np.testing.assert_array_equal(found.labels[found.medoids], np.arange(5))


def test_samples_that_do_not_fit_are_refused() -> None:
    blocks = _Blocks(np.zeros((50, 2)))
    with pytest.raises(PolytopeError, match="k = 50 clusters of 50 tokens"):
        sampled_k_medoids(50, 50, blocks, seed=0)
    with pytest.raises(PolytopeError, match="5 samples of 8 tokens for k = 8"):
        sampled_k_medoids(50, 8, blocks, seed=0, size=8)
