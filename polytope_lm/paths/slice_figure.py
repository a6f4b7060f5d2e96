"""A slice as a picture: boundaries over the likeliest next token; texts are text, never markup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from polytope_lm.paths.figures import plain

if TYPE_CHECKING:
    from polytope_lm.paths.slices import Slice

_COLOURS = (
    "#88CCEE", "#DDCC77", "#CC6677", "#117733", "#AA4499", "#44AA99", "#999933", "#882255", "#6699CC",
    "#E69F00",
)  # fmt: skip
_OTHER = "#DDDDDD"


def slice_figure(piece: Slice) -> go.Figure:
    """Draw the window: colours are the likeliest next tokens, lines are boundaries, letters the prompts.

    Args:
        piece: what to draw.

    """
    figure = go.Figure()
    if piece.top.size:
        _add_tokens(figure, piece)
    gaps = np.full((len(piece.lines), 1, 2), np.nan)
    x, y = np.concatenate([piece.lines, gaps], axis=1).reshape(-1, 2).T
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": "rgba(0,0,0,0.45)", "width": 0.6}, name="boundaries",
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=piece.points[:, 0],
        y=piece.points[:, 1],
        mode="markers+text",
        text=list("ABC"),
        textposition="top center",
        textfont={"color": "black", "size": 14},
        hovertext=[f"{plain(a)} [{plain(b)}]" for a, b in zip(piece.prompts, piece.tokens, strict=True)],
        hoverinfo="text",
        marker={"color": "black", "size": 9},
        showlegend=False,
    )
    where = f"layer {piece.site.layer}, mlp_in: {len(piece):,} regions, {len(piece.neurons):,} boundaries"
    x0, x1, y0, y1 = piece.corners
    figure.update_layout(
        title={"text": f"{plain(piece.model)}, {where}", "font": {"size": 14}},
        xaxis={"range": [x0, x1], "title": "towards B", "constrain": "domain"},
        yaxis={"range": [y0, y1], "title": "towards C", "scaleanchor": "x", "constrain": "domain"},
        width=760,
        height=640,
        plot_bgcolor="white",
    )
    return figure


def _add_tokens(figure: go.Figure, piece: Slice) -> None:
    """Colour the grid by the likeliest next token: the ten most frequent, then one colour for the others."""
    tokens, counts = np.unique(piece.top, return_counts=True)
    ranked = tokens[np.argsort(-counts, kind="stable")]
    number = {int(token): min(i, len(_COLOURS)) for i, token in enumerate(ranked)}
    colours = [*_COLOURS[: len(ranked)], _OTHER][: max(number.values()) + 1]
    shares = np.linspace(0, 1, len(colours) + 1)
    steps = [(shares[i + j], colour) for i, colour in enumerate(colours) for j in (0, 1)]
    figure.add_heatmap(
        x=piece.grid[:, 0],
        y=piece.grid[:, 1],
        z=[[number[int(token)] for token in row] for row in piece.top],
        zmin=-0.5,
        zmax=len(colours) - 0.5,
        colorscale=steps,
        showscale=False,
        text=[[plain(repr(piece.words[int(token)])) for token in row] for row in piece.top],
        hovertemplate="next token: %{text}<extra></extra>",
    )
    for i, colour in enumerate(colours):
        name = "other" if i == len(_COLOURS) else f"{plain(repr(piece.words[int(ranked[i])]))}"
        marker = {"color": colour, "size": 12, "symbol": "square"}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)
