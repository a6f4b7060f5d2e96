from __future__ import annotations

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.neighbours import hubs, resampled_agreement, strict_neighbours


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


def test_agreement_on_a_half_uses_the_neighbours_that_the_half_has() -> None:
    distance, groups, labels = _scene()
    near = strict_neighbours(distance, groups, 60)
    keep = np.random.default_rng(3).random(len(labels)) < 0.5
    alone = strict_neighbours(distance[np.ix_(keep, keep)], groups[keep], 10)
    own = labels[keep]
    expected = np.mean([np.mean(own[row[row >= 0]] == own[i]) for i, row in enumerate(alone)])
    assert resampled_agreement(near, labels, keep[None], 10)[0] == pytest.approx(expected)


def test_a_token_without_neighbours_is_left_out_of_the_mean() -> None:
    near = np.array([[1, -1], [0, 2], [-1, -1]], dtype=np.int32)
    score = resampled_agreement(near, np.array([0, 0, 1]), np.ones((1, 3), dtype=bool), 2)[0]
    assert score == pytest.approx((1 + 0.5) / 2)


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
