"""Plain records of a comparison: scores, differences, one layer, the settings; and back from JSON.

Numbers are plain floats and every one travels with its interval and its n.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.intervals import Estimate
from polytope_lm.inference.neighbours import Hubs
from polytope_lm.inference.verdict import Verdict
from polytope_lm.models.sites import Site
from polytope_lm.predictions.names import AMI, BEST_COSINE

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


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
        msg = (
            f"no difference of {representation!r} from {reference!r} in {score!r}; see .to_frame() for those "
            "there are"
        )
        raise PolytopeError(msg)


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
    """Return the item of that name.

    Raises:
        PolytopeError: there is none; the message lists those there are.

    """
    for item in items:
        if item.name == name:
            return item
    there = ", ".join(repr(item.name) for item in items)
    msg = f"no {what} {name!r} in this result; there are {there}"
    raise PolytopeError(msg)


def plain(layer: LayerComparison) -> dict[str, Any]:
    """Return one layer as plain JSON data; `layer_from` is its inverse."""
    data = asdict(layer)
    data["verdict"]["sentence"] = layer.verdict.sentence
    return data


def layer_from(data: Mapping[str, Any]) -> LayerComparison:
    """Rebuild one layer from `plain`'s data."""
    return LayerComparison(
        site=Site.from_dict(data["site"]),
        k=data["k"],
        representations=tuple(_representation(d) for d in data["representations"]),
        differences=tuple(
            Difference(**{**d, "estimate": Estimate(**d["estimate"])}) for d in data["differences"]
        ),
        best_cosine=data["best_cosine"],
        verdict=Verdict.from_dict(data["verdict"]),
        left_out=data.get("left_out", {}),
    )


def _representation(data: Mapping[str, Any]) -> RepresentationResult:
    scores = tuple(
        Score(**{**d, "estimate": Estimate(**d["estimate"]), "draws": tuple(d["draws"])})
        for d in data["scores"]
    )
    sizes, hubs = tuple(data["cluster_sizes"]), Hubs(**data["hubs"])
    return RepresentationResult(**{**data, "scores": scores, "cluster_sizes": sizes, "hubs": hubs})
