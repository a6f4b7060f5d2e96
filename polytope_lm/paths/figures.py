"""Crossings as a picture and as a table for notebooks; prompts are shown as text, never as markup."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

if TYPE_CHECKING:
    from polytope_lm.paths.crossings import Crossings, OutputChange

_BINS = 66  # two for each of the usual 33 steps
_TOKENS = ("#DDEEFF", "#FFE9CC", "#E2F2DC")  # neighbours differ


def plain(text: str) -> str:
    """Return text that neither a browser nor plotly's markup acts upon; controls are spelled out.

    Quotes stay, so it is no attribute's value: plotly would show `&quot;` as it is.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escape(shown, quote=False)


def crossings_figure(crossings: Crossings) -> go.Figure:
    """Draw a heat strip a layer along t, under the output's change and above the likeliest next token.

    Args:
        crossings: one path's crossings.

    """
    change = crossings.output_change
    strips = 24 * len(crossings.layers) + 60
    heights = [strips] if change is None else [120, strips, 40]
    figure = make_subplots(
        rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=20 / sum(heights)
    )
    middle = 1 if change is None else 2
    if change is not None:
        figure.add_trace(_change_trace(change), row=1, col=1)
        figure.update_yaxes(title_text="output change (JS)", rangemode="tozero", row=1, col=1)
        _add_next_tokens(figure, change, row=3)
    edges = np.linspace(0, 1, _BINS + 1)
    heat = go.Heatmap(
        x=(edges[:-1] + edges[1:]) / 2,
        y=[f"layer {part.layer}" for part in crossings.layers],
        z=crossings.histogram(_BINS),
        colorscale="Viridis",
        colorbar={"title": "crossings"},
        hovertemplate="%{y}, t = %{x:.2f}: %{z} crossings<extra></extra>",
    )
    figure.add_trace(heat, row=middle, col=1)
    figure.update_yaxes(autorange="reversed", type="category", row=middle, col=1)
    figure.update_xaxes(range=[0, 1])
    figure.update_xaxes(title_text="t", row=len(heights), col=1)
    title = f"{plain(crossings.prompts[0])} → {plain(crossings.prompts[1])}"
    figure.update_layout(title={"text": title, "font": {"size": 14}}, height=sum(heights) + 190, bargap=0)
    return figure


def _change_trace(change: OutputChange) -> go.Bar:
    steps = zip(change.t[:-1], change.t[1:], change.top[:-1], change.top[1:], strict=True)
    return go.Bar(
        x=(change.t[:-1] + change.t[1:]) / 2,
        y=change.js,
        width=np.diff(change.t),
        hovertext=[
            f"t {a:.3f} to {b:.3f}: {plain(before)} → {plain(after)}" for a, b, before, after in steps
        ],
        hovertemplate="%{hovertext}, %{y:.3f}<extra></extra>",
        showlegend=False,
    )


def _add_next_tokens(figure: go.Figure, change: OutputChange, row: int) -> None:
    """Write the likeliest next token into the stretch of the path where it is that, changing at midpoints."""
    turns = [i for i in range(1, len(change.top)) if change.top[i] != change.top[i - 1]]
    firsts = [0, *turns]
    bounds = [0.0, *((change.t[i - 1] + change.t[i]) / 2 for i in turns), 1.0]
    names = [plain(repr(change.top[i])) for i in firsts]
    ends = [*turns, len(change.top)]
    most = [float(change.top_probability[a:b].max()) for a, b in zip(firsts, ends, strict=True)]
    figure.add_bar(
        x=(np.array(bounds[:-1]) + bounds[1:]) / 2,
        y=[1] * len(names),
        width=np.diff(bounds),
        marker={"color": [_TOKENS[i % len(_TOKENS)] for i in range(len(names))]},
        text=names,
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        customdata=most,
        hovertemplate="next token %{text}, probability up to %{customdata:.2f}<extra></extra>",
        showlegend=False,
        row=row,
        col=1,
    )
    figure.update_yaxes(range=[0, 1], showticklabels=False, title_text="next", row=row, col=1)


def crossings_table(crossings: Crossings) -> str:
    """Return an HTML table with a row a layer: crossings, those of neurons that return, how they were found.

    Args:
        crossings: one path's crossings.

    """
    returns = crossings.returns
    rows = []
    for part in crossings.layers:
        here = crossings.layer == part.layer
        counts = (here.sum(), part.hamming, (here & returns).sum())
        cells = (part.layer, *counts, part.method, part.missed, part.site.premises)
        rows.append("".join(f"<td>{plain(str(cell))}</td>" for cell in cells))
    names = "layer|crossings|bits that differ|of neurons that return|found by|missed at most|premises"
    head = "".join(f"<th>{name}</th>" for name in names.split("|"))
    ends = " → ".join(f"<bdi>{plain(prompt)}</bdi>" for prompt in crossings.prompts)
    where = f"{crossings.shape} in {crossings.space} of layer {crossings.site.layer}"
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p>{ends}<br>{plain(where)}, length {crossings.length:.4g}</p>{table}"
