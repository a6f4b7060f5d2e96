"""What a comparison of clusterings found, as frozen records that save, load and draw themselves.

Numbers are plain floats and every one travels with its interval and its n; token texts are kept apart from
the numbers, in `ClustersResult.tokens`, so that `result.json` never holds a corpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site
from polytope_lm.plotting import Marks, dots
from polytope_lm.predictions.clusters.sampling import SampleSummary
from polytope_lm.representations.controls import SIMHASH
from polytope_lm.result import Result
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.neighbours import Hubs
from polytope_lm.statistics.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import plotly.graph_objects as go


AMI = "AMI"
AGREEMENT = "strict neighbour agreement"
AMI_TOKEN = "AMI with token identity"  # noqa: S105 -- a token of text, no secret
SCORES = (AMI, AGREEMENT, AMI_TOKEN)
"""All scores; the verdict reads the first two."""
SECOND_ORDER = (AMI, AMI_TOKEN)
"""Scores that count pairs of documents, see `statistics.estimate`."""
BEST_COSINE = "better cosine of h"
REFERENCES = (BEST_COSINE, SIMHASH)
"""Comparators of the verdict: the better of raw and centred cosine of `h`; the mean of the SimHash draws."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Numbered(Protocol):
    @property
    def layer(self) -> int: ...


T = TypeVar("T", bound=_Named)
L = TypeVar("L", bound=_Numbered)


@dataclass(frozen=True)
class Score:
    """One score of one representation.

    Attributes:
        name: one of `SCORES`.
        estimate: the score (for a random control: the mean of its draws) and its interval.
        n: tokens that it is a score of (neighbour agreement leaves out tokens without any allowed neighbour).
        draws: each draw's score for a random control; empty otherwise.

    """

    name: str
    estimate: Estimate
    n: int
    draws: tuple[float, ...] = ()


@dataclass(frozen=True)
class RepresentationResult:
    """Everything measured about one representation in one layer.

    Attributes:
        name: the registered name, such as `code`.
        role: `claim`, `reference`, `control` or `other`.
        isolates: what it answers, one line.
        metric: `Hamming`, `expected Hamming` or `cosine`.
        scores: one `Score` for each of `SCORES`.
        cluster_sizes: tokens in each cluster, by cluster id (of the first draw for a random control).
        hubs: diagnostics of the strict neighbour graph (of the first draw).
        dropped_bits: bits without variance left out (rate 0 or 1) where the representation divides by it.
        few_neighbours: tokens with fewer than k allowed neighbours (averaged over those they have).

    """

    name: str
    role: str
    isolates: str
    metric: str
    scores: tuple[Score, ...]
    cluster_sizes: tuple[int, ...]
    hubs: Hubs
    dropped_bits: int = 0
    few_neighbours: int = 0

    def score(self, name: str) -> Score:
        """Return the score of that name (`AMI`, `strict neighbour agreement`, `AMI with token identity`)."""
        return named(self.scores, name, "score")


@dataclass(frozen=True)
class Difference:
    """How far one representation is ahead of one reference in one score.

    Attributes:
        representation: who is ahead (or behind, if negative).
        reference: one of `REFERENCES`, or a control that the code is held against, by its name.
        score: one of `SCORES`.
        estimate: representation minus reference; the reference's maximum or random draw is taken inside each
            resample.
        p: one-sided p of "the difference is at most the smallest effect of interest" (normal).

    """

    representation: str
    reference: str
    score: str
    estimate: Estimate
    p: float


@dataclass(frozen=True)
class LayerComparison:
    """One layer: every representation's scores, all differences, the verdict.

    Attributes:
        site: where the codes live.
        k: clusters asked of k-medoids, the same for all.
        representations: scores, sizes and hubs of each.
        differences: each representation that is not itself that reference, against each reference, in each
            score.
        best_cosine: for each score, which of the cosines was the better one.
        verdict: what follows for the representation `code`.
        left_out: extra representations that this layer could not give, with the reason.

    """

    site: Site
    k: int
    representations: tuple[RepresentationResult, ...]
    differences: tuple[Difference, ...]
    best_cosine: Mapping[str, str]
    verdict: Verdict
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def layer(self) -> int:
        """The block's index, from 0."""
        return self.site.layer

    def representation(self, name: str) -> RepresentationResult:
        """Return what was measured about the representation of that name."""
        return named(self.representations, name, "representation")

    def difference(self, representation: str, reference: str = BEST_COSINE, score: str = AMI) -> Difference:
        """Return one representation's difference from one reference in one score."""
        for d in self.differences:
            if (d.representation, d.reference, d.score) == (representation, reference, score):
                return d
        raise PolytopeError(
            f"no difference of {representation!r} from {reference!r} in {score!r}; see .to_frame() for those there are"
        )


@dataclass(frozen=True)
class Settings:
    """Every choice that moves a number.

    Attributes:
        label: the label that clusters are scored against.
        k: clusters.
        neighbours: neighbours of each token in the agreement score.
        max_tokens: the limit on compared tokens.
        seed: seed of every random choice.
        resamples: delete-half resamples of the documents.
        smallest_effect: the smallest difference of interest.
        form: where a token's form comes from (`label form`, or `surface`).
        lemma: the same for its lemma.

    """

    label: str
    k: int
    neighbours: int
    max_tokens: int
    seed: int
    resamples: int
    smallest_effect: float
    form: str
    lemma: str


def named(items: tuple[T, ...], name: str, what: str) -> T:
    """Return the item of that name."""
    for item in items:
        if item.name == name:
            return item
    there = ", ".join(repr(item.name) for item in items)
    raise PolytopeError(f"no {what} {name!r} in this result; there are {there}")


def numbered(layers: tuple[L, ...], layer: int) -> L:
    """Return the comparison of that layer."""
    for each in layers:
        if each.layer == layer:
            return each
    there = ", ".join(str(each.layer) for each in layers)
    raise PolytopeError(f"layer {layer} is not in this result; layers compared: {there}")


OUTCOMES = ("supported", "refuted", "inconclusive")


def ranges(numbers: Iterable[int]) -> str:
    """Write layers shortly: `0-3, 8`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = (f"{a}-{b}" if b - a > 1 else ", ".join(map(str, range(a, b + 1))) for a, b in runs)
    return ", ".join(parts) or "none"


def _decided(layers: Sequence[LayerComparison]) -> str:
    """Say how many layers, which, and by which cells: layers with the same deciding cell together."""
    cells: dict[str, list[LayerComparison]] = {}
    for layer in layers:
        verdict = layer.verdict
        cells.setdefault(f"{verdict.deciding_score} against {verdict.deciding_reference}", []).append(layer)
    by = " and by ".join(
        f"{cell} ({_worst(members, alone=len(layers) == 1, all_of_them=len(cells) == 1)})"
        for cell, members in cells.items()
    )
    return f"{len(layers)} ({ranges(layer.layer for layer in layers)}), decided by {by}"


def _worst(layers: Sequence[LayerComparison], *, alone: bool, all_of_them: bool) -> str:
    # The upper bound refutes, the lower one supports or fails to.
    refuted = layers[0].verdict.outcome == "refuted"
    worst = min(layers, key=lambda each: each.verdict.deciding.high if refuted else each.verdict.deciding.low)
    found = worst.verdict.deciding
    number = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    if alone:
        return number
    which = "" if all_of_them else f"{ranges(layer.layer for layer in layers)}: "
    return f"{which}{number}" if len(layers) == 1 else f"{which}lowest in {worst.layer}, {number}"


def _premises(result: ClustersResult) -> str:
    by_text: dict[str, list[int]] = {}
    for layer in result.layers:
        by_text.setdefault(layer.verdict.premises.partition(";")[0], []).append(layer.layer)
    if len(by_text) == 1:
        return next(iter(by_text))
    return "; ".join(f"{text} ({ranges(layers)})" for text, layers in by_text.items())


def headline_names(layers: Sequence[LayerComparison]) -> tuple[str, ...]:
    """Return what the headline plot shows: the claim, its rate-standardised kin, the decisive control."""
    present = layers[0].representations
    claims = [one.name for one in present if one.role == "claim"]
    standardised = [one.name for one in present if "rate-standardised" in one.name]
    controls = [one.name for one in present if one.name.startswith(SIMHASH)]
    return tuple(dict.fromkeys([*claims[:1], *standardised[:1], *controls[:1]]))


def differences_figure(result: ClustersResult, scores: Sequence[str], names: Sequence[str] = ()) -> go.Figure:
    """Draw differences from the better cosine: rows are layers, one panel a score, one mark a representation.

    A grey band shows the smallest effect of interest: a lead inside it is of no interest.
    """
    for score in scores:
        if score not in SCORES:
            raise PolytopeError(f"no score {score!r}; there are {', '.join(repr(name) for name in SCORES)}")
    there = (d.representation for d in result.layers[0].differences if d.reference == BEST_COSINE)
    names = names or list(dict.fromkeys(there))
    panels = {
        score if len(scores) > 1 else f"{score}: difference from the better cosine of h": [
            Marks(name, [layer.difference(name, BEST_COSINE, score).estimate for layer in result.layers], style)
            for style, name in enumerate(names)
        ]
        for score in scores
    }
    effect = result.settings.smallest_effect
    layers = [layer.layer for layer in result.layers]
    return dots(layers, panels, line=0, band=(-effect, effect), signed=True)


_SHORT = dict(zip(REFERENCES, ("cosine", "SimHash"), strict=True))

_IN_CONTEXT, _WHERE = ("left", "token", "right"), ("document", "position", "row")
_SHOWN = 20
"""Characters of context on each side of a token that fit a prompt's 80 columns."""


class ClustersView(Mapping[int, pd.DataFrame]):
    """One representation's clusters of tokens in context, largest first when iterated: `view[17]`.

    `view[17]` is narrow enough to read at a prompt: `left`, `token`, `right` (context cut to 20 characters)
    and the label. `view.full(17)` has the whole context, every label, and where each token is.
    """

    def __init__(self, table: pd.DataFrame, ids: pd.Series, name: str, label: str) -> None:
        self._table = table
        self._ids = ids
        self._name = name
        self._label = label

    def __getitem__(self, cluster: int) -> pd.DataFrame:
        near = self.full(cluster)[list(dict.fromkeys((*_IN_CONTEXT, self._label)))]
        return near.assign(left=near["left"].str[-_SHOWN:], right=near["right"].str[:_SHOWN])

    def full(self, cluster: int) -> pd.DataFrame:
        """Return one cluster's tokens with the whole context, all labels, document, position and row.

        Raises:
            PolytopeError: no such cluster.

        """
        chosen = self._table[(self._ids == cluster).to_numpy()]
        if chosen.empty:
            raise PolytopeError(f"no cluster {cluster} by {self._name!r}; ids go from 0 to {int(self._ids.max())}")
        return chosen

    def __iter__(self) -> Iterator[int]:
        return iter(
            int(i) for i in self._ids.value_counts().sort_index().sort_values(ascending=False, kind="stable").index
        )

    def __len__(self) -> int:
        return int(self._ids.nunique())

    def __repr__(self) -> str:
        return (
            f"{len(self)} clusters of {len(self._table)} tokens by {self._name!r}; [id] shows one, .full(id) "
            "has every column"
        )


__all__ = [
    "AGREEMENT",
    "AMI",
    "AMI_TOKEN",
    "BEST_COSINE",
    "REFERENCES",
    "SCORES",
    "SIMHASH",
    "ClustersResult",
    "Difference",
    "Estimate",
    "Hubs",
    "LayerComparison",
    "Outcome",
    "RepresentationResult",
    "SampleSummary",
    "Score",
    "Settings",
    "Verdict",
]


@dataclass(frozen=True, repr=False)
class ClustersResult(Result):
    """Prediction 1 put to the test: are regions of the code more monosemantic than directions.

    `tokens` has one row a compared token: `row` (in the codes), `document` (id), `position`, `left`, `token`,
    `right`, one column for each label, then for each layer, with `S` its site's key: `S/cluster/NAME`
    (cluster id under each representation), `S/neighbours/code` and `S/neighbours/cosine` (row numbers of this
    table, nearest first, strict) and `S/distances/code` (bits), `S/distances/cosine` (1 - cosine, of the
    better centred or raw one).

    Attributes:
        settings: every choice that moves a number.
        sample: which tokens were compared.
        layers: one comparison a layer.
        provenance: model, revision, dtype, sample rule, ... as the codes state them.
        versions: of the libraries that computed it.
        command: what reproduces it.
        tokens: the compared tokens in context, for browsing; None after `load` where the table is gone.
        timings: seconds by layer and step; not part of the result's identity.

    """

    settings: Settings
    sample: SampleSummary
    layers: tuple[LayerComparison, ...]
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    tokens: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    timings: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    kind = "clusters"
    tab = "Verdict"
    tables = {"tokens": "tokens.parquet"}  # noqa: RUF012
    derived = ("verdict",)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of each layer, in the order of `layers`."""
        return tuple(layer.verdict for layer in self.layers)

    @property
    def verdict(self) -> str:
        """The verdict in words: of the layer, or which layers say what and by which reference and score.

        Layers that share the deciding reference and score stand together, with the number and interval of the
        one where the code does worst.
        """
        if len(self.layers) == 1:
            return self.verdicts[0].sentence
        by_outcome = {
            outcome: [layer for layer in self.layers if layer.verdict.outcome == outcome] for outcome in OUTCOMES
        }
        parts = [f"{outcome} in {_decided(layers)}" for outcome, layers in by_outcome.items() if layers]
        sample, settings = self.sample, self.settings
        outside = sum(not verdict.premises_met for verdict in self.verdicts)
        beyond = f", outside the paper's premises in {outside}" if outside else ""
        return (
            f"Of {len(self.layers)} layers the claim is {'; '.join(parts)}. Code against the better cosine of "
            f"h and rate-matched SimHash, label {settings.label!r}, {sample.tokens:,} tokens of "
            f"{sample.documents:,} documents, k = {settings.k}, smallest effect of interest "
            f"{settings.smallest_effect:g}, Holm over layers{beyond}. Premises: {_premises(self)}."
        )

    def layer(self, layer: int) -> LayerComparison:
        """Return one layer's comparison."""
        return numbered(self.layers, layer)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer, representation and score: interval, n, differences from both."""
        rows = []
        for layer in self.layers:
            ahead = {(d.representation, d.score, d.reference): d for d in layer.differences}
            for each in layer.representations:
                for score in each.scores:
                    row: dict[str, object] = {
                        "layer": layer.layer,
                        "site": layer.site.key,
                        "representation": each.name,
                        "role": each.role,
                        "score": score.name,
                        "value": score.estimate.value,
                        "low": score.estimate.low,
                        "high": score.estimate.high,
                        "n": score.n,
                    }
                    for reference, short in _SHORT.items():
                        d = ahead.get((each.name, score.name, reference))
                        row[f"over {short}"] = d.estimate.value if d else None
                        row[f"over {short} low"] = d.estimate.low if d else None
                        row[f"over {short} high"] = d.estimate.high if d else None
                        row[f"over {short} p"] = d.p if d else None
                    rows.append(
                        row
                        | {
                            "largest cluster": max(each.cluster_sizes),
                            "max in-degree": each.hubs.max_in_degree,
                            "in-degree skew": each.hubs.skew,
                            "verdict": layer.verdict.outcome if each.name == "code" else None,
                        }
                    )
        return pd.DataFrame(rows)

    def plot(self, score: str = AMI) -> go.Figure:
        """Draw dots and intervals: rows are layers, x is the difference from the better cosine of `h`."""
        return differences_figure(self, (score,))

    def clusters(self, representation: str = "code", layer: int | None = None) -> Mapping[int, pd.DataFrame]:
        """Return one representation's clusters: id -> its tokens in context, `result.clusters("code")[17]`.

        Args:
            representation: a name in `layers[0].representations`.
            layer: which layer; may be left out where there is one.

        Raises:
            PolytopeError: no table of tokens, several layers and none named, or an unknown representation.

        """
        if self.tokens is None:
            raise PolytopeError("this result was loaded without tokens.parquet; put the file back beside result.json")
        if layer is None and len(self.layers) > 1:
            raise PolytopeError(
                f"{len(self.layers)} layers were compared; say which, as in .clusters({representation!r}, "
                f"layer={self.layers[0].layer})"
            )
        comparison = self.layers[0] if layer is None else self.layer(layer)
        name = comparison.representation(representation).name
        ids = self.tokens[f"{comparison.site.key}/cluster/{name}"]
        label = self.settings.label
        plain = [column for column in self.tokens.columns if "/" not in str(column)]
        labels = [column for column in plain if column not in (*_IN_CONTEXT, *_WHERE, label)]
        columns = [column for column in (*_IN_CONTEXT, label, *labels, *_WHERE) if column in plain]
        return ClustersView(self.tokens[columns], ids, name, label)

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row a layer and representation: its scores, and how far it is ahead in AMI."""
        rows: list[tuple[str, ...]] = [("layer", "representation", *SCORES, "over cosine (AMI)", "over SimHash (AMI)")]
        for layer in self.layers:
            ahead = {(d.representation, d.reference): d.estimate for d in layer.differences if d.score == AMI}
            for each in layer.representations:
                cells = [str(layer.layer), each.name, *(str(each.score(score).estimate) for score in SCORES)]
                rows.append((*cells, *(str(ahead.get((each.name, one), "")) for one in REFERENCES)))
        return rows

    def notes(self) -> list[str]:
        """Return what was left out, and why."""
        layers = [(layer.layer, *one) for layer in self.layers for one in layer.left_out.items()]
        return [f"Layer {layer}: {name} left out: {why}." for layer, name, why in layers]

    def __repr__(self) -> str:
        sample, layers = self.sample, len(self.layers)
        return (
            f"<ClustersResult: {layers} layer{'s' * (layers > 1)}, {sample.tokens:,} tokens of "
            f"{sample.documents:,} documents, k = {self.settings.k}. {self.verdict}>"
        )
