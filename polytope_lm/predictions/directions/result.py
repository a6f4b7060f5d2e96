"""What the test of directions found, as frozen records that save, load and draw themselves; no texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site
from polytope_lm.plotting import Marks, dots
from polytope_lm.result import Result
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.verdict import Verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUESTIONS = {
    "predict": "does flip mass along the tangent predict where a direction stops being valid, beyond curvature?",
    "share": "how much of the MLP's first-order error sits in neurons that flip?",
    "regions": "does one direction do the same to tokens of one region, beyond their cosine?",
    "scaling": "does scaling, at zero flips, change less than pushes that flip, as long or as strong in the layer?",
}

DRAWN = (
    "the predicted radius", "curvature", "the smooth twin of flip mass", "flip radius",
    "the first boundary in the layer", "slope", "norm", "scale",
)  # fmt: skip
"""Predictors of the radius that the figure shows."""


@dataclass(frozen=True)
class Finding:
    """One number of one question, with its interval over prompts."""

    question: str
    what: str
    estimate: Estimate


@dataclass(frozen=True)
class LayerDirections:
    """One layer.

    Attributes:
        site: where codes live.
        verdict: of the first question, the prediction itself.
        regions: of the third; None with too few tokens.
        scaling: of the fourth; None where nothing flips without scale (no biases), or scaling itself flips.
        findings: what is shown beside.
        triples: with a measured radius.
        censored: triples whose radius is only bounded, by where: `below`, `above`.

    """

    site: Site
    verdict: Verdict
    regions: Verdict | None
    scaling: Verdict | None
    findings: tuple[Finding, ...]
    triples: int
    censored: Mapping[str, int]

    @property
    def layer(self) -> int:
        """The block's index, from 0."""
        return self.site.layer

    def finding(self, what: str) -> Estimate:
        """Return the number whose name begins so."""
        for one in self.findings:
            if one.what.startswith(what):
                return one.estimate
        raise PolytopeError(f"no finding {what!r}; there are {', '.join(one.what for one in self.findings)}")


@dataclass(frozen=True)
class DirectionSettings:
    """Every choice that moves a number."""

    source: str
    prompts: int
    tokens: int
    tau: float
    seed: int
    resamples: int
    smallest_effect: float
    draws: int
    controls: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class DirectionsResult(Result):
    """Prediction 3 put to the test: where directions stop being valid, and whether boundaries tell.

    Attributes:
        settings: every choice that moves a number.
        layers: one record a layer.
        numbers: one row a prompt, layer and direction.
        provenance: of the model.
        versions: of the libraries that computed it.
        command: what reproduces it.

    """

    settings: DirectionSettings
    layers: tuple[LayerDirections, ...]
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    numbers: pd.DataFrame | None = None

    kind = "directions"
    file = "directions.json"
    tab = "Directions"
    question = "Do polytope boundaries say where a direction stops being valid?"
    tables = {"numbers": "directions.parquet"}  # noqa: RUF012 - as the base has it
    derived = ("verdict",)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict on the first question in each layer."""
        return tuple(layer.verdict for layer in self.layers)

    @property
    def verdict(self) -> str:
        """The verdict in words, layer by layer, and what the radius itself is worth."""
        parts = []
        for outcome in dict.fromkeys(verdict.outcome for verdict in self.verdicts):
            there = [str(layer.layer) for layer in self.layers if layer.verdict.outcome == outcome]
            parts.append(f"{outcome} in layer{'s' * (len(there) > 1)} {', '.join(there)}")
        best = max(self.layers, key=lambda layer: layer.verdict.deciding.low)
        curved = ", ".join(f"{layer.finding('rank correlation of curvature').value:.2f}" for layer in self.layers)
        made = ", ".join(f"{layer.finding('rank correlation of the predicted').value:.2f}" for layer in self.layers)
        return (
            f"That flips predict where directions stop being valid, beyond curvature, is {'; '.join(parts)}. "
            f"{best.verdict.sentence} The radius predicted from derivatives ranks the measured one at {made} "
            f"(curvature alone: {curved})."
        )

    def layer(self, layer: int) -> LayerDirections:
        """Return one layer's record."""
        for one in self.layers:
            if one.layer == layer:
                return one
        raise PolytopeError(f"no layer {layer} here; there are {', '.join(str(one.layer) for one in self.layers)}")

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer and number, verdicts first."""
        rows: list[tuple[object, ...]] = []
        for layer in self.layers:
            verdicts = {"predict": layer.verdict, "regions": layer.regions, "scaling": layer.scaling}
            for question, verdict in verdicts.items():
                if verdict is not None:
                    d = verdict.deciding
                    what = f"{verdict.deciding_score} against {verdict.deciding_reference}"
                    rows.append((layer.layer, question, what, d.value, d.low, d.high, verdict.outcome))
            for one in layer.findings:
                e = one.estimate
                rows.append((layer.layer, one.question, one.what, e.value, e.low, e.high, None))
        return pd.DataFrame(rows, columns=["layer", "question", "what", "value", "low", "high", "outcome"])

    def notes(self) -> list[str]:
        """Say what the questions are, and the premises."""
        censored = sum(sum(layer.censored.values()) for layer in self.layers)
        total = sum(layer.triples for layer in self.layers) + censored
        notes = [f"{name.capitalize()}: {text}" for name, text in QUESTIONS.items()]
        notes.append(
            f"{total} prompt, layer and direction triples, {censored} of them censored (a radius below what rounding "
            f"lets be told, or above twice the norm) and left out; tau = {self.settings.tau:g}."
        )
        return notes

    def plot(self) -> go.Figure:
        """Draw, layer by layer, how well each predictor ranks the measured radius."""
        start = "rank correlation of "
        there = {one.what for one in self.layers[0].findings}
        names = [start + name for name in DRAWN if start + name in there]
        marks = [
            Marks(name.removeprefix(start), [layer.finding(name) for layer in self.layers], style)
            for style, name in enumerate(names)
        ]
        return dots([layer.layer for layer in self.layers], {"rank correlation with the measured radius": marks})

    def __repr__(self) -> str:
        return f"<DirectionsResult: {self.verdict}>"
