"""Dots and intervals: how far each representation is ahead of the better cosine, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.names import BEST_COSINE, SCORES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.inference.intervals import Estimate
    from polytope_lm.predictions.results import ClustersResult

_SYMBOLS = ("circle", "diamond", "x", "square", "triangle-up", "cross", "star")
_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def differences_figure(result: ClustersResult, score: str) -> go.Figure:
    """Return the figure: rows are layers, x the difference from the better cosine with its 95 % interval.

    A zero line, and a grey band for the smallest effect of interest: a lead inside the band is of no
    interest.

    Raises:
        PolytopeError: an unknown score.

    """
    if score not in SCORES:
        msg = f"no score {score!r}; there are {', '.join(repr(name) for name in SCORES)}"
        raise PolytopeError(msg)
    figure = go.Figure()
    effect = result.settings.smallest_effect
    figure.add_vrect(x0=-effect, x1=effect, fillcolor="#BBBBBB", opacity=0.35, line_width=0, layer="below")
    figure.add_vline(x=0, line_color="#555555", line_width=1)
    names = list(
        dict.fromkeys(d.representation for d in result.layers[0].differences if d.reference == BEST_COSINE)
    )
    for i, name in enumerate(names):
        found = [layer.difference(name, BEST_COSINE, score).estimate for layer in result.layers]
        # Marks of one layer are set apart, so that their intervals do not cover each other.
        offset = (i - (len(names) - 1) / 2) * 0.8 / (len(names) + 1)
        figure.add_scatter(
            x=[each.value for each in found],
            y=[row + offset for row in range(len(found))],
            error_x=intervals(found),
            mode="markers",
            name=name.replace("<", "&lt;"),
            marker={"symbol": _SYMBOLS[i % len(_SYMBOLS)], "color": _COLOURS[i % len(_COLOURS)], "size": 10},
            hovertemplate="%{x:+.3f}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        xaxis_title=f"{score}: difference from the better cosine of h",
        yaxis=layer_axis([layer.layer for layer in result.layers]),
        template="plotly_white",
        legend={"orientation": "h", "y": 1.08},
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
    )
    return figure


def layer_axis(layers: Sequence[int]) -> dict[str, object]:
    """Return plotly's y axis on which rows are layers, the first on top."""
    return {
        "title": "layer",
        "tickvals": list(range(len(layers))),
        "ticktext": [str(layer) for layer in layers],
        "autorange": "reversed",
    }


def intervals(found: Sequence[Estimate]) -> dict[str, object]:
    """Return plotly's error bars of the estimates."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [each.high - each.value for each in found],
        "arrayminus": [each.value - each.low for each in found],
    }
