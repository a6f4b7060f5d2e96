"""Prediction 1: regions of activation space named by the code are monosemantic where directions are not.

Claim. Tokens that lie in nearby polytopes of an MLP mean alike: cluster tokens by the Hamming distance of
their codes `z = 1[h > 0]`, and the clusters agree with a gold label better than clusters of directions do
(Black et al., "Interpreting Neural Networks through the Polytope Lens", 2022).

Comparators. The cosine of the *same* pre-activations `h` that were binarised, raw and centred, each on its own.

Control. Rate-matched SimHash: random hyperplanes on the same `u`, each firing as often as the real neuron.
Only a lead over these is due to where training put the hyperplanes; without it a code is a noisy cosine.

Scores. AMI of k-medoids clusters with the label, and the share of strict nearest neighbours (another lemma,
form, token and document) with the same label, each less its mean over 20 (100) exchanges of labels between
documents of similar size: a score counts from its own null. AMI with token identity is shown beside them:
lexical clusters are not semantic ones.

Sample. At most 20 tokens of a document, so that few documents do not carry the sample; Kish's effective number
of documents gives the degrees of freedom of every interval.

Verdict. One of six outcomes (see `statistics.verdict`): *supported* where the code is ahead by more than the
smallest effect of interest in both scores against all three references; *behind*, *no lead*, *mixed*;
*inconclusive*, with the n that would settle it; *not testable* where no representation sees the label. For AMI
tokens are clustered anew in each half of the documents, neighbour agreement takes its variance from sums over
documents. One label, one k, one clusterer, chosen before the run. Where the seed could turn a verdict, its layer is
measured again with other random choices (see `clusters.rounds`).

Beside it, verdicts of their own: the code against the neuron lens (top neuron), the direction lens as the paper
drew it (NMF and k-means directions) and the cosine of `post`; joined codes through to the output; in gated
MLPs the two-bit code against the cosine of `(g, up)`. Everything else that is shown is not a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.browsing import add_layer, tokens_table
from polytope_lm.predictions.clusters.layers import (
    MAKERS,
    NULLS,
    SHOWN,
    Controls,
    LayerScores,
    Menu,
    Row,
    beside_code,
    comparators_of,
    not_kept,
    row_name,
    rows_of,
)
from polytope_lm.predictions.clusters.result import ClustersResult, LayerComparison, Settings
from polytope_lm.predictions.clusters.rounds import SPREAD, halves_again, most_rounds, unsteady
from polytope_lm.predictions.clusters.sampling import PER_DOCUMENT, check_neighbours, choose, layers_of
from polytope_lm.predictions.clusters.scoring import BUILT_IN, HALVES, NEIGHBOURS, About, at, compare, make_task
from polytope_lm.predictions.layered import with_holm
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.registry import get, registered
from polytope_lm.result import reproducible, versions
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.clusters.scoring import Measured, Task
    from polytope_lm.representations.registry import Representation
    from polytope_lm.statistics.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user chose, apart from codes, layers and labels: the arguments of `clusters`."""

    k: int | None = None
    tokens: int = 6000
    per_document: int | None = PER_DOCUMENT
    seed: int = 0
    resamples: int = HALVES
    smallest_effect: float = 0.01
    comparators: bool = True
    extra: Sequence[str] | str = ()
    weights: Sequence[str] | str | None = None
    model: Model | None = None
    engine: str = "here"
    rounds: int | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown engine, and to measure never."""
        if self.engine not in {"here", "ray"}:
            raise PolytopeError(f"engine {brief(self.engine)}: here or ray")
        if self.rounds is not None and self.rounds < 1:
            raise PolytopeError(f"rounds = {self.rounds} measures nothing; give 1 or more, or None for the default")

    def further(self, site: Site) -> Mapping[str, Sequence[Sequence[str]]]:
        """Return the claims and groups of references that get verdicts of their own at a site."""
        return comparators_of(site) if self.comparators else {}

    def representation(self, name: str) -> Representation:
        """Return the representation of that name."""
        return get(name)

    def menu(self, codes: TokenCodes, rows: Int[np.ndarray, " n"], layers: Sequence[int]) -> Menu:
        """Return what to measure; with `extra="all"`, what cannot be had is left out with its reason."""
        everything = self.extra == "all"
        extra = [*(each.name for each in registered()), *NULLS] if everything else _names(self.extra)
        sites = [codes.site(layer) for layer in layers]
        further = [
            (claim, group) for site in sites for claim, several in self.further(site).items() for group in several
        ]
        built = dict.fromkeys(name for site in sites for name in at(site, BUILT_IN))
        beside = dict.fromkeys(name for claim, group in further for name in (claim, *group) if name not in built)
        unavailable = not_kept(codes, [self.representation(name) for name in beside])
        names = dict.fromkeys((*built, *(name for name in beside if name not in unavailable), *extra))
        representations = tuple(self.representation(name) for name in names if name not in NULLS)
        nulls = tuple(name for name in NULLS if name in names)
        asked = (tuple(MAKERS) if everything else ()) if self.weights is None else _names(self.weights)
        made = Controls(codes, rows, layers, (), None, self.seed)
        try:
            made = Controls(codes, rows, layers, asked, self.model, self.seed)
        except PolytopeError as error:
            if self.weights is not None:
                raise
            unavailable |= {row_name(name, control): str(error) for control in asked for name in SHOWN}
        return Menu(representations, nulls, made, {n: why for n, why in unavailable.items() if n not in names})


def _names(value: Sequence[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@reproducible("plm.predictions.joined")
def joined(results: Sequence[ClustersResult]) -> ClustersResult:
    """Return the layers of several comparisons as one comparison, corrected over all of its layers.

    Holm's correction starts anew from each layer's own p, so that it does not matter how the layers were
    divided; but no layer is measured again here that another seed could turn only among all of them. The tokens'
    table is left behind.

    Args:
        results: comparisons of other layers, the same tokens and settings.

    Raises:
        PolytopeError: none, other settings or tokens, or a layer twice.

    """
    if not results:
        raise PolytopeError("no results to join; give at least one")
    first = results[0]
    for other in results[1:]:
        if (other.settings, other.sample) != (first.settings, first.sample):
            raise PolytopeError(
                f"layer {other.layers[0].layer} was compared with other settings or tokens than layer "
                f"{first.layers[0].layer}; run both alike"
            )
    layers = sorted((layer for result in results for layer in result.layers), key=lambda each: each.layer)
    for a, b in pairwise(layers):
        if a.layer == b.layer:
            raise PolytopeError(f"layer {a.layer} is there twice; leave one result out")
    return replace(
        first,
        layers=with_holm(layers),
        tokens=None,
        timings={step: seconds for result in results for step, seconds in result.timings.items()},
    )


__all__ = ["BUILT_IN", "clusters", "clusters_by_label"]


@reproducible("plm.predictions.clusters")
@asked
def clusters(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    layer: int | Sequence[int] | None = None,
    label: str = "upos",
    *,
    k: int | None = None,
    tokens: int = 6000,
    per_document: int | None = PER_DOCUMENT,
    seed: int = 0,
    resamples: int = HALVES,
    smallest_effect: float = 0.01,
    comparators: bool = True,
    extra: Sequence[str] | str = (),
    weights: Sequence[str] | str | None = None,
    model: Model | None = None,
    engine: str = "here",
    rounds: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> ClustersResult:
    """Put prediction 1 to the test on some codes.

    Args:
        codes: codes in memory or a store, captured with `keep=("u", "h")`; a store that still has its model
            at hand runs it again for what was not kept.
        layer: one layer, several, or all (None).
        label: the label that clusters are scored against.
        k: clusters; by default 100, or n/60 below 6,000 tokens.
        tokens: compare at most this many, sampled by seed. Memory grows with its square (0.3 GB at 6,000) up to 20,000;
            beyond, clusters come from distances to a batch (OneBatchPAM), and neighbours are sought for 20,000 tokens.
        per_document: at most this many of one document, sampled by seed; None: all.
        seed: of every random choice.
        resamples: halves of the documents behind each interval; clusters are found anew in each.
        smallest_effect: the smallest difference of interest, the same for both scores.
        comparators: whether the paper's own comparators are measured, and joined and two-bit codes, with verdicts of
            their own; some need `post` or `up`, kept at capture. Without them a run takes about half as long.
        extra: registered representations to show beside the built-in ones, `token identity` and `code,
            labels permuted in word and document`, or `all`; never part of the verdict. One that this layer
            can not give is left out, and `LayerComparison.left_out` says why.
        weights: `permuted`, `untrained` or both: the same model with other weights, read at the same tokens,
            its code, cosines and SimHash shown as controls and the real code's lead over theirs; never part
            of the verdict. By default both with `extra="all"`, if the model is at hand, else none.
        model: the real model, for `weights`; by default the one that the codes still know.
        engine: `ray` measures the layers as tasks of a Ray session, each on one processor; the numbers are the same.
            Of several labels, what they share is found once a layer, and each label is a task more.
        rounds: a layer whose verdict other random choices could turn is measured again with these, so many times in all
            at most; by default 16 up to 3,000 tokens, 4 at 6,000. With 1 the verdict only says so.
        progress: told `(done, total, what)` before each row of each layer.

    Raises:
        PolytopeError: the label is absent, has one value or says which word it is, fewer than eight effective
            documents, too few tokens with strict neighbours, k not below the number of tokens, `u` or `h` not
            kept, NaN in the activations, an unknown representation, `weights` without a model.

    """
    choices = Choices(
        k=k, tokens=tokens, per_document=per_document, seed=seed, resamples=resamples,
        smallest_effect=smallest_effect, comparators=comparators, extra=extra, weights=weights, model=model,
        engine=engine, rounds=rounds,
    )  # fmt: skip
    return compared(codes, layer, (label,), choices, progress)[label]


@reproducible("plm.predictions.clusters_by_label")
def clusters_by_label(
    codes: TokenCodes,
    layer: int | Sequence[int] | None,
    labels: Sequence[str],
    *,
    progress: Callable[[int, int, str], None] | None = None,
    **choices: Any,
) -> dict[str, ClustersResult]:
    """Put prediction 1 to the test with several labels of the same tokens, at little more than one's cost.

    The tokens are those that have all of the labels; each label's result is `clusters`' own on these. A label that
    can't be compared on them (with one value left, say) is left out, and the others' `left_out` says why.

    Args:
        codes: as for `clusters`.
        layer: as for `clusters`.
        labels: the labels, each a result.
        progress: as for `clusters`.
        **choices: the other arguments of `clusters`.

    Raises:
        PolytopeError: as `clusters` does, for every one of the labels; or no label.

    """
    return compared(codes, layer, labels, Choices(**choices), progress)


def compared(
    codes: TokenCodes,
    layer: int | Sequence[int] | None,
    labels: Sequence[str],
    choices: Choices,
    progress: Callable[[int, int, str], None] | None,
) -> dict[str, ClustersResult]:
    """Return each label's comparison; representations, clusters and neighbours are found once for all."""
    layers = layers_of(codes, layer)
    missing = [name for name in ("u", "h") if not codes.can_give(name)]
    if missing:
        raise PolytopeError(
            f"{' and '.join(missing)} not kept in these codes, and the comparison needs u and h; "
            'capture again with keep=("u", "h") or --keep u,h'
        )
    runs, refused = [], {}
    for label in dict.fromkeys(labels):
        try:
            runs.append(_LabelRun(codes, label, labels, choices))
        except PolytopeError as error:
            refused[f"label {label!r}"] = error
    if not runs:
        raise next(iter(refused.values()), PolytopeError("no label to score clusters against; name at least one"))
    rows = runs[0].sample.rows
    menu = choices.menu(codes, rows, layers)
    menu = replace(menu, unavailable={**menu.unavailable, **{name: str(error) for name, error in refused.items()}})
    measure = _Measure(codes, {run.label: run.task for run in runs}, rows, menu, choices.engine)
    told = _Told(progress, len(layers) * menu.steps)
    timings: dict[str, float] = {}
    for found in measure.all(layers, told):
        timings |= found.timings
        for run in runs:
            run.add(found)
    read = replace(choices, comparators=False, extra=(), weights=()).menu(codes, rows, layers)
    for seconds in until_steady(replace(measure, menu=read), runs, told):
        timings = _summed([timings, seconds])
    return {run.label: run.result(dict(codes.provenance), timings) for run in runs}


def measured_again(
    codes: TokenCodes, results: Mapping[str, ClustersResult], layer: int, labels: Sequence[str], number: int
) -> dict[str, Verdict]:
    """Return what another measurement of a layer says by itself, for layers that are measured apart.

    Args:
        codes: those that were compared.
        results: what `clusters_by_label` found, of all its labels.
        layer: the layer.
        labels: the labels that are asked for.
        number: of the measurement, from 1; others have other random choices.

    """
    s = results[labels[0]].settings
    choices = Choices(
        k=s.k, tokens=s.max_tokens, per_document=s.per_document, seed=s.seed, resamples=s.resamples,
        smallest_effect=s.smallest_effect, comparators=False, weights=(),
    )  # fmt: skip
    runs = {label: _LabelRun(codes, label, tuple(results), choices) for label in labels}
    rows = runs[labels[0]].sample.rows
    tasks = {label: run.task_of(number) for label, run in runs.items()}
    found = _Measure(codes, tasks, rows, choices.menu(codes, rows, (layer,)), choices.engine)(layer)
    return {label: run.once_more(found, tasks[label]) for label, run in runs.items()}


def until_steady(measure: _Measure, runs: Sequence[_LabelRun], told: _Told) -> Iterator[Mapping[str, float]]:
    """Measure layers again while another seed could turn one of their verdicts; yield each measurement's seconds."""
    while turning := [(number, layer, run) for run in runs for layer, number in run.unsteady().items()]:
        least = min(number for number, _, _ in turning)
        wanted: dict[int, list[_LabelRun]] = {}
        for number, layer, run in turning:
            if number == least:
                wanted.setdefault(layer, []).append(run)
        told.more(len(wanted) * measure.menu.steps)
        asking = dict.fromkeys(run for number, _, run in turning if number == least)
        tasks = {run.label: run.task_of(least) for run in asking}
        asked_for = {layer: [run.label for run in there] for layer, there in wanted.items()}
        for found in replace(measure, tasks=tasks, labels=asked_for).all(tuple(wanted), told):
            for run in wanted[found.site.layer]:
                run.again(found, tasks[run.label])
            yield found.timings


class _Told:
    """Tells `progress` the steps of all layers, of which more may come."""

    def __init__(self, progress: Callable[[int, int, str], None] | None, total: int) -> None:
        self._progress, self._total, self.done = progress, total, 0

    def more(self, steps: int) -> None:
        """Say that so many steps come besides."""
        self._total += steps

    def __call__(self, step: int, what: str) -> None:
        """Tell a step, counted from those that are done."""
        if self._progress is not None:
            self._progress(self.done + step, self._total, what)


@dataclass(frozen=True)
class _Measurement:
    """What one layer gave, label by label."""

    site: Site
    measured: Mapping[str, Mapping[str, Measured]]
    left_out: Mapping[str, Mapping[str, str]]
    timings: Mapping[str, float]


@dataclass(frozen=True)
class _Measure:
    """Measures layers, in this process or in others.

    `labels` are those that a layer is measured again for; None: it is the first time, and all labels ask.
    """

    codes: TokenCodes
    tasks: Mapping[str, Task]
    rows: Int[np.ndarray, " n"]
    menu: Menu
    engine: str
    labels: Mapping[int, Sequence[str]] | None = None

    def all(self, layers: Sequence[int], told: _Told) -> Iterator[_Measurement]:
        """Measure some layers, one by one."""
        if self.engine == "here":
            measured: Iterable[_Measurement] = (self(layer, told) for layer in layers)
        else:
            from polytope_lm.codes.distributed import each, each_of_each  # noqa: PLC0415 - an extra's

            measured = (
                each(self, layers)
                if len(self.tasks) == 1 or self.labels is not None  # nothing to share, or not by all
                else map(_together, each_of_each(self.laid_out, self.scored, layers, list(self.tasks)))
            )
        for layer, found in zip(layers, measured, strict=True):
            told.done += self.menu.steps
            if self.engine == "ray":
                told(0, f"layer {layer}")
            yield found

    def __call__(self, layer: int, told: _Told | None = None) -> _Measurement:
        timings: dict[str, float] = {}
        tasks = self.tasks if self.labels is None else {label: self.tasks[label] for label in self.labels[layer]}
        return self._scored(self._rows(layer, timings, told), layer, tasks, timings)

    def laid_out(self, layer: int) -> _LaidOut:
        """Do the part of a layer that is the same for every label."""
        timings: dict[str, float] = {}
        return _LaidOut(layer, tuple(self._rows(layer, timings, None)), timings)

    def scored(self, found: _LaidOut, label: str) -> _Measurement:
        """Do one label's part of a layer."""
        timings: dict[str, float] = {}
        first = label == next(iter(self.tasks))  # the common part's seconds count once
        one = self._scored(found.rows, found.layer, {label: self.tasks[label]}, timings)
        return replace(one, timings=_summed([found.timings, timings])) if first else one

    def _rows(self, layer: int, timings: dict[str, float], told: _Told | None) -> Iterable[Row]:
        def tell(step: int, name: str) -> None:
            if told is not None:
                told(step, f"layer {layer}: {name}{'' if self.labels is None else ', again'}")

        any_task = next(iter(self.tasks.values()))
        return rows_of(self.menu, LayerArrays(self.codes, layer, self.rows), any_task, _clock(timings, layer), tell)

    def _scored(
        self, rows: Iterable[Row], layer: int, tasks: Mapping[str, Task], timings: dict[str, float]
    ) -> _Measurement:
        scores = LayerScores(tasks, _clock(timings, layer))
        scores.run(rows, self.menu.unavailable)
        return _Measurement(self.codes.site(layer), scores.measured, scores.left_out, timings)


@dataclass(frozen=True)
class _LaidOut:
    """One layer's rows before any label, and the seconds that they took."""

    layer: int
    rows: Sequence[Row]
    timings: Mapping[str, float]


def _together(parts: Sequence[_Measurement]) -> _Measurement:
    """Return one layer's labels as one measurement."""
    measured = {label: rows for part in parts for label, rows in part.measured.items()}
    left_out = {label: rows for part in parts for label, rows in part.left_out.items()}
    return _Measurement(parts[0].site, measured, left_out, _summed(part.timings for part in parts))


def _summed(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for timings in several:
        for step, seconds in timings.items():
            out[step] = out.get(step, 0.0) + seconds
    return out


class _LabelRun:
    """One label's comparison while its layers come in."""

    def __init__(self, codes: TokenCodes, label: str, labels: Sequence[str], choices: Choices) -> None:
        sample = choose(
            codes, label, tokens=choices.tokens, seed=choices.seed, also=labels, per_document=choices.per_document
        )
        self.label, self.choices, self.sample = label, choices, sample
        self.task = make_task(sample, choices.k, choices.seed, choices.resamples)
        check_neighbours(codes, sample, label, NEIGHBOURS)
        self.table = tokens_table(codes, sample)
        self.layers: list[LayerComparison] = []
        most = most_rounds(sample.summary.tokens) if choices.rounds is None else choices.rounds
        self.settings = Settings(
            label, self.task.k, NEIGHBOURS, choices.tokens, choices.seed, choices.resamples, choices.smallest_effect,
            sample.form, sample.lemma, choices.per_document, most,
        )  # fmt: skip
        self._about = About(
            sample.summary.documents, self.task.effective, choices.smallest_effect,
            str(codes.provenance.get("weights") or ""), 1,
        )  # fmt: skip

    def task_of(self, number: int) -> Task:
        """Return what all representations share in a further measurement, with random choices of its own."""
        seed = derived(self.choices.seed, Purpose.ROUNDS, number)
        return make_task(self.sample, self.choices.k, seed, halves_again(self.choices.resamples))

    def add(self, layer: _Measurement) -> None:
        """Compare what one layer gave."""
        site, measured = layer.site, layer.measured[self.label]
        further, left_out = self.choices.further(site), layer.left_out[self.label]
        found = compare(site, self.task, measured, self._about, beside_code(measured), further, left_out)
        self.layers.append(found)
        self.table = add_layer(self.table, found, measured)

    def once_more(self, layer: _Measurement, task: Task) -> Verdict:
        """Return the verdict of another measurement of a layer, alone."""
        return compare(layer.site, task, layer.measured[self.label], self._about).verdict

    def again(self, layer: _Measurement, task: Task) -> None:
        """Add another measurement of a layer."""
        verdict = self.once_more(layer, task)
        self.layers = [
            replace(each, verdict=each.verdict.beside(verdict, SPREAD)) if each.layer == layer.site.layer else each
            for each in self.layers
        ]

    def unsteady(self) -> dict[int, int]:
        """Return the layers that are to be measured again, and the number of that measurement."""
        return unsteady(with_holm(self.layers), self.settings.rounds)

    def result(self, provenance: dict[str, Any], timings: dict[str, float]) -> ClustersResult:
        """Return the whole comparison, corrected over its layers."""
        return ClustersResult(
            settings=self.settings,
            sample=self.sample.summary,
            layers=with_holm(self.layers),
            provenance=provenance,
            versions=versions("numpy", "scipy", "numba", "kmedoids"),
            command="",
            tokens=self.table,
            timings=timings,
        )


def _clock(timings: dict[str, float], layer: int) -> Callable[[str, float], None]:
    def add(step: str, seconds: float) -> None:
        key = f"layer {layer}: {step}"
        timings[key] = timings.get(key, 0.0) + seconds

    return add
