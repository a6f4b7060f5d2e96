"""Intervals: a statistic on resamples, with documents, groups of pairs or words as the unit.

*Half-samples.* Tokens of one document depend on each other, so the document is the unit. The ordinary
bootstrap repeats documents, and repeated rows raise AMI, neighbour agreement and purity by themselves (it
gave 40 false positives in 40 nulls where cluster sizes differed). So each draw keeps half of the documents,
each once. Draws come in pairs of complements, S and the documents that S leaves out, S'. With `m =
(theta_S + theta_S')/2` and `h = (theta_S - theta_S')/2`, taken over many pairs:

- a mean over documents (*first order*) with variance L has `var(h) = L` and a constant m, so `var(h)` is its
  variance: the delete-half jackknife (Shao & Wu, "A general theory for jackknife variance estimation", Annals
  of Statistics 1989). For neighbours that a half takes from twice as far, `var(h)` is right, too;
- mutual information also counts pairs of documents that agree (*second order*, with variance Q): where labels
  have nothing to do with clusters, it is nothing else (L = 0: a degenerate U-statistic). On a half the pairs
  count four times as much, so that `var(h) = L + 2 Q` and `var(m) = Q`, and the plain spread over halves,
  `L + 3 Q`, is sqrt(3) too wide: it excluded 0 in 0 of 260 null worlds. The variance of the whole, `L + Q`,
  is `var(h) - var(m)`. Of 100 pairs that estimate is noisy, so never less than `3/4 var(m)` is taken: a floor
  at L = 0, `var(m)`, would make the stated spreads 13 % too wide in null worlds, this one makes it 6 %.

The interval is `point on all documents +/- 1.96 sd`: a percentile interval of the halves would be centred on
the statistic of *half* the documents, which for AMI and for neighbours is another number.

*Bootstrap.* A mean over units (pairs, words, or couples of pairs as in the AUC) is not raised by repeated
rows, so units are drawn with replacement and the interval is the resamples' 2.5th to 97.5th percentile.

*Random controls.* See `Resampled.mean_of_draws`: one rule for both kinds of resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int

Z = 1.96
_ENOUGH = 0.9  # of the resamples must have the statistic
MIN_DOCUMENTS = 10
"""Ten documents have 252 halves, the first number that 200 draws do not exhaust."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval, `value +/- 1.96 sd` over delete-half resamples of documents."""

    value: float
    sd: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def half_samples(documents: int, draws: int, *, seed: int) -> Bool[np.ndarray, "draws documents"]:
    """Return which documents each draw keeps: a random half, then the rest, then another half, and so on.

    Of an odd number of documents a half has one more than the rest.
    """
    if documents < MIN_DOCUMENTS:
        msg = f"{documents} documents are too few to resample; at least {MIN_DOCUMENTS} are needed, add documents"
        raise PolytopeError(msg)
    if draws < 4:
        raise PolytopeError(f"resamples = {draws} gives no spread; at least 4 are needed, 200 is the default")
    rng = np.random.default_rng(seed)
    pairs = -(-draws // 2)
    order = rng.permuted(np.tile(np.arange(documents), (pairs, 1)), axis=1)
    half = np.zeros((pairs, documents), dtype=bool)
    np.put_along_axis(half, order[:, : -(-documents // 2)], values=True, axis=1)
    return rearrange([half, ~half], "part draw document -> (draw part) document")[:draws]


@dataclass(frozen=True, eq=False)
class Resampled:
    """A statistic, or several at once, on all units and on each resample of them.

    Differences of two that have the same resamples are paired: what both owe to a resample cancels.

    Attributes:
        value: on all units; a number, or an array with one a score.
        draws: on each resample, in the resamples' order.

    """

    value: Any
    draws: Float[np.ndarray, "resamples ..."]

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(self.value - other.value, self.draws - other.draws)

    @staticmethod
    def better(each: Sequence[Resampled]) -> Resampled:
        """Return the largest, chosen inside each resample and score by score.

        Chosen once, on all units, the maximum would be too low a bar on every resample where another is
        ahead, and whoever is compared with it would gain.
        """
        return Resampled(np.max([one.value for one in each], axis=0), np.max([one.draws for one in each], axis=0))

    @staticmethod
    def mean_of_draws(each: Sequence[Resampled], picks: Float[np.ndarray, " resamples"]) -> Resampled:
        """Return a random control's mean over its d draws, with the spread of that mean in its resamples.

        What is reported is `r = (r_1 + ... + r_d) / d`, each r_j a draw on all units, and it differs from the
        control's expectation for two reasons. The units are a sample: the mean over the draws on each
        resample shows that spread, V. And d draws are few: given the units, r has the variance `s^2 / d`,
        with `s^2 = sum_j (r_j - r)^2 / (d - 1)`. So an interval must cover `V + s^2 / d`. Each resample is
        therefore moved by `(r_j - r) / sqrt(d - 1)` for a j picked at random, which has mean 0 and variance
        `sum_j (r_j - r)^2 / (d (d - 1)) = s^2 / d`. Neighbouring resamples 2i and 2i + 1 share j and move
        apart: for half-samples, pairs of complements, that adds `s^2 / d` to `var(h)` and nothing to
        `var(m)`; for a bootstrap it makes the added spread symmetric.

        To show each resample one draw's own score instead would add `s^2 (d - 1) / d`, d - 1 times as much:
        a stated 95 % then covered 98 % with 5 draws that spread as much as the documents. Coverage of this
        rule is 94 to 95 % there, and with 2 draws (one degree of freedom) 93 %.

        `picks` are uniform in [0, 1), one a resample; the first of each pair is read.
        """
        points = np.stack([one.value for one in each])
        mean, draws = points.mean(axis=0), np.stack([one.draws for one in each]).mean(axis=0)
        if len(each) > 1:
            away = (points - mean) / np.sqrt(len(each) - 1)
            number = np.arange(len(draws))
            move = away[(picks[number - number % 2] * len(each)).astype(int)]
            draws += np.expand_dims(1 - 2 * (number % 2), tuple(range(1, draws.ndim))) * move
        return Resampled(mean, draws)

    def column(self, i: int) -> Resampled:
        """Return the i-th of several scores."""
        return Resampled(float(np.asarray(self.value)[i]), self.draws[:, i])

    def by_halves(self, documents: int, *, second_order: bool = False) -> Estimate:
        """Return the statistic with its interval, where the resamples are `half_samples` in their order.

        `second_order`: the statistic is a mutual information (adjusted or not) or a difference of such.
        """
        value = float(self.value)
        if not (np.isfinite(self.draws).all() and np.isfinite(value)):
            raise PolytopeError(
                f"a score does not exist on some halves of {documents} documents, where it has no token left "
                "to count; add documents or choose another label"
            )
        # A last half without its complement is left out.
        pairs = np.asarray(self.draws, dtype=np.float64)[: len(self.draws) // 2 * 2].reshape(-1, 2)
        across = float(np.var((pairs[:, 0] - pairs[:, 1]) / 2, ddof=1))
        if second_order:
            shared = float(np.var(pairs.mean(axis=1), ddof=1))
            across = max(across - shared, 0.75 * shared)
        sd = float(np.sqrt(across))
        return Estimate(value=value, sd=sd, low=float(value - Z * sd), high=float(value + Z * sd))

    def by_percentiles(self, *, widen: float = 1.0) -> Estimate:
        """Return the statistic with the 2.5th and 97.5th percentile of its bootstrap resamples.

        The spread is multiplied by `widen`, for what was estimated before the resamples were drawn. On a tenth of the
        resamples the statistic may not exist (NaN).
        """
        value, there = float(self.value), self.draws[np.isfinite(self.draws)]
        if len(there) < _ENOUGH * len(self.draws) or not np.isfinite(value):
            raise PolytopeError(
                f"{len(self.draws) - len(there)} of {len(self.draws)} resamples hold pairs of one kind only; "
                "add groups that have both same and different pairs"
            )
        low, high = np.percentile(there, [2.5, 97.5])
        if widen != 1:
            low, high = (value + widen * (bound - value) for bound in (low, high))
        return Estimate(value, widen * float(np.std(there, ddof=1)), float(low), float(high))


def auc(
    score: Float[np.ndarray, " P"], positive: Bool[np.ndarray, " P"], weight: Float[np.ndarray, " P"] | None = None
) -> float:
    """Return the area under the ROC curve, 0.5 for no effect, 1 for perfect separation.

    `P(score of a different pair > score of a same pair) + P(equal) / 2` (Hanley & McNeil 1982).
    """
    weights = np.ones(len(score)) if weight is None else weight
    return float(auc_draws(score, positive, weights[None])[0])


def auc_draws(
    score: Float[np.ndarray, " P"], positive: Bool[np.ndarray, " P"], weights: Float[np.ndarray, "R P"]
) -> Float[np.ndarray, " R"]:
    """Return the area for each row of weights, how often a resample holds each pair; NaN where a class has none."""
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


def resampled(unit: Int[np.ndarray, " P"], draws: int, *, seed: int | np.random.Generator) -> Float[np.ndarray, "R P"]:
    """Return how often each of `draws` bootstrap resamples holds each row.

    Units are drawn with replacement: `unit` is a pair's own number, its group, a document or a word.
    """
    _, codes = np.unique(unit, return_inverse=True)
    units = int(codes.max(initial=-1)) + 1
    if draws < 2 or units < 2:
        msg = f"resamples = {draws} of {units} units (pairs, groups or documents): no spread; give 2 or more"
        raise PolytopeError(msg)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(units, np.full(units, 1 / units), size=draws)
    return times[:, codes.reshape(-1)].astype(np.float64)
