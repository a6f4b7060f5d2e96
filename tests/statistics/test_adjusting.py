from __future__ import annotations

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics import confounders as adjusting
from polytope_lm.statistics.confounders import PairTable

RNG = np.random.default_rng(0)
N = 600


def _pairs(shift: float = 1.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    different = np.arange(N) % 2 == 1
    distance = RNG.normal(size=N) + shift * different
    return different, {"distance": distance, "other": RNG.normal(size=N)}


def test_variance_inflation_is_the_inverse_correlations_diagonal() -> None:
    a, b = RNG.normal(size=(2, 200))
    columns = {"a": a, "b": b, "c": a + 0.1 * b + 0.3 * RNG.normal(size=200), "flat": np.ones(200)}
    found = adjusting.variance_inflation(columns)
    inverse = np.linalg.inv(np.corrcoef([columns[name] for name in "abc"]))
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_allclose(list(found.values()), np.diag(inverse), rtol=1e-6)
    assert adjusting.variance_inflation({"a": a, "b": b, "sum": a + b})["sum"] == np.inf
    assert adjusting.variance_inflation({"a": a}) == {"a": 1.0}


def test_twins_and_constants_are_left_out_and_named() -> None:
    a = RNG.normal(size=50)
    made = adjusting.design({"a": a, "double": 2 * a + 1, "flat": np.ones(50), "b": a**2}, 50)
    assert made.names == ("a", "b")
    assert made.left_out == {"double": "equal to a up to scale", "flat": "the same for all pairs"}


def test_splines_are_linear_beyond_the_outer_knots() -> None:
    x = np.sort(RNG.normal(size=400))
    features = adjusting.design({"x": x}, 400).splines
    assert features.shape == (400, 3)
    low, high = np.quantile(x, [0.05, 0.95])
    for part in (x <= low, x >= high):
        for column in features[part].T:
            slope = np.diff(column) / np.diff(x[part])
            np.testing.assert_allclose(slope, slope[0], rtol=1e-5, atol=1e-6)


def test_regression_takes_away_a_curve_and_leaves_the_labels_part() -> None:
    different, covariates = _pairs()
    counts = (6 + np.tanh(covariates["distance"]) + 0.5 * different + 0.05 * RNG.normal(size=N)) ** 2
    made = adjusting.design(covariates, N)
    fold = adjusting.fold_numbers(np.arange(N), seed=0)
    left = adjusting.residuals(counts, made, different, fold)
    assert abs(left[different].mean() - left[~different].mean() - 0.5) < 0.03
    centred = left - 0.5 * different
    assert abs(np.corrcoef(centred, covariates["distance"])[0, 1]) < 0.15
    assert centred.std() < 0.2 < np.sqrt(counts).std()


def test_nothing_to_explain_leaves_exactly_nothing() -> None:
    different, covariates = _pairs()
    fold = adjusting.fold_numbers(np.arange(N), seed=0)
    left = adjusting.residuals(np.zeros(N), adjusting.design(covariates, N), different, fold)
    assert (left == 0).all()


def test_a_pair_has_no_part_in_its_own_prediction() -> None:
    different, covariates = _pairs()
    made, fold = adjusting.design(covariates, N), adjusting.fold_numbers(np.arange(N), seed=0)
    counts = RNG.poisson(20, N).astype(float)
    one = adjusting.residuals(counts, made, different, fold)
    counts[0] += 10_000
    other = adjusting.residuals(counts, made, different, fold)
    mates = fold == fold[0]
    np.testing.assert_array_equal(one[mates][1:], other[mates][1:])
    assert (one[~mates] != other[~mates]).all()
    assert other[0] - one[0] == pytest.approx(np.sqrt(counts[0] + 0.375) - np.sqrt(counts[0] - 9_999.625))


def test_groups_stay_together_and_folds_are_even() -> None:
    group = RNG.integers(0, 40, N)
    fold = adjusting.fold_numbers(group, seed=3)
    assert all(len(set(fold[group == g])) == 1 for g in range(40))
    assert set(fold) == set(range(5))
    few = adjusting.fold_numbers(np.zeros(N, dtype=int), seed=3)
    assert np.bincount(few).tolist() == [120] * 5


def test_overlap_weights_and_matching_balance_the_covariates() -> None:
    different, covariates = _pairs()
    made, fold = adjusting.design(covariates, N), adjusting.fold_numbers(np.arange(N), seed=0)
    chance = adjusting.propensities(made, different, fold)
    raw = adjusting.imbalance(made, different, np.ones(N))
    weighted = adjusting.imbalance(made, different, adjusting.overlap_weights(chance, different))
    kept = adjusting.matched(made, chance, different, seed=0)
    assert raw > 0.7
    assert weighted < 0.15
    assert adjusting.imbalance(made, different, kept.astype(float)) < 0.15
    assert kept[different].sum() == kept[~different].sum() > 100


def test_nobody_is_matched_where_the_classes_are_apart() -> None:
    different, covariates = _pairs(shift=30)
    made, fold = adjusting.design(covariates, N), adjusting.fold_numbers(np.arange(N), seed=0)
    chance = adjusting.propensities(made, different, fold)
    assert adjusting.matched(made, chance, different, seed=0).sum() < 10


def test_without_covariates_the_propensity_is_the_share() -> None:
    different = np.arange(100) % 4 == 0
    made, fold = adjusting.design({}, 100), adjusting.fold_numbers(np.arange(100), seed=0)
    chance = adjusting.propensities(made, different, fold)
    assert np.ptp(chance) < 0.1
    assert abs(chance.mean() - 0.25) < 0.02


def test_a_fold_without_both_labels_is_an_error() -> None:
    different = np.arange(100) < 20
    fold = np.where(different, 0, np.arange(100) % 5)
    with pytest.raises(PolytopeError, match="have one label only"):
        adjusting.propensities(adjusting.design({}, 100), different, fold)


def test_a_table_refuses_what_it_can_not_judge() -> None:
    good = {"different": np.array([True, False]), "group": np.zeros(2, int), "covariates": {}}
    with pytest.raises(PolytopeError, match="'n' has 3 values for 2 pairs"):
        PairTable(**good, outcomes={"n": np.ones(3)})
    with pytest.raises(PolytopeError, match="'n' of pair 1 is nan"):
        PairTable(**good, outcomes={"n": np.array([1, np.nan])})
    with pytest.raises(PolytopeError, match="all 2 pairs are different in meaning"):
        PairTable(**{**good, "different": np.ones(2, bool)}, outcomes={})
