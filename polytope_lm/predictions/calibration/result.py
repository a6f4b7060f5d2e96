"""What a calibration found: rates with their binomial intervals, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from polytope_lm.plotting import Marks, dots
from polytope_lm.result import Result
from polytope_lm.statistics.nulls import Rate

if TYPE_CHECKING:
    import plotly.graph_objects as go


MOST_SUPPORTED = 0.025
"""A test of one-sided level 2.5 % may say *supported* in at most this share of null runs."""

TWO_SIDED = (0.03, 0.07)
"""Share of null runs whose 95 % interval may exclude 0, for 1,000 runs."""


@dataclass(frozen=True)
class CellRate:
    """One of the differences that the verdict reads.

    Attributes:
        score: AMI or strict neighbour agreement.
        reference: what the code is compared with.
        mean: the mean difference over the runs; 0 in truth where nothing is left.
        excludes_zero: how often the two-sided 95 % interval left out 0.

    """

    score: str
    reference: str
    mean: float
    excludes_zero: Rate


@dataclass(frozen=True)
class LayerCalibration:
    """One layer's rates.

    Attributes:
        layer: the block's index.
        site: the site's key.
        supported: how often the verdict was *supported*, the layer alone.
        cells: the differences that the verdict reads.
        behind: how often it was *behind*; None in files of earlier versions.
        no_lead: how often it was *no lead*.
        refuted: how often it was *refuted*, in files of earlier versions.

    """

    layer: int
    site: str
    supported: Rate
    cells: tuple[CellRate, ...]
    behind: Rate | None = None
    no_lead: Rate | None = None
    refuted: Rate | None = None

    def rates(self) -> list[tuple[str, Rate, float | None]]:
        """Return each rate with its name, and the mean difference where it is one's."""
        cells = [
            (f"{cell.score} against {cell.reference}: interval excludes 0", cell.excludes_zero, cell.mean)
            for cell in self.cells
        ]
        named = {"supported": self.supported, "behind": self.behind, "no lead": self.no_lead, "refuted": self.refuted}
        return [*((name, rate, None) for name, rate in named.items() if rate is not None), *cells]


@dataclass(frozen=True, repr=False)
class CalibrationResult(Result):
    """How often prediction 1's test is wrong on one set of codes, labels exchanged.

    Attributes:
        label: the label that was exchanged.
        exchange: how (see `calibration`).
        runs: exchanges.
        k: clusters.
        neighbours: neighbours counted.
        draws: of rate-matched SimHash.
        seed: of every random choice.
        resamples: halves of the documents.
        smallest_effect: the smallest difference of interest.
        tokens: tokens compared.
        documents: documents that they come from.
        layers: rates of each layer.
        provenance: of the codes.
        command: what reproduces it.

    """

    label: str
    exchange: str
    runs: int
    k: int
    neighbours: int
    draws: int
    seed: int
    resamples: int
    smallest_effect: float
    tokens: int
    documents: int
    layers: tuple[LayerCalibration, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    kind = "calibration"
    file = "calibration.json"
    tab = "Calibration"

    @property
    def headline(self) -> str:
        """The summary."""
        return self.summary

    @property
    def summary(self) -> str:
        """One sentence: the highest rate of *supported*, and of intervals that exclude 0."""
        worst = max(self.layers, key=lambda layer: layer.supported.value)
        cells = (cell for layer in self.layers for cell in layer.cells)
        widest = max(cells, key=lambda cell: cell.excludes_zero.value)
        return (
            f"Labels {self.label!r} exchanged {self.exchange} {self.runs} times: supported in "
            f"{worst.supported} (layer {worst.layer}, the most; at most {MOST_SUPPORTED:.1%} is right for a "
            f"null); intervals exclude 0 in at most {widest.excludes_zero} ({widest.score} against "
            f"{widest.reference}; 5 % is right for a null). {self.tokens:,} tokens of {self.documents:,} "
            f"documents, k = {self.k}."
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer and rate: events, runs, value, low, high."""
        heads = ("layer", "site", "rate", "events", "runs", "value", "low", "high", "mean difference")
        rows = [
            (layer.layer, layer.site, name, rate.events, rate.runs, rate.value, rate.low, rate.high, mean)
            for layer in self.layers
            for name, rate, mean in layer.rates()
        ]
        return pd.DataFrame(rows, columns=heads)

    def plot(self) -> go.Figure:
        """Draw each rate with its interval by layer, and the band where two-sided rates should lie."""
        found: dict[str, list[Rate]] = {}
        for layer in self.layers:
            for name, rate, _ in layer.rates():
                found.setdefault(name, []).append(rate)
        marks = [Marks(name, rates, style) for style, (name, rates) in enumerate(found.items())]
        layers = [layer.layer for layer in self.layers]
        return dots(layers, {"share of runs": marks}, line=MOST_SUPPORTED, band=TWO_SIDED)

    def __repr__(self) -> str:
        return f"<CalibrationResult: {self.summary}>"
