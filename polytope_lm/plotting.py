"""One drawing for each kind of figure, used by results in notebooks and by the report alike.

| drawing | shows | used by |
|---|---|---|
| `dots` | numbers with their intervals, a row a layer | every verdict's headline |
| `strips` | crossings along a path, a strip a layer | `Crossings` |
| `areas` | a plane coloured by token, cut by lines | `Slice` |
| `choices` | leads by size, the choices behind each below | `Multiverse` |
| `clouds` | named groups of points | neurons |
| `curves` | numbers along a line, ticks below, a band | `TrustRadius` |
| `histories` | numbers over the steps of a training, or over k, a panel each | `Reduction` |
| `ridges` | a histogram a row | `CodeOverview` |

They take names and numbers and return plotly figures. Names are made inert here (`errors.escaped`), so that
callers give them as they are; what they pass as `hover` is markup, escaped by themselves. Series differ in
shape as well as in hue (Okabe & Ito's palette), so that a figure can be read without colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import plotly.graph_objects as go
from einops import rearrange

from polytope_lm.errors import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
SYMBOLS = ("circle", "diamond", "square-open", "x", "triangle-up", "cross", "star", "pentagon-open")
INK, SOFT, BAND, RULE, GRID, PAPER = "#1D2125", "#59626B", "#E4E1D8", "#D9D6CD", "#ECEAE3", "#FFFFFF"
ON, OFF, CHANGE, FILL = "#0072B1", "#C4560A", "#1D2126", "rgba(29, 33, 37, 0.1)"
"""Ticks of neurons that turn on or off, the output's change and what is below it."""
SHADE = "rgba(0, 114, 178, 0.22)"
AREAS = (
    "#88CCEE", "#DDCC77", "#CC6677", "#117733", "#AA4499", "#44AA99", "#999933", "#882255", "#6699CC",
    "#E69F00",
)  # fmt: skip
"""Tol's muted colours, for areas that also have their names written into them."""
_OTHER = "#DDDDDD"
_SIZES = ((8, 9), (14, 7), (24, 5))
"""Size of the marks in pixels: 9 for up to 8 rows, ..."""
_ROWS_NAMED = 16
"""With more layers than this only every second one has its name beside it."""
_CHANGE, _NEXT, _ROW, _ROW_OF_MANY = 120, 34, 34, 22
"""Heights in pixels: the output's change, the next token, a strip of up to 12 layers and of more."""
_LEADS, _CHOICE = 260, 18
"""Heights in pixels: the curve of leads, and each choice's row below it."""
_SEEN = 7
"""Groups of points with a colour and shape of their own."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


class Interval(Protocol):
    """A number with its interval."""

    @property
    def value(self) -> float:
        """The number."""

    @property
    def low(self) -> float:
        """The interval's lower end."""

    @property
    def high(self) -> float:
        """The interval's upper end."""


@dataclass(frozen=True)
class Marks:
    """A series of numbers, one a row; None where a row has none.

    Attributes:
        name: in the legend.
        found: the numbers.
        style: which colour and shape.
        open: an empty shape, for another model's numbers.

    """

    name: str
    found: Sequence[Interval | None]
    style: int = 0
    open: bool = False


def dots(
    rows: Sequence[object],
    panels: Mapping[str, Sequence[Marks]],
    *,
    line: float | None = None,
    band: tuple[float, float] | None = None,
    signed: bool = False,
    title: str = "",
) -> go.Figure:
    """Draw dots with their intervals in rows, the first row on top, one panel beside the other.

    Args:
        rows: what each row is; a whole number is a layer.
        panels: what x is in each, and its series.
        line: where nothing differs.
        band: what is too small to matter.
        signed: numbers are differences.
        title: above the figure.

    """
    names = [f"layer {row}" if isinstance(row, int) else escaped(row) for row in rows]
    figure = _figure(height=150 + 42 * len(rows), title=escaped(title), margin={"t": 70 if title else 50})
    width = 1 / len(panels)
    for number, (what, series) in enumerate(panels.items()):
        key = str(number + 1) if number else ""
        _dots_panel(figure, key, names, series, signed=signed)
        place = [number * width, (number + 1) * width - 0.05 * (number + 1 < len(panels))]
        figure.layout[f"xaxis{key}"] = _axis(
            domain=place, anchor="y", nticks=5, ticklabeloverflow="hide past domain", title=escaped(what)
        )
        reference: dict[str, Any] = {"xref": f"x{key}", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
        if band is not None:
            area = {"x0": band[0], "x1": band[1], "fillcolor": BAND, "line": {"width": 0}}
            figure.add_shape(type="rect", **reference, **area)
        if line is not None:
            figure.add_shape(type="line", **reference, x0=line, x1=line, line={"color": SOFT, "width": 1})
    layers = all(isinstance(row, int) for row in rows)  # whose neighbours' names can be guessed
    step = 2 if layers and len(rows) > _ROWS_NAMED else 1
    figure.layout.yaxis = _axis(
        tickvals=list(range(0, len(rows), step)), ticktext=names[::step], range=[len(rows) - 0.4, -0.6],
        showgrid=False,
    )  # fmt: skip
    return figure


def _dots_panel(figure: go.Figure, key: str, names: Sequence[str], series: Sequence[Marks], *, signed: bool) -> None:
    """Add one panel's series; marks of one row are set apart, so that no interval covers another."""
    there = [[i for i, one in enumerate(series) if one.found[row] is not None] for row in range(len(names))]
    size = next((size for upto, size in _SIZES if len(names) <= upto), 4)
    form = "+.3f" if signed else ".3f"
    for number, one in enumerate(series):
        found = [(row, each) for row, each in enumerate(one.found) if each is not None]
        shifts = [there[row].index(number) - (len(there[row]) - 1) / 2 for row, _ in found]
        gaps = [0.8 / (len(there[row]) + 1) for row, _ in found]
        colour = COLOURS[one.style % len(COLOURS)]
        symbol = SYMBOLS[one.style % len(SYMBOLS)]
        figure.add_scatter(
            x=[each.value for _, each in found],
            y=[row + gap * shift for (row, _), gap, shift in zip(found, gaps, shifts, strict=True)],
            mode="markers",
            name=escaped(one.name),
            legendgroup=escaped(one.name),
            showlegend=not key,
            marker={
                "color": colour, "size": size, "line": {"color": colour, "width": 1},
                "symbol": f"{symbol.removesuffix('-open')}-open" if one.open else symbol,
            },
            error_x={
                "type": "data", "symmetric": False, "color": colour, "width": 0,
                "array": [each.high - each.value for _, each in found],
                "arrayminus": [each.value - each.low for _, each in found],
                "thickness": 1.6 if size > 6 else 1,
            },
            text=[
                f"{escaped(one.name)}, {names[row]}<br>{each.value:{form}} "
                f"[{each.low:{form}}, {each.high:{form}}]"
                for row, each in found
            ],
            hovertemplate="%{text}<extra></extra>",
            xaxis=f"x{key}",
            yaxis="y",
        )  # fmt: skip


class Change(Protocol):
    """How the output changes along a path."""

    @property
    def t(self) -> np.ndarray:
        """Places."""

    @property
    def js(self) -> np.ndarray:
        """Jensen-Shannon distance of each step."""

    @property
    def top(self) -> Sequence[str]:
        """The likeliest next token of each place."""

    @property
    def top_probability(self) -> np.ndarray:
        """Its probability."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of the path with one likeliest next token; `most` is its highest probability there."""

    token: str
    start: float
    end: float
    most: float


def stretches(change: Change) -> list[Stretch]:
    """Join places with the same likeliest next token into stretches of the path."""
    firsts = [i for i, token in enumerate(change.top) if not i or token != change.top[i - 1]]
    runs = zip(firsts, [*firsts[1:], len(change.top)], strict=True)
    return [
        Stretch(change.top[a], float(change.t[a]), float(change.t[b - 1]), float(change.top_probability[a:b].max()))
        for a, b in runs
    ]


def strips(
    layers: Sequence[int], crossings: Sequence[np.ndarray] | None, change: Change | None, *, title: str = ""
) -> go.Figure:
    """Draw a strip of ticks for each layer, under the output's change and above the likeliest next token.

    A tick is one neuron at its boundary: upwards where it turns on, downwards where it turns off.

    Args:
        layers: the strips, from top to bottom; with one layer its next tokens are left out.
        crossings: t, layer, neuron and on of each crossing, in the order of layers and t; None: two combs
            without ticks, which the report's own script fills.
        change: the output along the path.
        title: above the figure.

    """
    one = len(layers) == 1
    row = _ROW if len(layers) <= 12 else _ROW_OF_MANY
    below = _NEXT * (change is not None and not one)
    height = _CHANGE * (change is not None) + below + row * len(layers) * (1 + one) + 70 + 30 * bool(title)
    figure = _figure(height=height, title=escaped(title), margin={"l": 102, "r": 10, "t": 36 if title else 8, "b": 40})
    figure.update_layout(showlegend=False)
    split = 1.0 if change is None else 1 - (0.5 if one else _CHANGE / height)
    figure.layout.xaxis = _axis(range=[0, 1], anchor="y", title="t, from the first prompt to the second")
    figure.layout.yaxis = _axis(
        range=[len(layers) - 0.5, -0.5],
        showgrid=False,
        domain=[below / height, split - 0.05 * (change is not None)],
        tickvals=[-0.22, 0.22] if one else list(range(len(layers))),
        ticktext=["turns on", "turns off"] if one else [f"layer {layer}" for layer in layers],
    )
    if change is not None:
        _add_change(figure, change, split)
        if not one:
            _add_next_tokens(figure, stretches(change), 0.8 * below / height)
    for on, name, colour in ((0, "off", OFF), (1, "on", ON)):
        figure.add_scatter(
            mode="lines",
            name=name,
            line={"color": colour, "width": 1, "simplify": False},
            opacity=0.75,
            **({"x": [], "y": []} if crossings is None else _comb(layers, crossings, on=bool(on))),
        )
    return figure


def _comb(layers: Sequence[int], crossings: Sequence[np.ndarray], *, on: bool) -> dict[str, Any]:
    """Return the ticks of one direction: a row's are one path, along the comb's back.

    A path for each tick would be thousands of elements.
    """
    t, layer, neuron, turns_on = crossings
    near, far = (-0.04, -0.42) if on else (0.04, 0.42)
    direction = "on" if on else "off"
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str] = []
    for row, one in enumerate(layers):
        here = (layer == one) & (turns_on.astype(bool) == on)
        for place, index in zip(t[here].tolist(), neuron[here].tolist(), strict=True):
            xs += [place] * 3
            ys += [row + near, row + far, row + near]
            texts += [f"layer {one}, neuron {index} turns {direction} at t = {place:.4f}"] * 3
        xs.append(None)
        ys.append(None)
        texts.append("")
    return {"x": xs, "y": ys, "text": texts, "hoverinfo": "text"}


def _add_change(figure: go.Figure, change: Change, split: float) -> None:
    """Draw the output's change above the strips, in steps as wide as the path's own."""
    figure.layout.yaxis2 = _axis(domain=[split, 1], rangemode="tozero", nticks=3)
    figure.add_annotation(
        text="output<br>change", xref="paper", yref="paper", x=0, xanchor="right", xshift=-44,
        y=(split + 1) / 2, yanchor="middle", showarrow=False, align="right",
    )  # fmt: skip
    figure.add_scatter(
        x=list(change.t),
        y=[*change.js, change.js[-1]],
        mode="lines",
        fill="tozeroy",
        fillcolor=FILL,
        line={"color": CHANGE, "width": 1.4, "shape": "hv", "simplify": False},
        hovertemplate="output change %{y:.3f} (JS distance) near t = %{x:.2f}<extra></extra>",
        yaxis="y2",
    )


def _add_next_tokens(figure: go.Figure, runs: Sequence[Stretch], share: float) -> None:
    """Write the likeliest next token below the strips, changing midway between two places."""
    bounds = [0.0, *((a.end + b.start) / 2 for a, b in pairwise(runs)), 1.0]
    figure.add_bar(
        orientation="h",
        base=bounds[:-1],
        x=np.diff(bounds).tolist(),
        y=[0] * len(runs),
        width=1,
        marker={"color": [(BAND, GRID)[i % 2] for i in range(len(runs))], "line": {"color": RULE, "width": 1}},
        text=[escaped(repr(run.token)) for run in runs],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        customdata=[[run.start, run.end, run.most] for run in runs],
        hovertemplate="likeliest next token %{text}, t = %{customdata[0]:.2f} to %{customdata[1]:.2f}, "
        "p up to %{customdata[2]:.2f}<extra></extra>",
        yaxis="y3",
    )
    figure.layout.xaxis.anchor = "y3"
    figure.layout.yaxis3 = _axis(
        domain=[0, share], range=[-0.5, 0.5], showgrid=False, tickvals=[0], ticktext=["next token"]
    )
    figure.update_layout(barmode="overlay", uniformtext={"minsize": 11, "mode": "hide"})  # where there is room


def areas(
    grid: np.ndarray,
    names: Sequence[Sequence[str]],
    lines: np.ndarray,
    points: Mapping[str, tuple[float, float]],
    corners: tuple[float, float, float, float],
    title: str,
) -> go.Figure:
    """Draw a plane: areas coloured by name, with the name written into each of the commonest; lines; points.

    Args:
        grid: x and y of the coloured places, `[G, 2]`.
        names: the name at each place, rows along y; empty: no areas.
        lines: ends of each line, `[n, 2, 2]`.
        points: what is said of a point, and where it is; they are lettered A, B, ...
        corners: x from, x to, y from, y to.
        title: above the figure.

    """
    figure = _figure(height=640, title=escaped(title), margin={"l": 60, "r": 20, "t": 60, "b": 50})
    figure.update_layout(width=760, plot_bgcolor=PAPER)
    if len(names):
        _add_areas(figure, grid, np.array([[escaped(repr(name)) for name in row] for row in names]))
    apart = np.concatenate([lines, np.full((len(lines), 1, 2), np.nan)], axis=1)
    x, y = rearrange(apart, "line end xy -> xy (line end)")
    thin = {"color": "rgba(0,0,0,0.45)", "width": 0.6}
    figure.add_scatter(x=x, y=y, mode="lines", line=thin, name="boundaries", hoverinfo="skip")
    figure.add_scatter(
        x=[place[0] for place in points.values()],
        y=[place[1] for place in points.values()],
        mode="markers+text",
        text=list("ABC"[: len(points)]),
        textposition="top center",
        textfont={"color": "black", "size": 14},
        hovertext=[escaped(name) for name in points],
        hoverinfo="text",
        marker={"color": "black", "size": 9},
        showlegend=False,
    )
    figure.layout.xaxis = _axis(range=corners[:2], title="towards B", constrain="domain", showgrid=False)
    figure.layout.yaxis = _axis(
        range=corners[2:], title="towards C", constrain="domain", showgrid=False, scaleanchor="x"
    )
    return figure


def _add_areas(figure: go.Figure, grid: np.ndarray, names: np.ndarray) -> None:
    """Colour the grid by name: the ten most frequent, then one colour for the others."""
    values, counts = np.unique(names, return_counts=True)
    ranked = list(values[np.argsort(-counts, kind="stable")])
    number = {name: min(i, len(AREAS)) for i, name in enumerate(ranked)}
    colours = [*AREAS, _OTHER][: max(number.values()) + 1]
    shares = np.linspace(0, 1, len(colours) + 1)
    figure.add_heatmap(
        x=grid[:, 0],
        y=grid[:, 1],
        z=[[number[name] for name in row] for row in names],
        zmin=-0.5,
        zmax=len(colours) - 0.5,
        colorscale=[(shares[i + j], colour) for i, colour in enumerate(colours) for j in (0, 1)],
        showscale=False,
        text=names.tolist(),
        hovertemplate="next token: %{text}<extra></extra>",
    )
    for i, colour in enumerate(colours):
        name = "other" if i == len(AREAS) else ranked[i]
        marker = {"color": colour, "size": 12, "symbol": "square"}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)
        if i < len(AREAS) and (names == ranked[i]).mean() > 0.02:
            rows, columns = np.nonzero(names == ranked[i])
            # The place of this name nearest to the middle of all of them: never outside its own area.
            near = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            figure.add_annotation(
                x=float(grid[columns[near], 0]), y=float(grid[rows[near], 1]), text=ranked[i],
                showarrow=False, bgcolor="rgba(255,255,255,0.75)", font={"color": "black", "size": 11},
            )  # fmt: skip


@dataclass(frozen=True)
class Lead:
    """One column of `choices`: its number, its group, what hovering says, and the rows with a mark."""

    value: float
    group: str
    hover: str
    rows: Sequence[int]


def choices(leads: Sequence[Lead], rows: Sequence[str], y: str, x: str) -> go.Figure:
    """Draw one column a specification: its number above, a mark in the row of each choice made below."""
    height = _LEADS + _CHOICE * max(len(rows), 1)
    figure = _figure(height=height + 120)
    split = _CHOICE * max(len(rows), 1) / height
    for number, group in enumerate(sorted({lead.group for lead in leads})):
        chosen = [(place, lead) for place, lead in enumerate(leads) if lead.group == group]
        colour, symbol = COLOURS[number % len(COLOURS)], SYMBOLS[number % len(SYMBOLS)]
        both = {"mode": "markers", "name": escaped(group), "legendgroup": escaped(group)}
        figure.add_scatter(
            x=[place for place, _ in chosen],
            y=[lead.value for _, lead in chosen],
            marker={"color": colour, "symbol": symbol, "size": 6},
            hovertext=[lead.hover for _, lead in chosen],
            hoverinfo="text",
            yaxis="y",
            **both,
        )
        marks = [(place, row) for place, lead in chosen for row in lead.rows]
        figure.add_scatter(
            x=[place for place, _ in marks],
            y=[row for _, row in marks],
            marker={"color": colour, "symbol": "line-ns-open", "size": 9},
            showlegend=False,
            hoverinfo="skip",
            yaxis="y2",
            **both,
        )
    figure.add_shape(type="line", xref="paper", x0=0, x1=1, y0=0, y1=0, line={"color": SOFT, "width": 1}, layer="below")
    figure.layout.yaxis = _axis(title=escaped(y), domain=[split + 0.04, 1])
    figure.layout.yaxis2 = _axis(
        tickvals=list(range(len(rows))), ticktext=[escaped(row) for row in rows], autorange="reversed",
        showgrid=False, domain=[0, split],
    )  # fmt: skip
    figure.layout.xaxis = _axis(showticklabels=False, showgrid=False, title=escaped(x), anchor="y2")
    return figure


@dataclass(frozen=True)
class Cloud:
    """A named group of points, and what hovering says of each."""

    name: str
    x: Iterable[float]
    y: Iterable[float]
    hover: Sequence[str]
    faint: bool = False


def clouds(
    groups: Sequence[Cloud], title: str, x: str, *, y: str = "", rows: Sequence[str] = (), size: int = 9
) -> go.Figure:
    """Draw groups of points, each in a colour and shape of its own."""
    figure = _figure(height=220 + 26 * len(rows) if rows else 480, title=escaped(title), margin={"t": 80})
    for number, group in enumerate(groups):
        style = len(COLOURS) - 1 if group.faint else number % _SEEN
        figure.add_scatter(
            x=list(group.x),
            y=list(group.y),
            mode="markers",
            name=escaped(group.name),
            marker={"color": COLOURS[style], "symbol": SYMBOLS[style], "size": size, "opacity": 0.7},
            text=list(group.hover),
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
        )
    figure.layout.xaxis = _axis(title=escaped(x))
    named = {"tickvals": list(range(len(rows))), "ticktext": [escaped(row) for row in rows]} if rows else {}
    figure.layout.yaxis = _axis(title=escaped(y), zeroline=not rows, zerolinecolor=SOFT, **named)
    return figure


@dataclass(frozen=True)
class Curve:
    """One number along a line; with `low` and `high`, its interval at each place."""

    name: str
    x: Iterable[float]
    y: Iterable[float]
    low: Iterable[float] | None = None
    high: Iterable[float] | None = None


_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def curves(
    lines: Sequence[Curve],
    *,
    ticks: Iterable[float] = (),
    band: tuple[float, float] | None = None,
    band_name: str = "",
    x: str = "",
    y: str = "",
    title: str = "",
) -> go.Figure:
    """Draw numbers along a line, with ticks on the axis and a band.

    Args:
        lines: the numbers.
        ticks: places that are marked below, such as boundaries crossed.
        band: from where to where.
        band_name: what it is.
        x: what runs along the axis.
        y: what is drawn.
        title: above the figure.

    """
    figure = _figure(height=420, title=escaped(title), margin={"t": 90})
    for number, line in enumerate(lines):
        style = {"color": COLOURS[number % len(COLOURS)], "width": 2, "dash": _DASHES[number % len(_DASHES)]}
        figure.add_scatter(x=list(line.x), y=list(line.y), mode="lines", name=escaped(line.name), line=style)
    if band is not None:
        figure.add_shape(
            type="rect", yref="paper", x0=band[0], x1=band[1], y0=0, y1=1, fillcolor=BAND, line={"width": 0},
            layer="below", opacity=0.7,
        )  # fmt: skip
        figure.add_annotation(
            x=band[1], yref="paper", y=1, text=escaped(band_name), showarrow=False, xanchor="left", yanchor="top"
        )
    marks = list(ticks)
    figure.add_scatter(
        x=marks, y=[0.0] * len(marks), mode="markers", name="boundaries crossed", yaxis="y2",
        marker={"symbol": "line-ns-open", "color": SOFT, "size": 10},
        hovertemplate="a boundary of this layer at %{x:.4g}<extra></extra>", showlegend=bool(marks),
    )  # fmt: skip
    figure.layout.xaxis = _axis(title=escaped(x), anchor="y2")
    figure.layout.yaxis = _axis(title=escaped(y), domain=[0.08, 1], zeroline=True, zerolinecolor=SOFT)
    figure.layout.yaxis2 = _axis(domain=[0, 0.05], showticklabels=False, showgrid=False, range=[-1, 1])
    return figure


def histories(
    panels: Mapping[str, Sequence[Curve]],
    *,
    x: str,
    note: str = "",
    columns: int = 3,
    span: tuple[float, float] | None = None,
) -> go.Figure:
    """Draw many numbers over the steps of a training, or over k, a panel each, on one logarithmic axis of steps.

    Args:
        panels: the curves of each panel, by its title. Step 0 is drawn at a half.
        x: what the steps are.
        note: a sentence above the panels.
        columns: panels side by side.
        span: what the axis of the numbers shows; curves that leave it are cut there.

    """
    from plotly.subplots import make_subplots  # noqa: PLC0415 - slow to import and used here alone

    columns, alone = min(columns, len(panels)), len(panels) == 1
    rows = -(-len(panels) // columns)
    titles = [escaped(title) for title in panels]
    title = escaped(note) or (titles.pop() if alone else "")
    grid = make_subplots(rows, columns, subplot_titles=titles, vertical_spacing=0.32 / rows, horizontal_spacing=0.07)
    figure = _figure(height=110 + 290 * rows, title=title, margin={"t": 80})
    figure.layout.annotations = grid.layout.annotations
    for number, lines in enumerate(panels.values()):
        end = str(number + 1) if number else ""
        figure.layout[f"xaxis{end}"] = grid.layout[f"xaxis{end}"].to_plotly_json() | _axis(title=escaped(x), type="log")
        figure.layout[f"yaxis{end}"] = grid.layout[f"yaxis{end}"].to_plotly_json() | _axis(range=span)
        for i, line in enumerate(lines):
            y, bars = list(line.y), None
            if line.low is not None and line.high is not None:
                above = [high - value for high, value in zip(line.high, y, strict=True)]
                below = [value - low for low, value in zip(line.low, y, strict=True)]
                bars = {"array": above, "arrayminus": below, "thickness": 1, "width": 3}
            figure.add_scatter(
                x=[max(step, 0.5) for step in line.x], y=y, error_y=bars, mode="lines+markers", name=escaped(line.name),
                legendgroup=None if alone else str(number), xaxis=f"x{end}", yaxis=f"y{end}", showlegend=alone,
                line={"color": COLOURS[i % len(COLOURS)], "width": 2, "dash": _DASHES[i % len(_DASHES)]},
                marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 6},
                hovertemplate=f"{escaped(line.name)}<br>%{{x}}: %{{y:.4g}}<extra></extra>",
            )  # fmt: skip
            if alone:
                continue  # the legend has the names
            figure.add_annotation(
                x=1, y=1 - 0.07 * i, xref=f"x{end} domain", yref=f"y{end} domain", xanchor="right", yanchor="top",
                text=escaped(line.name), showarrow=False, font={"color": COLOURS[i % len(COLOURS)], "size": 10},
            )  # fmt: skip
    return figure


def ridges(rows: Sequence[str], counts: Sequence[Sequence[int]], x: str, of: str) -> go.Figure:
    """Draw a histogram of shares, from 0 to 1, in each row; its height is relative to its own row."""
    figure = _figure(height=90 + 44 * len(rows), margin={"t": 10})
    figure.update_layout(showlegend=False)
    for row, (name, each) in enumerate(zip(rows, counts, strict=True)):
        steps = list(pairwise(i / len(each) for i in range(len(each) + 1)))
        top, total = max(each) or 1, sum(each) or 1
        texts = [f"{escaped(name)}: {100 * count / total:.1f} % of {of}" for count in each]
        ground = {"width": 0}
        figure.add_scatter(x=[0, 1], y=[row, row], mode="lines", line=ground, hoverinfo="skip")
        figure.add_scatter(
            x=[place for step in steps for place in step],
            y=[row - 0.85 * count / top for count in each for _ in range(2)],
            mode="lines",
            fill="tonexty",
            fillcolor=SHADE,
            line={"color": COLOURS[0], "width": 1.2, "simplify": False},
            text=[text for text in texts for _ in range(2)],
            hovertemplate="%{text}<br>about %{x:.2f}<extra></extra>",
        )
    figure.layout.xaxis = _axis(range=[0, 1], title=escaped(x))
    figure.layout.yaxis = _axis(
        tickvals=list(range(len(rows))), ticktext=[escaped(row) for row in rows], range=[len(rows) - 0.8, -1],
        showgrid=False,
    )  # fmt: skip
    return figure


def _figure(*, height: int, title: str = "", margin: Mapping[str, int] | None = None) -> go.Figure:
    """Return an empty figure in the package's style."""
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "title": {"text": title, "font": {"size": 14}} if title else None,
            "font": {"family": _FONT, "size": 12, "color": SOFT},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "margin": {"l": 60, "r": 16, "t": 50, "b": 50} | dict(margin or {}),
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": PAPER, "bordercolor": RULE, "font": {"color": INK}, "align": "left"},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        }
    )


def _axis(**more: Any) -> dict[str, Any]:
    """Return an axis in the package's style; `more` adds to it."""
    title = {"text": more.pop("title", ""), "standoff": 6, "font": {"size": 12}}
    plain = {"gridcolor": GRID, "linecolor": RULE, "zeroline": False, "ticks": "", "automargin": True}
    return {**plain, "title": title, **more}
