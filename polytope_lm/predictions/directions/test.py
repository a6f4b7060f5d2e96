"""Prediction 3: polytope boundaries bound the validity of feature directions.

Claim. A direction does what its first-order estimate says as long as no boundary is crossed (Black et al.,
"Interpreting Neural Networks through the Polytope Lens", 2022). Behind ReLUs this is exact in one layer
(`changes.flips`); whether it tells anything in a real model is the question.

1. *Predict*, the verdict. Is the measured trust radius predicted by flip mass along the tangent, beyond the
   vector's norm, the slope `|g.v|`, the change of the norm's scale, and curvature? Two scores, the partial rank
   correlation and the gain in rank correlation (`predicting`), each against nothing, which is what the covariates
   explain, and against flips of rate-matched random hyperplanes in place of the network's own. *Supported*
   where all four lower bounds exceed the smallest effect of interest (.02); Holm over layers.
2. *Share*. How much of the MLP's first-order error sits in neurons that flip (all of it behind ReLUs)?
3. *Regions*. Does one push do the same to the logits at tokens of one region, beyond their cosine and beyond
   rate-matched hyperplanes (`regions`)? A verdict of its own, by prediction 1's clusterer and references.
4. *Scaling*, the paper's figure 3. `post` and `u` times .5 to 2; where nothing flips, is the KL smaller than that
   of random pushes that flip: one as long, and one that changes the MLP's output as much?

Prompts are beginnings of documents, one a document, read at their last token; directions go to another
prompt's activation, to a random place of the prompts' covariance, and along what a neuron writes. The document
is the unit of every interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.changes.radius import LARGEST
from polytope_lm.codes.capture import encode
from polytope_lm.controls import weights
from polytope_lm.controls.perturbations import equal_norm
from polytope_lm.documents.source import documents
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.files import expand
from polytope_lm.models.loading import select_sites
from polytope_lm.models.logits import check_logits
from polytope_lm.paths.resume import resumable
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.directions import predicting, regions
from polytope_lm.predictions.directions.measuring import Prompts, effects, measure, read_prompts
from polytope_lm.predictions.directions.result import DirectionSettings, DirectionsResult, Finding, LayerDirections
from polytope_lm.result import digest, reproducible, versions
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.confounders import fold_numbers
from polytope_lm.statistics.estimate import resampled
from polytope_lm.statistics.verdict import Cell, Verdict, decide, over_layers
from polytope_lm.tokens.tokenising import specials, tokenise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from polytope_lm.documents.source import Source
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site

CONTROLS = {"permuted": weights.permuted, "untrained": weights.untrained}
REAL = "real"
LEAST = 20
"""Prompts that the test needs."""
_SHORTEST = 8  # tokens of a prompt
_READ = 4  # tokens of a prompt whose effects are compared
_HALVES = 100
_FEW = 30  # scalings that a verdict needs


@reproducible("plm.predictions.directions")
@asked
def directions(  # noqa: PLR0913 -- each is a choice that moves a number
    model: Model,
    source: Source,
    layers: int | Sequence[int] | str | None = None,
    *,
    prompts: int = 60,
    tokens: int = 24,
    tau: float = 0.1,
    seed: int = 0,
    resamples: int = 1000,
    smallest_effect: float = 0.02,
    draws: int = 2,
    controls: Sequence[str] = (),
    keep: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> DirectionsResult:
    """Put prediction 3 to the test on beginnings of documents.

    Args:
        model: a causal model with an LM head.
        source: documents: whatever `plm.documents` reads.
        layers: one, several, `all`, or None for a quarter, a half and three quarters of the depth.
        prompts: documents at most, from 20.
        tokens: of each document's beginning.
        tau: the relative error that is allowed.
        seed: of every random choice.
        resamples: bootstrap resamples behind each interval.
        smallest_effect: the smallest correlation of interest.
        draws: of rate-matched hyperplanes; 0 leaves that reference out.
        controls: models with other weights to measure beside: `permuted`, `untrained`; each takes as long.
        keep: a file for finished prompts; a run with the same arguments goes on from there.
        progress: told `(done, total, what)` after each prompt and layer.

    Raises:
        PolytopeError: an encoder, fewer than 20 documents with 8 tokens, no such layer, tau outside 0 to 1.

    """
    check_logits(model)
    if isinstance(tau, bool) or not isinstance(tau, (int, float)) or not 0 < tau < 1:
        raise PolytopeError(f"tau = {brief(tau)}: give a relative error between 0 and 1; .1 is the default")
    layers = default_layers(model) if layers is None else layers
    controls = (controls,) if isinstance(controls, str) else controls
    unknown = [one for one in controls if one not in CONTROLS]
    if unknown:
        raise PolytopeError(f"no control {unknown[0]!r}; there are {', '.join(CONTROLS)}")
    sites = select_sites(model, layers, None)
    name, ids, texts = _prompts(model, source, prompts, tokens)
    settings = DirectionSettings(
        name, len(ids), tokens, float(tau), seed, resamples, smallest_effect, draws, tuple(controls)
    )
    file = None if keep is None else expand(keep, "keep")
    job = _Job(ids, sites, settings, file, progress, 1 + len(controls))
    read, entries = job.measure(model, REAL)
    judged = [_judge(model, site, entries, settings) for site in sites]
    for control in controls:
        twin = CONTROLS[control](model, seed=derived(seed, Purpose.DIRECTIONS, 1))
        _, theirs = job.measure(twin, control)
        judged = [
            replace(layer, findings=(*layer.findings, *_of_control(twin, control, site, theirs, settings)))
            for layer, site in zip(judged, sites, strict=True)
        ]
    thirds = [_regions(model, site, read, texts, settings) for site in sites]
    judged = [
        replace(layer, regions=verdict, findings=(*layer.findings, *shown))
        for layer, (verdict, shown) in zip(judged, thirds, strict=True)
    ]
    for which in ("verdict", "regions", "scaling"):
        there = [number for number, layer in enumerate(judged) if getattr(layer, which) is not None]
        for number, new in zip(there, over_layers([getattr(judged[n], which) for n in there]), strict=True):
            changed: dict[str, Any] = {which: new}
            judged[number] = replace(judged[number], **changed)
    return DirectionsResult(
        settings=settings, layers=tuple(judged), provenance=model.provenance, command="",
        versions=versions("numpy", "scipy", "torch", "transformers"), numbers=_table(entries),
    )  # fmt: skip


def default_layers(model: Model) -> list[int]:
    """Return the layers at a quarter, a half and three quarters of the depth."""
    return sorted({round(share * (model.n_layers - 1)) for share in (0.25, 0.5, 0.75)})


@dataclass(frozen=True)
class _Job:
    """What is the same for the model and its twins with other weights."""

    ids: Sequence[np.ndarray]
    sites: Sequence[Site]
    settings: DirectionSettings
    keep: Path | None
    progress: Callable[[int, int, str], None] | None
    models: int

    def measure(self, model: Model, name: str) -> tuple[Prompts, list[dict[str, Any]]]:
        """Measure all prompts and layers in one model, or go on where an earlier run stopped."""
        settings, indices = self.settings, [site.layer for site in self.sites]
        read = read_prompts(model, self.ids, indices, draws=settings.draws, seed=settings.seed)
        places = [(number, layer) for number in range(len(self.ids)) for layer in indices]
        total = self.models * len(places)
        before = 0 if name == REAL else (1 + settings.controls.index(name)) * len(places)

        def told(done: int) -> None:
            if self.progress is not None:
                cost = f"{3 * total} triples, 2 forwards each to predict, 42 to measure"
                self.progress(before + done, total, f"radii along directions, {name}" if before + done else cost)

        def work(left: Sequence[int]) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
            for each in left:
                number, layer = places[each]
                yield each, partial(measure, model, read, layer, number, settings.tau, settings.seed)

        asked = ("source", "prompts", "tokens", "tau", "seed", "draws")
        head = {
            "pairs": len(places), "model": model.revision, "dtype": str(model.dtype), "layers": indices,
            "texts": digest({"ids": [one.tolist() for one in self.ids]}),
            "settings": {each: getattr(settings, each) for each in asked},
        }  # fmt: skip
        to = self.keep if self.keep is None or name == REAL else self.keep.with_name(f"{name}-{self.keep.name}")
        return read, resumable(head, work, to=to, workers=1, told=told)


def _of_control(
    twin: Model, name: str, site: Site, entries: Sequence[dict[str, Any]], settings: DirectionSettings
) -> list[Finding]:
    """Return what a model with other weights shows of the first two questions; nothing where it has no radii."""
    try:
        layer = _judge(twin, site, entries, settings)
    except PolytopeError:
        return []
    d = layer.verdict.deciding
    first = Finding("predict", f"{layer.verdict.deciding_score} against {layer.verdict.deciding_reference}", d)
    shown = [first, *(one for one in layer.findings if one.question != "scaling")]
    return [replace(one, what=f"{name} weights: {one.what}") for one in shown]


def _prompts(model: Model, source: Source, count: int, tokens: int) -> tuple[str, list[np.ndarray], list[str]]:
    """Return the source's name, and beginnings of its documents as ids and texts."""
    for what, value, least in (("prompts", count, LEAST), ("tokens", tokens, _SHORTEST)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise PolytopeError(f"{what} = {brief(value)}: give a whole number from {least}")
    found = documents(source)
    around = specials(model.tokenizer, model.bos)
    ids, texts = list[np.ndarray](), list[str]()
    for document in found:
        cut = tokenise([document.text[: 20 * tokens]], model.tokenizer)[0]
        if len(cut.ids) < _SHORTEST:
            continue
        own = cut.ids[:tokens]
        ids.append(np.array([*around.prefix, *own], dtype=np.int64))
        texts.append(document.text[: int(cut.ends[len(own) - 1])])
        if len(ids) == count:
            break
    if len(ids) < LEAST:
        raise PolytopeError(f"{len(ids)} documents with {_SHORTEST} tokens or more: the test needs at least {LEAST}")
    return getattr(found, "name", "documents"), ids, texts


def _table(entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row a triple: numbers only."""
    rows = []
    for entry in entries:
        for triple in entry["triples"]:
            row = {"prompt": entry["prompt"], "layer": entry["layer"], **triple}
            planes = row.pop("planes")
            rows.append(row | {f"planes {n}": value for n, value in enumerate(planes)})
    return pd.DataFrame(rows)


def _judge(model: Model, site: Site, entries: Sequence[dict[str, Any]], settings: DirectionSettings) -> LayerDirections:
    """Answer questions 1, 2 and 4 in one layer."""
    here = [entry for entry in entries if entry["layer"] == site.layer]
    frame = _table(here)
    censored = {str(name): int(n) for name, n in frame["beyond"].value_counts().items() if name}
    known = frame[frame["beyond"] == ""].reset_index(drop=True)
    if known["prompt"].nunique() < LEAST // 2:
        raise PolytopeError(
            f"{model.name}, layer {site.layer}: only {len(known)} of {len(frame)} radii could be measured: give more "
            "prompts, or another tau"
        )
    how: dict[str, Any] = {"seed": settings.seed, "resamples": settings.resamples}
    prompt = known["prompt"].to_numpy()
    covariates = {name: known[name].to_numpy(float) for name in ("norm", "slope", "scale", "curvature")}
    planes = [known[f"planes {n}"].to_numpy(float) for n in range(settings.draws)]
    radius, flips = known["measured"].to_numpy(float), known["flips"].to_numpy(float)
    none_met = LARGEST * known["norm"]  # no boundary up to the largest step
    others = {
        "the predicted radius": known["predicted"],
        "the smooth twin of flip mass": known["smooth"],
        "the first boundary in the layer": known["boundary"].astype(float).fillna(none_met),
        "the cosine with the activation": known["cosine"],
    }
    cells, shown = predicting.first_question(
        radius, flips, planes, covariates, prompt, **how,
        beside={name: values.to_numpy(float) for name, values in others.items()},
    )  # fmt: skip
    share = frame["first"].abs().clip(lower=1e-30)
    error = (frame["true"] - frame["first"]).abs() / frame["true"].abs().clip(lower=1e-30)
    beside = {name: frame[name].to_numpy(float) for name in ("norm", "slope", "scale", "curvature")}
    every = frame["prompt"].to_numpy()
    mass = (frame["mass"] / share).to_numpy(float)
    wrong = (frame["true"] * frame["first"] < 0).to_numpy()
    fold = fold_numbers(every, seed=derived(settings.seed, Purpose.PROMPTS, 0))
    draws = resampled(every, settings.resamples, seed=derived(settings.seed, Purpose.PROMPTS, 1))
    with_error = predicting.beyond(error.to_numpy(float), mass, beside, fold, draws)
    name = "partial rank correlation of flip mass with the error at a tenth of the norm"
    shown.append(Finding("predict", name, with_error.partial.by_percentiles()))
    signs = predicting.wrong_sign(mass, wrong, beside, every, **how)
    shown += [signs] if signs is not None else []
    shown += _shares(frame, how)
    scaling, more = _scaled(site, here, settings)
    verdict = _verdict(site, cells, int(known["prompt"].nunique()), settings)
    return LayerDirections(site, verdict, None, scaling, (*shown, *more), len(known), censored)


def _verdict(site: Site, cells: Sequence[Cell], count: int, settings: DirectionSettings) -> Verdict:
    return decide(
        cells, place=site.place, documents=count, smallest_effect=settings.smallest_effect, unit="prompts",
        premises=str(site.premises), premises_met=site.premises.met,
    )  # fmt: skip


def _shares(frame: pd.DataFrame, how: dict[str, Any]) -> list[Finding]:
    """Return the share of the layer's own error in flipped neurons, and in those that random planes flip."""
    found = []
    for column, what in (("share", "flipped neurons"), ("share of planes", "neurons that random hyperplanes flip")):
        there = frame[frame[column].notna()]
        if there["prompt"].nunique() >= LEAST // 2:
            mean = predicting.mean_over_prompts(
                there[column].to_numpy(float).clip(-1, 2), there["prompt"].to_numpy(), **how
            )
            found.append(Finding("share", f"share of the MLP's first-order error in {what}", mean.by_percentiles()))
    return found


def _scaled(
    site: Site, entries: Sequence[dict[str, Any]], settings: DirectionSettings
) -> tuple[Verdict | None, list[Finding]]:
    """Compare scaling that flips nothing with pushes that are as long, or do as much in the layer, and flip."""
    rows = pd.DataFrame([{"prompt": entry["prompt"], **one} for entry in entries for one in entry["scaling"]])
    how: dict[str, Any] = {"seed": settings.seed, "resamples": settings.resamples}
    shown, cells = [], []
    for (what, push), part in rows.groupby(["what", "push"], sort=False):
        quiet = part[(part["scaled flips"] == 0) & (part["pushed flips"] > 0)]
        log = np.log10(part["pushed"].clip(lower=1e-12)) - np.log10(part["scaled"].clip(lower=1e-12))
        for where, chosen in (("", part), (" at zero flips", quiet)):
            if len(chosen) < _FEW or chosen["prompt"].nunique() < LEAST // 2:
                continue
            mean = predicting.mean_over_prompts(log[chosen.index].to_numpy(float), chosen["prompt"].to_numpy(), **how)
            name = f"log10 KL of a push {push} over that of {what} scaled{where}"
            shown.append(Finding("scaling", name, mean.by_percentiles()))
            if where:
                cells.append(Cell(f"{what} scaled", f"log10 KL of a push {push}, and flips", shown[-1].estimate))
    count = rows["prompt"].nunique()
    return (_verdict(site, cells, count, settings) if cells else None), shown


def _regions(
    model: Model, site: Site, read: Prompts, texts: Sequence[str], settings: DirectionSettings
) -> tuple[Verdict, list[Finding]]:
    """Answer question 3 in one layer."""
    codes = encode(model, list(texts), layers=[site.layer], keep=("u", "h"))
    table, before = codes.tokens, len(specials(model.tokenizer, model.bos).prefix)
    x = read.x[site.layer]
    length = 0.1 * float(np.linalg.norm(x, axis=1).mean())
    push = equal_norm(x, length, seed=derived(settings.seed, Purpose.REGIONS, 2))
    rows, found = [], []
    for number, ids in enumerate(read.ids):
        own = np.flatnonzero(table["document"].to_numpy() == number)[: len(ids) - before]
        chosen = np.unique(np.linspace(len(own) // 3, len(own) - 1, _READ).round().astype(int))
        rows += [int(own[one]) for one in chosen]
        found.append(effects(model, ids, site.layer, [before + int(one) for one in chosen], push))
    effect = np.concatenate(found)
    unit = effect / np.linalg.norm(effect, axis=1, keepdims=True).clip(1e-30)
    cells, shown = regions.compare(
        codes, site.layer, np.array(rows), np.asarray(unit @ unit.T, np.float64), halves=_HALVES, seed=settings.seed
    )
    return _verdict(site, cells, len(read.ids), settings), shown
