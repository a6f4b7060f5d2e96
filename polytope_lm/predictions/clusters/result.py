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
from polytope_lm.predictions.layered import Comparator, Layered
from polytope_lm.representations.controls import SIMHASH
from polytope_lm.representations.directions import CENTRED, COSINES, RAW
from polytope_lm.representations.routers import RANDOM_ROUTERS, random_control
from polytope_lm.result import Result
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.neighbours import Hubs
from polytope_lm.statistics.verdict import OUTCOMES, Outcome, Verdict, ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import plotly.graph_objects as go


AMI = "AMI"
AGREEMENT = "strict neighbour agreement"
AMI_TOKEN = "AMI with token identity"  # noqa: S105 -- a token of text, no secret
SCORES = (AMI, AGREEMENT, AMI_TOKEN)
"""All scores; the verdict reads the first two."""
BEST_COSINE = "better cosine of h"
"""What files of earlier versions compare with: the better of the raw and the centred cosine."""
REFERENCES = (*COSINES, SIMHASH)
"""What the verdict compares with, each on its own: both cosines of `h`, and the mean of the SimHash draws."""


def references_of(site: Site) -> tuple[str, ...]:
    """Return what a verdict on a site compares with: `REFERENCES`, of a router with random routers for SimHash."""
    return (*COSINES, random_control(site))


NOTHING = 0.03
"""A level of AMI below this is next to nothing."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


@dataclass(frozen=True)
class Score:
    """One score of one representation.

    Attributes:
        name: one of `SCORES`.
        estimate: the score less its null (for a random control: the mean of its draws) and its interval.
        n: tokens that it is a score of (neighbour agreement leaves out tokens without any allowed neighbour).
        draws: each draw's score for a random control; empty otherwise.
        level: the score before its null was taken off; None where it has none.
        null: its mean over exchanges of labels between documents of similar size.

    """

    name: str
    estimate: Estimate
    n: int
    draws: tuple[float, ...] = ()
    level: float | None = None
    null: float | None = None

    def __str__(self) -> str:
        little = self.name == AMI and self.level is not None and self.level < NOTHING
        return f"{self.estimate}{', next to nothing' if little else ''}"


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
        estimate: representation minus reference, both less their nulls, on the same halves or documents.
        p: one-sided p of "the difference is at most the smallest effect of interest".

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
        best_cosine: for each score, which of the cosines was the better one, to be shown beside the code;
            no verdict reads it.
        verdict: what follows for the representation `code`.
        left_out: extra representations that this layer could not give, with the reason.
        comparators: verdicts against the neuron lens, the direction lens, the cosine of `post`; of joined and of
            two-bit codes.

    """

    site: Site
    k: int
    representations: tuple[RepresentationResult, ...]
    differences: tuple[Difference, ...]
    best_cosine: Mapping[str, str]
    verdict: Verdict
    left_out: Mapping[str, str] = field(default_factory=dict)
    comparators: tuple[Comparator, ...] = ()

    @property
    def layer(self) -> int:
        """The block's index, from 0."""
        return self.site.layer

    @property
    def references(self) -> tuple[str, ...]:
        """What differences are taken from: `REFERENCES`, or the better cosine in a file of an earlier version."""
        there = {d.reference for d in self.differences}
        return tuple(name for name in (BEST_COSINE, *REFERENCES, RANDOM_ROUTERS) if name in there)

    def representation(self, name: str) -> RepresentationResult:
        """Return what was measured about the representation of that name."""
        return named(self.representations, name, "representation")

    def difference(self, representation: str, reference: str = CENTRED, score: str = AMI) -> Difference:
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
        per_document: the limit on compared tokens of one document; None: no limit.
        rounds: how often what a verdict reads is measured at most, where other random choices could turn it.

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
    per_document: int | None = None
    rounds: int = 1


def named(items: tuple[T, ...], name: str, what: str) -> T:
    """Return the item of that name."""
    for item in items:
        if item.name == name:
            return item
    there = ", ".join(repr(item.name) for item in items)
    raise PolytopeError(f"no {what} {name!r} in this result; there are {there}")


def headline_names(layers: Sequence[LayerComparison]) -> tuple[str, ...]:
    """Return what the headline plot shows: the claim, its rate-standardised kin, the decisive control."""
    present = layers[0].representations
    claims = [one.name for one in present if one.role == "claim"]
    standardised = [one.name for one in present if "rate-standardised" in one.name]
    controls = [one.name for one in present if one.name.startswith((SIMHASH, RANDOM_ROUTERS))]
    return tuple(dict.fromkeys([*claims[:1], *standardised[:1], *controls[:1]]))


def differences_figure(
    result: ClustersResult, scores: Sequence[str], names: Sequence[str] = (), reference: str | None = None
) -> go.Figure:
    """Draw differences from one reference: rows are layers, one panel a score, one mark a representation.

    A grey band shows the smallest effect of interest: a lead inside it is of no interest. By default from the
    centred cosine of `h`, in files of earlier versions from the better of two.
    """
    for score in scores:
        if score not in SCORES:
            raise PolytopeError(f"no score {score!r}; there are {', '.join(repr(name) for name in SCORES)}")
    reference = reference or (CENTRED if CENTRED in result.layers[0].references else BEST_COSINE)
    found = {
        (layer.layer, d.representation, d.score): d.estimate
        for layer in result.layers
        for d in layer.differences
        if d.reference == reference
    }
    names = names or list(dict.fromkeys(name for _, name, _ in found))
    panels = {
        score if len(scores) > 1 else f"{score}: difference from the {reference}": [
            Marks(name, [found.get((layer.layer, name, score)) for layer in result.layers], style)
            for style, name in enumerate(names)
            if name != reference
        ]
        for score in scores
    }
    effect = result.settings.smallest_effect
    layers = [layer.layer for layer in result.layers]
    return dots(layers, panels, line=0, band=(-effect, effect), signed=True)


SHORT = {BEST_COSINE: "cosine", RAW: "raw cosine", CENTRED: "centred cosine", SIMHASH: "SimHash"} | {
    RANDOM_ROUTERS: "random routers"
}
"""What tables call the references."""

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
    "OUTCOMES",
    "REFERENCES",
    "SCORES",
    "SIMHASH",
    "ClustersResult",
    "Comparator",
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
    "ranges",
]


@dataclass(frozen=True, repr=False)
class ClustersResult(Layered, Result):
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
    def verdict(self) -> str:
        """The verdict in words: of the layer, or which layers say what and by which reference and score.

        Layers that share the deciding cell stand together, with the number and interval of the one where the
        code does worst.
        """
        sample, settings = self.sample, self.settings
        effective = "" if sample.effective is None else f" (effectively {sample.effective:.0f})"
        over = f"Holm over {len(self.layers)} layer{'s' * (len(self.layers) > 1)}"
        return (
            f"{self.said} Code against {', '.join(self.layers[0].references)}; label {settings.label!r}, "
            f"{sample.tokens:,} tokens of {sample.documents:,} documents{effective}, k = {settings.k}, smallest "
            f"effect of interest {settings.smallest_effect:g}, {over}."
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer, representation and score: interval, n, null, difference from each reference."""
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
                        "level": score.level,
                        "null": score.null,
                    }
                    for reference in layer.references:
                        short = SHORT[reference]
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
        """Draw dots and intervals: rows are layers, x is the difference from the centred cosine of `h`."""
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
        references = self.layers[0].references
        heads = ("layer", "representation", *SCORES, *(f"over {SHORT[one]} (AMI)" for one in references))
        rows: list[tuple[str, ...]] = [heads]
        for layer in self.layers:
            ahead = {(d.representation, d.reference): d.estimate for d in layer.differences if d.score == AMI}
            for each in layer.representations:
                cells = [str(layer.layer), each.name, *(str(each.score(score)) for score in SCORES)]
                rows.append((*cells, *(str(ahead.get((each.name, one), "")) for one in references)))
        return rows

    def notes(self) -> list[str]:
        """Return the verdicts against each further comparator, what was measured again, what was left out, and why."""
        again: dict[int, list[int]] = {}
        for layer in self.layers:
            if (layer.verdict.rounds or 1) > 1:
                again.setdefault(layer.verdict.rounds or 1, []).append(layer.layer)
        said = [
            f"Layer {ranges(layers)}: the verdict's differences are means of {rounds} measurements, for other random "
            "choices could turn it; the table has the first one's."
            for rounds, layers in again.items()
        ]
        return [*self.beside(), *said, *self.left_out_notes()]

    def __repr__(self) -> str:
        return f"<ClustersResult: {self.verdict}>"
