from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.groups.stability import correlation_ratio, position_check


def _places(n: int = 800, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    documents = np.repeat(np.arange(20), n // 20)
    return np.tile(np.arange(n // 20), 20), documents, rng


def test_groups_that_follow_position_are_found_out() -> None:
    positions, documents, rng = _places()
    groups = np.where(rng.random(800) < 0.7, positions // 10, rng.integers(0, 4, 800))
    found = position_check(groups, positions, documents, draws=50)
    for null in (found.ami, found.correlation_ratio):
        assert null.p == pytest.approx(1 / 51)
        assert null.value > null.mean + 10 * null.sd
    assert found.bins == 10


def test_groups_that_follow_documents_are_not() -> None:
    """Documents of different lengths: the group says how far positions go, and nothing about them."""
    rng = np.random.default_rng(1)
    lengths = np.where(np.arange(20) < 10, 10, 70)
    documents = np.repeat(np.arange(20), lengths)
    positions = np.concatenate([np.arange(length) for length in lengths])
    groups = np.where(rng.random(800) < 0.8, documents % 20 // 10, rng.integers(0, 2, 800))
    found = position_check(groups, positions, documents, draws=100)
    assert found.correlation_ratio.value > 0.1
    for null in (found.ami, found.correlation_ratio):
        assert null.p > 0.02


def test_ami_is_scikit_learns_and_the_ratio_is_the_anovas() -> None:
    positions, documents, rng = _places()
    groups = rng.integers(0, 5, 800)
    groups[::9] = -1
    found = position_check(groups, positions, documents, draws=3)
    inside = groups >= 0
    bins = np.digitize(positions[inside], np.quantile(positions[inside], np.arange(1, 10) / 10, method="higher"))
    assert found.ami.value == pytest.approx(adjusted_mutual_info_score(groups[inside], bins), abs=1e-9)
    values = np.log2(1 + positions[inside])
    means = {g: values[groups[inside] == g].mean() for g in range(5)}
    between = sum((means[g] - values.mean()) ** 2 for g in groups[inside])
    assert found.correlation_ratio.value == pytest.approx(between / ((values - values.mean()) ** 2).sum())
    assert (found.tokens, found.noise) == (int(inside.sum()), int((~inside).sum()))
    assert correlation_ratio(np.array([0, 1]), np.array([2.0, 2.0])) == 0


def test_neighbours_at_the_same_position_are_counted() -> None:
    positions, documents, rng = _places()
    far = rng.integers(0, 800, (800, 4))
    near = (np.arange(800)[:, None] + 40 * np.arange(1, 5)) % 800  # the same position of other documents
    some = np.where(np.arange(4) < 2, near, far)
    some[0] = -1
    found = position_check(rng.integers(0, 4, 800), positions, documents, neighbours=some, draws=20)
    assert found.same_position is not None
    assert found.same_position.value == pytest.approx(0.5, abs=0.05)
    assert found.same_position.mean < 0.1
    assert found.same_position.p == pytest.approx(1 / 21)


def test_one_position_is_no_position_to_check() -> None:
    with pytest.raises(PolytopeError, match="all 6 tokens stand at position 3"):
        position_check(np.arange(6) % 2, np.full(6, 3), np.arange(6))
