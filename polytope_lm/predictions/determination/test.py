"""What a code determines: how much of an MLP's work is left when its input is known by the code alone.

Claim. The code's bits carry more of what an MLP does than as many bits spent otherwise.

Arms. At one layer, and at all layers at once, `post` (or the MLP's output) is replaced at every position but the first
by what only a part of its input tells: see `arms`. Means, slopes, read-outs, clusters and donors come from other
documents.

Score. Loss recovered, `1 - (CE - clean)/(mean-ablated - clean)`, mean-ablated: the written MLPs' outputs set to their
mean over the other documents. Where that costs less than .02 nats the difference is shown and no ratio. Beside it KL
from the clean next-token distribution, in nats. Without logits the loss is `1 - cosine` of the final state with the
clean one.

Verdict. Bits read out by ridge regression: the code's against the signs of `u`, rate-matched SimHash (mean of its
draws) and the index of k-means, each on its own; Holm over layers.

Intervals. Percentile bootstrap over documents: ratios of sums over documents, the same resamples for every arm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.reread import at_hand, windowing
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import join
from polytope_lm.paths.resume import resumable
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.sampling import layers_of, repeated_documents
from polytope_lm.predictions.determination.arms import CODE, MEAN, READ_OUT, REFERENCES, Arm, arms
from polytope_lm.predictions.determination.fitting import Fit, fit, pool_of
from polytope_lm.predictions.determination.losses import Plan, over
from polytope_lm.predictions.determination.result import (
    LEAST,
    RECOVERED,
    ArmScore,
    DeterminationResult,
    DeterminationSettings,
    LayerDetermination,
)
from polytope_lm.result import digest, reproducible, versions
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.estimate import Resampled, resampled
from polytope_lm.statistics.verdict import Cell, decide, over_layers

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site

LEAST_DOCUMENTS = 8
LEAST_TOKENS = 8
"""Of a document that is tested: of fewer there is little to lose."""


@dataclass(frozen=True, eq=False)
class _Texts:
    """The windows that are tested, one a document, and those that are fitted on."""

    tested: Sequence[Int64[np.ndarray, " _"]]
    fitted: Sequence[Int64[np.ndarray, " _"]]
    fitted_documents: Sequence[int]
    ids: Sequence[str]


@reproducible("plm.predictions.determination")
@asked
def determination(  # noqa: PLR0913 - options of a test
    codes: TokenCodes,
    layer: int | Sequence[int] | None = None,
    *,
    model: Model | None = None,
    documents: int = 40,
    max_tokens: int = 128,
    fit_tokens: int = 8000,
    neurons: int = 100,
    draws: int = 3,
    together: bool = True,
    seed: int = 0,
    resamples: int = 1000,
    smallest_effect: float = 0.01,
    to: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> DeterminationResult:
    """Ask how much of an MLP's work is left when only a part of its input is kept.

    Args:
        codes: codes in memory or a store; their documents are read again, cut to `max_tokens`.
        layer: one layer, several, or all of the codes (None).
        model: what captured a store, where it is not at hand.
        documents: tested ones, drawn by seed; at most half of all.
        max_tokens: the longest stretch of a document, special tokens included.
        fit_tokens: of the other documents, at most.
        neurons: how many count as causal.
        draws: of the random controls.
        together: also all of the model's layers at once.
        seed: of every random choice.
        resamples: bootstrap resamples of documents.
        smallest_effect: the smallest difference of loss recovered of interest.
        to: a directory that keeps each place's documents as they are done; a run that was stopped goes on there.
        progress: told `(done, total, what)`.

    Raises:
        PolytopeError: fewer than 8 documents of at least 8 tokens, a layer that is not in the codes, no model at hand,
            another model; an activation that does not give the model's own `post`.

    Examples:
        >>> import polytope_lm as plm
        >>> codes = plm.encode(plm.load("tiny-gpt2"), list(plm.documents("sample"))[:12], layers=[1])
        >>> found = plm.predictions.determination(
        ...     codes, max_tokens=24, fit_tokens=300, draws=2, resamples=20, together=False
        ... )
        >>> kept, gone = (found.layers[0].score(*arm) for arm in (("affine per cell", "tangent"), ("mean-ablated",)))
        >>> kept.kl.value < gone.kl.value
        True

    """
    if draws < 1:
        raise PolytopeError(f"draws = {draws}: give 1 or more of each random control")
    loaded = at_hand(codes, model)
    chosen = layers_of(codes, layer)
    texts = _texts(codes, loaded, documents=documents, max_tokens=max_tokens, fit_tokens=fit_tokens, seed=seed)
    places = [(index,) for index in chosen] + ([tuple(range(loaded.n_layers))] if together else [])
    settings = DeterminationSettings(
        documents=len(texts.tested), tokens=sum(map(len, texts.tested)),
        fitting_documents=len(set(texts.fitted_documents)), fitting_tokens=sum(len(w) - 1 for w in texts.fitted),
        max_tokens=max_tokens, neurons=neurons, draws=draws,
        measure="next token" if loaded.has_logits else "final state", seed=seed, resamples=resamples,
        smallest_effect=smallest_effect,
    )  # fmt: skip
    job = _Job(loaded, texts, settings, places, None if to is None else Path(to), progress)
    weights = resampled(np.arange(len(texts.tested)), resamples, seed=derived(seed, Purpose.DETERMINATION_RESAMPLES))
    picks = np.random.default_rng(derived(seed, Purpose.DETERMINATION_RESAMPLES, 1)).random(resamples)
    found = []
    for number, place in enumerate(places):
        site, wanted = join([loaded.site(index) for index in place]), job.arms(place)
        entries = job.measure(number, wanted)
        found.append(_scored(site, wanted, entries, weights, picks, smallest_effect, loaded.has_logits))
    found = _corrected(found)
    return DeterminationResult(
        settings=settings,
        layers=tuple(found[: len(chosen)]),
        together=found[-1] if together else None,
        provenance=dict(codes.provenance),
        versions=versions("numpy", "scipy", "torch", "transformers", "scikit-learn", "kmedoids"),
        command="",
    )


@dataclass(frozen=True, eq=False)
class _Job:
    """The arms over the tested documents, at each place; finished documents are kept in a directory."""

    model: Model
    texts: _Texts
    settings: DeterminationSettings
    places: Sequence[tuple[int, ...]]
    to: Path | None
    progress: Callable[[int, int, str], None] | None
    fits: dict[int, Fit] = field(default_factory=dict)

    def arms(self, place: Sequence[int]) -> tuple[Arm, ...]:
        """Return the arms that there are at a place."""
        gated = all("up" in self.model.block(layer).pre for layer in place)
        return arms(gated=gated, draws=self.settings.draws, neurons=self.settings.neurons)

    def measure(self, number: int, wanted: tuple[Arm, ...]) -> list[dict[str, Any]]:
        """Measure all documents at one place, or go on where an earlier run stopped."""
        place, tested, s = self.places[number], self.texts.tested, self.settings
        what = f"layer {place[0]}" if len(place) == 1 else f"all {len(place)} layers"

        def told(done: int, doing: str = "") -> None:
            if self.progress is not None:
                before, total = number * len(tested), len(self.places) * len(tested)
                self.progress(before + done, total, f"{what}: {doing}" if doing else what)

        def work(left: Sequence[int]) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
            if not left:
                return iter(())
            self._fit(place, partial(told, len(tested) - len(left)))
            fits = {layer: self.fits[layer] for layer in place}
            return over(Plan(self.model, place, wanted, fits, s.neurons, s.draws, s.seed), tested, left)

        file = "all" if len(place) > 1 else f"layer-{place[0]:02d}"
        to = None if self.to is None else self.to / f"{file}.jsonl"
        entries = resumable({**self._head, "layers": list(place)}, work, to=to, workers=1, told=told)
        if all(len(other) == 1 for other in self.places):  # else all layers will need it again
            self.fits.clear()
        return entries

    def _fit(self, place: Sequence[int], told: Callable[[str], None]) -> None:
        """Fit the layers that are not fitted yet, from one pass over the fitting windows."""
        missing = [layer for layer in place if layer not in self.fits]
        if missing:
            told(f"reading {len(self.texts.fitted)} stretches to fit on")
            pool = pool_of(self.model, self.texts.fitted, self.texts.fitted_documents, missing)
            for layer in missing:
                told(f"fitting layer {layer}")
                self.fits[layer] = fit(self.model, layer, pool, draws=self.settings.draws, seed=self.settings.seed)

    @property
    def _head(self) -> dict[str, Any]:
        """What makes two runs the same one."""
        texts, s = self.texts, self.settings
        windows = {"tested": [w.tolist() for w in texts.tested], "fitted": [w.tolist() for w in texts.fitted]}
        return {
            "what": "determination", "revision": self.model.revision, "dtype": str(self.model.dtype),
            "pairs": len(texts.tested), "texts": digest({"ids": list(texts.ids), **windows}),
            "neurons": s.neurons, "draws": s.draws, "seed": s.seed,
        }  # fmt: skip


def _texts(codes: TokenCodes, model: Model, *, documents: int, max_tokens: int, fit_tokens: int, seed: int) -> _Texts:
    """Cut the documents into windows and choose which are tested; the rest is fitted on, first windows first."""
    was = windowing(codes, model)
    cut = replace(was, context_length=min(was.context_length, max_tokens), min_context=0)
    repeated = repeated_documents(codes.texts)
    kept = [number for number in range(len(codes.texts)) if number not in repeated]
    given = [Document(id=str(codes.ids[number]), text=codes.texts[number]) for number in kept]
    by: dict[int, list[Int64[np.ndarray, " _"]]] = {}
    for window in cut.apply(given, 0, model.tokenizer).windows:
        if len(window.keep) >= LEAST_TOKENS:
            by.setdefault(window.document, []).append(window.input_ids)
    if len(by) < LEAST_DOCUMENTS:
        raise PolytopeError(
            f"{len(by)} different documents of at least {LEAST_TOKENS} tokens; at least {LEAST_DOCUMENTS} are needed, "
            "half of them to fit on: capture more"
        )
    order = np.random.default_rng(derived(seed, Purpose.TESTED_DOCUMENTS)).permutation(sorted(by))
    tested = sorted(order[: min(documents, len(by) // 2)].tolist())
    others = sorted(order[len(tested) :].tolist())
    fitted: list[Int64[np.ndarray, " _"]] = []
    owners: list[int] = []
    total = 0
    for nth in range(max(len(by[number]) for number in others)):
        for number in others:
            if nth < len(by[number]) and total < fit_tokens:
                fitted.append(by[number][nth])
                owners.append(number)
                total += len(fitted[-1]) - 1
    return _Texts([by[number][0] for number in tested], fitted, owners, [given[number].id for number in tested])


def _scored(
    site: Site, wanted: Sequence[Arm], entries: Sequence[Mapping[str, Any]], weights: Float[np.ndarray, "R n"],
    picks: Float[np.ndarray, " R"], smallest_effect: float, has_logits: bool,
) -> LayerDetermination:  # fmt: skip
    """Return one place's scores from the documents' sums."""
    weights = np.concatenate([np.ones((1, weights.shape[1])), weights])
    tokens, clean = (weights @ np.array([each[name] for each in entries], float) for name in ("tokens", "clean"))
    loss = weights @ np.array([each["loss"] for each in entries])
    kl = weights @ np.array([each["kl"] for each in entries]) if has_logits else None
    beyond = loss - clean[:, None]
    where = {arm: number for number, arm in enumerate(wanted)}
    by: dict[tuple[str, str], list[Arm]] = {}
    for arm in wanted:
        by.setdefault((arm.group, arm.name), []).append(arm)

    def resampled_of(values: Float[np.ndarray, "R _"], group: Sequence[Arm]) -> Resampled:
        each = [Resampled(values[0, where[arm]], values[1:, where[arm]]) for arm in group]
        return Resampled.mean_of_draws(each, picks)

    per_token = beyond / tokens[:, None]
    ablated = by[MEAN, MEAN]
    removed = resampled_of(per_token, ablated)
    ratio = removed.value >= LEAST and float(np.min(removed.draws)) > 0
    recovered = 1 - beyond / beyond[:, [where[ablated[0]]]] if ratio else None
    replaced = sum(each["replaced"] for each in entries)
    scores = []
    for (group, name), draws in by.items():
        share = sum(each["donors"][draws[0].donor] for each in entries) / replaced if draws[0].donor else 1.0
        scores.append(
            ArmScore(
                group, name, draws[0].becomes,
                None if recovered is None else resampled_of(recovered, draws).by_percentiles(),
                resampled_of(per_token, draws).by_percentiles(),
                None if kl is None else resampled_of(kl / tokens[:, None], draws).by_percentiles(), share,
                tuple(float(per_token[0, where[arm]]) for arm in draws) if len(draws) > 1 else (),
            )
        )  # fmt: skip
    leads = {}
    verdict = None
    if recovered is not None:
        mine = resampled_of(recovered, by[READ_OUT, CODE])
        leads = {name: (mine - resampled_of(recovered, by[READ_OUT, name])).by_percentiles() for name in REFERENCES}
        verdict = decide(
            [Cell(reference, RECOVERED, lead) for reference, lead in leads.items()], place=site.place,
            documents=len(entries), smallest_effect=smallest_effect, premises=str(site.premises),
            premises_met=site.premises.met,
        )  # fmt: skip
    return LayerDetermination(
        site, float(clean[0] / tokens[0]), removed.by_percentiles(), tuple(scores), leads, verdict
    )


def _corrected(found: Sequence[LayerDetermination]) -> list[LayerDetermination]:
    """Correct the places' verdicts for their number."""
    there = [one.verdict for one in found if one.verdict is not None]
    verdicts = iter(over_layers(there) if there else ())
    return [one if one.verdict is None else replace(one, verdict=next(verdicts)) for one in found]
