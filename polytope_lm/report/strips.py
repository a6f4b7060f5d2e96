"""Crossings between two prompts, as the page shows them: where bits change, and the output with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.report.browser import pack
from polytope_lm.report.figures import Figure, axis, layout
from polytope_lm.report.inert import plotly_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polytope_lm.models.sites import Site
    from polytope_lm.paths.crossings import Crossings, LayerMethod, OutputChange

_ROW, _ROW_OF_MANY = 34, 22
"""Height of one layer's strip in pixels: of up to 12 layers, and of more."""
_TOP = 120
"""Height of the output's change above the strips, in pixels."""
_SHADES = ("var(--band)", "var(--change-soft)")
"""Neighbouring stretches of the path differ."""
_NEXT = 34
"""Height of the likeliest next token below them, in pixels."""


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
class NextToken:
    """A stretch of the path with one likeliest next token; `most` is its highest probability there."""

    token: str
    start: float
    end: float
    most: float


@dataclass(frozen=True)
class PairView:
    """One pair of prompts, ready for the templates.

    Attributes:
        a: the first prompt.
        b: the second prompt.
        layer: the layer that the path lies in.
        sentence: what was found, in one sentence.
        short: the same for a line that has no room.
        rows: one row a layer.
        change: output change of each step, JS distance; empty where the model has no logits.
        next_tokens: the likeliest next token along the path, in stretches.
        packed: t, layer, neuron and direction of every crossing, for the page's scripts.
        sites: where the codes live.
        provenance: model, revision, dtype, ... as the result states them.

    """

    a: str
    b: str
    layer: int
    sentence: str
    short: str
    rows: tuple[LayerRow, ...]
    change: tuple[float, ...]
    next_tokens: tuple[NextToken, ...]
    packed: dict[str, Any]
    sites: tuple[Site, ...]
    provenance: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Both prompts, shortened, for the list of pairs."""
        return f"{_shortened(self.a)} → {_shortened(self.b)}"

    @property
    def height(self) -> int:
        """Height in pixels of the figure with all layers."""
        row = _ROW if len(self.rows) <= 12 else _ROW_OF_MANY
        return (_TOP + _NEXT) * bool(self.change) + row * len(self.rows) + 70


def _shortened(text: str, room: int = 60) -> str:
    return text if len(text) <= room else "… " + text[-room:].lstrip()


def first_figure(pair: PairView) -> Figure:
    """Draw the strip of the path's own layer, with the output's change above it."""
    return _figure(pair, 0, [pair.layer], top=0.5, left=102, bottom=34)


def layers_figure(pair: PairView, index: int) -> Figure:
    """Draw a strip for every layer under the output's change."""
    figure = _figure(
        pair, index, [row.layer for row in pair.rows], top=_TOP / pair.height, left=102, bottom=44
    )
    if pair.next_tokens:
        _add_next_tokens(figure, pair.next_tokens, _NEXT / pair.height)
    return figure


def _figure(
    pair: PairView, index: int, layers: Sequence[int], *, top: float, left: int, bottom: int
) -> Figure:
    has_change = bool(pair.change)
    one = len(layers) == 1
    ticks = {
        "tickvals": [-0.22, 0.22] if one else list(range(len(layers))),
        "ticktext": ["turns on", "turns off"] if one else [f"layer {layer}" for layer in layers],
    }
    split = 1 - top if has_change else 1.0
    title = {"text": "t, from the first prompt to the second", "standoff": 4, "font": {"size": 12}}
    axes: Figure = {
        "xaxis": axis(range=[0, 1], title=title, anchor="y"),
        "yaxis": axis(
            range=[len(layers) - 0.5, -0.5], showgrid=False, domain=[0, split - 0.05 * has_change], **ticks
        ),
    }
    traces: list[Figure] = []
    if has_change:
        axes["yaxis2"] = axis(domain=[split, 1], rangemode="tozero", nticks=3)
        axes["annotations"] = [_beside("output<br>change", (split + 1) / 2)]
        traces.append(_change_trace(pair.change))
    return {
        "data": traces,
        "layout": layout(**axes, margin={"l": left, "r": 10, "t": 6, "b": bottom}),
        "strips": {"pair": index, "layers": list(layers), "yaxis": "y"},
    }


def _add_next_tokens(figure: Figure, runs: Sequence[NextToken], share: float) -> None:
    """Write the likeliest next token below the strips, changing midway between two places."""
    turns = [(one.end + two.start) / 2 for one, two in pairwise(runs)]
    starts, ends = [0.0, *turns], [*turns, 1.0]
    texts = [plotly_text(repr(run.token)) for run in runs]
    figure["data"].append({
        "type": "bar",
        "orientation": "h",
        "base": starts,
        "x": [end - start for start, end in zip(starts, ends, strict=True)],
        "y": [0] * len(runs),
        "width": 1,
        "yaxis": "y3",
        "marker": {"color": [_SHADES[i % 2] for i in range(len(runs))]},
        "text": texts,
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "customdata": [[run.start, run.end, run.most] for run in runs],
        "hovertemplate": "likeliest next token %{text}, t = %{customdata[0]:.2f} to %{customdata[1]:.2f}, "
        "p up to %{customdata[2]:.2f}<extra></extra>",
    })  # fmt: skip
    layout = figure["layout"]
    low, high = layout["yaxis"]["domain"]
    layout["yaxis"]["domain"] = [low + share, high]
    layout["xaxis"]["anchor"] = "y3"
    layout["yaxis3"] = axis(
        domain=[0, 0.8 * share], range=[-0.5, 0.5], showgrid=False, tickvals=[0], ticktext=["next token"]
    )
    layout |= {"barmode": "overlay", "uniformtext": {"minsize": 11, "mode": "hide"}}  # where there is room


def _beside(text: str, y: float) -> Figure:
    """Write upright beside an axis, left of its ticks."""
    place = {
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "xanchor": "right",
        "xshift": -44,
        "y": y,
        "yanchor": "middle",
    }
    return {**place, "text": text, "showarrow": False, "align": "right"}


def _change_trace(change: Sequence[float]) -> Figure:
    """Draw the output's change as steps as wide as the path's own."""
    edges = [float(edge) for edge in np.linspace(0, 1, len(change) + 1)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": edges,
        "y": [*change, change[-1]],
        "xaxis": "x",
        "yaxis": "y2",
        "fill": "tozeroy",
        "fillcolor": "var(--change-soft)",
        "line": {"color": "var(--change)", "width": 1.4, "shape": "hv", "simplify": False},
        "hovertemplate": "output change %{y:.3f} (JS distance) near t = %{x:.2f}<extra></extra>",
    }


def pair_views(crossings: Sequence[Crossings]) -> list[PairView]:
    """Return what the page shows of each pair of prompts."""
    return [_pair_view(one) for one in crossings]


def _pair_view(one: Crossings) -> PairView:
    change = one.output_change
    return PairView(
        a=one.prompts[0],
        b=one.prompts[1],
        layer=one.site.layer,
        sentence=_sentence(one),
        short=_short(one),
        rows=tuple(_row(one, method) for method in one.layers),
        change=() if change is None else tuple(float(distance) for distance in change.js),
        next_tokens=() if change is None else tuple(_runs(change)),
        packed={
            "t": pack(one.t),
            "layer": pack(one.layer),
            "neuron": pack(one.neuron),
            "on": pack(one.on),
        },
        sites=tuple(method.site for method in one.layers),
        provenance=one.provenance,
    )


def later_methods(pairs: Sequence[PairView]) -> tuple[str, ...]:
    """Return each way in which layers after the paths' own were searched, once."""
    methods = (row.method for pair in pairs for row in pair.rows)
    return tuple(dict.fromkeys(method for method in methods if method != "closed form"))


def _row(one: Crossings, method: LayerMethod) -> LayerRow:
    here = one.layer == method.layer
    missed = {None: "unknown", 0: "none"}.get(method.missed_at_most, f"at most {method.missed_at_most}")
    return LayerRow(
        method.layer, int(here.sum()), int(one.on[here].sum()), method.hamming, method.method, missed
    )


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


def _runs(change: OutputChange) -> list[NextToken]:
    """Join places with the same likeliest next token into stretches of the path."""
    runs: list[NextToken] = []
    for t, token, probability in zip(change.t, change.top, change.top_probability, strict=True):
        if runs and runs[-1].token == token:
            runs[-1] = replace(runs[-1], end=float(t), most=max(runs[-1].most, float(probability)))
        else:
            runs.append(NextToken(token, float(t), float(t), float(probability)))
    return runs
