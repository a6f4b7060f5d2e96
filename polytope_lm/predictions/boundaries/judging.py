"""From measured pairs to one layer's record: effects, controls, the primary cells, the verdict.

The primary cells are fixed here and in `boundaries`' text. Nothing in this file knows a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.boundaries import measure as p
from polytope_lm.predictions.boundaries.result import MISSED, Balance, LayerBoundaries, Shuffled, WeightsControl
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics import confounders as adjusting
from polytope_lm.statistics.confounders import Adjuster, Effect, PairTable, added, beyond_controls, beyond_half
from polytope_lm.statistics.verdict import Cell, decide

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.boundaries.result import BoundarySettings

SCORE = "AUC of flip-backs"
BEYOND_COVARIATES = "what covariates explain (0.5)"
BEYOND_PLANES = "rate-matched hyperplanes"
MIN_PAIRS = 20
_PLANES_HAMMING = "endpoint Hamming of the hyperplanes"
_RESAMPLES = 200  # of each label permutation's own interval


@dataclass(frozen=True, eq=False)
class Measured:
    """One model's numbers of the pairs that all models could read, a row a pair."""

    frame: pd.DataFrame
    different: np.ndarray
    group: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """Return one column."""
        return np.asarray(self.frame[name], dtype=np.float64)

    def table(self, covariates: Mapping[str, np.ndarray] | None = None) -> PairTable:
        """Return the pairs with their outcomes and the usual covariates, or others."""
        usual = {name: self.column(name) for name in p.COVARIATES if name in self.frame}
        return PairTable(
            different=self.different,
            group=self.group,
            outcomes={name: self.column(name) for name in p.OUTCOMES},
            covariates=usual if covariates is None else covariates,
            measures={name: self.column(name) for name in p.MEASURES},
        )


def from_numbers(numbers: pd.DataFrame, layer: int, weights: str = "real") -> Measured:
    """Take one layer's pairs out of a result's `numbers`, to be judged again or permuted."""
    frame = numbers[(numbers["layer"] == layer) & (numbers["weights"] == weights)].reset_index(drop=True)
    return Measured(frame, ~frame["same"].to_numpy(dtype=bool), frame["group"].to_numpy())


def judge(site: Site, real: Measured, others: Mapping[str, Measured], settings: BoundarySettings) -> LayerBoundaries:
    """Put one layer's measured pairs to the test (before any correction over layers)."""
    if len(real.different) < MIN_PAIRS:
        raise PolytopeError(
            f"{len(real.different)} pairs in layer {site.layer} are too few to resample; give at least {MIN_PAIRS}"
        )
    table, seed = real.table(), derived(settings.seed, Purpose.EFFECTS)
    adjuster = Adjuster(table, seed=seed, resamples=settings.resamples)
    outcome = table.outcomes[p.FLIP_BACKS]
    planes = _plane_adjusters(real, table, settings, seed)
    cells = [Cell(BEYOND_COVARIATES, SCORE, beyond_half(adjuster, outcome))]
    if planes:
        cells.append(Cell(BEYOND_PLANES, SCORE, beyond_controls(adjuster, outcome, planes)))
    verdict = decide(
        cells, place=f"Layer {site.layer}", documents=len(table), smallest_effect=settings.smallest_effect,
        premises=str(site.premises), premises_met=site.premises.met, unit="pairs",
    )  # fmt: skip
    curved = Adjuster(
        real.table({**table.covariates, p.CURVATURE: real.column(p.CURVATURE)}),
        seed=seed, resamples=settings.resamples,
    )  # fmt: skip
    crossings, hamming = table.outcomes[p.ALL], real.column(p.HAMMING_IN) + real.column(p.HAMMING_DOWN)
    return LayerBoundaries(
        site=site, pairs=len(table), different=int(table.different.sum()), groups=table.groups,
        unit=adjuster.unit, effects=_effects(adjuster), covariates=adjuster.design.names,
        left_out=adjuster.design.left_out, inflation=_inflation(adjuster), balance=_balance(adjuster),
        correlation=_correlation(crossings, hamming), gain=added(adjuster, outcome),
        beyond_curvature=_regressed(curved, outcome),
        planes=tuple(float(each.regressed(counts).value) for each, counts in planes),
        controls=tuple(_control(name, other, adjuster, settings, seed) for name, other in others.items()),
        shuffled=_shuffled(table, adjuster, settings),
        missed_estimate=int(real.column(MISSED).sum()), cells=tuple(cells), verdict=verdict,
    )  # fmt: skip


def _plane_adjusters(
    real: Measured, table: PairTable, settings: BoundarySettings, seed: int
) -> list[tuple[Adjuster, np.ndarray]]:
    """Return each draw's flip-backs, to be adjusted for its own endpoint Hamming and the other covariates."""
    shared = {n: v for n, v in table.covariates.items() if n not in {p.HAMMING_IN, p.HAMMING_DOWN}}
    found = []
    for draw in range(settings.draws):
        crossed, hamming = (real.column(p.plane_column(draw, what)) for what in ("crossings", "Hamming"))
        theirs = replace(table, covariates={**shared, _PLANES_HAMMING: hamming})
        found.append((Adjuster(theirs, seed=seed, resamples=settings.resamples), crossed - hamming))
    return found


def _effects(adjuster: Adjuster) -> tuple[Effect, ...]:
    """Return the AUC of every outcome in every adjustment, and of everything else raw."""
    table, found = adjuster.table, []
    for name, values in table.outcomes.items():
        for how in ("raw", "matched", "regressed"):
            effect = adjuster.effect(name, values, how)
            if effect is not None:
                found.append(effect)
    for name, values in {**table.covariates, **table.measures}.items():
        effect = adjuster.effect(name, values)
        if effect is not None:
            found.append(effect)
    return tuple(found)


def _regressed(adjuster: Adjuster, outcome: np.ndarray, name: str = p.FLIP_BACKS) -> Effect:
    effect = adjuster.effect(name, outcome, "regressed")
    if effect is None:  # overlap weights vanish only where propensities are 0 or 1, which they never are
        raise PolytopeError(f"{name}: no pair has any weight; give pairs of both kinds that are alike")
    return effect


def _inflation(adjuster: Adjuster) -> dict[str, float | None]:
    table = adjuster.table
    columns = {name: table.covariates[name] for name in adjuster.design.names}
    found = adjusting.variance_inflation({p.ALL: table.outcomes[p.ALL], **columns})
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def _balance(adjuster: Adjuster) -> Balance:
    weights = (np.ones(len(adjuster.table)), adjuster.matched.astype(np.float64), adjuster.overlap)
    raw, matched, weighted = (
        adjusting.imbalance(adjuster.design, adjuster.table.different, weight) for weight in weights
    )
    return Balance(raw, matched, weighted)


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if float(np.ptp(a)) == 0 or float(np.ptp(b)) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _control(name: str, other: Measured, real: Adjuster, settings: BoundarySettings, seed: int) -> WeightsControl:
    table = other.table()
    adjuster = Adjuster(table, seed=seed, resamples=settings.resamples)
    outcome = table.outcomes[p.FLIP_BACKS]
    ahead = real.regressed(real.table.outcomes[p.FLIP_BACKS]) - adjuster.regressed(outcome)
    raw = adjuster.effect(p.ALL, table.outcomes[p.ALL])
    if raw is None:
        raise PolytopeError(f"{name}: no pair has any weight; give pairs of both kinds")
    return WeightsControl(name, _regressed(adjuster, outcome), ahead.by_percentiles(widen=real.widen), raw)


def _shuffled(table: PairTable, adjuster: Adjuster, settings: BoundarySettings) -> Shuffled | None:
    """Put permuted labels to the same test; None if no group has labels to permute."""
    members = [np.flatnonzero(table.group == group) for group in np.unique(table.group)]
    mixed = [rows for rows in members if 0 < int(table.different[rows].sum()) < len(rows)]
    if not settings.shuffles or not mixed:
        return None
    rng = np.random.default_rng(derived(settings.seed, Purpose.SHUFFLES))
    outcome, found = table.outcomes[p.FLIP_BACKS], []
    for number in range(settings.shuffles):
        labels = table.different.copy()
        for rows in mixed:
            labels[rows] = rng.permutation(labels[rows])
        seed = derived(settings.seed, Purpose.SHUFFLES, number + 1)
        found.append(beyond_half(Adjuster(replace(table, different=labels), seed=seed, resamples=_RESAMPLES), outcome))
    values = np.array([each.value for each in found])
    low, high = np.percentile(values, [2.5, 97.5]) + 0.5
    real = beyond_half(adjuster, outcome).value
    return Shuffled(
        permutations=len(found), mean=float(values.mean()) + 0.5, low=float(low), high=float(high),
        excluded=float(np.mean([each.low > 0 or each.high < 0 for each in found])),
        supported=float(np.mean([each.low > settings.smallest_effect for each in found])),
        p=float((1 + (values >= real).sum()) / (1 + len(found))),
    )  # fmt: skip
