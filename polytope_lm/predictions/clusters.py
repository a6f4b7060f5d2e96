"""Prediction 1: regions of activation space named by the code are monosemantic where directions are not.

Claim. Tokens that lie in nearby polytopes of an MLP mean alike: cluster tokens by the Hamming distance of
their codes `z = 1[h > 0]`, and the clusters agree with a gold label better than clusters of directions do
(Black et al., "Interpreting Neural Networks through the Polytope Lens", 2022).

Comparator. The cosine of the *same* pre-activations `h` that were binarised, raw and centred, whichever is
better.

Control. Rate-matched SimHash: random hyperplanes on the same `u`, each firing as often as the real neuron.
Only a lead over these is due to where training put the hyperplanes; without it a code is a noisy cosine.

Scores. AMI of k-medoids clusters with the label, and the share of strict nearest neighbours (another lemma,
form, token and document) with the same label. AMI with token identity is shown beside them: lexical clusters
are not semantic ones.

Verdict. *Supported* where the code is ahead by more than the smallest effect of interest in both scores
against both references; *refuted* where an upper bound lies below it; *inconclusive* otherwise, with the n
that would settle it. The intervals come from halves of the documents. One label, one k, one clusterer, chosen
before the run; everything else that is shown beside is not a verdict.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.controls import simhash
from polytope_lm.errors import PolytopeError
from polytope_lm.inference.intervals import half_samples
from polytope_lm.predictions.browser import add_layer, tokens_table
from polytope_lm.predictions.comparison import compare, with_holm
from polytope_lm.predictions.results import ClustersResult, Settings
from polytope_lm.predictions.sampling import check_neighbours, choose, clusters_for
from polytope_lm.predictions.scoring import Measured, Task, measure
from polytope_lm.predictions.seeds import HALVES, PICKS, derived
from polytope_lm.representations import code, cosine, standardised
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.registry import Representation, get, registered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.sampling import Sample

BUILT_IN = (code.NAME, standardised.NAME, *cosine.COSINES, simhash.NAME)
NEIGHBOURS = 10


def clusters(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    layer: int | Sequence[int] | None = None,
    label: str = "upos",
    *,
    k: int | None = None,
    tokens: int = 6000,
    seed: int = 0,
    resamples: int = 200,
    smallest_effect: float = 0.01,
    extra: Sequence[str] | str = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> ClustersResult:
    """Put prediction 1 to the test on some codes.

    Args:
        codes: codes in memory or a store, captured with `keep=("u", "h")`; a store that still has its model
            at hand runs it again for what was not kept.
        layer: one layer, several, or all (None).
        label: the label that clusters are scored against.
        k: clusters; by default 100, or n/60 below 6,000 tokens.
        tokens: compare at most this many, sampled by seed. Memory grows with its square (0.3 GB at 6,000).
        seed: of every random choice.
        resamples: halves of the documents behind each interval.
        smallest_effect: the smallest difference of interest, the same for both scores.
        extra: registered representations to show beside the built-in ones, or `all`; never part of the
            verdict. One that this layer can not give is left out, and `LayerComparison.left_out` says why.
        progress: told `(done, total, what)` before each representation of each layer.

    Raises:
        PolytopeError: the label is absent, has one value or says which word it is, too few documents to
            resample or tokens with strict neighbours, k not below the number of tokens, `u` or `h` not
            kept, NaN in the activations, an unknown representation.

    """
    chosen, layers = _representations(extra), _layers(codes, layer)
    _check_kept(codes)
    sample = choose(codes, label, tokens=tokens, seed=seed)
    task = _task(sample, k, seed, resamples)
    check_neighbours(codes, sample, label, NEIGHBOURS)
    settings = Settings(
        label, task.k, NEIGHBOURS, tokens, seed, resamples, smallest_effect, sample.form, sample.lemma
    )
    table, compared = tokens_table(codes, sample), []
    timings: dict[str, float] = {}
    for number, index in enumerate(layers):
        tell = _teller(progress, number, index, len(layers), len(chosen))
        arrays = LayerArrays(codes, index, sample.rows)
        measured, left_out = _measure_all(chosen, arrays, task, _clock(timings, index), tell)
        comparison = compare(arrays.site, task.k, measured, sample.summary.documents, smallest_effect)
        compared.append(replace(comparison, left_out=left_out))
        table = add_layer(table, comparison, measured)
    return ClustersResult(
        settings=settings,
        sample=sample.summary,
        layers=with_holm(compared),
        provenance=dict(codes.provenance),
        versions=_versions(),
        command=_command(layers, settings, extra),
        tokens=table,
        timings=timings,
    )


def _teller(
    progress: Callable[[int, int, str], None] | None, number: int, layer: int, layers: int, steps: int
) -> Callable[[int, str], None]:
    """Return what tells `progress` the step within one layer, the `number`-th of all."""

    def tell(step: int, name: str) -> None:
        if progress is not None:
            progress(number * steps + step, layers * steps, f"layer {layer}: {name}")

    return tell


def _measure_all(
    chosen: Sequence[Representation],
    arrays: LayerArrays,
    task: Task,
    clock: Callable[[str, float], None],
    tell: Callable[[int, str], None],
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure what can be measured; extra representations that can't say why, built-in ones raise."""
    measured: dict[str, Measured] = {}
    left_out: dict[str, str] = {}
    for step, representation in enumerate(chosen):
        tell(step, representation.name)
        try:
            measured[representation.name] = measure(representation, arrays, task, clock)
        except PolytopeError as error:
            if representation.name in BUILT_IN:
                raise
            left_out[representation.name] = str(error)
    return measured, left_out


def _task(sample: Sample, k: int | None, seed: int, resamples: int) -> Task:
    n = sample.summary.tokens
    k = clusters_for(n) if k is None else k
    if not 2 <= k < n:
        msg = f"k = {k} clusters of {n} tokens; k must be at least 2 and below the number of tokens"
        raise PolytopeError(msg)
    halves = half_samples(sample.summary.documents, resamples, seed=derived(seed, HALVES))
    picks = np.random.default_rng(derived(seed, PICKS)).random(resamples)
    return Task(sample, halves[:, sample.documents], picks, k, NEIGHBOURS, seed)


def _representations(extra: Sequence[str] | str) -> list[Representation]:
    if extra == "all":
        extra = [each.name for each in registered()]
    names = dict.fromkeys((*BUILT_IN, *([extra] if isinstance(extra, str) else extra)))
    return [get(name) for name in names]


def _layers(codes: TokenCodes, layer: int | Sequence[int] | None) -> tuple[int, ...]:
    wanted = codes.layers if layer is None else (layer,) if isinstance(layer, int) else tuple(layer)
    for index in wanted:
        if index not in codes.layers:
            there = ", ".join(str(i) for i in codes.layers)
            msg = f"layer {index} is not in these codes; captured layers: {there}"
            raise PolytopeError(msg)
    return tuple(wanted)


def _check_kept(codes: TokenCodes) -> None:
    """Say before any work which capture option is missing."""
    missing = [name for name in ("u", "h") if not codes.can_give(name)]
    if missing:
        msg = (
            f"{' and '.join(missing)} not kept in these codes, and the comparison needs u and h; "
            'capture again with keep=("u", "h") or --keep u,h'
        )
        raise PolytopeError(msg)


def _clock(timings: dict[str, float], layer: int) -> Callable[[str, float], None]:
    def add(step: str, seconds: float) -> None:
        key = f"layer {layer}: {step}"
        timings[key] = timings.get(key, 0.0) + seconds

    return add


def _versions() -> dict[str, str]:
    packages = ("polytope-lm", "numpy", "scipy", "numba", "kmedoids")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _command(layers: tuple[int, ...], settings: Settings, extra: Sequence[str] | str) -> str:
    more = f", extra={(extra if isinstance(extra, str) else tuple(extra))!r}" if extra else ""
    return (
        f"plm.predictions.clusters(codes, layer={list(layers)}, label={settings.label!r}, k={settings.k}, "
        f"tokens={settings.max_tokens}, seed={settings.seed}, resamples={settings.resamples}, "
        f"smallest_effect={settings.smallest_effect}{more})"
    )
