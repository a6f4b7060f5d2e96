from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.estimate import Resampled, auc, auc_draws, resampled


@given(st.integers(0, 10_000), st.integers(2, 60))
def test_it_is_scikit_learns_with_ties_and_weights(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 6, n).astype(float)
    label = np.arange(n) % 2 == 1
    weight = rng.integers(1, 5, n).astype(float)
    assert auc(score, label) == pytest.approx(roc_auc_score(label, score))
    assert auc(score, label, weight) == pytest.approx(roc_auc_score(label, score, sample_weight=weight))


def test_a_resample_is_the_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    score, label = rng.normal(size=40), rng.random(40) < 0.4
    draws = resampled(np.arange(40), 20, seed=2)
    for times, found in zip(draws, auc_draws(score, label, draws), strict=True):
        rows = np.repeat(np.arange(40), times.astype(int))
        assert found == pytest.approx(roc_auc_score(label[rows], score[rows]))


def test_groups_are_drawn_whole() -> None:
    group = np.repeat(np.arange(8), 5)
    draws = resampled(group, 50, seed=0)
    assert (draws.reshape(50, 8, 5) == draws.reshape(50, 8, 5)[:, :, :1]).all()
    assert (draws.reshape(50, 8, 5)[:, :, 0].sum(axis=1) == 8).all()
    assert len(np.unique(draws, axis=0)) > 40


def test_too_few_units_or_one_label_only() -> None:
    with pytest.raises(PolytopeError, match="resamples = 100 of 1 units"):
        resampled(np.zeros(5, dtype=int), 100, seed=0)
    with pytest.raises(PolytopeError, match="60 of 100 resamples hold pairs of one kind only"):
        Resampled(0.5, np.where(np.arange(100) < 60, np.nan, 0.5)).by_percentiles()


def test_an_interval_can_be_widened_about_its_value() -> None:
    draws = np.random.default_rng(0).normal(0.6, 0.1, 2000)
    plain, wide = (Resampled(0.6, draws).by_percentiles(widen=w) for w in (1.0, 2.0))
    assert wide.low - 0.6 == pytest.approx(2 * (plain.low - 0.6))
    assert wide.sd == pytest.approx(2 * plain.sd)
