from __future__ import annotations

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.similarity import inside_groups, resampled_pairs


def _world(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    similarity = rng.random((n, n)).astype(np.float32)
    similarity = (similarity + similarity.T) / 2
    return similarity, rng.integers(-1, 6, n), rng.integers(0, 12, n), rng.integers(0, 9, n)


def _by_hand(similarity: np.ndarray, groups: np.ndarray, documents: np.ndarray) -> tuple[float, int, int]:
    means, alone = [], 0
    for i in range(len(groups)):
        if groups[i] < 0:
            continue
        others = [
            similarity[i, j]
            for j in range(len(groups))
            if j != i and groups[j] == groups[i] and documents[j] != documents[i]
        ]
        alone += not others
        means += [np.mean(others)] if others else []
    return float(np.mean(means)), len(means), alone


@pytest.mark.parametrize("with_documents", [True, False])
def test_it_is_the_mean_over_tokens_of_their_mean_inside_the_group(with_documents: bool) -> None:
    similarity, groups, documents, _ = _world()
    apart = documents if with_documents else None
    found = inside_groups(similarity, groups, better="higher", apart=apart, draws=3)
    value, tokens, alone = _by_hand(similarity, groups, documents if with_documents else np.arange(90))
    assert found.value == pytest.approx(value, rel=1e-5)
    assert (found.tokens, found.alone, found.noise) == (tokens, alone, int((groups == -1).sum()))


def test_planted_groups_are_ahead_of_random_ones() -> None:
    similarity, groups, documents, token = _world()
    similarity = similarity + 0.5 * (groups[:, None] == groups)
    higher = inside_groups(similarity, groups, better="higher", apart=documents, token=token, draws=99)
    lower = inside_groups(-similarity, groups, better="lower", apart=documents, token=token, draws=99)
    for found in (higher, lower):
        assert found.random.p == 0.01
        assert found.matched is not None
        assert found.matched.p == 0.01


def test_what_only_the_word_brings_is_ahead_of_random_groups_and_not_of_matched_ones() -> None:
    rng = np.random.default_rng(1)
    token = rng.integers(0, 12, 300)
    groups = np.where(rng.random(300) < 0.8, token // 2, rng.integers(0, 6, 300))
    similarity = rng.random((300, 300)) / 2
    similarity = similarity + similarity.T + (token[:, None] == token)
    found = inside_groups(similarity.astype(np.float32), groups, better="higher", token=token, draws=200)
    assert found.random.p < 0.01
    assert found.matched is not None
    assert found.matched.p > 0.02
    assert 0 < found.movable <= 300


def test_halves_are_scored_by_the_same_formula() -> None:
    similarity, groups, documents, _ = _world()
    inside = np.random.default_rng(0).random((4, 90)) < 0.6
    found = resampled_pairs(similarity, groups, inside, documents)
    alone = [
        inside_groups(similarity[np.ix_(k, k)], groups[k], better="higher", apart=documents[k], draws=1).value
        for k in inside
    ]
    assert found == pytest.approx(alone)


@pytest.mark.usefixtures("users_arrays")
def test_groups_without_a_pair_are_refused() -> None:
    with pytest.raises(PolytopeError, match="no two of 4 tokens share a group"):
        inside_groups(np.ones((4, 4), np.float32), np.arange(4), better="higher")
    with pytest.raises(PolytopeError, match="does not fit 4 tokens"):
        inside_groups(np.ones((3, 3), np.float32), np.arange(4), better="higher")
