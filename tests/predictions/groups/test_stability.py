from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_mutual_info_score

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.groups.stability import medoids, stability, thirds
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.clustering import k_medoids


def _world(spread: float, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points = 10 * np.eye(5)[rng.integers(0, 5, n)] + spread * rng.normal(size=(n, 5))
    return cdist(points, points).astype(np.float32), rng.integers(0, 31, n)


def test_planted_clusters_are_stable_and_noise_is_not() -> None:
    distance, documents = _world(0.5)
    assert stability(distance, documents, 5).ami == pytest.approx(1)
    rng = np.random.default_rng(1)
    noise = cdist(*(2 * [rng.normal(size=(300, 40))])).astype(np.float32)
    found = stability(noise, documents, 5)
    assert found.ami < 0.3
    assert found.ami == pytest.approx(np.mean(found.each))
    assert found.sd == pytest.approx(np.std(found.each, ddof=1))
    assert len(set(found.each)) == 5
    assert found == stability(noise, documents, 5)


def test_it_is_what_it_says_by_hand() -> None:
    distance, documents = _world(6)
    found = stability(distance, documents, 4, repeats=1, seed=3)
    first, second, last = thirds(documents, derived(3, Purpose.SPLITS, 0))
    assigned = []
    for part in (first, second):
        rows = np.flatnonzero(part)
        labels = k_medoids(distance[np.ix_(rows, rows)], 4, seed=derived(3, Purpose.MEDOIDS, 0))
        centres = [
            min(rows[labels == c], key=lambda i, c=c, rows=rows, labels=labels: distance[i, rows[labels == c]].sum())
            for c in range(4)
        ]
        assigned.append(distance[np.ix_(np.flatnonzero(last), centres)].argmin(axis=1))
    assert found.each == (pytest.approx(adjusted_mutual_info_score(*assigned)),)
    assert found.sd is None
    assert found.tokens == last.sum()


def test_thirds_share_no_document_and_hold_them_all() -> None:
    documents = np.random.default_rng(0).integers(0, 20, 200) * 3
    parts = thirds(documents, 1)
    assert (sum(part.astype(int) for part in parts) == 1).all()
    held = [set(documents[part]) for part in parts]
    assert held[0] | held[1] | held[2] == set(documents)
    assert not held[0] & held[1]
    assert not held[1] & held[2]
    assert sorted(len(each) for each in held) == [6, 7, 7]
    assert (thirds(documents, 2)[0] != parts[0]).any()


def test_a_medoid_has_the_smallest_sum_of_distances() -> None:
    distance, _ = _world(3)
    labels = np.random.default_rng(0).integers(-1, 3, 300)
    for cluster, medoid in enumerate(medoids(distance, labels)):
        members = np.flatnonzero(labels == cluster)
        assert medoid in members
        assert distance[medoid, members].sum() == pytest.approx(
            min(distance[m, members].sum() for m in members), rel=1e-6
        )


@pytest.mark.usefixtures("users_arrays")
def test_what_can_not_be_cut_is_refused() -> None:
    distance, documents = _world(1, 60)
    with pytest.raises(PolytopeError, match="2 documents can not be cut into thirds"):
        stability(distance, documents % 2, 3)
    with pytest.raises(PolytopeError, match="k = 30 clusters do not fit"):
        stability(distance, documents, 30)
    with pytest.raises(PolytopeError, match="for 59 tokens"):
        stability(distance, documents[:-1], 3)
