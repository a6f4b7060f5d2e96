"""What the page says in words: the model, the settings, where everything came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from polytope_lm.predictions.clusters.result import BEST_COSINE, SIMHASH, headline_names
from polytope_lm.report import browser
from polytope_lm.representations.directions import COSINES
from polytope_lm.representations.routers import RANDOM_ROUTERS
from polytope_lm.statistics.verdict import OUTCOMES, ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.clusters.result import ClustersResult
    from polytope_lm.report.contents import Results
    from polytope_lm.report.drawings import PairView
    from polytope_lm.statistics.verdict import Verdict

Rows = tuple[tuple[str, str], ...]

_HUES = 8
"""Labels that get a colour of their own in the mix bars; the rest is grey."""


TERMS = {
    "spline code": "which neurons of an MLP are on for a token: one bit a neuron",
    "spline codes": "which neurons of an MLP are on for a token: one bit a neuron",
    "polytope": "a region of inputs with one code; in it a piecewise-linear MLP is one affine map",
    "directions": "activations compared by the angle between them (cosine)",
    "random hyperplanes": "codes of random planes that are on as often as the real neurons",
    "AMI": "adjusted mutual information of clusters and labels: 0 is chance, 1 perfect",
    "strict neighbour agreement": "share of a token's nearest tokens with its label, counting only "
    "neighbours with another word form, lemma and document",
    "AUC": "how often a pair of different meaning scores above one of the same: 0.5 is chance",
    "centred cosine": "cosine after the mean activation is taken off",
    "rate-matched SimHash": "codes of random hyperplanes that are on as often as the real neurons",
    "rate-standardised": "each bit is divided by how much it varies, so that rare bits count as others do",
    "smallest effect of interest": "a difference below this is too small to matter; chosen beforehand",
    "Holm": "a correction for asking the same question of several layers",
    "Hamming distance": "number of bits in which two codes differ",
    "cosine similarity": "cosine of the angle between two activations: 1 is the same direction",
    "supported": "the whole interval lies above the smallest effect of interest, against every reference",
    "behind": "the whole interval lies below zero, against some reference",
    "no lead": "a lead that matters is ruled out, against some reference",
    "mixed": "ahead of some reference or in some score, behind in another",
    "not testable": "no representation and no control sees the label",
    "refuted": "not ahead by an amount that matters, against some reference (files of earlier versions)",
    "inconclusive": "these data do not decide",
    "flip-backs": "crossings that the codes of the ends do not tell: a neuron turns on and off again",
    "crossings": "places on a path where one neuron turns on or off",
    "premises": "what the paper assumes of a network: piecewise linear, with biases",
}
"""Words of the page that are explained where they stand."""


@dataclass(frozen=True)
class LegendEntry:
    """One mark of the first plot: its name and the shape that the style sheet draws."""

    name: str
    shape: str


@dataclass(frozen=True)
class PageFacts:
    """Everything that the templates print apart from the results themselves."""

    model: str
    question: str
    answer: str
    weights: str
    version: str
    command: str
    facts: Rows
    outcomes: Rows
    legend: tuple[LegendEntry, ...]
    shared: float | None
    hues: tuple[tuple[str, str], ...]
    sites: tuple[Site, ...]
    tables: tuple[tuple[str, Rows], ...]


def gather(results: Results, pairs: Sequence[PairView]) -> PageFacts:
    """Collect what the page says in words from whatever results there are."""
    clusters = results.clusters
    sites = _sites(results, pairs)
    every = (clusters, results.boundaries, results.alignment, results.multiverse, *results.groups)
    question, answer = _asked(results, pairs)
    verdicts = _tested(results)[1]
    by = {outcome: [n for n, v in verdicts.items() if v.outcome == outcome] for outcome in OUTCOMES}
    return PageFacts(
        model=str(results.provenance.get("model", "model not recorded")),
        question=question,
        answer=answer,
        weights=str(results.provenance.get("weights") or ""),
        version=version("polytope-lm"),
        command=next((one.command for one in every if one is not None), ""),
        facts=_footer(results, sites),
        outcomes=tuple((outcome, _layers(layers)) for outcome, layers in by.items() if layers),
        legend=() if clusters is None else _legend(clusters),
        shared=None if clusters is None else _shared(clusters),
        hues=() if clusters is None else _hues(clusters),
        sites=tuple(sites),
        tables=tuple(_tables(clusters, results.provenance)),
    )


def _sites(results: Results, pairs: Sequence[PairView]) -> list[Site]:
    every: list[Site] = [site for pair in pairs for site in pair.sites]
    every += [one.site for one in results.slices]
    for one in (results.clusters, results.overview, results.boundaries, results.alignment):
        if one is not None:
            every += [layer.site for layer in one.layers]
    return sorted(dict.fromkeys(every), key=lambda site: (site.layer, site.kind))


def _footer(results: Results, sites: Sequence[Site]) -> Rows:
    clusters, overview, provenance = results.clusters, results.overview, results.provenance
    rows = [("model", _short(provenance.get("model", "not recorded")))]
    compared = sites if clusters is None else [layer.site for layer in clusters.layers]
    if compared:
        rows.append(("layers", ranges(site.layer for site in compared)))
    if clusters is not None:
        sample = clusters.sample
        rows.append(("n", f"{sample.tokens:,} tokens, {sample.documents:,} documents"))
        rows.append(("label", clusters.settings.label))
        rows.append(("seed", str(clusters.settings.seed)))
    elif results.boundaries is not None:
        rows.append(("n", f"{results.boundaries.layers[0].pairs:,} pairs"))
        rows.append(("seed", str(results.boundaries.settings.seed)))
    elif overview is not None and overview.layers:
        rows.append(("n", f"{overview.layers[0].tokens:,} tokens, {overview.documents:,} documents"))
    rows += [(name, _short(provenance[name])) for name in ("dtype", "weights") if provenance.get(name)]
    return tuple(rows)


_ASKED = {
    "clusters": (
        "Do spline codes group tokens by meaning (label {label}) better than directions do?",
        "they are ahead of directions and of random hyperplanes",
    ),
    "boundaries": (
        "Does a path cross more polytope boundaries where meaning changes than its length explains?",
        "crossings tell different meanings from the same one",
    ),
    "alignment": (
        "Are polytope boundaries dense where the output changes?",
        "they are denser than at the places where other pairs' outputs change",
    ),
}
"""What each test asks, and what is so where it is supported."""


def _tested(results: Results) -> tuple[str, dict[int, Verdict]]:
    """Return the prediction that the page is about and its verdicts by layer; empty where none was tested."""
    for name in _ASKED:
        found = getattr(results, name)
        if found is not None and name == "alignment":
            places = zip(found.layers, found.verdicts, strict=False)
            return name, {layer.layer: verdict for layer, verdict in places if verdict is not None}
        if found is not None:
            return name, {layer.layer: layer.verdict for layer in found.layers}
    return "", {}


def _asked(results: Results, pairs: Sequence[PairView]) -> tuple[str, str]:
    """Say in plain words what was asked and what came out."""
    name, verdicts = _tested(results)
    if name:
        question, so = _ASKED[name]
        clusters = results.clusters
        label = clusters.settings.label if clusters is not None else ""
        if name == "clusters" and clusters is not None and clusters.layers[0].site.kind == "router":
            question = question.replace("spline codes", "the experts that routers choose")
            so = so.replace("hyperplanes", "routers")
        few = "Here: too few pairs for an answer."
        return question.format(label=label), _answer(verdicts, so) if verdicts else few
    if pairs:
        first = pairs[0]
        count = next(row.crossings for row in first.rows if row.layer == first.layer)
        return (
            "Which polytope boundaries lie between two prompts?",
            f"Here: {count:,} of layer {first.layer} on the way from the first prompt to the second.",
        )
    if results.others:
        shown = results.others[0]
        return shown.question or f"{shown.tab or shown.kind}:", shown.headline
    return "What do the codes look like?", "No claim was tested."


_WORDS = {
    "supported": "yes",
    "behind": "no, they are behind",
    "no lead": "no, not by an amount that matters",
    "refuted": "no, not by an amount that matters",
    "mixed": "ahead in one respect and behind in another",
    "inconclusive": "it stays open, these data do not decide",
    "not testable": "it can't be tested, for nothing here sees the label",
}
"""The short answer of each outcome."""


def _answer(verdicts: Mapping[int, Verdict], so: str) -> str:
    """Answer in one sentence, or say which layers give which answer."""
    by = {outcome: [n for n, v in verdicts.items() if v.outcome == outcome] for outcome in OUTCOMES}
    by = {outcome: layers for outcome, layers in by.items() if layers}
    layer, first = next(iter(verdicts.items()))
    where = first.place.lower() if first.place.startswith("Layers") else f"layer {layer}"  # several joined are one
    every = f"in {where}" if len(verdicts) == 1 else f"in all {len(verdicts)} layers"
    every = "in both layers" if len(verdicts) == 2 else every
    if len(by) > 1:
        parts = [f"{_WORDS[name]} in {_layers(layers)}" for name, layers in by.items()]
        return f"Here: it depends on the layer: {'; '.join(parts)}."
    (outcome,) = by
    if outcome == "supported":
        return f"Here: yes, {so} {every}."
    if outcome == "behind":
        whom = {_WHOM.get(verdict.deciding_reference, "") for verdict in verdicts.values()}
        if "" not in whom:
            return f"Here: no, they are behind {' or '.join(sorted(whom))} {every}."
    return f"Here: {_WORDS[outcome]}, {every}."


_WHOM = {
    **dict.fromkeys((BEST_COSINE, *COSINES), "directions"),
    SIMHASH: "random hyperplanes",
    RANDOM_ROUTERS: "random routers",
}


def _layers(layers: Sequence[int]) -> str:
    return f"layer{'s' * (len(layers) > 1)} {ranges(layers)}"


def _legend(clusters: ClustersResult) -> tuple[LegendEntry, ...]:
    shapes = ("circle", "diamond", "square")
    names = headline_names(clusters.layers)
    return tuple(LegendEntry(name, shape) for name, shape in zip(names, shapes, strict=False))


def _shared(clusters: ClustersResult) -> float | None:
    counts = browser.shared_neighbours(clusters, clusters.layers[0])
    return None if counts is None else float(counts.mean())


def _hues(clusters: ClustersResult) -> tuple[tuple[str, str], ...]:
    names = browser.label_names(clusters)
    named = [(name, str(hue)) for hue, name in enumerate(names[:_HUES])]
    return tuple(named + ([("other", "rest")] if len(names) > _HUES else []))


def _tables(clusters: ClustersResult | None, provenance: Mapping[str, Any]) -> Iterable[tuple[str, Rows]]:
    if clusters is not None:
        yield "Settings", _rows(dataclasses.asdict(clusters.settings))
        sample = dataclasses.asdict(clusters.sample)
        counts = sorted(sample.pop("label_counts").items(), key=lambda item: (-item[1], item[0]))
        yield "Tokens compared", _rows(sample)
        yield "Labels", _rows(dict(counts))
    yield "Where it came from", _rows(dict(sorted(provenance.items())))
    if clusters is not None:
        yield "Versions", _rows(dict(sorted(clusters.versions.items())))
        if clusters.command:
            yield "The command", (("again", clusters.command),)


def _rows(data: Mapping[str, Any]) -> Rows:
    return tuple((str(name).replace("_", " "), _short(value)) for name, value in data.items())


def _short(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_short(one)}" for name, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(one) for one in value) or "none"
    return str(value)
