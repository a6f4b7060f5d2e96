"""What a comparison of word senses found, as frozen records that save, load and draw themselves; no texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site
from polytope_lm.plotting import Marks, dots
from polytope_lm.predictions.clusters.result import BEST_COSINE, REFERENCES, Difference, named
from polytope_lm.predictions.layered import Comparator, Layered
from polytope_lm.representations.directions import CENTRED
from polytope_lm.result import Result
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.verdict import Verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

ACCURACY = "1-NN sense accuracy"
MAJORITY = "majority sense"
CHANCE = (*REFERENCES, MAJORITY)
"""What every representation's difference is taken from; the verdict reads all but the last."""


@dataclass(frozen=True)
class SenseScore:
    """One representation's accuracy in one layer.

    Attributes:
        name: the registered name, or `majority sense`.
        role: `claim`, `reference`, `control` or `other`.
        isolates: what it answers, one line.
        estimate: macro accuracy over words less its null (mean of the draws for a random control), and its interval.
        words: accuracy of each word.
        draws: each draw's own for a random control; empty otherwise.
        level: the macro accuracy before its null was taken off; None in files of earlier versions.
        null: its mean over exchanges of senses between a word's sentences.

    """

    name: str
    role: str
    isolates: str
    estimate: Estimate
    words: Mapping[str, float]
    draws: tuple[float, ...] = ()
    level: float | None = None
    null: float | None = None


@dataclass(frozen=True)
class LayerSenses:
    """One layer: every representation's accuracy, the differences, the verdict.

    Attributes:
        site: where the codes live.
        scores: of each representation, and of the majority.
        differences: from both cosines, the mean of the SimHash draws, and the majority.
        best_cosine: which cosine was the better one, to be shown beside; no verdict reads it.
        verdict: what follows for the representation `code`.
        left_out: representations that this layer could not give, with the reason.
        comparators: the code's verdicts against the neuron lens, the direction lens, the cosine of `post`; the joined
            codes' and the two-bit code's, where the codes kept allow them (not in files of earlier versions).

    """

    site: Site
    scores: tuple[SenseScore, ...]
    differences: tuple[Difference, ...]
    best_cosine: str
    verdict: Verdict
    left_out: Mapping[str, str] = field(default_factory=dict)
    comparators: tuple[Comparator, ...] = ()

    @property
    def layer(self) -> int:
        """The block's index, from 0."""
        return self.site.layer

    @property
    def references(self) -> tuple[str, ...]:
        """What differences are taken from: `CHANCE`, or the better cosine in a file of an earlier version."""
        there = {d.reference for d in self.differences}
        return tuple(name for name in (BEST_COSINE, *CHANCE) if name in there)

    def score(self, name: str) -> SenseScore:
        """Return the accuracy of the representation of that name."""
        return named(self.scores, name, "representation")

    def difference(self, representation: str, reference: str = CENTRED) -> Difference:
        """Return one representation's difference from one reference."""
        for d in self.differences:
            if (d.representation, d.reference) == (representation, reference):
                return d
        raise PolytopeError(f"no difference of {representation!r} from {reference!r}; see .to_frame()")


@dataclass(frozen=True)
class SenseSettings:
    """Every choice that moves a number.

    Attributes:
        label: the label that is a sense.
        word: the label (or `surface`) that says which word it is.
        seed: of every random choice.
        resamples: bootstrap resamples.
        smallest_effect: the smallest difference of interest.
        resampled: what was drawn with replacement: `words and sentences`, or `sentences` for few words.
        reading: `once`, or `second of two` where the sentence was given twice.

    """

    label: str
    word: str
    seed: int
    resamples: int
    smallest_effect: float
    resampled: str
    reading: str


@dataclass(frozen=True)
class WordSummary:
    """One compared word: how many sentences, how many of each sense."""

    sentences: int
    senses: Mapping[str, int]


@dataclass(frozen=True, repr=False)
class SensesResult(Layered, Result):
    """Word senses told apart by the nearest other use of the same word.

    Attributes:
        settings: every choice that moves a number.
        words: the compared words.
        words_left_out: words that can't be compared, with the reason.
        layers: one comparison a layer.
        provenance: model, revision, dtype, sample rule, ... as the codes state them.
        versions: of the libraries that computed it.
        command: what reproduces it.

    """

    settings: SenseSettings
    words: Mapping[str, WordSummary]
    words_left_out: Mapping[str, str]
    layers: tuple[LayerSenses, ...]
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str

    kind = "senses"
    file = "senses.json"
    tab = "Senses"
    derived = ("verdict",)

    @property
    def sentences(self) -> int:
        """How many sentences were compared."""
        return sum(word.sentences for word in self.words.values())

    @property
    def verdict(self) -> str:
        """The verdict in words: of the layer, or which layers say what, by which reference."""
        return (
            f"{self.said} {len(self.words)} words, sentence "
            f"read {self.settings.reading}, Holm over {len(self.layers)} layer{'s' * (len(self.layers) > 1)}."
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer and representation: accuracy, interval, differences, each word."""
        rows = []
        for layer in self.layers:
            ahead = {(d.representation, d.reference): d for d in layer.differences}
            for each in layer.scores:
                row: dict[str, object] = {
                    "layer": layer.layer, "site": layer.site.key, "representation": each.name,
                    "role": each.role, "value": each.estimate.value, "low": each.estimate.low,
                    "high": each.estimate.high, "level": each.level, "null": each.null,
                    "words": len(self.words), "sentences": self.sentences,
                }  # fmt: skip
                for reference in layer.references:
                    d = ahead.get((each.name, reference))
                    row[f"over {reference}"] = d.estimate.value if d else None
                    row[f"over {reference} low"] = d.estimate.low if d else None
                    row[f"over {reference} high"] = d.estimate.high if d else None
                row["verdict"] = layer.verdict.outcome if each.name == "code" else None
                rows.append(row | {f"word {word}": value for word, value in each.words.items()})
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Draw each representation's macro accuracy, with its interval, layer by layer."""
        names = [each.name for each in self.layers[0].scores]
        by = [{score.name: score.estimate for score in layer.scores} for layer in self.layers]
        marks = [Marks(name, [each.get(name) for each in by], style) for style, name in enumerate(names)]
        return dots([layer.layer for layer in self.layers], {f"{ACCURACY}, macro over words": marks})

    def __repr__(self) -> str:
        return f"<SensesResult: {self.verdict} {len(self.words)} words, {self.sentences:,} sentences.>"

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row a layer and representation: accuracy with its interval, and how far it is ahead."""
        references = self.layers[0].references
        rows = [("layer", "representation", ACCURACY, *(f"over {name}" for name in references))]
        for layer in self.layers:
            ahead = {(d.representation, d.reference): str(d.estimate) for d in layer.differences}
            for each in layer.scores:
                leads = (ahead.get((each.name, reference), "") for reference in references)
                rows.append((str(layer.layer), each.name, str(each.estimate), *leads))
        return rows

    def notes(self) -> list[str]:
        """Return the verdicts against each further comparator, and what was left out, and why."""
        return [*self.beside(), *self.left_out_notes()]
