"""The area under the ROC curve with weights, and its interval by resampling pairs or whole groups.

`AUC = P(score of a different pair > score of a same pair) + P(equal) / 2`: 0.5 is no effect, 1 perfect
separation (Hanley & McNeil 1982). It is a mean over couples of pairs from two classes, so rows that a
bootstrap repeats do not inflate it, and the percentile bootstrap is valid; the unit that is drawn is the pair
or the whole group of pairs (a word, an item) that share prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.intervals import Estimate

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_ENOUGH = 0.9  # of the resamples must hold both kinds of pairs


def auc(
    score: Float[np.ndarray, " P"],
    positive: Bool[np.ndarray, " P"],
    weight: Float[np.ndarray, " P"] | None = None,
) -> float:
    """Return the area under the ROC curve.

    Args:
        score: one a pair.
        positive: whether it is of the class that should score higher.
        weight: of each pair; 1 by default.

    """
    weights = np.ones(len(score)) if weight is None else weight
    return float(auc_draws(score, positive, weights[None])[0])


def auc_draws(
    score: Float[np.ndarray, " P"], positive: Bool[np.ndarray, " P"], weights: Float[np.ndarray, "R P"]
) -> Float[np.ndarray, " R"]:
    """Return the area for each row of weights; NaN where a class has no weight.

    Args:
        score: one a pair.
        positive: whether it is of the class that should score higher.
        weights: how often each resample holds each pair.

    """
    order = np.argsort(score, kind="stable")
    ranked, above = score[order], positive[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    drawn = weights[:, order]
    mine, theirs = (np.add.reduceat(np.where(kind, drawn, 0.0), starts, axis=1) for kind in (above, ~above))
    below = np.cumsum(theirs, axis=1) - theirs / 2  # a tie counts one half
    total = mine.sum(axis=1) * theirs.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area: np.ndarray = (mine * below).sum(axis=1) / total
    return area


def resampled(unit: Int[np.ndarray, " P"], draws: int, *, seed: int) -> Float[np.ndarray, "R P"]:
    """Return how often each of `draws` bootstrap resamples holds each pair.

    Args:
        unit: what is drawn with replacement: the pair's own number, or its group's.
        draws: resamples.
        seed: of the draws.

    Raises:
        PolytopeError: fewer than 2 draws, or fewer than 2 units.

    """
    _, codes = np.unique(unit, return_inverse=True)
    units = int(codes.max(initial=-1)) + 1
    if draws < 2 or units < 2:
        msg = f"resamples = {draws} of {units} units give no spread; at least 2 of each are needed"
        raise PolytopeError(msg)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(units, np.full(units, 1 / units), size=draws)
    return times[:, codes.reshape(-1)].astype(np.float64)


def percentile_estimate(value: float, draws: Float[np.ndarray, " R"], *, widen: float = 1.0) -> Estimate:
    """Return a number with the 2.5th and 97.5th percentile of its resamples.

    Args:
        value: the statistic on all pairs.
        draws: the statistic on each resample; NaN where a resample lacks one kind of pairs.
        widen: factor on the spread, for what was estimated before the resamples were drawn.

    Raises:
        PolytopeError: more than a tenth of the resamples lack one kind.

    """
    there = draws[np.isfinite(draws)]
    if len(there) < _ENOUGH * len(draws) or not np.isfinite(value):
        msg = (
            f"{len(draws) - len(there)} of {len(draws)} resamples hold pairs of one kind only; add groups "
            "that have both same and different pairs"
        )
        raise PolytopeError(msg)
    low, high = (value + widen * (bound - value) for bound in np.percentile(there, [2.5, 97.5]))
    return Estimate(float(value), widen * float(np.std(there, ddof=1)), float(low), float(high))
