from __future__ import annotations

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.neighbours import PairSums, agreement_sums, agreements, hubs, strict_neighbours


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


def test_the_variance_counts_products_of_pairs_that_share_a_document_once() -> None:
    rng = np.random.default_rng(0)
    near, labels, documents = rng.integers(0, 40, (40, 3)), rng.integers(0, 2, 40), rng.integers(0, 6, 40)
    near[documents[near] == documents[:, None]] = -1
    found = agreement_sums(near, labels, documents)
    edges = [(i, j) for i in range(40) for j in near[i] if j >= 0]
    counts = (near >= 0).sum(axis=1)
    weight = {(i, j): 1 / (counts[i] * (counts > 0).sum()) for i, j in edges}
    x: dict[frozenset, float] = {}
    for i, j in edges:
        pair = frozenset((documents[i], documents[j]))
        x[pair] = x.get(pair, 0) + weight[i, j] * ((labels[i] == labels[j]) - found.value)
    every = sum(x[p] * x[q] for p in x for q in x if p & q) * 6 / 5
    alone = sum(v**2 for v in x.values()) * 6 / 5
    assert found.by_pairs(None).sd == pytest.approx(np.sqrt(max(every, alone)))


def test_a_difference_is_taken_pair_by_pair_and_draws_and_exchanges_add_their_own_variance() -> None:
    rng = np.random.default_rng(1)
    labels, documents = rng.integers(0, 3, 60), np.repeat(np.arange(12), 5)

    def graph() -> PairSums:
        near = rng.integers(0, 60, (60, 4))
        near[documents[near] == documents[:, None]] = -1
        return agreement_sums(near, labels, documents)

    one, draws = graph(), [graph() for _ in range(4)]
    assert (one - one).by_pairs(20).sd == 0
    mean = PairSums.mean_of_draws(draws)
    values = [each.value for each in draws]
    assert mean.value == pytest.approx(np.mean(values))
    assert mean.extra == pytest.approx(np.var(values, ddof=1) / 4)
    null = rng.normal(0.3, 0.01, 20)
    less = one.less(null)
    assert less.value == pytest.approx(one.value - null.mean())
    added = less.by_pairs(None).sd ** 2 - one.by_pairs(None).sd ** 2
    assert added == pytest.approx(null.var(ddof=1) / 20)
    # Exchanged labels that vary more than the sums tell count in full: hubs.
    wide = one.less(10 * null)
    assert wide.by_pairs(None).sd ** 2 == pytest.approx(100 * null.var(ddof=1) * 21 / 20)


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
