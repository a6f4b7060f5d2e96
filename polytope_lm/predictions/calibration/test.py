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

Each run measures once: what `clusters` does besides near a bound makes a verdict steadier, not surer.

All labels are scored once, as one pool of 20 more than there are runs; a run's null is the mean over
20 others of it, of agreement over 100.

Nulls do not show whether intervals are wide enough where a difference is there. So the documents are also split into
halves, and with the *real* labels two halves must agree within their intervals in 95 % of splits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from polytope_lm.controls.labels import EXCHANGES
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.calibration.result import CalibrationResult, LayerCalibration
from polytope_lm.predictions.calibration.splits import halves_agree
from polytope_lm.predictions.calibration.trials import (
    Exchange,
    cell_rates,
    exchanged,
    pooled,
    rate_of,
    representations,
    set_up,
    trial,
)
from polytope_lm.predictions.clusters.sampling import PER_DOCUMENT, check_neighbours, choose, layers_of
from polytope_lm.predictions.clusters.scoring import HALVES, NEIGHBOURS, make_task
from polytope_lm.progress import stepwise
from polytope_lm.representations import controls as simhash
from polytope_lm.result import reproducible
from polytope_lm.statistics.verdict import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polytope_lm.codes.codes import TokenCodes

SPLITS = 20
"""Splits of the documents by default: each costs about half of what the layer's exchanges do."""


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
    splits: int = SPLITS,
    seed: int = 0,
    resamples: int = HALVES,
    smallest_effect: float = 0.01,
    progress: Callable[[int, int, str], None] | None = None,
) -> CalibrationResult:
    """Return how often `plm.predictions.clusters` is wrong on these codes, layer by layer.

    Each layer has the rate of every outcome and, for each difference that the verdict reads, how often its interval
    excludes 0 with labels exchanged, and how often two halves of the documents agree on the real labels.

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
        splits: how often the documents are split into two halves that must agree on the real labels; 0: never.
        seed: of every random choice.
        resamples: halves of the documents behind each interval.
        smallest_effect: the smallest difference of interest.
        progress: told `(done, total, what)` before each run.

    Raises:
        PolytopeError: no run, fewer than 0 splits, an unknown exchange, or what `plm.predictions.clusters` refuses.

    """
    _check(runs, splits, exchange)
    sample = choose(codes, label, tokens=tokens, seed=seed, per_document=per_document)
    check_neighbours(codes, sample, label, NEIGHBOURS)
    layers, task = layers_of(codes, layer), make_task(sample, k, seed, resamples)
    found, tell, refused = [], stepwise(progress, len(layers) * (runs + splits)), ""
    for index in layers:
        bench = set_up(codes, index, task, representations(draws))
        pools = pooled(bench, exchanged(task, exchange, runs + EXCHANGES))
        trials, agreed = [], []
        for run in range(runs):
            tell(f"layer {index}: labels exchanged")
            trials.append(trial(bench, pools, run, smallest_effect))
        for number in range(splits):
            tell(f"layer {index}: documents split in halves")
            try:
                agree = halves_agree(
                    codes, index, {label: sample}, number, k=task.k, draws=draws, seed=seed, resamples=resamples,
                    smallest_effect=smallest_effect,
                )  # fmt: skip
            except PolytopeError as error:
                refused = refused or str(error)
            else:
                agreed.append(agree[label])
        site = bench.arrays.site
        found.append(
            LayerCalibration(
                site.layer, site.key, cells=cell_rates(trials, agreed), premises=str(site.premises),
                **{name.replace(" ", "_"): rate_of(trials, name) for name in OUTCOMES if name != "refuted"},
            )
        )  # fmt: skip
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
        effective=task.effective,
        splits=splits,
        splits_left_out=refused,
        provenance=dict(codes.provenance),
    )


def _check(runs: int, splits: int, exchange: str) -> None:
    if runs < 1:
        raise PolytopeError(f"runs = {runs} gives no rate; at least 1 is needed, 200 is the default")
    if splits < 0:
        raise PolytopeError(f"splits = {splits} of the documents; give 0 for none, {SPLITS} is the default")
    if exchange not in get_args(Exchange):
        there = ", ".join(repr(each) for each in get_args(Exchange))
        raise PolytopeError(f"no exchange of labels {exchange!r}; choose {there}")
