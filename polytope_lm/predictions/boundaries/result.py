"""What the test of boundaries found, as frozen records that save, load and draw themselves; no texts.

A test of boundaries as words, tables and HTML.

Dots and intervals: the effect of meaning on crossings, before and after what distance explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site
from polytope_lm.pairs import Problem
from polytope_lm.plotting import Marks, dots
from polytope_lm.predictions.layered import Layered
from polytope_lm.result import Result
from polytope_lm.statistics.confounders import Effect
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.verdict import Cell, Verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

MISSED = "missed estimate"
COLUMNS_FORMERLY = {"missed at most": MISSED}
"""Columns of `pairs.parquet` by the names that older files give them."""


@dataclass(frozen=True)
class BoundarySettings:
    """Every choice that moves a number.

    Attributes:
        pairs: the pairs' source, without this machine's paths, and how they were chosen.
        kind: code kind.
        at: the space of the paths.
        shape: their shape.
        seed: of every random choice.
        resamples: bootstrap resamples behind each interval.
        smallest_effect: the smallest difference of interest, in AUC.
        draws: of rate-matched hyperplanes.
        controls: other weights that were measured too: `permuted`, `untrained`.
        shuffles: label permutations within groups.

    """

    pairs: str
    kind: str
    at: str
    shape: str
    seed: int
    resamples: int
    smallest_effect: float
    draws: int
    controls: tuple[str, ...]
    shuffles: int


@dataclass(frozen=True)
class WeightsControl:
    """The primary outcome in a model with other weights, on the same pairs.

    Attributes:
        name: `permuted` or `untrained`.
        effect: regressed AUC of its flip-backs, beyond its own covariates.
        ahead: the real model's regressed AUC minus it.
        raw: raw AUC of its crossings.

    """

    name: str
    effect: Effect
    ahead: Estimate
    raw: Effect


@dataclass(frozen=True)
class Shuffled:
    """The primary outcome with labels permuted within groups: what no meaning looks like in these data.

    Attributes:
        permutations: how many.
        mean: mean regressed AUC.
        low: 2.5th percentile.
        high: 97.5th percentile.
        excluded: share of permutations whose own 95 % interval excludes 0.5: near 0.05 if it is right.
        supported: share whose interval lies beyond 0.5 + the smallest effect.
        p: one-sided p of the real labels, (1 + permutations at or above) / (1 + permutations).

    """

    permutations: int
    mean: float
    low: float
    high: float
    excluded: float
    supported: float
    p: float


@dataclass(frozen=True)
class Balance:
    """The largest difference of a covariate between the labels, in sd: raw, matched, weighted."""

    raw: float
    matched: float
    weighted: float


@dataclass(frozen=True)
class LayerBoundaries:
    """One layer: what paths from it cross, and what that has to do with meaning.

    Attributes:
        site: where the paths lie.
        pairs: pairs measured.
        different: how many of them differ in meaning.
        groups: how many groups.
        unit: what was resampled for the verdict: `groups`, or `pairs` where there are fewer than 10 groups.
        effects: every AUC.
        covariates: those in use.
        left_out: covariates without variance or equal to another one, and why.
        inflation: variance inflation factor of crossings and each covariate among the others; None where
            the others give it exactly.
        correlation: of all crossings with endpoint Hamming, over pairs.
        balance: of the covariates.
        gain: how much crossings add to the cross-fitted AUC of a logistic regression on the covariates.
        beyond_curvature: the regressed effect with LMN curvature among the covariates.
        planes: regressed AUC of each draw of rate-matched hyperplanes.
        controls: the same in models with other weights.
        shuffled: the same with permuted labels; None if none were asked for.
        missed_estimate: an estimate of the crossings that are missing in all paths together.
        cells: what the verdict reads.
        verdict: what follows.

    """

    site: Site
    pairs: int
    different: int
    groups: int
    unit: str
    effects: tuple[Effect, ...]
    covariates: tuple[str, ...]
    left_out: Mapping[str, str]
    inflation: Mapping[str, float | None]
    correlation: float | None
    balance: Balance
    gain: Estimate
    beyond_curvature: Effect
    planes: tuple[float, ...]
    controls: tuple[WeightsControl, ...]
    shuffled: Shuffled | None
    missed_estimate: int
    cells: tuple[Cell, ...]
    verdict: Verdict

    formerly: ClassVar[Mapping[str, str]] = {"missed_at_most": "missed_estimate"}

    @property
    def missed_at_most(self) -> int:
        """The former name of `missed_estimate`."""
        return self.missed_estimate

    @property
    def layer(self) -> int:
        """The block's index, from 0."""
        return self.site.layer

    def effect(self, name: str, adjustment: str = "raw") -> Effect:
        """Return one AUC.

        Raises:
            PolytopeError: there is none of that name and adjustment.

        """
        for effect in self.effects:
            if (effect.name, effect.adjustment) == (name, adjustment):
                return effect
        there = ", ".join(f"{e.name} ({e.adjustment})" for e in self.effects)
        msg = f"no effect {name!r} ({adjustment}) in layer {self.layer}; there are {there}"
        raise PolytopeError(msg)


@dataclass(frozen=True, repr=False)
class BoundariesResult(Layered, Result):
    """Prediction 2 put to the test: do polytope boundaries follow meaning, beyond distance.

    Attributes:
        settings: every choice that moves a number.
        layers: one record a layer.
        problems: pairs that were left out, by line, and why.
        provenance: model, revision, dtype, attention implementation.
        versions: of the libraries that computed it.
        command: what reproduces it.
        numbers: one row a pair, layer and model: counts and distances, no text; None after `load` where the
            table is gone.
        timings: seconds by step; not part of the result's identity.

    """

    settings: BoundarySettings
    layers: tuple[LayerBoundaries, ...]
    problems: tuple[Problem, ...]
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    numbers: pd.DataFrame | None = field(default=None, compare=False)
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)

    kind = "boundaries"
    tab = "Boundaries"
    tables = {"numbers": "pairs.parquet"}  # noqa: RUF012
    columns_formerly = COLUMNS_FORMERLY
    derived = ("verdict",)

    @property
    def verdict(self) -> str:
        """The verdict in words: the layer's own, or which layers say what, decided by what."""
        pairs = max(layer.pairs for layer in self.layers)
        return (
            f"{self.said} Flip-backs beyond all covariates and "
            f"beyond rate-matched hyperplanes, {pairs:,} pairs, smallest effect of interest "
            f"{self.settings.smallest_effect:g} AUC, Holm over {len(self.layers)} "
            f"layer{'s' * (len(self.layers) > 1)}."
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer and effect, with both intervals."""
        rows = []
        for layer in self.layers:
            named = [(effect.name, effect) for effect in layer.effects]
            named.append((f"{layer.beyond_curvature.name} beyond curvature", layer.beyond_curvature))
            for control in layer.controls:
                named += [(f"{e.name}, {control.name}", e) for e in (control.raw, control.effect)]
            for name, effect in named:
                row: dict[str, object] = {
                    "layer": layer.layer, "site": layer.site.key, "effect": name, "adjustment": effect.adjustment,
                    "auc": effect.by_group.value, "low": effect.by_group.low, "high": effect.by_group.high,
                    "low by pair": effect.by_pair.low, "high by pair": effect.by_pair.high,
                    "pairs": effect.pairs, "unit": layer.unit, "verdict": layer.verdict.outcome,
                }  # fmt: skip
                rows.append(row)
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Draw the AUC of crossings, raw, matched and regressed, and of what could explain it, by layer."""
        known = [{f"{e.name}, {e.adjustment}": e.by_group for e in layer.effects} for layer in self.layers]
        marks = [
            Marks(what, [one.get(what) for one in known], style)
            for what, style in ((f"{name}, {how}", style) for name, how, style in _SHOWN)
        ]
        for style, name in ((2, "permuted"), (3, "untrained")):
            if name in self.settings.controls:
                found = [next((c.effect for c in one.controls if c.name == name), None) for one in self.layers]
                by = [None if effect is None else effect.by_group for effect in found]
                marks.append(Marks(f"flip-backs, regressed, {name} weights", by, style, open=True))
        effect = self.settings.smallest_effect
        return dots(
            [layer.layer for layer in self.layers],
            {"AUC of different against same meaning": marks},
            line=0.5, band=(0.5 - effect, 0.5 + effect),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<BoundariesResult: {self.verdict}>"

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row a layer, under `HEADS`: AUC of different against same meaning."""
        return [HEADS, *overview_rows(self)]

    def notes(self) -> list[str]:
        """Return what a reader needs beside the table, layer by layer, and how many pairs were left out."""
        found = ["AUC of different against same meaning, 95 % intervals."]
        found += [text for layer in self.layers for text in notes(layer)]
        left_out = [f"{len(self.problems)} pairs left out; {self.problems[0]}"] if self.problems else []
        return found + left_out


HEADS = ("layer", "pairs", "groups", "crossings", "flip-backs", "matched", "beyond covariates", "verdict")


def overview_rows(result: BoundariesResult) -> list[tuple[str, ...]]:
    """Return one row of texts a layer, under `HEADS`."""
    rows = []
    for layer in result.layers:
        shown = [layer.effect(name) for name in ("crossings", "flip-backs")]
        matched = [e for e in layer.effects if (e.name, e.adjustment) == ("flip-backs", "matched")]
        beyond = layer.effect("flip-backs", "regressed")
        rows.append((
            str(layer.layer), f"{layer.pairs:,}", f"{layer.groups:,}", *(str(e.by_group) for e in shown),
            str(matched[0].by_group) if matched else "no match", str(beyond.by_group), layer.verdict.outcome,
        ))  # fmt: skip
    return rows


def notes(layer: LayerBoundaries) -> list[str]:
    """Return what a reader needs beside the table: variance inflation, curvature, and each control."""
    factors = ", ".join(
        f"{name} {'infinite' if value is None else format(value, '.1f')}"
        for name, value in sorted(layer.inflation.items(), key=lambda each: (each[0] != "crossings", each[0]))
    )
    same = "" if layer.correlation is None else f"; crossings ~ endpoint Hamming r = {layer.correlation:.3f}"
    sizes = layer.balance
    found = [f"variance inflation: {factors}{same}"]
    found.append(
        f"largest difference of a covariate, sd: {sizes.raw:.2f} raw, {sizes.matched:.2f} matched, "
        f"{sizes.weighted:.2f} weighted"
    )
    found.append(f"beyond covariates and LMN curvature: {layer.beyond_curvature.by_group}")
    found.append(f"added to the covariates' own AUC: {layer.gain}")
    if layer.planes:
        draws = ", ".join(f"{value:.3f}" for value in layer.planes)
        found.append(f"rate-matched hyperplanes, beyond covariates: {draws}")
    found += [
        f"weights {each.name}, beyond covariates: {each.effect.by_group}; the model is ahead by {each.ahead}"
        for each in layer.controls
    ]
    if layer.shuffled is not None:
        s = layer.shuffled
        found.append(
            f"labels permuted {s.permutations} times: {s.mean:.3f} [{s.low:.3f}, {s.high:.3f}], "
            f"{s.excluded:.0%} of intervals exclude 0.5; p of the real labels {s.p:.3f}"
        )
    return [f"layer {layer.layer}, {text}" for text in found]


_SHOWN = (
    ("crossings", "raw", 7),
    ("cosine distance in h", "raw", 4),
    ("flip-backs", "raw", 5),
    ("flip-backs", "matched", 1),
    ("flip-backs", "regressed", 0),
)
"""What is drawn, in which style; the last is the verdict's: flip-backs beyond all covariates."""
