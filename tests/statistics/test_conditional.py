from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from polytope_lm.statistics.agreement import conditional_information, expected_information, resampled_conditional


def conditional_ami(groups, labels, token) -> float:
    return float(resampled_conditional(groups, labels, token, np.ones((1, len(groups)), dtype=bool))[0])


def _lexical(n: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups are words and labels follow words: given the word, they have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    token = rng.integers(0, 30, n)
    labels = np.where(rng.random(n) < 0.7, token % 5, rng.integers(0, 5, n))
    groups = np.where(rng.random(n) < 0.8, token // 2, rng.integers(0, 15, n))
    return groups, labels, token


def _semantic(n: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups say half of the labels, whatever the word."""
    rng = np.random.default_rng(seed)
    token, labels = rng.integers(0, 30, n), rng.integers(0, 5, n)
    return np.where(rng.random(n) < 0.5, labels, rng.integers(0, 5, n)), labels, token


def test_lexical_groups_score_by_ami_and_not_given_the_token() -> None:
    groups, labels, token = _lexical()
    assert adjusted_mutual_info_score(labels, groups) > 0.1
    found = conditional_information(groups, labels, token, draws=200)
    assert found.information.z is not None
    assert abs(found.information.z) < 3
    assert found.adjusted == pytest.approx(0, abs=0.03)
    assert found.agreement is not None
    assert found.agreement.p > 0.005


def test_groups_that_say_more_than_the_token_score() -> None:
    groups, labels, token = _semantic()
    found = conditional_information(groups, labels, token, draws=99)
    assert found.information.p == 0.01
    assert found.adjusted is not None
    assert found.adjusted > 0.1
    assert found.agreement is not None
    assert found.agreement.value > found.agreement.mean + 5 * found.agreement.sd
    assert found.remaining == pytest.approx(found.label_entropy - found.information.value)


def test_conditional_information_is_the_mean_of_scikit_learns_within_each_token() -> None:
    for groups, labels, token in (_lexical(), _semantic()):
        found = conditional_information(groups, labels, token, draws=300)
        value = expected = 0.0
        for t in np.unique(token):
            here = token == t
            share = here.mean() / np.log(2)
            value += share * mutual_info_score(labels[here], groups[here])
            table = contingency_matrix(labels[here], groups[here], sparse=True)
            expected += share * expected_mutual_information(table, int(here.sum()))
        assert found.information.value == pytest.approx(value)
        # The closed form that adjusts is the mean of the permutations.
        assert found.information.mean == pytest.approx(expected, abs=4 * found.information.sd / 300**0.5)


def test_with_one_token_identity_it_is_ami() -> None:
    groups, labels, _ = _semantic()
    token = np.full(len(groups), 17)
    assert conditional_ami(groups, labels, token) == pytest.approx(adjusted_mutual_info_score(labels, groups))


def test_equal_partitions_score_one_and_unrelated_ones_zero() -> None:
    _, labels, token = _semantic(2000)
    assert conditional_ami(labels, labels, token) == pytest.approx(1)
    other = np.random.default_rng(9).integers(0, 4, 2000)
    assert conditional_ami(other, labels, token) == pytest.approx(0, abs=0.02)


def test_expected_information_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 200), rng.integers(0, 9, 200)
    table = contingency_matrix(a, b, sparse=True)
    ours = expected_information(np.bincount(a), np.bincount(b))
    assert ours == pytest.approx(expected_mutual_information(table, 200))


def test_agreement_counts_pairs_of_one_word_in_one_group_of_two_documents() -> None:
    rng = np.random.default_rng(2)
    n = 120
    groups, labels, token = rng.integers(0, 3, n), rng.integers(0, 3, n), rng.integers(0, 5, n)
    documents = rng.integers(0, 10, n)
    for apart in (None, documents):
        found = conditional_information(groups, labels, token, apart=apart, draws=5)
        pairs = [
            labels[i] == labels[j]
            for i in range(n)
            for j in range(i)
            if groups[i] == groups[j] and token[i] == token[j] and (apart is None or apart[i] != apart[j])
        ]
        assert found.agreement is not None
        assert found.agreement.value == pytest.approx(np.mean(pairs))


def test_noise_is_left_out_and_counted_and_movable_is_what_can_say_anything() -> None:
    groups = np.array([0, 1, 0, 1, 2, 2, -1, -1])
    labels = np.array([0, 1, 0, 0, 0, 1, 0, 1])
    token = np.array([4, 4, 5, 5, 6, 6, 4, 4])
    found = conditional_information(groups, labels, token, draws=3)
    # Word 4 has two groups and two labels; 5 one label, 6 one group.
    assert (found.tokens, found.noise, found.movable) == (6, 2, 2)


def test_where_the_token_decides_everything_it_says_so() -> None:
    token = np.arange(20) // 2
    found = conditional_information(token % 3, token % 2, token, draws=5)
    assert found.adjusted is None
    assert found.information.z is None
    assert np.isnan(conditional_ami(token % 3, token % 2, token))


def test_halves_are_scored_by_the_same_formula() -> None:
    groups, labels, token = _semantic()
    groups[::7] = -1
    inside = np.random.default_rng(0).random((3, 900)) < 0.5
    found = resampled_conditional(groups, labels, token, inside)
    alone = [conditional_ami(groups[k], labels[k], token[k]) for k in inside]
    assert found == pytest.approx(alone)
