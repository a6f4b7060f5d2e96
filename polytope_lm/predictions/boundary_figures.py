"""Dots and intervals: the effect of meaning on crossings, before and after what distance explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from polytope_lm.predictions.figures import intervals, layer_axis

if TYPE_CHECKING:
    from polytope_lm.inference.effects import Effect
    from polytope_lm.predictions.boundary_results import BoundariesResult

_SHOWN = (
    ("crossings", "raw", "#999999", "circle-open"),
    ("cosine distance in h", "raw", "#E69F00", "x"),
    ("flip-backs", "raw", "#56B4E9", "diamond-open"),
    ("flip-backs", "matched", "#009E73", "diamond"),
    ("flip-backs", "regressed", "#0072B2", "square"),
)
_CONTROLS = {"permuted": "#D55E00", "untrained": "#CC79A7"}


def effects_figure(result: BoundariesResult) -> go.Figure:
    """Return the figure: rows are layers, x is the AUC of different against same meaning.

    A line at 0.5 and a grey band for the smallest effect of interest. The square is the verdict's: flip-backs
    beyond all covariates.
    """
    figure = go.Figure()
    effect = result.settings.smallest_effect
    figure.add_vrect(
        x0=0.5 - effect, x1=0.5 + effect, fillcolor="#BBBBBB", opacity=0.35, line_width=0, layer="below"
    )
    figure.add_vline(x=0.5, line_color="#555555", line_width=1)
    series = [
        (f"{name}, {how}", colour, symbol, [_find(layer.effects, name, how) for layer in result.layers])
        for name, how, colour, symbol in _SHOWN
    ]
    for name in result.settings.controls:
        found = [next((c.effect for c in layer.controls if c.name == name), None) for layer in result.layers]
        series.append((f"flip-backs, regressed, {name}", _CONTROLS[name], "square-open", found))
    for i, (label, colour, symbol, effects) in enumerate(series):
        offset = (i - (len(series) - 1) / 2) * 0.8 / (len(series) + 1)
        there = [(row, e.by_group) for row, e in enumerate(effects) if e is not None]
        figure.add_scatter(
            x=[e.value for _, e in there],
            y=[row + offset for row, _ in there],
            error_x=intervals([estimate for _, estimate in there]),
            mode="markers",
            name=label,
            marker={"symbol": symbol, "color": colour, "size": 10},
            hovertemplate="%{x:.3f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis_title="AUC of different against same meaning",
        yaxis=layer_axis([layer.layer for layer in result.layers]),
        template="plotly_white",
        legend={"orientation": "h", "y": 1.12},
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
    )
    return figure


def _find(effects: tuple[Effect, ...], name: str, how: str) -> Effect | None:
    return next((e for e in effects if (e.name, e.adjustment) == (name, how)), None)
