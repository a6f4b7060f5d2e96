from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.agreement import resampled_ami
from polytope_lm.statistics.estimate import Estimate, estimate, half_samples
from polytope_lm.statistics.neighbours import resampled_agreement, strict_neighbours


@pytest.mark.parametrize("documents", [10, 11, 60])
def test_a_half_holds_half_of_the_documents_once_and_the_next_one_the_rest(documents: int) -> None:
    kept = half_samples(documents, 50, seed=0)
    assert (kept[::2].sum(axis=1) == -(-documents // 2)).all()
    assert (kept[1::2] == ~kept[::2]).all()
    assert len(np.unique(kept, axis=0)) > 40
    assert (kept == half_samples(documents, 50, seed=0)).all()
    assert (kept != half_samples(documents, 50, seed=1)).any()
    assert (half_samples(documents, 49, seed=0) == kept[:49]).all()


@pytest.mark.parametrize("documents", [11, 200])
def test_the_spread_over_halves_is_the_standard_error_of_a_mean(documents: int) -> None:
    values = np.random.default_rng(0).normal(size=documents)
    kept = half_samples(documents, 4000, seed=1)
    halves = np.array([values[keep].mean() for keep in kept])
    found = estimate(values.mean(), halves, documents)
    assert found.sd == pytest.approx(values.std(ddof=1) / np.sqrt(documents), rel=0.04)
    assert found.high - found.value == pytest.approx(1.96 * found.sd)
    assert found.value - found.low == pytest.approx(1.96 * found.sd)


def _by_document(rng: np.random.Generator, documents: int, each: int, classes: int) -> np.ndarray:
    """Classes of which those of one document agree in a tenth of the pairs, beyond chance."""
    own = rng.random(documents * each) < np.sqrt(0.1)
    home = np.repeat(rng.integers(0, classes, documents), each)
    return np.where(own, home, rng.integers(0, classes, documents * each))


def _ami_nulls(runs: int) -> tuple[list[Estimate], list[float]]:
    """Differences of two clusterings of unequal sizes that know nothing of the labels, and plain spreads."""
    rng = np.random.default_rng(0)
    document, found, plain = np.repeat(np.arange(60), 10), [], []
    for run in range(runs):
        label = _by_document(rng, 60, 10, 4)
        few, many = _by_document(rng, 60, 10, 10), np.minimum(rng.zipf(1.5, 600), 30)
        kept = np.concatenate([np.full((1, 60), True), half_samples(60, 200, seed=run)])[:, document]
        values = resampled_ami(label, many, kept) - resampled_ami(label, few, kept)
        found.append(estimate(values[0], values[1:], 60, second_order=True))
        plain.append(values[1:].std())
    return found, plain


def test_intervals_of_ami_cover_where_labels_know_nothing_and_are_not_too_wide() -> None:
    found, plain = _ami_nulls(300)
    true = np.std([each.value for each in found])
    # 5 % of 300 are 15; between the bounds lie 99.8 % of fair intervals. Twice too narrow misses 33 %.
    assert 5 <= sum(not each.low <= 0 <= each.high for each in found) <= 28
    assert np.sqrt(np.mean([each.sd**2 for each in found])) == pytest.approx(true, rel=0.2)
    # What the correction is for: the plain spread over halves is sqrt(3) too wide here.
    assert np.sqrt(np.mean(np.square(plain))) > 1.5 * true


def test_intervals_of_ami_cover_where_there_is_an_effect() -> None:
    rng = np.random.default_rng(1)
    document, found = np.repeat(np.arange(60), 10), []
    for run in range(200):
        label, noise = _by_document(rng, 60, 10, 4), rng.integers(0, 4, 600)
        near = np.where(rng.random(600) < 0.6, label, rng.integers(0, 4, 600))
        kept = np.concatenate([np.full((1, 60), True), half_samples(60, 200, seed=run)])[:, document]
        values = resampled_ami(label, near, kept) - resampled_ami(label, noise, kept)
        found.append(estimate(values[0], values[1:], 60, second_order=True))
    true = np.mean([each.value for each in found])
    assert true > 0.2
    assert np.mean([each.sd for each in found]) == pytest.approx(np.std([e.value for e in found]), rel=0.2)
    assert 2 <= sum(not each.low <= true <= each.high for each in found) <= 22


def test_intervals_of_neighbour_agreement_cover_where_labels_know_nothing() -> None:
    rng = np.random.default_rng(2)
    document, found = np.repeat(np.arange(60), 10).astype(np.int32), []
    for run in range(200):
        label = _by_document(rng, 60, 10, 2)
        kept = np.concatenate([np.full((1, 60), True), half_samples(60, 100, seed=run)])[:, document]
        each = []
        for _ in range(2):
            rows = rng.normal(size=(600, 8)).astype(np.float32)
            distance = pairwise_distances(rows, metric="sqeuclidean")
            near = strict_neighbours(distance, document[:, None], 60)
            each.append(resampled_agreement(near, label, kept, 10))
        values = each[0] - each[1]
        found.append(estimate(values[0], values[1:], 60))
    assert 2 <= sum(not each.low <= 0 <= each.high for each in found) <= 22


def test_too_little_to_resample_is_said() -> None:
    with pytest.raises(PolytopeError, match="9 documents are too few to resample; at least 10"):
        half_samples(9, 200, seed=0)
    with pytest.raises(PolytopeError, match="resamples = 3"):
        half_samples(20, 3, seed=0)
    with pytest.raises(PolytopeError, match="does not exist on some halves of 12 documents"):
        estimate(0.5, np.array([0.1, np.nan]), 12)
