"""What a test of alignment found, as frozen records that save, load and draw themselves; scores, no texts.

Dots and intervals: how far crossings are denser at a pair's own peak than at other pairs' peaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from polytope_lm.models.sites import Site
from polytope_lm.pairs import Problem
from polytope_lm.plotting import Marks, dots
from polytope_lm.result import Result
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SHOWN = 5  # problems that a notebook spells out
LEAST_PAIRS = 30
SHARP = 3.0
PRIMARY = "crossings of all layers, per step"
PER_LENGTH = "crossings of all layers, per length in u"
SPEED = "the residual's own speed"
OTHER_PAIRS = "other pairs' peaks"
NOT_TESTABLE = "not testable"
SCORE = "percentile at the output's sharpest change"


@dataclass(frozen=True)
class AlignedProfile:
    """How high one profile is, in its own steps, where the output changes most.

    Attributes:
        name: what was profiled: crossings of which layers per which length, or `the residual's own speed`.
        raw: mean percentile; chance is 1/2, which is what a circular shift gives.
        other_pairs: mean percentile at other pairs' peaks, the cross-pair null.
        beyond_pairs: `raw - other_pairs`.
        beyond_speed: its `beyond_pairs` minus that of the residual's own speed, on the same resamples; None
            for the speed itself.

    """

    name: str
    raw: Estimate
    other_pairs: Estimate
    beyond_pairs: Estimate
    beyond_speed: Estimate | None


@dataclass(frozen=True)
class LayerAlignment:
    """One layer of one model.

    Attributes:
        model: its name.
        site: where the paths lie.
        pairs: pairs counted: those whose output moves.
        groups: groups that they are resampled in.
        left_out: bad pairs, and those whose output does not move.
        profiles: the crossings' first (the primary one first of all), then the residual's own speed.
        sharpness: mean of `max d'(t) / d(1)`, 1 for a straight line, at most the number of steps.
        sharp: share of pairs with sharpness above 2.
        argmax_changes: mean number of changes of the likeliest next token.
        missed_estimate: an estimate of the crossings that are missing, over those found.
        js_error: largest error of an interpolated distribution, JS distance.

    """

    model: str
    site: Site
    pairs: int
    groups: int
    left_out: int
    profiles: tuple[AlignedProfile, ...]
    sharpness: Estimate
    sharp: float
    argmax_changes: float
    missed_estimate: float
    js_error: float

    formerly: ClassVar[Mapping[str, str]] = {"missed_at_most": "missed_estimate"}

    @property
    def missed_at_most(self) -> float:
        """The former name of `missed_estimate`."""
        return self.missed_estimate

    @property
    def layer(self) -> int:
        """The block's index, from 0."""
        return self.site.layer

    @property
    def primary(self) -> AlignedProfile:
        """The profile that the verdict reads."""
        return self.profiles[0]


@dataclass(frozen=True, repr=False)
class AlignmentResult(Result):
    """Whether boundaries are dense where the output changes, layer by layer.

    Attributes:
        settings: every choice that moves a number.
        layers: what was found in each layer.
        twins: the same of the model as it began, a control; empty if not asked for.
        leads: each layer's `beyond_pairs` minus its twin's, on the same resamples.
        verdicts: of each layer, from its pairs with a plateau; None where these are too few: not testable.
        versions: of the libraries that computed it.
        command: what reproduces it.
        problems: pairs that could not be used, by line, and why.
        sharp: how many pairs of each layer have a plateau: a sharpness above 3.
        plateaus: what was found on these pairs alone; None where they are too few.

    """

    settings: Mapping[str, Any]
    layers: tuple[LayerAlignment, ...]
    twins: tuple[LayerAlignment, ...]
    leads: tuple[Estimate, ...]
    verdicts: tuple[Verdict | None, ...]
    versions: Mapping[str, str]
    command: str
    problems: tuple[Problem, ...] = ()
    sharp: tuple[int, ...] = ()
    plateaus: tuple[LayerAlignment | None, ...] = ()

    kind = "alignment"
    tab = "Boundaries"
    derived = ("verdict",)

    def __repr__(self) -> str:
        return f"AlignmentResult: {self.verdict}"

    @property
    def verdict(self) -> str:
        """The verdict in words: the layer's own, or which layers say what, decided by what."""
        if not self.verdicts:
            return "No verdict: saved before pairs were chosen by their sharpness, and from too few pairs."
        return " ".join(
            f"Layer {layer.layer}: {NOT_TESTABLE}. {self.sharp[number]} of {layer.pairs} pairs have a sharpness above "
            f"{SHARP:g}, and at least {LEAST_PAIRS} are needed: where the output moves evenly, nothing can be aligned."
            if one is None
            else one.sentence
            for number, (layer, one) in enumerate(zip(self.layers, self.verdicts, strict=True))
        )

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Each layer's outcome in a word or two; empty where a file has no verdicts."""
        return tuple(NOT_TESTABLE if one is None else one.outcome for one in self.verdicts)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a model, layer and profile, with every estimate and its interval."""
        import pandas as pd  # noqa: PLC0415 - a table is wanted less often than the numbers

        rows = []
        for one in (*self.layers, *self.twins):
            for found in one.profiles:
                row: dict[str, Any] = {"model": one.model, "layer": one.layer, "profile": found.name}
                for name in ("raw", "other_pairs", "beyond_pairs", "beyond_speed"):
                    estimate = getattr(found, name)
                    if estimate is not None:
                        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
                rows.append({**row, "pairs": one.pairs, "groups": one.groups})
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Draw how far each layer's density is above other pairs', beside the speed's and the twin's."""
        sets = [(self.layers, "", False), (self.twins, ", untrained", True)]
        marks = [
            Marks(
                name + suffix, [p.beyond_pairs for one in layers for p in one.profiles if p.name == name], style, twin
            )
            for layers, suffix, twin in sets
            if layers
            for style, name in ((0, PRIMARY), (2, SPEED))
        ]
        effect = float(self.settings["smallest_effect"])
        return dots(
            [layer.layer for layer in self.layers],
            {"percentile at the output's sharpest change, beyond other pairs' peaks": marks},
            line=0, band=(-effect, effect), signed=True, title=self.layers[0].model,
        )  # fmt: skip

    def notes(self) -> list[str]:
        """Return the first pairs that could not be used, and why."""
        return [f"Left out: {problem}" for problem in self.problems[:_SHOWN]]
