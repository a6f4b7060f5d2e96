"""Pictures of a small network: its regions from above, folded in space, as dual points, and a line with its bends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from polytope_lm.errors import PolytopeError, escaped
from polytope_lm.plotting import COLOURS, GRID, INK, PAPER, RULE, SOFT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from polytope_lm.geometry.plane_regions import Regions

SCALE = ((0.0, COLOURS[2]), (0.5, PAPER), (1.0, COLOURS[0]))
"""Orange below 0, white at 0, blue above."""
_LAYERS = (INK, "#8F1D6B", "#00724F", "#7A5200")
_SHADES = 41
EDGE = "#5A626A"
"""Of a region, in an image."""


def above(found: Regions, title: str = "") -> go.Figure:
    """Draw regions from above, coloured by the mean output, with each layer's boundaries and where the output is 0.

    Boundaries of the first layer are straight; a later layer's bend where they meet an earlier one's.

    Args:
        found: from `toys.regions`; the first output is shown.
        title: of the figure.

    """
    figure = _figure(title, 560)
    values = found.values[:, 0]
    means = np.array([values[list(face)].mean() for face in found.faces])
    most = float(np.abs(means).max(initial=1e-12))
    shade = np.clip(np.rint((means / most + 1) / 2 * (_SHADES - 1)).astype(int), 0, _SHADES - 1)
    for level in np.unique(shade):
        outlines = [found.vertices[[*found.faces[i], found.faces[i][0]]] for i in np.flatnonzero(shade == level)]
        x, y = _joined(outlines)
        colour = blend(level / (_SHADES - 1))
        figure.add_scatter(
            x=x, y=y, fill="toself", fillcolor=colour, mode="lines", line={"width": 0}, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
    ends = np.stack([found.corners, found.following], axis=1)
    for layer in range(len(found.network.biases)):
        x, y = _joined(found.vertices[ends[found.layers == layer]])
        colour = _LAYERS[layer % len(_LAYERS)]
        figure.add_scatter(
            x=x, y=y, mode="lines", line={"color": colour, "width": 1.4}, name=f"boundaries of layer {layer + 1}",
            hoverinfo="skip",
        )  # fmt: skip
    x, y = _joined(zeros(found))
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": "#000", "width": 4}, name="output 0", hoverinfo="skip")
    x0, x1, y0, y1 = found.window
    figure.update_xaxes(range=[x0, x1], constrain="domain")
    figure.update_yaxes(range=[y0, y1], scaleanchor="x", constrain="domain")
    return figure


def origami(found: Regions, title: str = "") -> go.Figure:
    """Draw the output over the window as a folded sheet: flat pieces that meet in creases."""
    figure, values = _figure(title, 560), found.values[:, 0]
    fans = [(face[0], face[i], face[i + 1]) for face in found.faces for i in range(1, len(face) - 1)]
    i, j, k = np.array(fans).T
    owner = np.repeat(np.arange(len(found)), found.sides - 2)
    means = np.array([values[list(face)].mean() for face in found.faces])
    most = float(np.abs(means).max(initial=1e-12))
    figure.add_mesh3d(
        x=found.vertices[:, 0], y=found.vertices[:, 1], z=values, i=i, j=j, k=k, intensity=means[owner],
        intensitymode="cell", colorscale=SCALE, cmin=-most, cmax=most, flatshading=True, hoverinfo="skip",
        colorbar={"title": {"text": "mean output"}, "len": 0.6}, lighting={"ambient": 0.75, "diffuse": 0.5},
    )  # fmt: skip
    ends = np.stack([found.corners, found.following], axis=1)
    creases = np.unique(np.sort(ends[found.beyond >= 0], axis=1), axis=0)
    x, y, z = (
        np.append(column[creases], np.full((len(creases), 1), np.nan), axis=1).ravel()
        for column in (*found.vertices.T, values)
    )
    figure.add_scatter3d(x=x, y=y, z=z, mode="lines", line={"color": INK, "width": 2}, hoverinfo="skip", name="creases")
    plain: dict[str, Any] = {"backgroundcolor": PAPER, "gridcolor": RULE}
    figure.update_scenes(
        xaxis={**plain, "title": {"text": "x"}}, yaxis={**plain, "title": {"text": "y"}},
        zaxis={**plain, "title": {"text": "output"}}, aspectratio={"x": 1, "y": 1, "z": 0.7},
        camera={"eye": {"x": 1.3, "y": -1.5, "z": 0.9}},
    )  # fmt: skip
    return figure


def dual(found: Regions, title: str = "") -> go.Figure:
    """Draw each region's dual point: the slope `A` of its map `y = A x + c`, coloured by `c`, as large as its area."""
    maps, figure = found.maps, _figure(title, 520)
    offset = maps.offset[:, 0]
    most = float(np.abs(offset).max(initial=1e-12))
    figure.add_scatter(
        x=maps.matrix[:, 0, 0], y=maps.matrix[:, 0, 1], mode="markers", showlegend=False,
        marker={
            "size": 5 + 50 * np.sqrt(found.areas / found.areas.sum()), "color": offset, "colorscale": SCALE,
            "cmin": -most, "cmax": most, "line": {"color": INK, "width": 1},
            "colorbar": {"title": {"text": "offset c"}},
        },
        customdata=np.stack([offset, found.areas], axis=1),
        hovertemplate="slope (%{x:.3f}, %{y:.3f}), offset %{customdata[0]:.3f}, area %{customdata[1]:.4f}"
        "<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="slope in x", zeroline=True, zerolinecolor=RULE)
    figure.update_yaxes(title="slope in y", zeroline=True, zerolinecolor=RULE)
    return figure


def broken_line(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], title: str = "") -> go.Figure:
    """Draw a piecewise linear function of one number, with a mark where it bends.

    Args:
        x: where pieces begin and end, as `toys.line` and `toys.folded` return it.
        y: the function there.
        title: of the figure.

    """
    figure = _figure(title, 380)
    figure.add_scatter(
        x=x, y=y, mode="lines+markers", line={"color": COLOURS[0], "width": 3}, showlegend=False,
        marker={"color": COLOURS[2], "size": [0, *[9] * (len(x) - 2), 0]},
        hovertemplate="%{x:.3f}: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="x")
    figure.update_yaxes(title="f(x)")
    return figure


def image(found: Regions, side: int = 360, *, folded: bool = False, turn: float = 0.6) -> Any:
    """Paint regions as a Pillow image, which every notebook and slide shows: from above, or folded in space.

    Args:
        found: from `toys.regions`.
        side: pixels.
        folded: the output as a sheet, seen from a side; else from above. The thick line is where the output is 0.
        turn: of the sheet about its middle, in radians.

    Raises:
        PolytopeError: Pillow is not installed; a side below 1.

    """
    image_module, draw_module, _ = pillow()
    if side < 1:
        raise PolytopeError(f"side={side}: give a number of pixels above 0")
    large = 2 * side  # painted twice as large, then shrunk, so that lines are smooth
    values, tall = found.values[:, 0], max(float(np.abs(found.values[:, 0]).max()), 1e-12)

    def placed(points: np.ndarray, heights: np.ndarray | float) -> np.ndarray:
        x0, x1, y0, y1 = found.window
        unit = (points - (x0, y0)) / (x1 - x0, y1 - y0)
        if not folded:
            return np.asarray(unit * (large, -large) + (0, large))
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        across, along = ((2 * unit - 1) @ rotation.T * (0.33, 0.17)).T
        return np.asarray(large * np.stack([0.5 + across, 0.5 - along - 0.25 * heights / tall], axis=1))

    places, ground = placed(found.vertices, values), placed(found.vertices, 0.0)
    order = np.arange(len(found))
    if folded:  # the far ones first
        order = np.argsort([ground[list(face), 1].mean() for face in found.faces], kind="stable")
    picture = image_module.new("RGB", (large, large), PAPER)
    draw = draw_module.Draw(picture)
    colours, level = shades(found), []
    for which in order:
        face = found.faces[which]
        draw.polygon([tuple(p) for p in places[list(face)]], fill=colours[which], outline=EDGE, width=2)
        ends = [[tuple(p) for p in placed(segment, 0.0)] for segment in _zero(found, face)]
        level += ends
        for each in ends if folded else ():  # what is nearer hides it
            draw.line(each, fill="#000000", width=4)
    for each in () if folded else level:
        draw.line(each, fill="#000000", width=5)
    return picture.resize((side, side), image_module.Resampling.LANCZOS)


def shades(found: Regions) -> list[str]:
    """Return the colour of each region in an image: of its mean output, as deep as can be at -1 and 1."""
    values = found.values[:, 0]
    means = [float(np.clip(values[list(face)].mean(), -1, 1)) for face in found.faces]
    return [blend((1 + 0.8 * mean) / 2) for mean in means]


def pillow() -> tuple[Any, Any, Any]:
    """Return Pillow's `Image`, `ImageDraw` and `ImageFont`.

    Raises:
        PolytopeError: it is not installed.

    """
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - only images need it
    except ImportError as error:
        raise PolytopeError("an image needs Pillow: pip install pillow, or draw a figure or a page") from error
    return Image, ImageDraw, ImageFont


def zeros(found: Regions) -> Float[np.ndarray, "n 2 2"]:
    """Return the segments on which the first output is 0, one a region that it passes through."""
    return np.array([segment for face in found.faces for segment in _zero(found, face)]).reshape(-1, 2, 2)


def _zero(found: Regions, face: tuple[int, ...]) -> list[Float[np.ndarray, "2 2"]]:
    """Return where the first output is 0 in a region: one segment, or none."""
    values, ids = found.values[:, 0], np.array(face)
    following = np.roll(ids, -1)
    change = (values[ids] > 0) != (values[following] > 0)
    a, b = ids[change], following[change]
    if len(a) != 2:
        return []
    share = (values[a] / (values[a] - values[b]))[:, None]
    return [(1 - share) * found.vertices[a] + share * found.vertices[b]]


def _joined(lines: Sequence[np.ndarray] | np.ndarray) -> tuple[list[float | None], list[float | None]]:
    """Return x and y of lines one after the other, a gap between."""
    x: list[float | None] = []
    y: list[float | None] = []
    for line in lines:
        x += [*line[:, 0].tolist(), None]
        y += [*line[:, 1].tolist(), None]
    return x, y


def blend(share: float) -> str:
    """Return a colour of `SCALE`: its first at 0, its last at 1."""
    low, high = (SCALE[0][1], PAPER) if share < 0.5 else (PAPER, SCALE[2][1])
    part = 2 * share if share < 0.5 else 2 * share - 1
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (low, high)]
    return "rgb(" + ",".join(str(round(a + part * (b - a))) for a, b in zip(*ends, strict=True)) + ")"


def _figure(title: str, height: int) -> go.Figure:
    return go.Figure(
        layout={
            "template": "none", "height": height, "width": 720, "title": {"text": escaped(title)},
            "font": {"size": 13, "color": SOFT}, "paper_bgcolor": PAPER, "plot_bgcolor": PAPER,
            "margin": {"l": 60, "r": 20, "t": 60, "b": 50}, "xaxis": {"gridcolor": GRID}, "yaxis": {"gridcolor": GRID},
            "legend": {"orientation": "h", "y": -0.1, "yanchor": "top"},
        }
    )  # fmt: skip
