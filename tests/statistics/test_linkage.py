from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score, pairwise_distances

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics import clustering as linkage
from polytope_lm.statistics.clustering import average_tree, cut


def _distance(n: int = 150, seed: int = 0) -> np.ndarray:
    return pairwise_distances(np.random.default_rng(seed).normal(size=(n, 5))).astype(np.float32)


@pytest.mark.parametrize("k", [2, 3, 17, 149])
def test_the_clusters_are_those_of_scikit_learn(k: int) -> None:
    distance = _distance()
    found = cut(average_tree(distance), k)
    expected = AgglomerativeClustering(k, metric="precomputed", linkage="average").fit_predict(distance)
    assert adjusted_rand_score(found, expected) == 1
    assert sorted(set(found)) == list(range(k))


@pytest.mark.parametrize("k", [2, 5, 29])
def test_there_are_k_clusters_where_all_heights_are_tied(k: int) -> None:
    distance = (1 - np.eye(30)).astype(np.float32)
    assert len(set(cut(average_tree(distance), k))) == k


def test_the_diagonal_is_not_read() -> None:
    distance = _distance(40)
    wrong = distance + 7 * np.eye(40, dtype=np.float32)
    np.testing.assert_array_equal(cut(average_tree(distance), 6), cut(average_tree(wrong), 6))


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    distance = _distance(20)
    with pytest.raises(PolytopeError, match="k = 20 clusters of 20 tokens"):
        cut(average_tree(distance), 20)
    monkeypatch.setattr(linkage, "MOST", 10)
    with pytest.raises(PolytopeError, match="average linkage of 20 tokens needs 0 GB; take at most 10"):
        average_tree(distance)
