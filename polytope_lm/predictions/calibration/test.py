"""How often would this test be wrong on *your* codes: the same test on the same codes, labels exchanged.

Each run gives the tokens other labels, so that no difference between representations is left in truth, and
puts prediction 1 to the test. *Supported* is then a false positive: at most 2.5 % of runs may say so. A
two-sided 95 % interval should exclude 0 in 5 %.

Three ways to make other labels:

- *between documents* (the default): documents of similar size exchange their labels. Labels stay as alike
  within a document as they were and know nothing of the codes, so every difference is 0: a true null.
- *drawn per document*: labels as frequent as the real ones, drawn with an intra-class correlation of .1 within
  documents. A true null, too.
- *within word and document*: the labels of one word in one document are permuted. What words and documents
  tell of a label stays, so a difference may remain, rightly, wherever a representation tells words or
  documents better apart. How often it is *supported* is not a false-positive rate, but a bound on what the
  token in its context adds.

Distances, clusters and neighbours know no label: they are found once a layer, on all tokens and in each half. All
labels are scored once, as one pool of 20 more than there are runs; a run's null is the mean over 20 others of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from polytope_lm.controls.labels import EXCHANGES, drawn_per_document, exchanged_between_documents, permuted_labels
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.calibration.result import CalibrationResult, CellRate, LayerCalibration
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, REFERENCES
from polytope_lm.predictions.clusters.sampling import PER_DOCUMENT, check_neighbours, choose, layers_of
from polytope_lm.predictions.clusters.scoring import (
    HALVES,
    NEIGHBOURS,
    About,
    Pool,
    Task,
    compare,
    laid_out,
    make_task,
    summed_up,
)
from polytope_lm.progress import stepwise
from polytope_lm.representations import binary as code
from polytope_lm.representations import controls as simhash
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.directions import COSINES
from polytope_lm.representations.registry import get
from polytope_lm.result import reproducible
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.nulls import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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


@reproducible("plm.calibrate")
@asked
def calibrate(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    layer: int | Sequence[int] | None = None,
    label: str = "upos",
    *,
    exchange: Exchange = "between documents",
    runs: int = 200,
    k: int | None = None,
    tokens: int = 6000,
    per_document: int | None = PER_DOCUMENT,
    draws: int = simhash.SIMHASH_DRAWS,
    seed: int = 0,
    resamples: int = HALVES,
    smallest_effect: float = 0.01,
    progress: Callable[[int, int, str], None] | None = None,
) -> CalibrationResult:
    """Return how often `plm.predictions.clusters` is wrong on these codes, layer by layer.

    Args:
        codes: codes in memory or a store, captured with `keep=("u", "h")`.
        layer: one layer, several, or all (None).
        label: the label that is exchanged.
        exchange: `between documents` or `drawn per document`, true nulls, or `within word and document` (see above).
        runs: how often the labels are exchanged.
        k: clusters; by default 100, or n/60 below 6,000 tokens.
        tokens: compare at most this many, sampled by seed.
        per_document: at most this many of one document; None: all.
        draws: of rate-matched SimHash.
        seed: of every random choice.
        resamples: halves of the documents behind each interval.
        smallest_effect: the smallest difference of interest.
        progress: told `(done, total, what)` before each run.

    Raises:
        PolytopeError: no run, an unknown exchange, or what `plm.predictions.clusters` refuses.

    """
    _check(runs, exchange)
    sample = choose(codes, label, tokens=tokens, seed=seed, per_document=per_document)
    check_neighbours(codes, sample, label, NEIGHBOURS)
    layers, task = layers_of(codes, layer), make_task(sample, k, seed, resamples)
    found, tell = [], stepwise(progress, len(layers) * runs)
    for index in layers:
        bench = set_up(codes, index, task, representations(draws))
        found.append(_rated(bench, exchange, runs, smallest_effect, tell))
    return CalibrationResult(
        label=label,
        exchange=exchange,
        runs=runs,
        k=task.k,
        neighbours=NEIGHBOURS,
        draws=draws,
        seed=seed,
        resamples=resamples,
        smallest_effect=smallest_effect,
        tokens=sample.summary.tokens,
        documents=sample.summary.documents,
        layers=tuple(found),
        provenance=dict(codes.provenance),
    )


def _check(runs: int, exchange: str) -> None:
    if runs < 1:
        raise PolytopeError(f"runs = {runs} gives no rate; at least 1 is needed, 200 is the default")
    if exchange not in get_args(Exchange):
        there = ", ".join(repr(each) for each in get_args(Exchange))
        raise PolytopeError(f"no exchange of labels {exchange!r}; choose {there}")


def representations(draws: int) -> tuple[Representation, ...]:
    """Return those that the verdict reads: code, both cosines, and `draws` draws of rate-matched SimHash."""
    if draws < 1:
        raise PolytopeError(f"draws = {draws} of SimHash; at least 1 is needed, {simhash.SIMHASH_DRAWS} is usual")
    return (*(get(name) for name in (code.CODE, *COSINES)), replace(get(simhash.SIMHASH), draws=draws))


def set_up(codes: TokenCodes, layer: int, task: Task, chosen: Sequence[Representation]) -> Bench:
    """Find one layer's clusters and neighbours."""
    arrays = LayerArrays(codes, layer, task.sample.rows)
    return Bench(arrays, task, {each.name: laid_out(each, arrays, task, _no_clock) for each in chosen})


def _rated(
    bench: Bench, exchange: Exchange, runs: int, smallest_effect: float, tell: Callable[[str], None]
) -> LayerCalibration:
    """Put prediction 1 to the test with the labels exchanged in `runs` ways."""
    site, found = bench.arrays.site, []
    pools = pooled(bench, exchanged(bench.task, exchange, runs + EXCHANGES))
    for run in range(runs):
        tell(f"layer {site.layer}: labels exchanged")
        found.append(trial(bench, pools, run, smallest_effect))
    rates = {name.replace(" ", "_"): rate_of(found, name) for name in ("supported", "behind", "no lead")}
    return LayerCalibration(site.layer, site.key, cells=cell_rates(found), **rates)


def pooled(bench: Bench, labelings: Int[np.ndarray, "m n"]) -> dict[str, list[Pool]]:
    """Score every labeling once, by representation and draw."""
    return {name: [Pool.of(each, labelings) for each in layouts] for name, layouts in bench.layouts.items()}


def trial(bench: Bench, pools: Mapping[str, Sequence[Pool]], which: int, smallest_effect: float) -> Trial:
    """Put prediction 1 to the test with one labeling of a pool; its null is the mean over 20 others."""
    task, size = bench.task, len(next(iter(pools.values()))[0].labelings)
    others = (which + 1 + np.random.default_rng([which, size]).permutation(size - 1)[:EXCHANGES]) % size
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


def cell_rates(trials: Sequence[Trial]) -> tuple[CellRate, ...]:
    """Return how often each two-sided interval excluded 0."""
    out = []
    for i, (score, reference) in enumerate(CELLS):
        found = [each.differences[i] for each in trials]
        away = sum(not each.low <= 0 <= each.high for each in found)
        mean = float(np.mean([each.value for each in found]))
        out.append(CellRate(score, reference, mean, Rate.of(away, len(found))))
    return tuple(out)


def _no_clock(step: str, seconds: float) -> None:
    del step, seconds
