"""The page's figures, in its own style, and crossings between two prompts as it shows them.

Figures are drawn by `plotting`; here their colours become names of the style sheet's (`var(--code)`), so that
`static/figures.js` draws them in the reader's light or dark theme.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polytope_lm import plotting
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, SCORES, differences_figure, headline_names
from polytope_lm.report.browser import pack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotly.graph_objects as go

    from polytope_lm.models.sites import Site
    from polytope_lm.paths.crossings import Crossings, LayerMethod
    from polytope_lm.predictions.clusters.result import LayerComparison
    from polytope_lm.report.contents import Results

_NAMES = ("code", "standardised", "simhash", "hue-3", "hue-1", "hue-4", "ink", "other")
_VARIABLES = {
    **{colour: f"var(--{name})" for colour, name in zip(plotting.COLOURS, _NAMES, strict=True)},
    plotting.INK: "var(--ink)",
    plotting.SOFT: "var(--ink-soft)",
    plotting.BAND: "var(--band)",
    plotting.RULE: "var(--rule)",
    plotting.GRID: "var(--grid)",
    plotting.PAPER: "var(--paper)",
    plotting.ON: "var(--on)",
    plotting.OFF: "var(--off)",
    plotting.CHANGE: "var(--change)",
    plotting.FILL: "var(--change-soft)",
    plotting.SHADE: "var(--code-soft)",
}


def figures(results: Results) -> dict[str, dict[str, Any]]:
    """Return every figure of the page by its name, as plain data for plotly.js."""
    found: dict[str, go.Figure] = {}
    if results.clusters is not None:
        layers = results.clusters.layers
        found["differences"] = differences_figure(results.clusters, (AMI, AGREEMENT), headline_names(layers))
        tight = {"l": 60, "r": 8, "t": 8, "b": 40}
        found["differences"].update_layout(showlegend=False, margin=tight)  # the page has its own legend
        found |= {f"scores-{row}": _scores(layer) for row, layer in enumerate(layers)}
    if results.overview is not None:
        rows = [f"layer {layer.layer}" for layer in results.overview.layers]
        counts = [layer.rate_histogram for layer in results.overview.layers]
        what = "share of tokens for which the neuron is on"
        found["rates"] = plotting.ridges(rows, counts, what, "neurons")
    if results.multiverse is not None:
        found |= {f"multiverse-{name}": figure for name, figure in results.multiverse.figures().items()}
    if results.boundaries is not None:
        found["boundaries"] = results.boundaries.plot()
    if results.alignment is not None:
        found["alignment"] = results.alignment.plot()
    for index, other in enumerate(results.others):
        found |= {f"other-{index}-{name}": figure for name, figure in other.figures().items()}
    drawn = {name: _in_style(figure) for name, figure in found.items()}
    drawn |= {f"slice-{index}": _map_in_style(one.plot()) for index, one in enumerate(results.slices)}
    for index, one in enumerate(results.crossings):
        drawn[f"pair-{index}"] = _strips(one, index, [part.layer for part in one.layers])
    if results.crossings:
        alone = results.clusters is None and results.boundaries is None
        first = results.crossings[0]
        drawn["strip"] = drawn["pair-0"] if alone else _strips(first, 0, [first.site.layer])
    return drawn


def _scores(layer: LayerComparison) -> go.Figure:
    """Draw every representation's scores with intervals, one panel a score, in one layer."""
    present, headline = layer.representations, headline_names([layer])
    panels = {
        score: [
            plotting.Marks(
                one.name,
                [one.score(score).estimate if other is one else None for other in present],
                headline.index(one.name) if one.name in headline else len(plotting.COLOURS) - 1,
            )
            for one in present
        ]
        for score in SCORES
    }
    figure = plotting.dots([one.name for one in present], panels)
    figure.update_layout(showlegend=False, height=90 + 26 * len(present), margin={"t": 10})
    return figure


def _strips(one: Crossings, index: int, layers: list[int]) -> dict[str, Any]:
    """Draw strips whose ticks the page's script adds: of so many crossings it takes the packed arrays."""
    figure = _in_style(plotting.strips(layers, None, one.output_change))
    return {**figure, "strips": {"pair": index, "layers": layers}}


def _in_style(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as plain data in the style sheet's colours."""
    found: dict[str, Any] = json.loads(figure.to_json())
    layout = found["layout"]
    for name in ("template", "width", "title"):  # the page says in words what it is
        layout.pop(name, None)
    layout |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
    for name, axis in layout.items():
        if name.startswith(("xaxis", "yaxis")):
            axis["fixedrange"] = True
    return {"data": _coloured(found["data"]), "layout": _coloured(layout)}


def _map_in_style(figure: go.Figure) -> dict[str, Any]:
    """Return a figure of coloured areas: white paper in the dark too, and the reader can zoom."""
    found = _in_style(figure)
    found["layout"] |= {"plot_bgcolor": "white", "margin": {"l": 60, "r": 20, "t": 10, "b": 50}}
    for name in ("xaxis", "yaxis"):
        found["layout"][name]["fixedrange"] = False
    return found


def _coloured(value: Any) -> Any:
    if isinstance(value, str):
        return _VARIABLES.get(value, value)
    if isinstance(value, list):
        return [_coloured(item) for item in value]
    if isinstance(value, dict):
        return {key: _coloured(item) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class LayerRow:
    """One layer's line in the table of crossings."""

    layer: int
    crossings: int
    on: int
    differ: int
    method: str
    missed: str


@dataclass(frozen=True)
class PairView:
    """One pair of prompts, ready for the templates."""

    a: str
    b: str
    layer: int
    sentence: str
    short: str
    rows: tuple[LayerRow, ...]
    next_tokens: tuple[plotting.Stretch, ...]
    packed: dict[str, Any]
    sites: tuple[Site, ...]
    provenance: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Both prompts, shortened, for the list of pairs."""
        return f"{_shortened(self.a)} → {_shortened(self.b)}"


def _shortened(text: str, room: int = 60) -> str:
    return text if len(text) <= room else "… " + text[-room:].lstrip()


def pair_view(one: Crossings) -> PairView:
    """Return what the page shows of a pair of prompts."""
    change = one.output_change
    return PairView(
        a=one.prompts[0],
        b=one.prompts[1],
        layer=one.site.layer,
        sentence=_sentence(one),
        short=_short(one),
        rows=tuple(_row(one, method) for method in one.layers),
        next_tokens=() if change is None else tuple(plotting.stretches(change)),
        packed={"t": pack(one.t), "layer": pack(one.layer), "neuron": pack(one.neuron), "on": pack(one.on)},
        sites=tuple(method.site for method in one.layers),
        provenance=one.provenance,
    )


def later_methods(pairs: Sequence[PairView]) -> tuple[str, ...]:
    """Return each way in which layers after the paths' own were searched, once."""
    methods = (row.method for pair in pairs for row in pair.rows)
    return tuple(dict.fromkeys(method for method in methods if method != "closed form"))


def _row(one: Crossings, method: LayerMethod) -> LayerRow:
    here = one.layer == method.layer
    missed = {None: "unknown", 0: "none"}.get(method.missed_estimate, f"about {method.missed_estimate}")
    return LayerRow(method.layer, int(here.sum()), int(one.on[here].sum()), method.hamming, method.method, missed)


def _sentence(one: Crossings) -> str:
    own = one.method(one.site.layer)
    row = _row(one, own)
    twice = int(one.returns[one.layer == own.layer].sum())
    also = f"; {twice:,} of the crossings are of neurons that cross more than once" if twice else ""
    text = (
        f"On the {one.shape} in {one.space} of layer {own.layer} (length {one.length:.3g}) {row.crossings:,} "
        f"boundaries are crossed: {row.on:,} neurons turn on, {row.crossings - row.on:,} off; the codes of "
        f"the ends differ in {row.differ:,} bits{also}. Found by {own.method}; may be missing: {row.missed}."
    )
    return text if len(one.layers) == 1 else text + " The table says how each later layer was searched."


def _short(one: Crossings) -> str:
    own = _row(one, one.method(one.site.layer))
    found = f"{own.crossings:,} crossings in {one.space}, layer {own.layer}"
    return f"{found}, by {own.method} (may be missing: {own.missed})"
