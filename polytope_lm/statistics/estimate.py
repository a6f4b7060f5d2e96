"""Intervals: a statistic on resamples, with documents, groups of pairs or words as the unit.

*Half-samples.* Tokens of one document depend on each other, so the document is the unit. The ordinary
bootstrap repeats documents, and repeated rows raise AMI, neighbour agreement and purity by themselves (it
gave 40 false positives in 40 nulls where cluster sizes differed). So each draw keeps half of the documents,
each once, and whatever is found without a label (clusters above all) is found anew inside the half: an
interval then speaks of the procedure and not of one clustering. A mean over documents varies over halves just
as it does over samples: the delete-half jackknife (Shao & Wu, "A general theory for jackknife variance
estimation", Annals of Statistics 1989). So the *plain spread* over halves is the standard error of a mean.
Mutual information has a part of second order besides: pairs of documents that agree by chance, whose variance
Q on all documents is `3 Q` in the spread over halves. Exchanges of labels between documents leave nothing else,
so their variance is Q, and `spread^2 - 2 Q` is the variance of the whole. Twenty exchanges know Q to a third
only, so at least half of `spread^2` is taken. (What clustering anew adds to a half stays in.)

*Few documents.* Documents of unequal size count for fewer: Kish's effective number is `(sum n)^2 / sum n^2`
(Kish, "Survey sampling", 1965), and the interval is `point on all documents +/- t sd` with Student's t of one
degree of freedom less than that. A percentile interval of the halves would be centred on the statistic of
*half* the documents, which for AMI and for neighbours is another number.

*Fixed groups* (a user's own, in `plm.predictions.groups`) are not found anew. Draws come in pairs of
complements, S and S'. With `m = (theta_S + theta_S')/2` and `h = (theta_S - theta_S')/2` over many pairs, a
mean over documents has `var(h)` as its variance and a constant m; mutual information has `var(h) = L + 2 Q`
and `var(m) = Q`, L its part of first and Q of second order, and `var(h) - var(m)`, at least `3/4 var(m)`, is
the variance of the whole.

*Bootstrap.* A mean over units (pairs, words, or couples of pairs as in the AUC) is not raised by repeated
rows, so units are drawn with replacement and the interval is the resamples' 2.5th to 97.5th percentile.

*Random controls.* See `Resampled.mean_of_draws`: one rule for both kinds of resamples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange
from scipy.stats import norm, t

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int

Z = 1.96
ALPHA = float(norm.sf(Z))
"""One-sided level of a bound of the 95 % interval, 0.025."""
_ENOUGH = 0.9  # of the resamples must have the statistic
MIN_DOCUMENTS = 8
"""Eight documents have 70 halves; documents of unequal size must count for as many (Kish's number)."""


def quantile(freedom: float | None, level: float = ALPHA) -> float:
    """Return how many sd a bound lies off: of Student's t, or of the normal distribution where `freedom` is None."""
    return float(norm.isf(level) if freedom is None else t.isf(level, freedom))


def one_sided_p(
    excess: float | Float[np.ndarray, "*m"],
    sd: float | Float[np.ndarray, "*m"],
    freedom: float | Float[np.ndarray, "*m"],
) -> Float[np.ndarray, "*m"]:
    """Return each p of "the true excess is at most 0", by Student's t; by the normal where `freedom` is infinite."""
    above, errors, degrees = np.broadcast_arrays(np.asarray(excess, dtype=np.float64), sd, freedom)
    ratio = np.divide(above, errors, out=np.where(above > 0, np.inf, -np.inf), where=errors > 0)
    normal = np.isinf(degrees)
    p: Float[np.ndarray, "*m"] = np.where(normal, norm.sf(ratio), t.sf(ratio, np.where(normal, 1, degrees)))
    return p


def effective_number(unit: Int[np.ndarray, " n"]) -> float:
    """Return Kish's number of units: `(sum n)^2 / sum n^2` of the rows that each has."""
    sizes = np.unique(unit, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
        value: the number.
        sd: its standard error.
        low: lower end of the interval.
        high: upper end.
        freedom: degrees of freedom of Student's t behind the interval; None: the normal distribution.

    """

    value: float
    sd: float
    low: float
    high: float
    freedom: float | None = None

    @classmethod
    def around(cls, value: float, sd: float, freedom: float | None = None) -> Estimate:
        """Return the estimate whose interval is `value +/- t sd`."""
        reach = quantile(freedom) * sd
        return cls(float(value), float(sd), float(value - reach), float(value + reach), freedom)

    def beside(self, other: Estimate, share: float, spread: float) -> Estimate:
        """Return the mean of two measurements on the same units, with random choices of their own.

        The units' spread is the same in both, so the standard error is the root of the mean square of both; what it
        gains where each measurement is a little off by itself is left.

        Args:
            other: the other measurement.
            share: its weight, of 1, in the value.
            spread: its weight in the square of the standard error.

        """
        square = (1 - spread) * self.sd**2 + spread * other.sd**2
        return Estimate.around((1 - share) * self.value + share * other.value, square**0.5, self.freedom)

    def p_above(self, bound: float) -> float:
        """Return the one-sided p of "the true number is at most `bound`"."""
        return float(one_sided_p(self.value - bound, self.sd, np.inf if self.freedom is None else self.freedom))

    def p_below(self, bound: float) -> float:
        """Return the one-sided p of "the true number is at least `bound`"."""
        return Estimate(-self.value, self.sd, -self.high, -self.low, self.freedom).p_above(-bound)

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
        null: of mutual information, on all units with labels exchanged between documents; empty for any other.

    """

    value: Any
    draws: Float[np.ndarray, "resamples ..."]
    null: Float[np.ndarray, " exchanges"] = field(default_factory=lambda: np.empty(0))

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(self.value - other.value, self.draws - other.draws, self.null - other.null)

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
        return Resampled(mean, draws, np.mean([one.null for one in each], axis=0))

    def column(self, i: int) -> Resampled:
        """Return the i-th of several scores."""
        return Resampled(float(np.asarray(self.value)[i]), self.draws[:, i])

    def by_spread(self, freedom: float | None, widen: float = 1.0) -> Estimate:
        """Return the statistic with `value +/- t sd`, sd the spread over halves, times `widen`.

        Of mutual information (which has a null) the part of second order counts once, not three times.
        """
        across = float(np.var(self._there().draws, ddof=1))
        if len(self.null) > 1:
            across = max(across - 2 * float(self.null.var(ddof=1)), across / 2)
        return Estimate.around(float(self.value), widen * float(np.sqrt(across)), freedom)

    def _there(self) -> Resampled:
        if not (np.isfinite(self.draws).all() and np.isfinite(self.value).all()):
            raise PolytopeError(
                "a score does not exist on some halves of the documents, where it has no token left to count; "
                "add documents or choose another label"
            )
        return self

    def by_halves(self, *, second_order: bool = False) -> Estimate:
        """Return the statistic of *fixed* groups with its interval; the resamples are `half_samples` in order.

        `second_order`: the statistic is a mutual information (adjusted or not) or a difference of such.
        """
        # A last half without its complement is left out.
        pairs = np.asarray(self._there().draws, dtype=np.float64)[: len(self.draws) // 2 * 2].reshape(-1, 2)
        across = float(np.var((pairs[:, 0] - pairs[:, 1]) / 2, ddof=1))
        if second_order:
            shared = float(np.var(pairs.mean(axis=1), ddof=1))
            across = max(across - shared, 0.75 * shared)
        return Estimate.around(float(self.value), float(np.sqrt(across)))

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
