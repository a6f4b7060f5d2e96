"""Dots and intervals: how far crossings are denser at a pair's own peak than at other pairs' peaks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from polytope_lm.predictions.alignment_results import PRIMARY, SPEED
from polytope_lm.predictions.figures import intervals, layer_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.predictions.alignment_results import AlignmentResult, LayerAlignment

_COLOURS = {PRIMARY: "#0072B2", SPEED: "#D55E00"}


def alignment_figure(result: AlignmentResult) -> go.Figure:
    """Draw a row a layer, x the percentile beyond the cross-pair null with its 95 % interval.

    A zero line, and a grey band for the smallest effect of interest. Open marks are the untrained model's.

    Args:
        result: what was found.

    """
    figure = go.Figure()
    effect = float(result.settings["smallest_effect"])
    figure.add_vrect(x0=-effect, x1=effect, fillcolor="#BBBBBB", opacity=0.35, line_width=0, layer="below")
    figure.add_vline(x=0, line_color="#555555", line_width=1)
    sets = [(result.layers, "circle", ""), (result.twins, "circle-open", ", untrained")]
    marks = [(name, *one) for one in sets if one[0] for name in _COLOURS]
    for number, (name, layers, symbol, suffix) in enumerate(marks):
        _dots(figure, name, layers, symbol, suffix, (number - (len(marks) - 1) / 2) * 0.8 / (len(marks) + 1))
    figure.update_layout(
        xaxis_title="percentile at the output's sharpest change, beyond other pairs' peaks",
        yaxis=layer_axis([layer.layer for layer in result.layers]),
        height=200 + 70 * len(result.layers),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        title=escape(result.layers[0].model),
    )
    return figure


def _dots(
    figure: go.Figure, name: str, layers: Sequence[LayerAlignment], symbol: str, suffix: str, offset: float
) -> None:
    """Add one profile's marks, set apart so that their intervals do not cover each other."""
    found = [next(p for p in layer.profiles if p.name == name).beyond_pairs for layer in layers]
    figure.add_scatter(
        x=[one.value for one in found],
        y=[row + offset for row in range(len(found))],
        error_x=intervals(found),
        mode="markers",
        name=name + suffix,
        marker={"symbol": symbol, "color": _COLOURS[name], "size": 10},
        hovertemplate="%{x:+.3f}<extra>%{fullData.name}</extra>",
    )
