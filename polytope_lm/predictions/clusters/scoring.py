"""One layer: what each representation scores, on all tokens and on half-samples; its differences and verdict.

Clusters and neighbours know no label: `laid_out` finds them once, on all tokens and anew in each half of the
documents, `scored` holds any number of labels against them. Every score counts from its own null: its mean over
20 exchanges of labels between documents of similar size (agreement over 100), the same for every representation.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.controls.labels import EXCHANGES, exchanged_between_documents
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.result import (
    AGREEMENT,
    AMI,
    AMI_TOKEN,
    SCORES,
    SIMHASH,
    Difference,
    LayerComparison,
    RepresentationResult,
    Score,
    references_of,
)
from polytope_lm.predictions.clusters.sampling import clusters_for
from polytope_lm.predictions.layered import Comparator
from polytope_lm.representations import binary as code
from polytope_lm.representations.directions import COSINES
from polytope_lm.representations.distances import in_blocks, pairwise
from polytope_lm.representations.routers import random_control
from polytope_lm.seeds import Purpose, derived, tie_order
from polytope_lm.statistics.agreement import amis
from polytope_lm.statistics.clustering import check_k, k_medoids
from polytope_lm.statistics.estimate import MIN_DOCUMENTS, Resampled, effective_number, half_samples
from polytope_lm.statistics.neighbours import DocumentSums, agreement_sums, agreements, hubs, strict_neighbours
from polytope_lm.statistics.one_batch import EXACT, one_batch_k_medoids
from polytope_lm.statistics.verdict import Cell, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Bool, Float, Int

    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.clusters.sampling import Sample
    from polytope_lm.representations.arrays import LayerArrays
    from polytope_lm.representations.registry import Representation, Rows
    from polytope_lm.statistics.clustering import Between
    from polytope_lm.statistics.estimate import Estimate
    from polytope_lm.statistics.verdict import Verdict

    Found = Resampled | DocumentSums
    """A score before its interval: on halves, or as sums over documents."""

BUILT_IN = (code.CODE, code.STANDARDISED, *COSINES, SIMHASH)
"""What the verdict reads, and the rate-standardised code: measured always. Whether a label can be seen is asked of
these, so that nothing else that is shown moves a verdict."""


def at(site: Site, names: Sequence[str]) -> tuple[str, ...]:
    """Return representations as they are measured at a site: of a router with random routers for SimHash."""
    return tuple(random_control(site) if name == SIMHASH else name for name in names)


NEIGHBOURS = 10
"""Strict neighbours that the agreement counts."""
_ASKED_AT_ONCE = 256
HALVES = 40
"""Halves of the documents behind an interval: its sd is then known to 11 %."""
MORE_EXCHANGES = 100
"""Exchanges of labels that agreement counts from, AMI's 20 the first of them. With 20, another seed moved it by a third
of its standard error; one more costs a look at the graph, where for AMI it costs one at every half."""


@dataclass(frozen=True)
class Task:
    """What all representations of one run and label share: tokens, halves, labels exchanged, k, seeds.

    Attributes:
        sample: the tokens and their labels.
        inside: which tokens each half keeps.
        picks: in [0, 1), which draw of a random control moves a half (the first of a pair counts).
        labelings: the label, and then its exchanges between documents.
        k: clusters, the same in every half.
        neighbours: counted.
        seed: the user's; medoids and draws of random controls have seeds derived from it.
        order: the random order of tokens that breaks ties.
        asked: tokens whose neighbours are sought: all, or 20,000 at random beyond so many.

    """

    sample: Sample
    inside: Bool[np.ndarray, "draws n"]
    picks: Float[np.ndarray, " draws"]
    labelings: Int[np.ndarray, "m n"]
    k: int
    neighbours: int
    seed: int
    order: Int[np.ndarray, " n"]
    asked: Int[np.ndarray, " q"]

    @property
    def effective(self) -> float:
        """Kish's number of documents."""
        return effective_number(self.sample.documents)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the intervals: Kish's number less one."""
        return self.effective - 1


def make_task(sample: Sample, k: int | None, seed: int, resamples: int) -> Task:
    """Return what all representations of one run share; k is 100, or n/60 below 6,000 tokens, by default."""
    n = sample.summary.tokens
    k = clusters_for(n) if k is None else k
    check_k(k, n)
    effective = effective_number(sample.documents)
    if effective < MIN_DOCUMENTS:
        raise PolytopeError(
            f"{sample.summary.documents} documents count for {effective:.1f}, and at least {MIN_DOCUMENTS} are needed "
            "for an interval; add documents, or take fewer tokens of each (per_document=)"
        )
    halves = half_samples(sample.summary.documents, resamples, seed=derived(seed, Purpose.HALVES))
    inside = halves[:, sample.documents]
    least = int(inside.sum(axis=1).min())
    if least <= k:
        raise PolytopeError(
            f"k = {k} clusters, and some half of the documents has {least} tokens; take fewer clusters or more tokens"
        )
    picks = np.random.default_rng(derived(seed, Purpose.PICKS)).random(resamples)
    given = exchanged_between_documents(
        sample.labels, sample.documents, MORE_EXCHANGES, seed=derived(seed, Purpose.EXCHANGES)
    )
    order = tie_order(n, seed)
    asked = np.arange(n)
    if n > EXACT:
        asked = np.sort(np.random.default_rng(derived(seed, Purpose.ASKED)).choice(n, EXACT, replace=False))
    labelings = np.concatenate([sample.labels[None], given])
    return Task(sample, inside, picks, labelings, k, NEIGHBOURS, seed, order, asked)


@dataclass(frozen=True)
class Measured:
    """One representation's numbers, before they are compared with others.

    `scores` are those of `SCORES`, null-subtracted, for a random control the mean over its draws. The rest is of
    the first draw: neighbours nearest first, -1 (distance NaN) for none.
    """

    result: RepresentationResult
    scores: Mapping[str, Found]
    clusters: Int[np.ndarray, " n"]
    neighbours: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]


@dataclass(frozen=True)
class Layout:
    """What one draw of a representation does with the tokens, before any label is looked at.

    `halves` are the clusters found anew in each half, -1 outside of it. `neighbours` are nearest first, -1 for none;
    `distances` those to them, NaN for none. `lexical` is the AMI with token identity, on all tokens, then on each
    half.
    """

    clusters: Int[np.ndarray, " n"]
    halves: Int[np.ndarray, "draws n"]
    neighbours: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]
    lexical: Float[np.ndarray, " more"]
    metric: str
    dropped_bits: int = 0


def laid_out(
    representation: Representation, arrays: LayerArrays, task: Task, clock: Callable[[str, float], None]
) -> list[Layout]:
    """Find one representation's clusters and neighbours, once for each of its draws; labels play no part."""
    out = []
    for number in range(representation.draws):
        start = time.perf_counter()
        rows = representation.rows(arrays, seed=derived(task.seed, Purpose.REPRESENTATION, number))
        distances = (_Whole if len(task.order) <= EXACT else _Blocks).of(rows, representation.name)
        metric, dropped = rows.metric, rows.dropped_bits
        del rows  # of many tokens they are a gigabyte beside their unit vectors
        start = _timed(clock, "distances", start)
        near, away = nearest_others(distances.between, task)
        start = _timed(clock, "neighbours", start)
        clusters = distances.clusters(np.arange(len(near)), task.k, derived(task.seed, Purpose.MEDOIDS))
        halves = np.full(task.inside.shape, -1, dtype=np.int16)
        for half, kept in enumerate(task.inside):
            here = np.flatnonzero(kept)
            halves[half, here] = distances.clusters(here, task.k, derived(task.seed, Purpose.MEDOIDS, half + 1))
        start = _timed(clock, "k-medoids", start)
        lexical = np.array([float(amis(each, task.sample.token[None])[0]) for each in (clusters, *halves)])
        _timed(clock, "scores", start)
        out.append(Layout(clusters, halves, near, away, lexical, metric, dropped))
    return out


@dataclass(frozen=True)
class _Whole:
    """All distances at once."""

    distance: Float[np.ndarray, "n n"]

    @classmethod
    def of(cls, rows: Rows, name: str) -> _Whole:
        return cls(pairwise(rows, name))

    def between(self, some: Int[np.ndarray, " a"]) -> Float[np.ndarray, "a n"]:
        return self.distance if len(some) == len(self.distance) else self.distance[some]

    def clusters(self, here: Int[np.ndarray, " m"], k: int, seed: int) -> Int[np.ndarray, " m"]:
        whole = len(here) == len(self.distance)
        # Row by row, then column by column: half the time of picking single places.
        return k_medoids(self.distance if whole else self.distance.take(here, 0).take(here, 1), k, seed=seed)


@dataclass(frozen=True)
class _Blocks:
    """Distances in blocks: more tokens than all distances of which memory holds."""

    pairs: Between
    n: int

    @classmethod
    def of(cls, rows: Rows, name: str) -> _Blocks:
        return cls(in_blocks(rows, name), len(rows.values))

    def between(self, some: Int[np.ndarray, " a"]) -> Float[np.ndarray, "a n"]:
        return self.pairs(some, np.arange(self.n))

    def clusters(self, here: Int[np.ndarray, " m"], k: int, seed: int) -> Int[np.ndarray, " m"]:
        return one_batch_k_medoids(len(here), k, lambda a, b: self.pairs(here[a], here[b]), seed=seed).labels


def nearest_others(
    between: Callable[[Int[np.ndarray, " a"]], Float[np.ndarray, "a n"]], task: Task
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Return the strict neighbours of the tokens asked about and the distances to them, -1 and NaN for all others."""
    shape = (len(task.order), task.neighbours)
    near, away = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
    size = len(task.order) if len(task.asked) == len(task.order) else _ASKED_AT_ONCE
    for start in range(0, len(task.asked), size):
        own = task.asked[start : start + size]
        distance = between(own)
        near[own] = strict_neighbours(distance, task.sample.groups, task.neighbours, task.order, own)
        away[own] = np.where(near[own] < 0, np.nan, np.take_along_axis(distance, np.maximum(near[own], 0), axis=1))
    return near, away


def _timed(clock: Callable[[str, float], None], step: str, start: float) -> float:
    """Tell the clock the seconds of a step; return when it ended."""
    end = time.perf_counter()
    clock(step, end - start)
    return end


def scored(
    about: tuple[str, str, str], layouts: Sequence[Layout], task: Task, clock: Callable[[str, float], None]
) -> Measured:
    """Score what was laid out, of the same tokens, halves, k and seed, against the task's label.

    `about` is a representation's name, role and what it isolates.
    """
    start = time.perf_counter()
    draws = [scores_of(layout, task, task.labelings) for layout in layouts]
    _timed(clock, "scores", start)
    return summed_up(about, layouts[0], draws, task)


@dataclass(frozen=True)
class Drawn:
    """One draw's scores, null-subtracted, and the nulls that were taken off."""

    ami: Resampled
    agreement: DocumentSums
    lexical: Resampled
    nulls: Mapping[str, float]


@dataclass(frozen=True)
class Pool:
    """One layout's scores of many labelings: AMI on all tokens and in each half, agreement on all tokens.

    AMI may be that of the first labelings alone.
    """

    layout: Layout
    labelings: Int[np.ndarray, "m n"]
    whole: Float[np.ndarray, " first"]
    halves: Float[np.ndarray, "draws first"]
    agreed: Float[np.ndarray, " m"]

    @classmethod
    def of(cls, layout: Layout, labelings: Int[np.ndarray, "m n"], first: int | None = None) -> Pool:
        """Score a layout against labelings, by AMI the first ones alone (None: all)."""
        halves = np.stack([amis(each, labelings[:first]) for each in layout.halves])
        whole, agreed = amis(layout.clusters, labelings[:first]), agreements(layout.neighbours, labelings)
        return cls(layout, labelings, whole, halves, agreed)

    def drawn(self, documents: Int[np.ndarray, " n"], which: int, others: Int[np.ndarray, " others"]) -> Drawn:
        """Return the scores of one labeling, less their means over others: AMI's over the first `EXCHANGES`."""
        few, chance = others[:EXCHANGES], self.agreed[others]
        unrelated, draws = self.whole[few], self.halves[:, which] - self.halves[:, few].mean(axis=1)
        null = float(unrelated.mean())
        return Drawn(
            Resampled(float(self.whole[which]) - null, draws, unrelated),
            agreement_sums(self.layout.neighbours, self.labelings[which], documents).less(chance),
            Resampled(float(self.layout.lexical[0]), self.layout.lexical[1:]),
            {AMI: null, AGREEMENT: float(chance.mean())},
        )


def scores_of(layout: Layout, task: Task, labelings: Int[np.ndarray, "m n"]) -> Drawn:
    """Return the scores of the first labeling, less their means over the others."""
    others = np.arange(1, len(labelings))
    return Pool.of(layout, labelings, 1 + EXCHANGES).drawn(task.sample.documents, 0, others)


def summed_up(about: tuple[str, str, str], first: Layout, draws: Sequence[Drawn], task: Task) -> Measured:
    """Return the numbers of all draws as one: their mean, and its spread over draws in the interval.

    `draws` are `scores_of` each; `about` is name, role and what it isolates; `first` is shown.
    """
    whole: dict[str, Found] = {
        AMI: Resampled.mean_of_draws([each.ami for each in draws], task.picks),
        AGREEMENT: DocumentSums.mean_of_draws([each.agreement for each in draws]),
        AMI_TOKEN: Resampled.mean_of_draws([each.lexical for each in draws], task.picks),
    }
    points = {
        AMI: [each.ami.value for each in draws],
        AGREEMENT: [each.agreement.value for each in draws],
        AMI_TOKEN: [each.lexical.value for each in draws],
    }
    near = first.neighbours
    found = (near >= 0).sum(axis=1)
    scores = []
    for name in SCORES:
        null = float(np.mean([each.nulls[name] for each in draws])) if name in draws[0].nulls else None
        estimate = interval(whole[name], task.freedom)
        scores.append(
            Score(
                name, estimate, int((found > 0).sum()) if name == AGREEMENT else len(found),
                tuple(map(float, points[name])) if len(draws) > 1 else (),
                None if null is None else estimate.value + null, null,
            )
        )  # fmt: skip
    name, role, isolates = about
    result = RepresentationResult(
        name=name,
        role=role,
        isolates=isolates,
        metric=first.metric,
        scores=tuple(scores),
        cluster_sizes=tuple(int(size) for size in np.bincount(first.clusters, minlength=task.k)),
        hubs=hubs(near),
        dropped_bits=first.dropped_bits,
        few_neighbours=int((found[task.asked] < task.neighbours).sum()),
    )
    return Measured(result, whole, first.clusters, near, first.distances)


def interval(found: Found, freedom: float) -> Estimate:
    """Return a score with its interval: over halves, or over documents."""
    return found.by_documents(freedom) if isinstance(found, DocumentSums) else found.by_spread(freedom)


@dataclass(frozen=True)
class About:
    """What every verdict of a run says besides its differences.

    Attributes:
        documents: of the sample.
        effective: Kish's number of them.
        smallest_effect: the smallest difference of interest.
        weights: what was done to the model's weights.
        rounds: 1 where the verdict is to say what other random choices may give; None: it need not.

    """

    documents: int
    effective: float | None
    smallest_effect: float
    weights: str = ""
    rounds: int | None = None


def compare(
    site: Site,
    task: Task,
    measured: Mapping[str, Measured],
    about: About,
    beside: Sequence[str] = (),
    comparators: Mapping[str, Sequence[Sequence[str]]] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> LayerComparison:
    """Take all differences of one layer and decide it, before any correction over layers.

    Args:
        site: where the codes live.
        task: tokens, halves, k.
        measured: the built-in representations among others.
        about: what verdicts say besides.
        beside: controls over which the code's lead is only shown.
        comparators: for each claim, the groups of references that each get a verdict.
        left_out: what this layer could not give, and why.

    """
    left_out = left_out or {}
    pairs = [(name, reference) for name in measured for reference in references_of(site) if name != reference]
    wanted = [(code.CODE, name) for name in beside]
    groups = [
        (
            claim,
            tuple(name for name in group if name in measured),
            {name: left_out.get(name, "not measured") for name in group if name not in measured},
        )
        for claim, several in (comparators or {}).items()
        for group in several
        if claim in measured
    ]
    wanted += [(claim, name) for claim, group, _ in groups for name in group]
    differences: list[Difference] = []
    for name, reference in dict.fromkeys((*pairs, *wanted)):
        for score in SCORES:
            ahead = interval(measured[name].scores[score] - measured[reference].scores[score], task.freedom)  # type: ignore[operator]
            differences.append(Difference(name, reference, score, ahead, ahead.p_above(about.smallest_effect)))
    seen = max(
        each.result.score(score).estimate.high
        for name, each in measured.items()
        if name in at(site, BUILT_IN)
        for score in (AMI, AGREEMENT)
    )
    best = {score: max(COSINES, key=lambda name: measured[name].result.score(score).estimate.value) for score in SCORES}
    verdicts = tuple(
        Comparator(claim, group, decided(site, differences, seen, replace(about, rounds=None), claim, group), without)
        for claim, group, without in groups
        if group
    )
    verdict = decided(site, differences, seen, about)
    results = tuple(each.result for each in measured.values())
    return LayerComparison(site, task.k, results, tuple(differences), best, verdict, left_out, verdicts)


def decided(
    site: Site,
    differences: Sequence[Difference],
    seen: float,
    about: About,
    claim: str = code.CODE,
    references: Sequence[str] | None = None,
) -> Verdict:
    """Decide one claim in one layer from its differences in AMI and agreement, by default from the site's own."""
    own = references_of(site)
    references = own if references is None else references
    cells = [
        Cell(d.reference, d.score, d.estimate)
        for d in differences
        if d.representation == claim and d.reference in references and d.score in (AMI, AGREEMENT)
    ]
    whom = "" if references == own else f", {claim} against {' and '.join(references)}"
    return decide(
        cells, place=f"{site.place}{whom}", documents=about.documents, smallest_effect=about.smallest_effect,
        premises=str(site.premises), premises_met=site.premises.met, seen=seen, effective=about.effective,
        weights=about.weights, rounds=about.rounds,
    )  # fmt: skip
