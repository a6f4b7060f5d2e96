from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.agreement import adjusted_mutual_information, amis, resampled_ami


@pytest.mark.parametrize(("n", "a", "b"), [(50, 3, 4), (500, 17, 30), (2000, 17, 33), (3000, 900, 50)])
def test_equals_scikit_learn(n: int, a: int, b: int) -> None:
    rng = np.random.default_rng(n)
    left = np.minimum(rng.zipf(1.4, n), a)
    # Half of the tokens follow the other partition, so that the score is far from 0.
    right = np.where(rng.random(n) < 0.5, left % b, rng.integers(0, b, n))
    expected = adjusted_mutual_info_score(left, right)
    assert expected > 0.01
    assert adjusted_mutual_information(left, right) == pytest.approx(expected, abs=1e-10)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5)), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_equals_scikit_learn_on_any_small_partition(pairs: list[tuple[int, int]]) -> None:
    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    expected = adjusted_mutual_info_score(left, right)
    # Where every token is alone the denominator is rounding noise on both sides.
    if len(set(left)) == len(left) or len(set(right)) == len(right):
        return
    assert adjusted_mutual_information(left, right) == pytest.approx(expected, abs=1e-9)


def test_each_subset_scores_as_if_it_were_alone() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 9, 400), rng.integers(0, 12, 400)
    inside = rng.random((5, 400)) < 0.5
    expected = [adjusted_mutual_info_score(left[keep], right[keep]) for keep in inside]
    np.testing.assert_allclose(resampled_ami(left, right, inside), expected, atol=1e-10)


def test_numbers_of_a_vocabulary_cost_no_more_than_others() -> None:
    """A column for each number up to the greatest would be 100 GB here, and was half of a verdict's time."""
    rng = np.random.default_rng(2)
    clusters, words = rng.integers(-1, 6, 300), rng.choice(2**31 - 1, 40)[rng.integers(0, 40, (2, 300))]
    there = clusters >= 0
    expected = [adjusted_mutual_info_score(clusters[there], each[there]) for each in words]
    np.testing.assert_allclose(amis(clusters, words), expected, atol=1e-10)


def test_unrelated_partitions_score_nothing_on_average() -> None:
    rng = np.random.default_rng(1)
    fixed = np.minimum(rng.zipf(1.5, 600), 20)
    scores = [adjusted_mutual_information(fixed, rng.permutation(fixed)) for _ in range(200)]
    assert abs(np.mean(scores)) < 3 * np.std(scores) / np.sqrt(200)


@pytest.mark.usefixtures("users_arrays")
def test_partitions_of_different_tokens_are_refused() -> None:
    with pytest.raises(PolytopeError, match="partitions of 3 and 2 tokens"):
        adjusted_mutual_information(np.arange(3), np.arange(2))
