"""Does flip mass along the tangent tell where a direction stops being valid, beyond curvature: the statistics.

All are ranks. The radius and the flip radius are regressed on the covariates (restricted cubic splines, ridge,
cross-fitted with whole prompts left out), and

- the *partial rank correlation* is that of what is left of both;
- the *gain* is the rank correlation of the radius with what is predicted from covariates and flips together,
  less that from covariates alone. What is left after a nearly perfect prediction is tiny, and ranks of tiny
  remainders may well agree: only a gain says that they matter.

Intervals: percentile bootstrap over prompts, the regressions kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from polytope_lm.predictions.directions.result import Finding
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.confounders import Design, design, fold_numbers
from polytope_lm.statistics.estimate import Resampled, auc_draws, resampled
from polytope_lm.statistics.verdict import Cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float, Int

PARTIAL = "partial rank correlation with the radius"
GAIN = "gain in rank correlation with the radius"
COVARIATES = "curvature and other smooth covariates"
PLANES = "rate-matched hyperplanes"
_RIDGE = 1.0


@dataclass(frozen=True, eq=False)
class Beyond:
    """What a predictor adds to covariates."""

    partial: Resampled
    gain: Resampled


def ranks(values: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Return mid-ranks from 0 to 1."""
    return np.asarray((rankdata(values) - 0.5) / len(values))


def fitted(
    outcome: Float[np.ndarray, " P"], features: Float[np.ndarray, "P F"], fold: Int[np.ndarray, " P"]
) -> Float[np.ndarray, " P"]:
    """Return what features predict of an outcome, each fold by the others."""
    found = np.empty(len(outcome))
    for number in np.unique(fold):
        train, test = fold != number, fold == number
        own = np.column_stack([np.ones(int(train.sum())), features[train]])
        penalty = np.diag([0.0, *np.full(features.shape[1], _RIDGE)])
        weights = np.linalg.solve(own.T @ own + penalty, own.T @ outcome[train])
        found[test] = weights[0] + features[test] @ weights[1:]
    return found


def correlations(
    a: Float[np.ndarray, " P"], b: Float[np.ndarray, " P"], weights: Float[np.ndarray, "R P"]
) -> Float[np.ndarray, " R"]:
    """Return the correlation under each row of weights; 0 where one of the two does not vary."""
    share = weights / weights.sum(axis=1, keepdims=True)
    x, y = a - (share @ a)[:, None], b - (share @ b)[:, None]
    spread = (share * x**2).sum(axis=1) * (share * y**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-24, (share * x * y).sum(axis=1) / np.sqrt(spread), 0.0)


def _resampled(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> Resampled:
    found = correlations(a, b, np.concatenate([np.ones((1, len(a))), weights]))
    return Resampled(float(found[0]), found[1:])


def beyond(
    radius: Float[np.ndarray, " P"],
    predictor: Float[np.ndarray, " P"],
    covariates: Mapping[str, Float[np.ndarray, " P"]],
    fold: Int[np.ndarray, " P"],
    weights: Float[np.ndarray, "R P"],
) -> Beyond:
    """Return what a predictor adds to covariates in telling the radius."""
    y, x = ranks(radius), ranks(predictor)
    known = {name: ranks(values) for name, values in covariates.items()}
    plain: Design = design(known, len(y))
    alone = fitted(y, plain.splines, fold)
    left = x - fitted(x, plain.splines, fold)
    both = fitted(y, np.column_stack([plain.splines, design({"predictor": x}, len(y)).splines]), fold)
    with_it, without = _resampled(y, both, weights), _resampled(y, alone, weights)
    return Beyond(_resampled(y - alone, left, weights), with_it - without)


def first_question(
    radius: Float[np.ndarray, " P"],
    flips: Float[np.ndarray, " P"],
    planes: Sequence[Float[np.ndarray, " P"]],
    covariates: Mapping[str, Float[np.ndarray, " P"]],
    prompt: Int[np.ndarray, " P"],
    *,
    seed: int,
    resamples: int,
    beside: Mapping[str, Float[np.ndarray, " P"]] | None = None,
) -> tuple[list[Cell], list[Finding]]:
    """Return the verdict's cells, and what is shown beside them.

    Args:
        radius: measured.
        flips: the radius by flip mass.
        planes: the same by each draw of random hyperplanes.
        covariates: norm, slope, change of the norm's scale, curvature.
        prompt: which prompt a triple is of.
        seed: of folds and resamples.
        resamples: bootstrap resamples.
        beside: other predictors whose rank correlation is shown.

    """
    fold = fold_numbers(prompt, seed=derived(seed, Purpose.PROMPTS, 0))
    weights = resampled(prompt, resamples, seed=derived(seed, Purpose.PROMPTS, 1))
    picks = np.random.default_rng(derived(seed, Purpose.PROMPTS, 2)).random(resamples)
    mine = beyond(radius, flips, covariates, fold, weights)
    others = [beyond(radius, each, covariates, fold, weights) for each in planes]
    cells, shown = [], []
    for name, which in ((PARTIAL, "partial"), (GAIN, "gain")):
        own: Resampled = getattr(mine, which)
        cells.append(Cell(COVARIATES, name, own.by_percentiles()))
        if others:
            theirs = Resampled.mean_of_draws([getattr(each, which) for each in others], picks)
            cells.append(Cell(PLANES, name, (own - theirs).by_percentiles()))
            shown.append(Finding("predict", f"{name}, flips of random hyperplanes", theirs.by_percentiles()))
    y = ranks(radius)
    for name, values in {**(beside or {}), "flip radius": flips, **covariates}.items():
        found = _resampled(y, ranks(values), weights).by_percentiles()
        shown.append(Finding("predict", f"rank correlation of {name}", found))
    return cells, shown


def wrong_sign(
    mass: Float[np.ndarray, " P"],
    wrong: Bool[np.ndarray, " P"],
    covariates: Mapping[str, Float[np.ndarray, " P"]],
    prompt: Int[np.ndarray, " P"],
    *,
    seed: int,
    resamples: int,
) -> Finding | None:
    """Return the AUC of a wrong sign by what covariates leave of flip mass; None where too few signs are wrong."""
    if min(wrong.sum(), (~wrong).sum()) < 5:
        return None
    fold = fold_numbers(prompt, seed=derived(seed, Purpose.PROMPTS, 0))
    weights = resampled(prompt, resamples, seed=derived(seed, Purpose.PROMPTS, 1))
    x = ranks(mass)
    known = {name: ranks(values) for name, values in covariates.items()}
    left = x - fitted(x, design(known, len(x)).splines, fold)
    found = auc_draws(left, wrong, np.concatenate([np.ones((1, len(x))), weights]))
    estimate = Resampled(float(found[0]), found[1:]).by_percentiles()
    return Finding(
        "predict", f"AUC of a wrong sign by flip mass beyond covariates ({int(wrong.sum())} wrong)", estimate
    )


def mean_over_prompts(
    values: Float[np.ndarray, " P"], prompt: Int[np.ndarray, " P"], *, seed: int, resamples: int
) -> Resampled:
    """Return a mean over triples and its bootstrap over prompts."""
    weights = np.concatenate(
        [np.ones((1, len(values))), resampled(prompt, resamples, seed=derived(seed, Purpose.PROMPTS, 1))]
    )
    found = (weights @ values) / weights.sum(axis=1)
    return Resampled(float(found[0]), found[1:])
