"""Figures that results draw of themselves, in the page's own style."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

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
