"""Figures that results draw of themselves, in the page's own style.

The page's figures as plotly specifications without colours: `var(--code)` is looked up in its style sheet.

They are plain JSON for plotly.js, drawn by `static/figures.js` when they come into sight, in the reader's
light or dark theme. Names that users chose pass through `inert.plotly_text`; no text of the corpus is here.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, BEST_COSINE, SCORES, SIMHASH
from polytope_lm.report.inert import plotly_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

    from polytope_lm.predictions.clusters.result import ClustersResult, Difference, Estimate, LayerComparison
    from polytope_lm.predictions.overview import CodeOverview, LayerOverview

_COLOURS = {
    "#0072B2": "var(--code)",
    "#E69F00": "var(--hue-1)",
    "#009E73": "var(--hue-2)",
    "#CC79A7": "var(--hue-3)",
    "#56B4E9": "var(--hue-4)",
    "#D55E00": "var(--hue-5)",
    "#000000": "var(--ink)",
    "#555555": "var(--ink-soft)",
    "#999999": "var(--ink-soft)",
    "#BBBBBB": "var(--band)",
}
"""Colours of the results' figures (Okabe & Ito's palette), and the style sheet's names of them."""


def in_style(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as plain data without colours or fonts of its own: the style sheet has them.

    Texts that came from a user were escaped by whoever drew the figure.
    """
    found: dict[str, Any] = json.loads(figure.to_json())
    layout = found["layout"]
    layout.pop("template", None)
    layout.pop("width", None)
    plain = {"color": "var(--ink-soft)", "size": 12}
    layout["font"] = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", **plain}
    layout |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "hovermode": "closest"}
    for name, axis in layout.items():
        if name.startswith(("xaxis", "yaxis")):
            axis |= {"gridcolor": "var(--grid)", "linecolor": "var(--rule)", "fixedrange": True}
            axis.setdefault("zeroline", False)
            axis["automargin"] = True
    return {"data": _coloured(found["data"]), "layout": _coloured(layout)}


def map_in_style(figure: go.Figure) -> dict[str, Any]:
    """Return a figure of coloured areas: white paper in the dark too, and the reader can zoom."""
    found = in_style(figure)
    found["layout"] |= {"plot_bgcolor": "white", "margin": {"l": 60, "r": 20, "t": 10, "b": 50}}
    found["layout"].pop("title", None)  # the page says it in words
    for name in ("xaxis", "yaxis"):
        found["layout"][name] |= {"fixedrange": False, "showgrid": False}
    return found


def height(figure: dict[str, Any], otherwise: int) -> int:
    """Return the height that a figure asks for, in pixels."""
    return int(figure["layout"].get("height", otherwise))


def _coloured(value: Any) -> Any:
    if isinstance(value, str):
        return _COLOURS.get(value.upper() if value.startswith("#") else value, value)
    if isinstance(value, list):
        return [_coloured(item) for item in value]
    if isinstance(value, dict):
        return {key: _coloured(item) for key, item in value.items()}
    return value


Figure = dict[str, Any]

_MARKS = (("--code", "circle"), ("--standardised", "diamond"), ("--simhash", "square-open"), ("--other", "x"))
_GAP = 0.2
"""Distance between the marks of one row, in rows."""
_SIZES = ((8, 9), (14, 7), (24, 5))
"""Size of the marks in pixels: 9 for up to 8 rows, ..."""
_ROWS_NAMED = 16
"""With more rows than this only every second one has its name beside it."""


def layout(**more: Any) -> Figure:
    """Return a figure's layout in the page's own style; `more` adds to it."""
    font = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", "size": 12}
    return {
        "font": {**font, "color": "var(--ink-soft)"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 12, "t": 24, "b": 40},
        "hoverlabel": {
            "bgcolor": "var(--paper)",
            "bordercolor": "var(--rule)",
            "font": {**font, "color": "var(--ink)"},
            "align": "left",
        },
        "hovermode": "closest",
        "showlegend": False,
        **more,
    }


def axis(**more: Any) -> Figure:
    """Return an axis in the page's own style, without zooming; `more` adds to it."""
    plain = {
        "gridcolor": "var(--grid)",
        "linecolor": "var(--rule)",
        "zeroline": False,
        "ticks": "",
        "fixedrange": True,
    }
    return {**plain, **more}


def headline_names(layers: Sequence[LayerComparison]) -> tuple[str, ...]:
    """Return what the first plot shows: the claim, its rate-standardised kin, the decisive control."""
    present = layers[0].representations
    claims = [r.name for r in present if r.role == "claim"]
    standardised = [r.name for r in present if r.name not in claims[:1] and "rate-standardised" in r.name]
    controls = [r.name for r in present if r.name.startswith(SIMHASH)]
    return tuple(dict.fromkeys([*claims[:1], *standardised[:1], *controls[:1]]))


def _row_of(layers: Sequence[LayerComparison], name: str, score: str) -> list[tuple[int, Difference]]:
    return [
        (row, found)
        for row, layer in enumerate(layers)
        for found in layer.differences
        if (found.representation, found.reference, found.score) == (name, BEST_COSINE, score)
    ]


def _interval_trace(estimates: Sequence[Estimate], ys: Sequence[float], mark: int, size: int = 9) -> Figure:
    """Return dots with their intervals at the heights `ys`, in one mark's colour and shape."""
    colour, symbol = _MARKS[min(mark, len(_MARKS) - 1)]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [e.value for e in estimates],
        "y": list(ys),
        "marker": {
            "color": f"var({colour})",
            "symbol": symbol,
            "size": size,
            "line": {"color": f"var({colour})", "width": 1},
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [e.high - e.value for e in estimates],
            "arrayminus": [e.value - e.low for e in estimates],
            "color": f"var({colour})",
            "thickness": 1.6 if size > 6 else 1,
            "width": 0,
        },
        "hoverinfo": "text",
    }


def differences_figure(result: ClustersResult) -> Figure:
    """Draw differences from the better centred or raw cosine: rows are layers, lines are 95 % intervals.

    Two fields, one for each score that the verdict reads; the grey band is what is too small to matter, +/-
    the smallest effect of interest.
    """
    names = headline_names(result.layers)
    size = next((size for upto, size in _SIZES if len(result.layers) <= upto), 4)
    traces = []
    for field, score in enumerate((AMI, AGREEMENT)):
        for mark, name in enumerate(names):
            offset = _GAP * (mark - (len(names) - 1) / 2)
            found = _row_of(result.layers, name, score)
            heights = [row + offset for row, _ in found]
            trace = _interval_trace([difference.estimate for _, difference in found], heights, mark, size)
            trace["name"] = plotly_text(name)
            trace["text"] = [
                f"{plotly_text(name)}, layer {result.layers[row].layer}<br>{score}: {d.estimate.value:+.3f} "
                f"[{d.estimate.low:+.3f}, {d.estimate.high:+.3f}] from the better cosine"
                for row, d in found
            ]
            traces.append({**trace, "xaxis": "x2" if field else "x", "yaxis": "y"})
    return {"data": traces, "layout": _differences_layout(result)}


def _differences_layout(result: ClustersResult) -> Figure:
    effect = result.settings.smallest_effect
    band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": -effect, "x1": effect, "layer": "below"}
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0, "layer": "below"}
    shapes = [
        shape
        for axis in ("x", "x2")
        for shape in (
            {**band, "xref": axis, "fillcolor": "var(--band)", "line": {"width": 0}},
            {**line, "xref": axis, "line": {"color": "var(--ink-soft)", "width": 1}},
        )
    ]
    title = {
        "xref": "paper",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "xanchor": "left",
        "showarrow": False,
    }
    rows = len(result.layers)
    step = 1 if rows <= _ROWS_NAMED else 2
    common = {"tickformat": "~g", "nticks": 5}
    return layout(
        xaxis=axis(domain=[0, 0.48], **common),
        xaxis2=axis(domain=[0.52, 1], anchor="y", **common),
        yaxis=axis(
            tickvals=list(range(0, rows, step)),
            ticktext=[f"layer {layer.layer}" for layer in result.layers[::step]],
            range=[rows - 0.4, -0.6],
            showgrid=False,
        ),
        shapes=shapes,
        annotations=[
            {**title, "x": 0, "text": "AMI with the label"},
            {**title, "x": 0.52, "text": "strict neighbour agreement"},
        ],
        margin={"l": 60, "r": 8, "t": 22, "b": 24},
    )


def scores_figure(layer: LayerComparison) -> Figure:
    """Draw every representation's scores with intervals, one field a score, in one layer."""
    present = layer.representations
    headline = headline_names([layer])
    traces = []
    for field, score in enumerate(SCORES):
        for row, one in enumerate(present):
            found = one.score(score)
            estimate = found.estimate
            mark = headline.index(one.name) if one.name in headline else len(_MARKS) - 1
            trace = _interval_trace([estimate], [row], mark)
            trace["text"] = [f"{plotly_text(one.name)}<br>{score}: {estimate} (n = {found.n:,})"]
            traces.append({**trace, "xaxis": f"x{field + 1}" if field else "x", "yaxis": "y"})
    return {"data": traces, "layout": _scores_layout(present)}


def _scores_layout(present: Sequence[Any]) -> Figure:
    title = {
        "xref": "paper",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "xanchor": "left",
        "showarrow": False,
    }
    starts = [0, 0.35, 0.7]
    axes = {
        f"xaxis{field + 1}" if field else "xaxis": axis(
            domain=[start, start + 0.3], anchor="y", rangemode="tozero", nticks=5, tickformat=".2~f"
        )
        for field, start in enumerate(starts)
    }
    return layout(
        **axes,
        yaxis=axis(
            tickvals=list(range(len(present))),
            ticktext=[plotly_text(one.name) for one in present],
            range=[len(present) - 0.5, -0.5],
            automargin=True,
        ),
        annotations=[{**title, "x": x, "text": s} for x, s in zip(starts, SCORES, strict=True)],
    )


def rates_figure(overview: CodeOverview) -> Figure:
    """Draw each layer's histogram of firing rates as a ridge, whose height is relative to its own layer."""
    rows = len(overview.layers)
    title = {"text": "share of tokens for which the neuron is on", "font": {"size": 12}}
    return {
        "data": [trace for row, layer in enumerate(overview.layers) for trace in _ridge(row, layer)],
        "layout": layout(
            xaxis=axis(range=[0, 1], title=title),
            yaxis=axis(
                tickvals=list(range(rows)),
                ticktext=[f"layer {layer.layer}" for layer in overview.layers],
                range=[rows - 0.8, -1],
                showgrid=False,
            ),
        ),
    }


def _ridge(row: int, layer: LayerOverview) -> tuple[Figure, Figure]:
    """Return a ridge's ground line and its outline, filled down to that line."""
    counts = layer.rate_histogram
    top, total, bins = max(counts) or 1, sum(counts) or 1, len(counts)
    steps = pairwise(i / bins for i in range(bins + 1))
    shares = [f"layer {layer.layer}: {100 * count / total:.1f} % of neurons" for count in counts]
    line = {"type": "scatter", "mode": "lines"}
    ground = {**line, "x": [0, 1], "y": [row, row], "line": {"width": 0}, "hoverinfo": "skip"}
    outline = {
        **line,
        "x": [x for step in steps for x in step],
        "y": [row - 0.85 * count / top for count in counts for _ in range(2)],
        "fill": "tonexty",
        "fillcolor": "var(--code-soft)",
        "line": {"color": "var(--code)", "width": 1.2, "simplify": False},
        "text": [share for share in shares for _ in range(2)],
        "hovertemplate": "%{text}<br>firing rate about %{x:.2f}<extra></extra>",
    }
    return ground, outline
