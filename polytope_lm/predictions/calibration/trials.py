"""One run of prediction 1's test with other labels, which are scored as one pool.

Distances, clusters and neighbours know no label: `set_up` finds them once a layer, on all tokens and in each half.
`pooled` scores any number of labelings; a run's null is the mean over 20 others of its pool, of agreement over 100.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from polytope_lm.controls.labels import EXCHANGES, drawn_per_document, exchanged_between_documents, permuted_labels
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.calibration.result import CellRate
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, REFERENCES
from polytope_lm.predictions.clusters.scoring import (
    BUILT_IN,
    MORE_EXCHANGES,
    About,
    Pool,
    Task,
    compare,
    laid_out,
    summed_up,
)
from polytope_lm.representations import binary as code
from polytope_lm.representations import controls as simhash
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.registry import get
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.nulls import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.clusters.result import LayerComparison
    from polytope_lm.predictions.clusters.scoring import Layout
    from polytope_lm.representations.registry import Representation
    from polytope_lm.statistics.estimate import Estimate

Exchange = Literal["between documents", "drawn per document", "within word and document"]
CORRELATION = 0.1

CELLS = tuple((score, reference) for score in (AMI, AGREEMENT) for reference in REFERENCES)
"""What the verdict reads."""


@dataclass(frozen=True)
class Trial:
    """One run of the test: the layer's own verdict, and code minus reference in the order of `CELLS`."""

    outcome: str
    differences: tuple[Estimate, ...]


@dataclass(frozen=True)
class Bench:
    """One layer's codes, and the clusters and neighbours of each representation: all that knows no label."""

    arrays: LayerArrays
    task: Task
    layouts: Mapping[str, list[Layout]]


def representations(draws: int) -> tuple[Representation, ...]:
    """Return the built-in ones, which `clusters` asks whether a label can be seen; `draws` draws of SimHash."""
    if draws < 1:
        raise PolytopeError(f"draws = {draws} of SimHash; at least 1 is needed, {simhash.SIMHASH_DRAWS} is usual")
    chosen = (get(name) for name in BUILT_IN)
    return tuple(replace(each, draws=draws) if each.name == simhash.SIMHASH else each for each in chosen)


def set_up(codes: TokenCodes, layer: int, task: Task, chosen: Sequence[Representation]) -> Bench:
    """Find one layer's clusters and neighbours."""
    arrays = LayerArrays(codes, layer, task.sample.rows)
    return Bench(arrays, task, {each.name: laid_out(each, arrays, task, _no_clock) for each in chosen})


def pooled(bench: Bench, labelings: Int[np.ndarray, "m n"], first: int | None = None) -> dict[str, list[Pool]]:
    """Score every labeling once, by representation and draw; by AMI the first ones alone (None: all)."""
    return {name: [Pool.of(each, labelings, first) for each in layouts] for name, layouts in bench.layouts.items()}


def of_the_label(bench: Bench) -> dict[str, list[Pool]]:
    """Score the label itself and its exchanges, as a comparison does: its is the first trial of this pool."""
    return pooled(bench, bench.task.labelings, 1 + EXCHANGES)


def trial(bench: Bench, pools: Mapping[str, Sequence[Pool]], which: int, smallest_effect: float) -> Trial:
    """Put prediction 1 to the test with one labeling of a pool; its null is the mean over others."""
    task, size = bench.task, len(next(iter(pools.values()))[0].labelings)
    # A comparison's own exchanges stay in their order, so that this is what it says itself.
    order = (
        np.random.default_rng([which, size]).permutation(size - 1) if size - 1 > MORE_EXCHANGES else np.arange(size - 1)
    )
    others = (which + 1 + order[:MORE_EXCHANGES]) % size
    documents = task.sample.documents
    measured = {}
    for name, several in pools.items():
        about = (name, get(name).role, "")
        measured[name] = summed_up(
            about, several[0].layout, [each.drawn(documents, which, others) for each in several], task
        )
    about_all = About(task.sample.summary.documents, task.effective, smallest_effect)
    return trial_of(compare(bench.arrays.site, task, measured, about_all))


def trial_of(comparison: LayerComparison) -> Trial:
    """Return what counts of a comparison."""
    found = [comparison.difference(code.CODE, reference, score).estimate for score, reference in CELLS]
    return Trial(comparison.verdict.outcome, tuple(found))


def exchanged(task: Task, exchange: Exchange, count: int) -> Int[np.ndarray, "count n"]:
    """Return the sample's labels, exchanged in so many ways."""
    sample, seed = task.sample, derived(task.seed, Purpose.PERMUTED_LABELS)
    if exchange == "between documents":
        return exchanged_between_documents(sample.labels, sample.documents, count, seed=seed)
    if exchange == "drawn per document":
        return drawn_per_document(sample.labels, sample.documents, count, correlation=CORRELATION, seed=seed)
    drawn = [
        permuted_labels(sample.labels, sample.groups[:, 1], sample.documents, seed=derived(seed, Purpose.TIES, number))
        for number in range(count)
    ]
    return np.stack([each.values for each in drawn]).astype(np.int32)


def rate_of(trials: Sequence[Trial], outcome: str) -> Rate:
    """Return how often the verdict was this one."""
    return Rate.of(sum(each.outcome == outcome for each in trials), len(trials))


def cell_rates(trials: Sequence[Trial], agreed: Sequence[Sequence[bool]] = ()) -> tuple[CellRate, ...]:
    """Return how often each two-sided interval excluded 0, and in how many splits both halves agreed."""
    out = []
    for i, (score, reference) in enumerate(CELLS):
        found = [each.differences[i] for each in trials]
        away = sum(not each.low <= 0 <= each.high for each in found)
        mean = float(np.mean([each.value for each in found]))
        halves = Rate.of(sum(each[i] for each in agreed), len(agreed)) if agreed else None
        out.append(CellRate(score, reference, mean, Rate.of(away, len(found)), halves))
    return tuple(out)


def _no_clock(step: str, seconds: float) -> None:
    del step, seconds
