from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.neighbours import DocumentSums, agreement_sums, agreements, hubs, strict_neighbours


def _scene(n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    # Whole numbers: many ties, which must go to the lower index.
    distance = rng.integers(0, 30, (n, n)).astype(np.float32)
    distance = np.minimum(distance, distance.T)
    groups = np.stack([rng.integers(-1, 12, n), rng.integers(0, 8, n)], axis=1).astype(np.int32)
    return distance, groups, rng.integers(0, 4, n)


def _brute(distance: np.ndarray, groups: np.ndarray, k: int) -> list[list[int]]:
    out = []
    for i in range(len(groups)):
        allowed = [
            j
            for j in range(len(groups))
            if j != i and not any(a >= 0 and a == b for a, b in zip(groups[i], groups[j], strict=True))
        ]
        out.append(sorted(allowed, key=lambda j: (distance[i, j], j))[:k])
    return out


def test_equals_brute_force_with_ties_and_exclusions() -> None:
    distance, groups, _ = _scene()
    found = strict_neighbours(distance, groups, 10)
    assert [list(row) for row in found] == _brute(distance, groups, 10)


def test_rows_without_enough_allowed_tokens_end_in_minus_one() -> None:
    distance = np.zeros((5, 5), dtype=np.float32)
    groups = np.array([[0], [0], [0], [0], [1]], dtype=np.int32)
    found = strict_neighbours(distance, groups, 3)
    assert found.tolist() == [[4, -1, -1]] * 4 + [[0, 1, 2]]


def test_tokens_without_a_group_exclude_nobody() -> None:
    found = strict_neighbours(np.zeros((3, 3), dtype=np.float32), np.full((3, 2), -1, dtype=np.int32), 2)
    assert found.tolist() == [[1, 2], [0, 2], [0, 1]]


def test_ties_go_to_the_first_in_a_given_order() -> None:
    distance, groups, _ = _scene()
    order = np.random.default_rng(1).permutation(len(groups))
    place = np.argsort(order)
    found = strict_neighbours(distance, groups, 10, order)
    for i, row in enumerate(found):
        allowed = _brute(distance, groups, len(groups))[i] if i < 5 else None
        if allowed is not None:
            assert list(row) == sorted(allowed, key=lambda j: (distance[i, j], place[j]))[:10]


def test_a_token_without_neighbours_is_left_out_of_the_mean() -> None:
    near = np.array([[1, -1], [0, 2], [-1, -1]], dtype=np.int32)
    labels = np.array([0, 0, 1])
    assert agreements(near, labels[None])[0] == pytest.approx((1 + 0.5) / 2)
    assert agreement_sums(near, labels, np.arange(3)).value == pytest.approx((1 + 0.5) / 2)
    with pytest.raises(PolytopeError, match="none of 2 tokens has a strict neighbour"):
        agreements(np.full((2, 3), -1, dtype=np.int32), np.zeros((1, 2), dtype=int))


def test_documents_count_as_those_who_ask_and_for_what_they_have_beyond_the_other_neighbours() -> None:
    rng = np.random.default_rng(0)
    near, labels, documents = rng.integers(0, 40, (40, 3)), rng.integers(0, 2, 40), rng.integers(0, 6, 40)
    near[documents[near] == documents[:, None]] = -1
    found = agreement_sums(near, labels, documents)
    lists = [[j for j in row if j >= 0] for row in near]
    asking = [i for i in range(40) if lists[i]]
    assert min(len(lists[i]) for i in asking) == 1  # an only neighbour is compared with the score
    x = np.zeros(6)
    for i in asking:
        for place, j in enumerate(lists[i]):
            weight, same = 1 / (len(asking) * len(lists[i])), float(labels[i] == labels[j])
            others = [float(labels[i] == labels[o]) for at, o in enumerate(lists[i]) if at != place]
            x[documents[i]] += weight * (same - found.value)
            x[documents[j]] += weight * (same - (np.mean(others) if others else found.value))
    np.testing.assert_allclose(found.sums, x, atol=1e-12)
    assert found.by_documents(None).sd == pytest.approx(np.sqrt((x**2).sum() * 6 / 5))


def test_the_variance_is_that_of_searching_anew_without_each_document() -> None:
    """The jackknife, with a class of words that is easy and one that is hard, in documents of their own mixture."""
    documents, ours, twice = np.repeat(np.arange(50), 8), [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        labels = (rng.random(400) < rng.random(50)[documents]).astype(np.int32)
        # Class 0 lies together, class 1 all around it.
        rows = np.where(labels[:, None] == 0, 0.5, 1.0) * rng.normal(size=(400, 10))
        distance = pairwise_distances(rows).astype(np.float32)
        near = strict_neighbours(distance, documents[:, None], 10)
        without = []
        for each in range(50):
            kept = np.flatnonzero(documents != each)
            graph = strict_neighbours(distance[np.ix_(kept, kept)], documents[kept, None], 10)
            without.append(agreements(graph, labels[None, kept])[0])
        jackknife = np.sqrt(49 / 50 * np.sum((without - np.mean(without)) ** 2))
        ours.append(agreement_sums(near, labels, documents).by_documents(None).sd / jackknife)
        # Against the score instead of the other neighbours: the easy class would count twice.
        away = ((labels[:, None] == labels[near]) - agreements(near, labels[None])[0]).ravel() / near.size
        both = [np.bincount(ids, weights=away) for ids in (np.repeat(documents, 10), documents[near].ravel())]
        twice.append(np.sqrt((sum(both) ** 2).sum()) / jackknife)
    assert np.mean(ours) == pytest.approx(1, abs=0.1)
    assert np.mean(twice) > 1.15


def test_a_difference_is_taken_document_by_document_and_draws_and_exchanges_add_their_own_variance() -> None:
    rng = np.random.default_rng(1)
    labels, documents = rng.integers(0, 3, 60), np.repeat(np.arange(12), 5)

    def graph() -> DocumentSums:
        near = rng.integers(0, 60, (60, 4))
        near[documents[near] == documents[:, None]] = -1
        return agreement_sums(near, labels, documents)

    one, draws = graph(), [graph() for _ in range(4)]
    assert (one - one).by_documents(20).sd == 0
    mean = DocumentSums.mean_of_draws(draws)
    values = [each.value for each in draws]
    assert mean.value == pytest.approx(np.mean(values))
    np.testing.assert_allclose(mean.sums, np.mean([each.sums for each in draws], axis=0))
    assert mean.extra == pytest.approx(np.var(values, ddof=1) / 4)
    null = rng.normal(0.3, 0.01, 20)
    less = one.less(null)
    assert less.value == pytest.approx(one.value - null.mean())
    # What exchanged labels do counts once, and its twentieth for their mean; they may know hubs, so at least that.
    jackknife, unit = one.by_documents(None).sd ** 2, (null - null.mean()) / null.std(ddof=1)
    for chance, left in ((0.3, 0.7), (0.8, 0.8)):
        found = one.less(unit * np.sqrt(chance * jackknife)).by_documents(None).sd ** 2
        assert found == pytest.approx((left + chance / 20) * jackknife)


def test_hubs_see_the_one_token_that_all_others_name() -> None:
    star = np.zeros((20, 1), dtype=np.int32)
    star[0] = 1
    ring = ((np.arange(20) + 1) % 20)[:, None].astype(np.int32)
    found = hubs(star)
    assert (found.max_in_degree, found.never_named) == (19, 0.9)
    assert found.skew > 3
    assert (hubs(ring).max_in_degree, hubs(ring).skew) == (1, 0.0)


@pytest.mark.usefixtures("users_arrays")
def test_distances_that_are_not_finite_are_refused_with_their_token() -> None:
    distance = np.zeros((4, 4), dtype=np.float32)
    distance[2, 1] = np.nan
    with pytest.raises(PolytopeError, match="token 2 is not finite"):
        strict_neighbours(distance, np.zeros((4, 1), dtype=np.int32), 1)
    with pytest.raises(PolytopeError, match="do not fit 3 tokens"):
        strict_neighbours(distance, np.zeros((3, 1), dtype=np.int32), 1)
