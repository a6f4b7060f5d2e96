"""What the page says in words: the model, the settings, where everything came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from polytope_lm.predictions.clusters.result import headline_names, ranges
from polytope_lm.report import browser

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.boundaries.result import BoundariesResult
    from polytope_lm.predictions.clusters.result import ClustersResult
    from polytope_lm.report.contents import Results
    from polytope_lm.report.drawings import PairView

Rows = tuple[tuple[str, str], ...]

OUTCOMES = ("supported", "refuted", "inconclusive")
_HUES = 8
"""Labels that get a colour of their own in the mix bars; the rest is grey."""


@dataclass(frozen=True)
class LegendEntry:
    """One mark of the first plot: its name and the shape that the style sheet draws."""

    name: str
    shape: str


@dataclass(frozen=True)
class PageFacts:
    """Everything that the templates print apart from the results themselves.

    Attributes:
        model: the model's name.
        version: of this package.
        command: what reproduces the page; empty where no result knows it.
        facts: the footer, name and value.
        outcomes: each outcome that occurs, with its layers.
        legend: the marks of the first plot.
        shared: mean number of neighbours that code and cosine have in common in the first layer.
        hues: labels with a colour of their own in the mix bars, and the colour's number.
        sites: the sites of all results.
        tables: settings, sample, provenance, versions: a heading and its rows.

    """

    model: str
    version: str
    command: str
    facts: Rows
    outcomes: Rows
    legend: tuple[LegendEntry, ...]
    shared: float | None
    hues: tuple[tuple[str, str], ...]
    sites: tuple[Site, ...]
    tables: tuple[tuple[str, Rows], ...]

    def for_template(self) -> dict[str, Any]:
        """Return the fields that templates read by name."""
        names = ("command", "facts", "outcomes", "legend", "shared", "hues", "sites", "tables")
        return {name: getattr(self, name) for name in names}


def gather(results: Results, pairs: Sequence[PairView]) -> PageFacts:
    """Collect what the page says in words from whatever results there are."""
    clusters = results.clusters
    sites = _sites(results, pairs)
    every = (clusters, results.boundaries, results.alignment, results.multiverse, *results.groups)
    return PageFacts(
        model=str(results.provenance.get("model", "model not recorded")),
        version=version("polytope-lm"),
        command=next((one.command for one in every if one is not None), ""),
        facts=_footer(results, sites),
        outcomes=_outcomes(clusters or results.boundaries),
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
    if "dtype" in provenance:
        rows.append(("dtype", _short(provenance["dtype"])))
    return tuple(rows)


def _outcomes(tested: ClustersResult | BoundariesResult | None) -> Rows:
    rows: list[tuple[str, str]] = []
    if tested is None:
        return ()
    for outcome in OUTCOMES:
        layers = [layer.layer for layer in tested.layers if layer.verdict.outcome == outcome]
        if layers:
            rows.append((outcome, f"layer{'s' * (len(layers) > 1)} {ranges(layers)}"))
    return tuple(rows)


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
