"""Score one representation of one layer: its clusters, its strict neighbours, the same on halves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.inference.ami import resampled_ami
from polytope_lm.inference.intervals import estimate
from polytope_lm.inference.neighbours import hubs, resampled_agreement, strict_neighbours
from polytope_lm.inference.partitions import k_medoids
from polytope_lm.predictions.names import AGREEMENT, SCORES
from polytope_lm.predictions.results import RepresentationResult, Score
from polytope_lm.predictions.seeds import MEDOIDS, REPRESENTATION, derived
from polytope_lm.representations.distances import pairwise

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float, Int

    from polytope_lm.predictions.sampling import Sample
    from polytope_lm.representations.arrays import LayerArrays
    from polytope_lm.representations.registry import Representation

DEPTH = 6
"""Neighbours are stored to six times k, so that a half of the documents finds the k nearest of its own."""


@dataclass(frozen=True)
class Task:
    """What all representations share: tokens, halves, k, seeds.

    Attributes:
        sample: the compared tokens.
        inside: which tokens each half keeps.
        picks: in [0, 1) for each half; says which draw of a random control it sees.
        k: clusters.
        neighbours: neighbours counted in the agreement.
        seed: the user's; medoids and draws of random controls have seeds derived from it.

    """

    sample: Sample
    inside: Bool[np.ndarray, "draws n"]
    picks: Float[np.ndarray, " draws"]
    k: int
    neighbours: int
    seed: int


@dataclass(frozen=True)
class Measured:
    """One representation's numbers, before they are compared with others.

    Attributes:
        result: what is reported.
        halves: each score on each half, `[resamples, scores]` in the order of `SCORES`; a random control
            shows each half one of its draws.
        clusters: cluster id of each token (first draw).
        neighbours: strict neighbours, nearest first, k of them, -1 for none (first draw).
        distances: distances to them, float32; NaN for none.

    """

    result: RepresentationResult
    halves: Float[np.ndarray, "resamples scores"]
    clusters: Int[np.ndarray, " n"]
    neighbours: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]

    @property
    def points(self) -> Float[np.ndarray, " scores"]:
        """Each score on all documents, in the order of `SCORES`."""
        return np.array([self.result.score(name).estimate.value for name in SCORES])


@dataclass(frozen=True)
class _Draw:
    points: Float[np.ndarray, " scores"]
    halves: Float[np.ndarray, "resamples scores"]
    clusters: Int[np.ndarray, " n"]
    neighbours: Int[np.ndarray, "n depth"]
    distances: Float[np.ndarray, "n k"]
    metric: str
    dropped_bits: int


def measure(
    representation: Representation, arrays: LayerArrays, task: Task, clock: Callable[[str, float], None]
) -> Measured:
    """Cluster and score one representation; a random one as many times as it has draws.

    Args:
        representation: what to measure.
        arrays: the layer's arrays for the compared tokens.
        task: what all representations share.
        clock: told the seconds of each step.

    """
    draws = [_draw(representation, arrays, task, number, clock) for number in range(representation.draws)]
    first = draws[0]
    pick = (task.picks * len(draws)).astype(int)
    halves = np.stack([draw.halves for draw in draws])[pick, np.arange(len(pick))]
    near = first.neighbours[:, : task.neighbours]
    found = (near >= 0).sum(axis=1)
    result = RepresentationResult(
        name=representation.name,
        role=representation.role,
        isolates=representation.isolates,
        metric=first.metric,
        scores=_scores(draws, halves, task.sample.summary.documents, len(found), int((found > 0).sum())),
        cluster_sizes=tuple(int(size) for size in np.bincount(first.clusters, minlength=task.k)),
        hubs=hubs(near),
        dropped_bits=first.dropped_bits,
        few_neighbours=int((found < task.neighbours).sum()),
    )
    return Measured(result, halves, first.clusters, near, first.distances)


def _scores(
    draws: list[_Draw],
    halves: Float[np.ndarray, "resamples scores"],
    documents: int,
    n: int,
    with_neighbours: int,
) -> tuple[Score, ...]:
    points = np.stack([draw.points for draw in draws])
    out = []
    for i, name in enumerate(SCORES):
        each = tuple(float(value) for value in points[:, i]) if len(draws) > 1 else ()
        tokens = with_neighbours if name == AGREEMENT else n
        out.append(Score(name, estimate(float(points[:, i].mean()), halves[:, i], documents), tokens, each))
    return tuple(out)


def _draw(
    representation: Representation,
    arrays: LayerArrays,
    task: Task,
    number: int,
    clock: Callable[[str, float], None],
) -> _Draw:
    sample = task.sample
    start = time.perf_counter()
    rows = representation.rows(arrays, seed=derived(task.seed, REPRESENTATION, number))
    distance = pairwise(rows, representation.name)
    clock("distances", time.perf_counter() - start)
    start = time.perf_counter()
    near = strict_neighbours(distance, sample.groups, DEPTH * task.neighbours)
    clock("neighbours", time.perf_counter() - start)
    start = time.perf_counter()
    clusters = k_medoids(distance, task.k, seed=derived(task.seed, MEDOIDS))
    clock("k-medoids", time.perf_counter() - start)
    start = time.perf_counter()
    # The whole sample goes first, so that points and halves come from the same code.
    inside = np.concatenate([np.ones((1, len(sample.rows)), dtype=bool), task.inside])
    scores = np.stack(
        [
            resampled_ami(sample.labels, clusters, inside),
            resampled_agreement(near, sample.labels, inside, task.neighbours),
            resampled_ami(sample.token, clusters, inside),
        ],
        axis=1,
    )
    clock("scores", time.perf_counter() - start)
    shown = near[:, : task.neighbours]
    away = np.take_along_axis(distance, np.maximum(shown, 0), axis=1)
    away[shown < 0] = np.nan
    return _Draw(scores[0], scores[1:], clusters, near, away, rows.metric, rows.dropped_bits)
