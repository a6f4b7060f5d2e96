"""The effect of meaning on what paths cross: raw, after matching, after regression; and the primary cells.

Everything works on a `PairTable`. An effect is an AUC: the probability that a pair of different meaning has
more of the outcome than a pair of the same meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from polytope_lm.inference import adjusting
from polytope_lm.inference.auc import auc, auc_draws, percentile_estimate, resampled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float

    from polytope_lm.inference.intervals import Estimate
    from polytope_lm.inference.pair_table import PairTable

Adjustment = Literal["raw", "matched", "regressed"]
MIN_GROUPS = 10
"""Fewer groups than this are no population to resample; then the pair is the unit, and the result says so."""


@dataclass(frozen=True)
class Effect:
    """One AUC of different against same meaning.

    Attributes:
        name: what was compared, such as `flip-backs`.
        adjustment: `raw`; `matched` (pairs with a partner of the other label that is like them); `regressed`
            (without what the covariates predict, overlap-weighted).
        by_group: the AUC and its interval over resampled groups (over pairs where there are fewer than 10).
        by_pair: the same over resampled pairs.
        pairs: pairs that it is an AUC of; for weights, their effective number `(sum w)^2 / sum w^2`.

    """

    name: str
    adjustment: Adjustment
    by_group: Estimate
    by_pair: Estimate
    pairs: int


class Adjuster:
    """One table's folds, propensities, matches and resamples, made once for all its outcomes.

    Args:
        table: the pairs.
        seed: of folds, blocks and resamples.
        resamples: bootstrap resamples.

    Raises:
        PolytopeError: too few pairs or groups, or one label only where a fold is left out.

    """

    def __init__(self, table: PairTable, *, seed: int = 0, resamples: int = 1000) -> None:
        streams = np.random.SeedSequence(seed).generate_state(4).tolist()
        self.table = table
        self.design = adjusting.design(table.covariates, len(table))
        self.fold = adjusting.fold_numbers(table.group, seed=streams[0])
        self.propensity = adjusting.propensities(self.design, table.different, self.fold)
        self.overlap = adjusting.overlap_weights(self.propensity, table.different)
        self.unit = "groups" if table.groups >= MIN_GROUPS else "pairs"
        # Both the regression and the weights were fitted.
        self.widen = _degrees(self.overlap, 2 * self.design.splines.shape[1] + 3)
        self.block_seed = streams[1]
        pairs = np.arange(len(table))
        self._draws = {
            "group": resampled(table.group if self.unit == "groups" else pairs, resamples, seed=streams[2]),
            "pair": resampled(pairs, resamples, seed=streams[3]),
        }

    @property
    def group_draws(self) -> Float[np.ndarray, "R P"]:
        """How often each resample of the verdict's unit holds each pair."""
        return self._draws["group"]

    @cached_property
    def matched(self) -> Bool[np.ndarray, " P"]:
        """Which pairs are matched, found when first asked for."""
        different = self.table.different
        return adjusting.matched(self.design, self.propensity, different, seed=self.block_seed)

    def residual(self, outcome: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
        """Return an outcome without what the covariates predict."""
        return adjusting.residuals(outcome, self.design, self.table.different, self.fold)

    def effect(
        self, name: str, values: Float[np.ndarray, " P"], adjustment: Adjustment = "raw"
    ) -> Effect | None:
        """Return the effect of meaning on some values; None where no pair is matched."""
        score, weight = self._prepared(values, adjustment)
        different = self.table.different
        if not weight[different].sum() or not weight[~different].sum():
            return None
        value = auc(score, different, weight)
        widen = self.widen if adjustment == "regressed" else 1.0
        spread = {
            unit: percentile_estimate(value, auc_draws(score, different, draws * weight), widen=widen)
            for unit, draws in self._draws.items()
        }
        pairs = round(float(weight.sum() ** 2 / (weight**2).sum()))
        return Effect(name, adjustment, spread["group"], spread["pair"], pairs)

    def _prepared(self, values: np.ndarray, adjustment: Adjustment) -> tuple[np.ndarray, np.ndarray]:
        if adjustment == "regressed":
            return self.residual(values), self.overlap
        weight = self.matched.astype(np.float64) if adjustment == "matched" else np.ones(len(values))
        return values, weight

    def regressed(self, values: Float[np.ndarray, " P"]) -> tuple[float, Float[np.ndarray, " R"]]:
        """Return the regressed AUC of some values and its group resamples: to be compared with another's."""
        score, weight = self._prepared(values, "regressed")
        different = self.table.different
        return auc(score, different, weight), auc_draws(score, different, self._draws["group"] * weight)


def beyond_half(adjuster: Adjuster, outcome: Float[np.ndarray, " P"]) -> Estimate:
    """Return how far an outcome's regressed AUC is from 0.5: what covariates do not explain."""
    value, draws = adjuster.regressed(outcome)
    return percentile_estimate(value - 0.5, draws - 0.5, widen=adjuster.widen)


def beyond_controls(
    adjuster: Adjuster, outcome: Float[np.ndarray, " P"], controls: Sequence[tuple[Adjuster, np.ndarray]]
) -> Estimate:
    """Return how far an outcome's regressed AUC is from the mean of random controls' of the same pairs.

    Each resample picks one of the controls' draws, so that their spread is in the interval.

    Args:
        adjuster: of the outcome's table.
        outcome: the claim's counts.
        controls: each draw's counts, with an adjuster of the same pairs, seed and resamples.

    """
    value, draws = adjuster.regressed(outcome)
    theirs = [other.regressed(counts) for other, counts in controls]
    picks = np.random.default_rng(adjuster.block_seed).integers(len(theirs), size=len(draws))
    picked = np.stack([drawn for _, drawn in theirs])[picks, np.arange(len(draws))]
    ahead = value - float(np.mean([mean for mean, _ in theirs]))
    return percentile_estimate(ahead, draws - picked, widen=adjuster.widen)


def added(adjuster: Adjuster, outcome: Float[np.ndarray, " P"]) -> Estimate:
    """Return how much an outcome adds to the covariates' own AUC, both by cross-fitted logistic regression.

    Args:
        adjuster: of the outcome's table.
        outcome: counts; their square root joins the covariates.

    """
    table = adjuster.table
    more = adjusting.design({**table.covariates, "outcome": np.sqrt(np.clip(outcome, 0, None))}, len(table))
    both = adjusting.propensities(more, table.different, adjuster.fold)
    draws = adjuster.group_draws
    value = auc(both, table.different) - auc(adjuster.propensity, table.different)
    theirs = auc_draws(adjuster.propensity, table.different, draws)
    return percentile_estimate(value, auc_draws(both, table.different, draws) - theirs)


def _degrees(weight: Float[np.ndarray, " P"], fitted: int) -> float:
    """Return what to widen an interval by for what was fitted beforehand: `sqrt(n / (n - fitted))`.

    `n` is the weights' effective number of pairs; where too few are left, they count as twice the fitted.
    """
    n = float(weight.sum() ** 2 / (weight**2).sum())
    return float(np.sqrt(n / max(n - fitted, n / 2)))
