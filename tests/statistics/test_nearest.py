from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsClassifier

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.neighbours import nearest_label


def _world(n: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    points = rng.normal(size=(n, 4)) + labels[:, None]
    return cdist(points, points).astype(np.float32), labels, rng.integers(0, 8, n), rng.integers(0, 20, n)


def test_leave_one_out_is_scikit_learns() -> None:
    distance, labels, _, _ = _world()
    right = []
    for i in range(len(labels)):
        rest = np.arange(len(labels)) != i
        fitted = KNeighborsClassifier(1, metric="precomputed").fit(distance[np.ix_(rest, rest)], labels[rest])
        right.append(fitted.predict(distance[i : i + 1, rest])[0] == labels[i])
    found = nearest_label(distance, labels)
    assert found.correct.tolist() == right
    assert found.accuracy == pytest.approx(np.mean(right))
    assert (found.tokens, found.without) == (160, 0)


def test_only_the_same_word_in_another_document_is_read() -> None:
    distance, labels, token, documents = _world()
    found = nearest_label(distance, labels, excluded=documents[:, None], within=token)
    right, majority = [], []
    for i in range(len(labels)):
        there = [j for j in range(len(labels)) if j != i and token[j] == token[i] and documents[j] != documents[i]]
        if there:
            right.append(labels[min(there, key=lambda j: (distance[i, j], j))] == labels[i])
            majority.append(np.bincount(labels[there]).argmax() == labels[i])
    assert found.accuracy == pytest.approx(np.mean(right))
    assert found.majority == pytest.approx(np.mean(majority))
    assert found.tokens == len(right)


def test_ties_go_to_the_first_in_an_order() -> None:
    distance, labels, token, documents = _world()
    distance = np.round(distance)
    order = np.random.default_rng(3).permutation(len(labels))
    rank = np.argsort(order)
    found = nearest_label(distance, labels, excluded=documents[:, None], within=token, order=order)
    right = []
    for i in range(len(labels)):
        there = [j for j in range(len(labels)) if j != i and token[j] == token[i] and documents[j] != documents[i]]
        right.append(bool(there) and labels[min(there, key=lambda j: (distance[i, j], rank[j]))] == labels[i])
    assert found.correct.tolist() == right
    by_index = nearest_label(distance, labels, excluded=documents[:, None], within=token)
    assert (found.correct != by_index.correct).any()


@pytest.mark.usefixtures("users_arrays")
def test_tokens_that_stand_alone_are_counted() -> None:
    distance, labels, _, _ = _world()
    within = np.arange(160)
    within[:4] = 0
    found = nearest_label(distance, labels, within=within)
    assert (found.tokens, found.without) == (4, 156)
    none = nearest_label(distance, labels, within=np.arange(160))
    assert (none.accuracy, none.majority, none.tokens) == (None, None, 0)
    with pytest.raises(PolytopeError, match="do not fit 159 labels"):
        nearest_label(distance, labels[:-1])
