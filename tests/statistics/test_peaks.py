"""Percentiles at peaks, their cross-pair null and intervals: by loops, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.estimate import Resampled, resampled
from polytope_lm.statistics.peaks import cross_pair, percentiles, raw


def by_loops(profile, step):
    less = sum(value < profile[step] for value in profile)
    ties = sum(value == profile[step] for value in profile) - 1
    return (less + ties / 2) / (len(profile) - 1)


def test_percentiles_count_ties_half():
    rng = np.random.default_rng(0)
    profiles = rng.integers(0, 4, (7, 9)).astype(float)
    expected = [[by_loops(row, step) for step in range(9)] for row in profiles]
    np.testing.assert_allclose(percentiles(profiles), expected)
    np.testing.assert_allclose(percentiles(profiles).mean(axis=1), 0.5)  # what any circular shift gives
    np.testing.assert_allclose(percentiles(np.ones((2, 5))), 0.5)


def test_the_cross_pair_null_leaves_groups_out_in_every_resample():
    rng = np.random.default_rng(1)
    ranks, peaks = percentiles(rng.random((12, 6))), rng.integers(0, 6, 12)
    groups = np.repeat(np.arange(6), 2)
    weights = resampled(groups, 20, seed=2)
    found = cross_pair(ranks, peaks, groups, weights)
    for row, expected in zip([np.ones(12), *weights], [found.value, *found.draws], strict=True):
        total = count = 0.0
        for i in range(12):
            for j in range(12):
                if groups[i] != groups[j]:
                    total += row[i] * row[j] * ranks[i, peaks[j]]
                    count += row[i] * row[j]
        assert expected == pytest.approx(total / count)
    own = raw(ranks, peaks, weights)
    assert own.value == pytest.approx(np.mean([ranks[i, peaks[i]] for i in range(12)]))
    assert own.draws[3] == pytest.approx(np.average(ranks[np.arange(12), peaks], weights=weights[3]))


def test_groups_are_drawn_whole():
    groups = np.repeat(np.arange(5), 3)
    weights = resampled(groups, 50, seed=0)
    assert (weights.reshape(50, 5, 3) == weights.reshape(50, 5, 3)[:, :, :1]).all()
    assert (weights.sum(axis=1) == 15).all()
    assert not np.array_equal(weights, resampled(groups, 50, seed=1))


def hump(pairs, peaks, own, seed):
    """A hump that all share, and `own` more at each pair's own peak."""
    rng = np.random.default_rng(seed)
    steps = np.arange(33)
    shared = np.exp(-(((steps - 16) / 6) ** 2)) * 3
    return shared + rng.random((pairs, 33)) + own * (steps == peaks[:, None])


def test_a_hump_that_all_share_is_no_alignment_but_an_own_peak_is():
    rng = np.random.default_rng(0)
    peaks = np.clip(rng.normal(16, 4, 200).round(), 0, 32).astype(int)
    groups = np.arange(200)
    weights = resampled(groups, 400, seed=0)
    ranks = percentiles(hump(200, peaks, 0.0, 1))
    shared = raw(ranks, peaks, weights), cross_pair(ranks, peaks, groups, weights)
    assert shared[0].value > 0.75  # against a shift this looks like alignment
    null = (shared[0] - shared[1]).by_percentiles()
    assert null.low < 0 < null.high
    ranks = percentiles(hump(200, peaks, 1.0, 1))
    own = (raw(ranks, peaks, weights) - cross_pair(ranks, peaks, groups, weights)).by_percentiles()
    assert own.low > 0.05


def test_intervals_cover_the_truth():
    """Where nothing is aligned, 95 % intervals of the difference contain 0 in about 95 % of worlds."""
    outside = 0
    groups = np.arange(60)
    for seed in range(120):
        peaks = np.random.default_rng([seed, 1]).integers(8, 25, 60)
        weights = resampled(groups, 200, seed=seed)
        ranks = percentiles(hump(60, peaks, 0.0, seed))
        found = (raw(ranks, peaks, weights) - cross_pair(ranks, peaks, groups, weights)).by_percentiles()
        outside += not found.low <= 0 <= found.high
    assert outside <= 14  # 6 expected; more than 14 has probability .001


def test_estimates_are_quantiles_of_paired_draws():
    a, b = Resampled(1.0, np.arange(101.0)), Resampled(0.5, np.arange(101.0) * 0.5)
    found = (a - b).by_percentiles()
    assert found.value == 0.5
    assert (found.low, found.high) == (1.25, 48.75)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: percentiles(np.ones((3, 1))), "at least 2 steps"),
        (lambda: percentiles(np.array([[0.0, np.nan]])), "no NaN"),
        (lambda: resampled(np.zeros(4, int), 10, seed=0), "1 units"),
        (
            lambda: cross_pair(np.ones((2, 3)) / 2, np.zeros(2, int), np.arange(2), np.array([[2.0, 0.0]])),
            "2 groups of pairs are too few",
        ),
    ],
)
def test_what_gives_no_number_is_refused(call, message):
    with pytest.raises(PolytopeError, match=message):
        call()
