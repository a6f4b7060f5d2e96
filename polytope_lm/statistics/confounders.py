"""The effect of meaning on what paths cross, without what distances and other covariates explain.

Everything works on a `PairTable`, one row a pair of prompts: what a path between them crosses, how far they
are apart, and their label. No model is needed, so that planted worlds go through the same steps as a language
model. An effect is an AUC: the probability that a pair of different meaning has more of the outcome than a
pair of the same meaning; raw, after matching, after regression.

*Regression.* The outcome (the square root of a count, whose spread hardly depends on its size) is regressed
on restricted cubic splines of every covariate (4 knots; Harrell, "Regression Modeling Strategies", 2015),
with a slight ridge, and on the label beside them, so that the label's part is not given to covariates that go
with it; what the covariates predict is taken away, the label's part stays. Predictions are cross-fitted: a
pair's own group has no part in them.

*Overlap weights.* A wrong regression leaves a trace of the covariates, and unequal spread moves ranks; both
cancel where the two kinds of pairs have the same covariates. Each pair has the probability of the *other*
label given its covariates (Li, Morgan & Zaslavsky, "Balancing covariates via propensity score weighting",
JASA 2018), so that pairs that could be of either kind count most. Either a right regression or right weights
suffice.

*Matching.* Each different pair with at most one same pair: the assignment with the least total Euclidean
distance of the standardised covariates, within a caliper of 0.2 sd of the propensity's logit (Austin 2011).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.estimate import Estimate, Resampled, auc, auc_draws, resampled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Bool, Float, Int

FOLDS = 5
_KNOTS = (0.05, 0.35, 0.65, 0.95)
_RIDGE = 1.0
_CALIPER = 0.2
_AT_ONCE = 1500  # pairs of each kind in one assignment: its cost matrix has 18 MB
_SAME = 1 - 1e-9  # correlation at which two covariates are one


@dataclass(frozen=True, eq=False)
class Design:
    """The covariates of P pairs as a regression reads them.

    Attributes:
        names: covariates in use.
        left_out: those without variance, or equal to another one up to scale, and why.
        linear: standardised, `[P, C]`.
        splines: their restricted cubic splines, standardised, `[P, F]`.

    """

    names: tuple[str, ...]
    left_out: Mapping[str, str]
    linear: Float[np.ndarray, "P C"]
    splines: Float[np.ndarray, "P F"]


def design(covariates: Mapping[str, Float[np.ndarray, " P"]], pairs: int) -> Design:
    """Standardise the covariates, if there are any, and expand them into splines."""
    used: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for name, values in covariates.items():
        spread = float(np.std(values))
        if spread <= 1e-12 * max(1.0, float(np.abs(values).max())):
            left_out[name] = "the same for all pairs"
            continue
        column = (values - values.mean()) / spread
        twin = next((other for other, c in used.items() if abs(float((c * column).mean())) > _SAME), None)
        if twin is not None:
            left_out[name] = f"equal to {twin} up to scale"
            continue
        used[name] = column
    linear = np.stack(list(used.values()), axis=1) if used else np.zeros((pairs, 0))
    parts = [_splines(column) for column in linear.T]
    return Design(tuple(used), left_out, linear, np.concatenate(parts, axis=1) if parts else np.zeros((pairs, 0)))


def _splines(column: np.ndarray) -> np.ndarray:
    """Return a column and its restricted cubic splines, linear beyond the outer knots; standardised."""
    knots = np.quantile(column, _KNOTS)
    features = [column]
    if (np.diff(knots) > 1e-9).all():
        last, before = knots[-1], knots[-2]
        for knot in knots[:-2]:
            cubes = [np.clip(column - k, 0, None) ** 3 for k in (knot, before, last)]
            share = (last - knot) / (last - before)
            features.append(cubes[0] - share * cubes[1] + (share - 1) * cubes[2])
    stacked = np.stack(features, axis=1)
    spread = stacked.std(axis=0)
    return np.asarray((stacked - stacked.mean(axis=0))[:, spread > 0] / spread[spread > 0])


def fold_numbers(group: Int[np.ndarray, " P"], *, seed: int) -> Int[np.ndarray, " P"]:
    """Return each pair's fold, whole groups together; pairs by themselves where there are too few groups."""
    units = group if len(np.unique(group)) >= 2 * FOLDS else np.arange(len(group))
    _, codes = np.unique(units, return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(codes.max()) + 1)
    return np.asarray(order[codes.reshape(-1)] % FOLDS)


def _folds(fold: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for number in np.unique(fold):
        yield fold != number, fold == number


def residuals(
    outcome: Float[np.ndarray, " P"], covariates: Design, different: Bool[np.ndarray, " P"], fold: Int[np.ndarray, " P"]
) -> Float[np.ndarray, " P"]:
    """Return the outcome without what the covariates predict, cross-fitted.

    The root `sqrt(y + 3/8)` of counts (Anscombe 1948) is regressed. The label is fitted beside the covariates and
    not taken away.
    """
    root = np.sqrt(np.clip(outcome, 0, None) + 0.375)
    if float(np.ptp(root)) == 0:
        return np.zeros(len(root))  # nothing to explain: what rounding would leave is no residual
    left = np.empty(len(root))
    features = covariates.splines
    for train, test in _folds(fold):
        own = np.column_stack([np.ones(int(train.sum())), different[train], features[train]])
        penalty = np.diag([0.0, 1e-6, *np.full(features.shape[1], _RIDGE)])
        weights = np.linalg.solve(own.T @ own + penalty, own.T @ root[train])
        left[test] = root[test] - weights[0] - features[test] @ weights[2:]
    return left


def propensities(
    covariates: Design, different: Bool[np.ndarray, " P"], fold: Int[np.ndarray, " P"]
) -> Float[np.ndarray, " P"]:
    """Return the cross-fitted probability of each pair to be different in meaning, given its covariates."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import

    probability = np.empty(len(different))
    for train, test in _folds(fold):
        share = float(different[train].mean())
        if not 0 < share < 1:
            raise PolytopeError(
                f"{int(train.sum())} of {len(different)} pairs, without one fifth of the groups, have one "
                "label only; add groups that have both"
            )
        if covariates.splines.shape[1] == 0:
            probability[test] = share
            continue
        # A ridge that is slight beside the data, strong enough for separable ones.
        fitted = LogisticRegression(C=1.0, max_iter=300).fit(covariates.splines[train], different[train])
        probability[test] = fitted.predict_proba(covariates.splines[test])[:, 1]
    return np.clip(probability, 1e-6, 1 - 1e-6)


def overlap_weights(propensity: Float[np.ndarray, " P"], different: Bool[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Return each pair's probability of the other label."""
    return np.where(different, 1 - propensity, propensity)


def matched(
    covariates: Design, propensity: Float[np.ndarray, " P"], different: Bool[np.ndarray, " P"], *, seed: int
) -> Bool[np.ndarray, " P"]:
    """Return which pairs have a partner of the other label that is like them.

    More than 1,500 pairs of a kind are matched in random blocks.
    """
    logit = np.log(propensity / (1 - propensity))
    reach = _CALIPER * float(np.std(logit))
    places = covariates.linear
    kept = np.zeros(len(different), dtype=bool)
    rng = np.random.default_rng(seed)
    ours, theirs = (rng.permutation(np.flatnonzero(kind)) for kind in (different, ~different))
    blocks = -(-max(len(ours), len(theirs)) // _AT_ONCE)
    for mine, others in zip(np.array_split(ours, blocks), np.array_split(theirs, blocks), strict=True):
        apart = np.abs(logit[mine][:, None] - logit[others][None])
        squares = (places[mine] ** 2).sum(axis=1)[:, None] + (places[others] ** 2).sum(axis=1)[None]
        cost = np.sqrt(np.clip(squares - 2 * places[mine] @ places[others].T, 0, None))
        far = (cost.max(initial=0.0) + 1) * (len(mine) + len(others))
        rows, columns = linear_sum_assignment(np.where(apart <= reach, cost, far))
        good = apart[rows, columns] <= reach
        kept[mine[rows[good]]] = True
        kept[others[columns[good]]] = True
    return kept


def imbalance(covariates: Design, different: Bool[np.ndarray, " P"], weight: Float[np.ndarray, " P"]) -> float:
    """Return the largest difference of a covariate's weighted means between the labels, in sd."""
    if covariates.linear.shape[1] == 0 or not (weight[different].sum() and weight[~different].sum()):
        return 0.0
    means = [np.average(covariates.linear[k], axis=0, weights=weight[k]) for k in (different, ~different)]
    return float(np.abs(means[0] - means[1]).max())


def variance_inflation(columns: Mapping[str, Float[np.ndarray, " P"]]) -> dict[str, float]:
    """Return `1 / (1 - R^2)` of each column regressed linearly on the others; infinite where they give it.

    Columns without variance are left out. Above 10, what one column does can hardly be told from what the others do.
    """
    used = {name: values for name, values in columns.items() if float(np.std(values)) > 0}
    out = {}
    for name, values in used.items():
        others = [(v - v.mean()) / np.std(v) for other, v in used.items() if other != name]
        y = (values - values.mean()) / np.std(values)
        if not others:
            out[name] = 1.0
            continue
        X = np.stack(others, axis=1)
        left = float(((y - X @ np.linalg.lstsq(X, y, rcond=None)[0]) ** 2).mean())
        out[name] = float(1 / left) if left > 1e-12 else float("inf")
    return out


@dataclass(frozen=True, eq=False, repr=False)
class PairTable:
    """One row a pair.

    Attributes:
        different: whether the two prompts differ in meaning, `[P]`.
        group: which group (word, item) each pair belongs to, counted from 0, `[P]`.
        outcomes: counts along the paths, such as `flip-backs`, each `[P]`.
        covariates: what would make a pair cross more whatever it means, each `[P]`.
        measures: other numbers of a pair, compared but not adjusted for, each `[P]`.

    Raises:
        PolytopeError: columns of unequal length, values that are not finite, or only one of the two labels.

    """

    different: Bool[np.ndarray, " P"]
    group: Int[np.ndarray, " P"]
    outcomes: Mapping[str, Float[np.ndarray, " P"]]
    covariates: Mapping[str, Float[np.ndarray, " P"]]
    measures: Mapping[str, Float[np.ndarray, " P"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pairs = len(self.different)
        columns = {"group": self.group, **self.outcomes, **self.covariates, **self.measures}
        for name, column in columns.items():
            if len(column) != pairs:
                raise PolytopeError(f"{name!r} has {len(column)} values for {pairs} pairs; give one a pair")
            if not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                msg = f"{name!r} of pair {row} is {column[row]}; leave the pair out, or mend what gave it"
                raise PolytopeError(msg)
        if not 0 < int(self.different.sum()) < pairs:
            what = "different" if pairs and self.different.all() else "the same"
            raise PolytopeError(f"all {pairs} pairs are {what} in meaning; pairs of both kinds are needed")

    def __len__(self) -> int:
        return len(self.different)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(np.unique(self.group))

    def __repr__(self) -> str:
        return (
            f"PairTable: {len(self)} pairs, {int(self.different.sum())} different in meaning, "
            f"{self.groups} groups, {len(self.covariates)} covariates"
        )


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

    The seed is of folds, blocks and resamples.
    """

    def __init__(self, table: PairTable, *, seed: int = 0, resamples: int = 1000) -> None:
        streams = np.random.SeedSequence(seed).generate_state(5).tolist()
        self.table = table
        self.design = design(table.covariates, len(table))
        self.fold = fold_numbers(table.group, seed=streams[0])
        self.propensity = propensities(self.design, table.different, self.fold)
        self.overlap = overlap_weights(self.propensity, table.different)
        self.unit = "groups" if table.groups >= MIN_GROUPS else "pairs"
        # Intervals are wider for what the regression and the weights fitted, by sqrt(n / (n - fitted)): n is the
        # weights' effective number of pairs; where too few are left, they count as twice the fitted.
        n, fitted = float(self.overlap.sum() ** 2 / (self.overlap**2).sum()), 2 * self.design.splines.shape[1] + 3
        self.widen = float(np.sqrt(n / max(n - fitted, n / 2)))
        self.block_seed = streams[1]
        self.picks = np.random.default_rng(streams[4]).random(resamples)
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
        return matched(self.design, self.propensity, different, seed=self.block_seed)

    def residual(self, outcome: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
        """Return an outcome without what the covariates predict."""
        return residuals(outcome, self.design, self.table.different, self.fold)

    def effect(self, name: str, values: Float[np.ndarray, " P"], adjustment: Adjustment = "raw") -> Effect | None:
        """Return the effect of meaning on some values; None where no pair is matched."""
        score, weight = self._prepared(values, adjustment)
        different = self.table.different
        if not weight[different].sum() or not weight[~different].sum():
            return None
        value = auc(score, different, weight)
        widen = self.widen if adjustment == "regressed" else 1.0
        spread = {
            unit: Resampled(value, auc_draws(score, different, draws * weight)).by_percentiles(widen=widen)
            for unit, draws in self._draws.items()
        }
        pairs = round(float(weight.sum() ** 2 / (weight**2).sum()))
        return Effect(name, adjustment, spread["group"], spread["pair"], pairs)

    def _prepared(self, values: np.ndarray, adjustment: Adjustment) -> tuple[np.ndarray, np.ndarray]:
        if adjustment == "regressed":
            return self.residual(values), self.overlap
        weight = self.matched.astype(np.float64) if adjustment == "matched" else np.ones(len(values))
        return values, weight

    def regressed(self, values: Float[np.ndarray, " P"]) -> Resampled:
        """Return the regressed AUC of some values and its group resamples, to be compared with another's."""
        score, weight = self._prepared(values, "regressed")
        different = self.table.different
        draws = auc_draws(score, different, self._draws["group"] * weight)
        return Resampled(auc(score, different, weight), draws)


def beyond_half(adjuster: Adjuster, outcome: Float[np.ndarray, " P"]) -> Estimate:
    """Return how far an outcome's regressed AUC is from 0.5: what covariates do not explain."""
    found = adjuster.regressed(outcome)
    return Resampled(found.value - 0.5, found.draws - 0.5).by_percentiles(widen=adjuster.widen)


def beyond_controls(
    adjuster: Adjuster, outcome: Float[np.ndarray, " P"], controls: Sequence[tuple[Adjuster, np.ndarray]]
) -> Estimate:
    """Return how far an outcome's regressed AUC is from the mean of random controls' of the same pairs.

    Each control is one draw's counts, with an adjuster of the same pairs, seed and resamples.
    """
    theirs = [other.regressed(counts) for other, counts in controls]
    ahead = adjuster.regressed(outcome) - Resampled.mean_of_draws(theirs, adjuster.picks)
    return ahead.by_percentiles(widen=adjuster.widen)


def added(adjuster: Adjuster, outcome: Float[np.ndarray, " P"]) -> Estimate:
    """Return how much an outcome adds to the covariates' own AUC, both by cross-fitted logistic regression.

    The square root of its counts joins the covariates.
    """
    table = adjuster.table
    more = design({**table.covariates, "outcome": np.sqrt(np.clip(outcome, 0, None))}, len(table))
    both = propensities(more, table.different, adjuster.fold)
    draws = adjuster.group_draws
    with_outcome, without = (
        Resampled(auc(p, table.different), auc_draws(p, table.different, draws)) for p in (both, adjuster.propensity)
    )
    return (with_outcome - without).by_percentiles()
