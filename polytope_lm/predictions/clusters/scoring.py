"""One layer: what each representation scores, on all tokens and on half-samples; its differences and verdict.

Clusters and neighbours know no label: `laid_out` finds them once, `scored` holds any number of labels against
them. Both references of a difference, the better of raw and centred cosine and the mean of the rate-matched
draws, are taken inside each half, score by score (`Resampled.better`, `Resampled.mean_of_draws`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.predictions.clusters.result import (
    AGREEMENT,
    AMI,
    BEST_COSINE,
    REFERENCES,
    SCORES,
    SECOND_ORDER,
    SIMHASH,
    Difference,
    LayerComparison,
    RepresentationResult,
    Score,
)
from polytope_lm.predictions.clusters.sampling import clusters_for
from polytope_lm.representations import binary as code
from polytope_lm.representations.directions import COSINES
from polytope_lm.representations.distances import pairwise
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.agreement import resampled_ami
from polytope_lm.statistics.clustering import check_k, k_medoids
from polytope_lm.statistics.estimate import Resampled, half_samples
from polytope_lm.statistics.neighbours import hubs, resampled_agreement, strict_neighbours
from polytope_lm.statistics.verdict import Cell, decide, one_sided_p, over_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Bool, Float, Int

    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.clusters.sampling import Sample
    from polytope_lm.representations.arrays import LayerArrays
    from polytope_lm.representations.registry import Representation
    from polytope_lm.statistics.estimate import Estimate
    from polytope_lm.statistics.verdict import Verdict

NEIGHBOURS = 10
"""Strict neighbours that the agreement counts."""
DEPTH = 6
"""Neighbours are stored to six times k, so that a half of the documents finds the k nearest of its own."""


@dataclass(frozen=True)
class Task:
    """What all representations share: tokens, halves, k, seeds.

    `inside` says which tokens each half keeps; `picks`, in [0, 1), which draw of a random control moves it (the
    first of a pair counts). Medoids and draws of random controls have seeds derived from `seed`, the user's.
    """

    sample: Sample
    inside: Bool[np.ndarray, "draws n"]
    picks: Float[np.ndarray, " draws"]
    k: int
    neighbours: int
    seed: int

    @property
    def with_whole(self) -> Bool[np.ndarray, "draws n"]:
        """The whole sample and then each half, so that points and halves come from the same code."""
        return np.concatenate([np.ones((1, self.inside.shape[1]), dtype=bool), self.inside])


def make_task(sample: Sample, k: int | None, seed: int, resamples: int) -> Task:
    """Return what all representations of one run share; k is 100, or n/60 below 6,000 tokens, by default."""
    k = clusters_for(sample.summary.tokens) if k is None else k
    check_k(k, sample.summary.tokens)
    halves = half_samples(sample.summary.documents, resamples, seed=derived(seed, Purpose.HALVES))
    picks = np.random.default_rng(derived(seed, Purpose.PICKS)).random(resamples)
    return Task(sample, halves[:, sample.documents], picks, k, NEIGHBOURS, seed)


@dataclass(frozen=True)
class Measured:
    """One representation's numbers, before they are compared with others.

    `scores` are those of `SCORES` on all documents and on each half, for a random control the mean over its
    draws. The rest is of the first draw: neighbours nearest first, -1 (distance NaN) for none.
    """

    result: RepresentationResult
    scores: Resampled
    clusters: Int[np.ndarray, " n"]
    neighbours: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]


@dataclass(frozen=True)
class Layout:
    """What one draw of a representation does with the tokens, before any label is looked at.

    `neighbours` go `DEPTH` times as deep as those counted, nearest first, -1 for none; `distances` are those to
    the counted ones, NaN for none. `lexical` is the AMI with token identity, on all tokens, then on each half.
    """

    clusters: Int[np.ndarray, " n"]
    neighbours: Int[np.ndarray, "n depth"]
    distances: Float[np.ndarray, "n k"]
    lexical: Float[np.ndarray, " draws"]
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
        distance = pairwise(rows, representation.name)
        start = _timed(clock, "distances", start)
        near = strict_neighbours(distance, task.sample.groups, DEPTH * task.neighbours)
        start = _timed(clock, "neighbours", start)
        clusters = k_medoids(distance, task.k, seed=derived(task.seed, Purpose.MEDOIDS))
        start = _timed(clock, "k-medoids", start)
        lexical = resampled_ami(task.sample.token, clusters, task.with_whole)
        _timed(clock, "scores", start)
        shown = near[:, : task.neighbours]
        away = np.take_along_axis(distance, np.maximum(shown, 0), axis=1)
        away[shown < 0] = np.nan
        out.append(Layout(clusters, near, away, lexical, rows.metric, rows.dropped_bits))
    return out


def _timed(clock: Callable[[str, float], None], step: str, start: float) -> float:
    """Tell the clock the seconds of a step; return when it ended."""
    end = time.perf_counter()
    clock(step, end - start)
    return end


def scored(
    representation: Representation, layouts: list[Layout], task: Task, clock: Callable[[str, float], None]
) -> Measured:
    """Score what was laid out, of the same tokens, halves, k and seed, against the task's label."""
    start = time.perf_counter()
    draws = np.stack([scores_of(layout, task, task.sample.labels) for layout in layouts])
    _timed(clock, "scores", start)
    about = (representation.name, representation.role, representation.isolates)
    return summed_up(about, layouts[0], draws, task)


def scores_of(layout: Layout, task: Task, labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "draws scores"]:
    """Return the scores in the order of `SCORES`: of the whole sample first, then of each half."""
    inside = task.with_whole
    return np.stack(
        [
            resampled_ami(labels, layout.clusters, inside),
            resampled_agreement(layout.neighbours, labels, inside, task.neighbours),
            layout.lexical,
        ],
        axis=1,
    )


def summed_up(
    about: tuple[str, str, str], first: Layout, draws: Float[np.ndarray, "d draws scores"], task: Task
) -> Measured:
    """Return the numbers of all draws as one: their mean, moved on each half as one of them is.

    `draws` are `scores_of` each; `about` is name, role and what it isolates; `first` is shown.
    """
    whole = Resampled.mean_of_draws([Resampled(each[0], each[1:]) for each in draws], task.picks)
    near = first.neighbours[:, : task.neighbours]
    found = (near >= 0).sum(axis=1)
    name, role, isolates = about
    result = RepresentationResult(
        name=name,
        role=role,
        isolates=isolates,
        metric=first.metric,
        scores=_scores(whole, draws[:, 0], task, found),
        cluster_sizes=tuple(int(size) for size in np.bincount(first.clusters, minlength=task.k)),
        hubs=hubs(near),
        dropped_bits=first.dropped_bits,
        few_neighbours=int((found < task.neighbours).sum()),
    )
    return Measured(result, whole, first.clusters, near, first.distances)


def _scores(
    whole: Resampled, points: Float[np.ndarray, "d scores"], task: Task, found: Int[np.ndarray, " n"]
) -> tuple[Score, ...]:
    out = []
    for i, name in enumerate(SCORES):
        each = tuple(map(float, points[:, i])) if len(points) > 1 else ()
        tokens = int((found > 0).sum()) if name == AGREEMENT else len(found)
        out.append(Score(name, _interval(whole, i, task.sample.summary.documents), tokens, each))
    return tuple(out)


def _interval(scores: Resampled, i: int, documents: int) -> Estimate:
    return scores.column(i).by_halves(documents, second_order=SCORES[i] in SECOND_ORDER)


def compare(
    site: Site,
    k: int,
    measured: Mapping[str, Measured],
    documents: int,
    smallest_effect: float,
    beside: Sequence[str] = (),
) -> LayerComparison:
    """Take all differences of one layer and decide it, before any correction over layers.

    `measured` has the built-in representations among others; the code's differences from `beside` are only shown.
    """
    cosines = [measured[name].scores for name in COSINES]
    references = {BEST_COSINE: Resampled.better(cosines), SIMHASH: measured[SIMHASH].scores}
    pairs = [
        (name, reference)
        for name in measured
        for reference in REFERENCES
        if name != reference and not (name in COSINES and reference == BEST_COSINE)
    ]
    references |= {name: measured[name].scores for name in beside}
    pairs += [(code.CODE, name) for name in beside]
    differences: list[Difference] = []
    for name, reference in pairs:
        ahead = measured[name].scores - references[reference]
        for i, score in enumerate(SCORES):
            found = _interval(ahead, i, documents)
            differences.append(Difference(name, reference, score, found, one_sided_p(found, smallest_effect)))
    verdict = decided(site, differences, documents, smallest_effect)
    best = np.argmax([each.value for each in cosines], axis=0)
    better = {name: COSINES[int(which)] for name, which in zip(SCORES, best, strict=True)}
    results = tuple(each.result for each in measured.values())
    return LayerComparison(site, k, results, tuple(differences), better, verdict)


def decided(site: Site, differences: Sequence[Difference], documents: int, smallest_effect: float) -> Verdict:
    """Decide one layer from its differences, of which the verdict reads four."""
    cells = [
        Cell(d.reference, d.score, d.estimate)
        for d in differences
        if d.representation == code.CODE and d.reference in REFERENCES and d.score in (AMI, AGREEMENT)
    ]
    return decide(
        cells,
        place=site.place,
        documents=documents,
        smallest_effect=smallest_effect,
        premises=str(site.premises),
        premises_met=site.premises.met,
    )


def with_holm(compared: Sequence[LayerComparison]) -> tuple[LayerComparison, ...]:
    """Return the layers with their verdicts corrected for the number of layers."""
    verdicts = over_layers([comparison.verdict for comparison in compared])
    return tuple(replace(c, verdict=v) for c, v in zip(compared, verdicts, strict=True))
