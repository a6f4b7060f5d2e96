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

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.browsing import add_layer, tokens_table
from polytope_lm.predictions.clusters.layers import (
    BUILT_IN,
    MAKERS,
    NULLS,
    SHOWN,
    Controls,
    LayerScores,
    Menu,
    beside_code,
    row_name,
)
from polytope_lm.predictions.clusters.result import ClustersResult, LayerComparison, Settings
from polytope_lm.predictions.clusters.sampling import check_neighbours, choose, layers_of
from polytope_lm.predictions.clusters.scoring import NEIGHBOURS, compare, decided, make_task, with_holm
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.registry import get, registered
from polytope_lm.result import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.loading import Model
    from polytope_lm.models.sites import Site


def chosen_menu(
    codes: TokenCodes,
    rows: Int[np.ndarray, " n"],
    layers: Sequence[int],
    extra: Sequence[str] | str,
    weights: Sequence[str] | str | None,
    model: Model | None,
    seed: int,
) -> Menu:
    """Return what to measure; with `extra="all"`, what cannot be had is left out with its reason.

    Args:
        codes: the real model's.
        rows: the compared tokens.
        layers: the compared layers.
        extra: names, or `all`.
        weights: names of controls of the weights; None: all with `extra="all"`, else none.
        model: the real model.
        seed: the user's.

    Raises:
        PolytopeError: an unknown name; controls of the weights asked for by name, and no model.

    """
    everything = extra == "all"
    if everything:
        extra = [*(each.name for each in registered()), *NULLS]
    names = dict.fromkeys((*BUILT_IN, *([extra] if isinstance(extra, str) else extra)))
    representations = tuple(get(name) for name in names if name not in NULLS)
    nulls = tuple(name for name in NULLS if name in names)
    if weights is None:
        asked = tuple(MAKERS) if everything else ()
    else:
        asked = (weights,) if isinstance(weights, str) else tuple(weights)
    try:
        return Menu(representations, nulls, Controls(codes, rows, layers, asked, model, seed), {})
    except PolytopeError as error:
        if weights is not None:
            raise
        unavailable = {row_name(name, control): str(error) for control in asked for name in SHOWN}
        return Menu(representations, nulls, Controls(codes, rows, layers, (), None, seed), unavailable)


def joined(results: Sequence[ClustersResult], command: str = "") -> ClustersResult:
    """Return the layers of several comparisons as one comparison, corrected over all of its layers.

    Holm's correction starts anew from each layer's own p, so that it does not matter how the layers were
    divided. The tokens' table is left behind.

    Args:
        results: comparisons of other layers, the same tokens and settings.
        command: what reproduces the whole; by default the first one's.

    Raises:
        PolytopeError: none, other settings or tokens, or a layer twice.

    """
    if not results:
        raise PolytopeError("no results to join; give at least one")
    first = results[0]
    for other in results[1:]:
        if (other.settings, other.sample) != (first.settings, first.sample):
            msg = (
                f"layer {other.layers[0].layer} was compared with other settings or tokens than layer "
                f"{first.layers[0].layer}; run both alike"
            )
            raise PolytopeError(msg)
    layers = sorted((layer for result in results for layer in result.layers), key=lambda each: each.layer)
    for a, b in pairwise(layers):
        if a.layer == b.layer:
            raise PolytopeError(f"layer {a.layer} is there twice; leave one result out")
    documents, effect = first.sample.documents, first.settings.smallest_effect
    alone = [
        replace(each, verdict=decided(each.site, each.differences, documents, effect)) for each in layers
    ]
    return replace(
        first,
        layers=with_holm(alone),
        command=command or first.command,
        tokens=None,
        timings={step: seconds for result in results for step, seconds in result.timings.items()},
    )


__all__ = ["BUILT_IN", "clusters", "clusters_by_label"]


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
    weights: Sequence[str] | str | None = None,
    model: Model | None = None,
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
        extra: registered representations to show beside the built-in ones, `token identity` and `code,
            labels permuted in word and document`, or `all`; never part of the verdict. One that this layer
            can not give is left out, and `LayerComparison.left_out` says why.
        weights: `permuted`, `untrained` or both: the same model with other weights, read at the same tokens,
            its code, cosines and SimHash shown as controls and the real code's lead over theirs; never part
            of the verdict. By default both with `extra="all"`, if the model is at hand, else none.
        model: the real model, for `weights`; by default the one that the codes still know.
        progress: told `(done, total, what)` before each row of each layer.

    Raises:
        PolytopeError: the label is absent, has one value or says which word it is, too few documents to
            resample or tokens with strict neighbours, k not below the number of tokens, `u` or `h` not
            kept, NaN in the activations, an unknown representation, `weights` without a model.

    """
    return clusters_by_label(
        codes,
        layer,
        (label,),
        k=k,
        tokens=tokens,
        seed=seed,
        resamples=resamples,
        smallest_effect=smallest_effect,
        extra=extra,
        weights=weights,
        model=model,
        progress=progress,
    )[label]


def clusters_by_label(  # noqa: PLR0913 -- those of `clusters`
    codes: TokenCodes,
    layer: int | Sequence[int] | None,
    labels: Sequence[str],
    *,
    k: int | None = None,
    tokens: int = 6000,
    seed: int = 0,
    resamples: int = 200,
    smallest_effect: float = 0.01,
    extra: Sequence[str] | str = (),
    weights: Sequence[str] | str | None = None,
    model: Model | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, ClustersResult]:
    """Put prediction 1 to the test with several labels of the same tokens, at little more than one's cost.

    The tokens are those that have all of the labels; each label's result is `clusters`' own on these.

    Args:
        codes: as for `clusters`, and so all that follow.
        layer: which layers.
        labels: the labels, each a result.
        k: clusters.
        tokens: at most so many.
        seed: of every random choice.
        resamples: halves of the documents.
        smallest_effect: the smallest difference of interest.
        extra: what else to show.
        weights: models with other weights to show.
        model: the real model.
        progress: told the steps.

    Raises:
        PolytopeError: as `clusters` does; or no label.

    """
    layers = layers_of(codes, layer)
    _check_kept(codes)
    runs = [
        _LabelRun(codes, label, labels, (k, tokens, seed, resamples, smallest_effect))
        for label in dict.fromkeys(labels)
    ]
    if not runs:
        raise PolytopeError("no label to score clusters against; name at least one")
    rows = runs[0].task.sample.rows
    menu = chosen_menu(codes, rows, layers, extra, weights, model, seed)
    timings: dict[str, float] = {}
    for number, index in enumerate(layers):
        arrays = LayerArrays(codes, index, rows)
        tell = _teller(progress, number, index, len(layers), menu.steps)
        scores = LayerScores({run.label: run.task for run in runs}, _clock(timings, index), tell)
        scores.run(menu, arrays)
        for run in runs:
            run.add(arrays.site, scores)
    asked = f"{_asked('extra', extra)}{'' if weights is None else _asked('weights', weights, always=True)}"
    return {run.label: run.result(dict(codes.provenance), layers, asked, timings) for run in runs}


class _LabelRun:
    """One label's comparison while its layers come in."""

    def __init__(
        self,
        codes: TokenCodes,
        label: str,
        labels: Sequence[str],
        options: tuple[int | None, int, int, int, float],
    ) -> None:
        k, tokens, seed, resamples, self.effect = options
        sample = choose(codes, label, tokens=tokens, seed=seed, also=labels)
        self.label, self.task = label, make_task(sample, k, seed, resamples)
        check_neighbours(codes, sample, label, NEIGHBOURS)
        self.table = tokens_table(codes, sample)
        self.layers: list[LayerComparison] = []
        self.settings = Settings(
            label, self.task.k, NEIGHBOURS, tokens, seed, resamples, self.effect, sample.form, sample.lemma
        )

    def add(self, site: Site, scores: LayerScores) -> None:
        """Compare what one layer gave."""
        measured, documents = scores.measured[self.label], self.task.sample.summary.documents
        found = compare(site, self.task.k, measured, documents, self.effect, beside_code(measured))
        self.layers.append(replace(found, left_out=scores.left_out[self.label]))
        self.table = add_layer(self.table, found, measured)

    def result(
        self, provenance: dict[str, Any], layers: tuple[int, ...], asked: str, timings: dict[str, float]
    ) -> ClustersResult:
        """Return the whole comparison, corrected over its layers."""
        return ClustersResult(
            settings=self.settings,
            sample=self.task.sample.summary,
            layers=with_holm(self.layers),
            provenance=provenance,
            versions=versions("numpy", "scipy", "numba", "kmedoids"),
            command=_command(layers, self.settings, asked),
            tokens=self.table,
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


def _asked(name: str, value: Sequence[str] | str, *, always: bool = False) -> str:
    """Return an argument as Python writes it, nothing for an empty one."""
    return f", {name}={(value if isinstance(value, str) else tuple(value))!r}" if value or always else ""


def _command(layers: tuple[int, ...], settings: Settings, asked: str) -> str:
    return (
        f"plm.predictions.clusters(codes, layer={list(layers)}, label={settings.label!r}, k={settings.k}, "
        f"tokens={settings.max_tokens}, seed={settings.seed}, resamples={settings.resamples}, "
        f"smallest_effect={settings.smallest_effect}{asked})"
    )
