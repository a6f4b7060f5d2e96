"""What a calibration found: rates with their binomial intervals, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.plotting import Marks, dots
from polytope_lm.result import Result
from polytope_lm.statistics.nulls import Rate
from polytope_lm.statistics.verdict import OUTCOMES

if TYPE_CHECKING:
    import plotly.graph_objects as go


MOST_SUPPORTED = 0.025
"""A test of one-sided level 2.5 % may say *supported* in at most this share of null runs."""

MIDDLE = 0.05
TWO_SIDED = (0.03, 0.07)
"""Share of null runs whose 95 % interval may exclude 0, for 1,000 runs."""

AGREEING = (0.93, 0.97)
"""Share of splits in which two halves should agree within their intervals."""

NULL = ("between documents", "drawn per document")
"""Exchanges that leave no difference in truth."""


@dataclass(frozen=True)
class CellRate:
    """One of the differences that the verdict reads.

    Attributes:
        score: AMI or strict neighbour agreement.
        reference: what the code is compared with.
        mean: the mean difference over the runs; 0 in truth where nothing is left.
        excludes_zero: how often the two-sided 95 % interval left out 0.
        agree: in how many splits of the documents both halves, with the real labels, agreed within their intervals;
            None where none was split.

    """

    score: str
    reference: str
    mean: float
    excludes_zero: Rate
    agree: Rate | None = None


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
        mixed: how often it was *mixed*.
        inconclusive: how often it was *inconclusive*.
        not_testable: how often it was *not testable*.
        premises: the site's, in words.

    """

    layer: int
    site: str
    supported: Rate
    cells: tuple[CellRate, ...]
    behind: Rate | None = None
    no_lead: Rate | None = None
    refuted: Rate | None = None
    mixed: Rate | None = None
    inconclusive: Rate | None = None
    not_testable: Rate | None = None
    premises: str = ""

    def rates(self) -> list[tuple[str, Rate, float | None]]:
        """Return each rate with its name, and the mean difference where it is one's."""
        cells = [
            (f"{cell.score} against {cell.reference}: interval excludes 0", cell.excludes_zero, cell.mean)
            for cell in self.cells
        ]
        named = {name: getattr(self, name.replace(" ", "_")) for name in OUTCOMES}
        return [*((name, rate, None) for name, rate in named.items() if rate is not None), *cells]

    def halves(self) -> list[tuple[str, Rate]]:
        """Return in how many splits both halves agreed, with each difference's name."""
        return [
            (f"{cell.score} against {cell.reference}: halves agree", cell.agree)
            for cell in self.cells
            if cell.agree is not None
        ]


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
        effective: Kish's number of documents; None in files of earlier versions.
        splits: of the documents into two halves.
        splits_left_out: why splits are missing; empty where none is.

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
    effective: float | None = None
    splits: int = 0
    splits_left_out: str = ""

    kind = "calibration"
    file = "calibration.json"
    tab = "Calibration"
    derived = ("headline", "pooled", "agreeing")

    @property
    def headline(self) -> str:
        """Whether the test is wrong too often, and how often it was, in plain sentences."""
        worst = max(self.layers, key=lambda layer: layer.supported.value)
        cells = [(layer.layer, cell) for layer in self.layers for cell in layer.cells]
        at, widest = max(cells, key=lambda place: place[1].excludes_zero.value)
        agreeing = self.agreeing
        halves = "" if agreeing is None else (
            f" With the real labels two halves of the documents agree in {agreeing:.1%} of comparisons (95 % is right)."
        )  # fmt: skip
        premises = "; ".join(dict.fromkeys(layer.premises.partition(";")[0] for layer in self.layers if layer.premises))
        weights = self.provenance.get("weights")
        effective = "" if self.effective is None else f" (effectively {self.effective:.0f})"
        return (
            f"{self._opening()}: with the labels {self.label!r} exchanged {self.exchange} {self.runs:,} times, it said "
            f"supported in {worst.supported} in layer {worst.layer}, the most (right is at most {MOST_SUPPORTED:.1%}), "
            f"and {self.pooled:.1%} of all intervals excluded 0 (right is 5 %; the most {widest.excludes_zero}, "
            f"{widest.score} against {widest.reference} in layer {at}).{halves} {self.tokens:,} tokens of "
            f"{self.documents:,} documents{effective}, k = {self.k}."
            f"{f' Premises: {premises}.' if premises else ''}{f' Weights {weights}.' if weights else ''}"
        )

    def _opening(self) -> str:
        if self.exchange not in NULL:
            return "What words and documents tell of the label stays, so this is no null"
        every = Rate.of(round(self.pooled * self.runs), self.runs)
        wrong = every.low > MIDDLE or any(layer.supported.low > MOST_SUPPORTED for layer in self.layers)
        return (
            "The test is wrong too often on these codes" if wrong else "No sign that the test is wrong on these codes"
        )

    @property
    def pooled(self) -> float:
        """The share of all two-sided intervals, over cells and layers, that excluded 0."""
        return float(np.mean([cell.excludes_zero.value for layer in self.layers for cell in layer.cells]))

    @property
    def agreeing(self) -> float | None:
        """The share of comparisons of two halves, over cells and layers, that agreed; None without splits."""
        found = [cell.agree.value for layer in self.layers for cell in layer.cells if cell.agree is not None]
        return float(np.mean(found)) if found else None

    def notes(self) -> list[str]:
        """Return why splits of the documents are missing."""
        if not self.splits_left_out:
            return []
        done = max((c.agree.runs for layer in self.layers for c in layer.cells if c.agree is not None), default=0)
        return [f"{self.splits - done} of {self.splits} splits of the documents left out: {self.splits_left_out}."]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer and rate: events, runs, value, low, high."""
        heads = ("layer", "site", "rate", "events", "runs", "value", "low", "high", "mean difference")
        rows = [
            (layer.layer, layer.site, name, rate.events, rate.runs, rate.value, rate.low, rate.high, mean)
            for layer in self.layers
            for name, rate, mean in (*layer.rates(), *((name, rate, None) for name, rate in layer.halves()))
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

    def figures(self) -> dict[str, go.Figure]:
        """Return the rates of exchanged labels and, where documents were split, how often halves agreed."""
        found: dict[str, list[Rate]] = {}
        for layer in self.layers:
            for name, rate in layer.halves():
                found.setdefault(name, []).append(rate)
        drawn = {self.kind: self.plot()}
        if found:
            marks = [Marks(name, rates, style) for style, (name, rates) in enumerate(found.items())]
            numbers = [layer.layer for layer in self.layers]
            drawn["halves"] = dots(numbers, {"share of splits": marks}, line=1 - MIDDLE, band=AGREEING)
        return drawn

    def __repr__(self) -> str:
        return f"<CalibrationResult: {self.headline}>"
