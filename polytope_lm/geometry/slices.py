"""A plane through three prompts' activations: one layer's exact polytopes in it, and what the model says.

In the MLP's input space boundaries are hyperplanes, `h_i = w_i . u + b_i = 0`, and a plane through the three
activations cuts them in straight lines

    h_i(x, y) = (w_i . o + b_i) + x w_i . e1 + y w_i . e2,    u = o + x e1 + y e2,

`o` the first prompt's `u`, `e1` the direction to the second, `e2` orthogonal to it in the direction of the
third. Of N lines only those count that meet the window: the sign of `h_i` differs among its corners. Their
arrangement inside the window is computed exactly (`geometry.plane_regions`).
In `resid_mid` the norm bends them, and later layers' boundaries are curved anywhere: no slices of these.

Colours: the likeliest next token where `u` replaces that of the first prompt's last token, in its context, on a
grid of points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from polytope_lm.errors import PolytopeError, public
from polytope_lm.geometry.plane_regions import cut_faces
from polytope_lm.models.sites import Site
from polytope_lm.paths.crossings import shortened
from polytope_lm.plotting import areas
from polytope_lm.result import Result

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Geometry
    from polytope_lm.paths.ends import End

MOST = 800  # lines: about 130,000 regions, a quarter of a minute
_MARGIN = 1.25
_GRID = 41
_AT_ONCE = 256  # points whose logits are held together


@dataclass(frozen=True, eq=False, repr=False)
class Slice(Result):
    """Regions of one layer in a square window of a plane.

    Attributes:
        prompts: the three texts.
        tokens: their tokens at the points.
        site: whose partition it is.
        corners: the window, `(x0, x1, y0, y1)`, in units of `u`.
        points: where the three prompts lie, `[3, 2]`.
        neurons: the neurons whose boundaries meet the window, `[m]`.
        lines: where each enters and leaves the window, `[m, 2, 2]`.
        vertices: corners of the regions, `[V, 2]`.
        regions: for each region, its vertices in order.
        grid: coordinates along each side at which the model was run, `[g, 2]`: x, y.
        top: id of the likeliest next token there, `[g, g]`, rows along y; empty without logits.
        words: these tokens' texts.
        model: the model's name.

    """

    prompts: tuple[str, str, str]
    tokens: tuple[str, str, str]
    site: Site
    corners: tuple[float, float, float, float]
    points: Float[np.ndarray, "3 2"]
    neurons: Int[np.ndarray, " m"]
    lines: Float[np.ndarray, "m 2 2"]
    vertices: Float[np.ndarray, "V 2"]
    regions: tuple[tuple[int, ...], ...]
    grid: Float[np.ndarray, "g 2"]
    top: Int[np.ndarray, "_ _"]
    words: Mapping[int, str]
    model: str

    kind = "slices"
    file = "slice.json"
    tab = "Slices"
    several = True
    indent = None

    def __len__(self) -> int:
        return len(self.regions)

    def __repr__(self) -> str:
        ends = ", ".join(shortened(prompt) for prompt in self.prompts)
        return (
            f"Slice: {ends}; mlp_in of layer {self.site.layer}, {self.model}: {len(self):,} regions by "
            f"{len(self.neurons):,} boundaries of {self.site.width:,}"
        )

    @property
    def centres(self) -> Float[np.ndarray, "R 2"]:
        """Mean of each region's corners, which lies inside it: regions are convex."""
        return np.array([self.vertices[list(region)].mean(axis=0) for region in self.regions])

    @property
    def areas(self) -> Float[np.ndarray, " R"]:
        """Each region's area."""
        return np.array([_area(self.vertices[list(region)]) for region in self.regions])

    def to_frame(self) -> pd.DataFrame:
        """Return one row a region: x, y (its centre), area, sides."""
        import pandas as pd  # noqa: PLC0415 - a table is wanted less often than the picture

        x, y = self.centres.T
        return pd.DataFrame({"x": x, "y": y, "area": self.areas, "sides": [len(r) for r in self.regions]})

    def plot(self) -> go.Figure:
        """Draw the boundaries over the likeliest next token, with the three prompts."""
        where = f"layer {self.site.layer}, mlp_in: {len(self):,} regions, {len(self.neurons):,} boundaries"
        words = [[self.words[int(token)] for token in row] for row in self.top]
        said = (f"{a} [{b}]" for a, b in zip(self.prompts, self.tokens, strict=True))
        points = {
            f"{letter}: {text}": (float(x), float(y))
            for letter, text, (x, y) in zip("ABC", said, self.points, strict=True)
        }
        return areas(self.grid, words, self.lines, points, self.corners, f"{self.model}, {where}")


@public
def slice(  # noqa: A001, PLR0913 - `plm.paths.slice`
    model: Model,
    prompt_a: str,
    prompt_b: str,
    prompt_c: str,
    *,
    layer: int,
    at: str = "mlp_in",
    kind: str | None = None,
    position: int = -1,
    zoom: float = 1.0,
    most: int = MOST,
    grid: int = _GRID,
) -> Slice:
    """Cut a layer's partition by the plane through three prompts' activations.

    Args:
        model: the model.
        prompt_a: the first text, whose context is kept where the model is run.
        prompt_b: the second.
        prompt_c: the third.
        layer: the block.
        at: `mlp_in`, the only space whose boundaries are flat.
        kind: which code of a gated MLP.
        position: which token of each prompt; -1 is the last.
        zoom: size of the window: 1 holds the three points with a margin; below it lies around their middle.
        most: boundaries in the window at most: regions grow with their square.
        grid: points along each side at which the model is run for the colours; 0 for none.

    Raises:
        PolytopeError: another space, a bad prompt, layer or kind, prompts whose activations lie on a line,
            more boundaries in the window than `most`, or a zoom or grid that makes no window.

    """
    from polytope_lm.paths.ends import activations, check_numbers, end  # noqa: PLC0415 - it imports torch

    site = _flat_site(model, at, layer, kind)
    check_numbers(Real, zoom=zoom)
    check_numbers(Integral, grid=grid, most=most)
    if not zoom > 0 or grid < 0 or grid == 1:
        raise PolytopeError(f"zoom={zoom}, grid={grid}: give a zoom above 0, and a grid of 2 or more, or 0")
    prompts = (prompt_a, prompt_b, prompt_c)
    ends = [end(model, prompt, name, position) for prompt, name in zip(prompts, "ABC", strict=True)]
    found = [activations(model, one.ids, site.layer, "mlp_in")[one.position] for one in ends]
    origin, axes, points = _plane(*found)
    corners = _window(points, zoom)
    flat = _Lines(model.geometry(site), origin, axes)
    neurons = flat.meeting(corners)
    if len(neurons) > most:
        fits = next((z for z in zoom * 0.8 ** np.arange(1, 60) if len(flat.meeting(_window(points, z))) <= most), 0)
        cure = f"give zoom={fits:.2g}, or most={len(neurons)} and time" if fits else f"give most={len(neurons)}"
        raise PolytopeError(f"{len(neurons):,} boundaries meet the window, and at most {most:,} are drawn: {cure}")
    lines, vertices, regions = _arrangement(flat, neurons, corners)
    sides = np.stack([np.linspace(*corners[:2], grid), np.linspace(*corners[2:], grid)], axis=1)
    top = _next_tokens(model, ends[0], site, origin, axes, sides)
    return Slice(
        prompts=prompts, tokens=(ends[0].token, ends[1].token, ends[2].token), site=site, corners=corners,
        points=points, neurons=neurons, lines=lines, vertices=vertices, regions=regions, grid=sides, top=top,
        words={int(token): str(model.tokenizer.decode([int(token)])) for token in np.unique(top)},
        model=model.name,
    )  # fmt: skip


def _flat_site(model: Model, at: str, layer: int, kind: str | None) -> Site:
    """Return the site whose boundaries are flat in this space."""
    if at == "resid_mid":
        raise PolytopeError(
            "at='resid_mid': before the norm boundaries are curved, and a slice has lines: give at='mlp_in'"
        )
    from polytope_lm.paths.ends import place  # noqa: PLC0415 - it imports torch

    space, site = place(model, at, layer, kind)
    if space != "mlp_in":
        raise PolytopeError(f"at={at!r} has no boundaries of its own: give at='mlp_in'")
    return site


class _Lines:
    """A site's boundaries in a plane: `h = constant + slopes . (x, y)`."""

    def __init__(self, geometry: Geometry, origin: np.ndarray, axes: np.ndarray) -> None:
        weight = np.asarray(geometry.weight, dtype=np.float64)
        self.constant = weight @ origin + np.asarray(geometry.bias, dtype=np.float64)
        self.slopes = weight @ axes.T

    def meeting(self, corners: tuple[float, ...]) -> np.ndarray:
        """Return the neurons whose sign differs among the window's corners."""
        x0, x1, y0, y1 = corners
        on = self.slopes @ np.array([[x0, x1, x1, x0], [y0, y0, y1, y1]]) + self.constant[:, None] > 0
        return np.flatnonzero(on.any(axis=1) & ~on.all(axis=1))


def _plane(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the origin, two orthonormal axes `[2, D]`, and the three points' coordinates."""
    along, aside = b - a, c - a
    base = float(np.linalg.norm(along))
    first = along / base if base > 0 else along
    rest = aside - (aside @ first) * first
    height = float(np.linalg.norm(rest))
    if base == 0 or height <= 1e-6 * np.linalg.norm(aside):
        raise PolytopeError("the three prompts' activations lie on a line: a plane needs three different ones")
    return a, np.stack([first, rest / height]), np.array([[0, 0], [base, 0], [aside @ first, height]])


def _window(points: np.ndarray, zoom: float) -> tuple[float, float, float, float]:
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2 if zoom >= 1 else points.mean(axis=0)
    half = float((high - low).max()) / 2 * _MARGIN * zoom
    x, y = (float(value) for value in centre)
    return x - half, x + half, y - half, y + half


def _arrangement(
    flat: _Lines, neurons: np.ndarray, corners: tuple[float, float, float, float]
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[int, ...], ...]]:
    """Return the lines' ends, and all vertices and regions, in the window's coordinates."""
    slopes, constant = flat.slopes[neurons], flat.constant[neurons]
    cut = cut_faces(corners, [(slopes, constant)])
    middle = np.array([corners[0] + corners[1], corners[2] + corners[3]]) / 2
    half = (corners[1] - corners[0]) / 2
    shifts = constant + slopes @ middle
    ends = [_clipped(slope * half, shift) for slope, shift in zip(slopes, shifts, strict=True)]
    return np.array(ends).reshape(-1, 2, 2) * half + middle, cut.vertices, cut.faces


def _clipped(slope: np.ndarray, constant: float) -> np.ndarray:
    """Return the two points where a line meets the border of the square from -1 to 1."""
    found: list[tuple[float, float]] = []
    for axis, side in product((0, 1), (-1.0, 1.0)):
        away = constant + slope[axis] * side
        other = float(-away / slope[1 - axis]) if slope[1 - axis] else np.inf
        if abs(other) <= 1:
            found.append((side, other) if axis == 0 else (other, side))
    ends = np.array(found)
    far = int(np.argmax(np.linalg.norm(ends - ends[0], axis=1)))  # through a corner there are three
    return ends[[0, far]]


def _next_tokens(
    model: Model, start: End, site: Site, origin: np.ndarray, axes: np.ndarray, sides: np.ndarray
) -> np.ndarray:
    """Return the likeliest next token on the grid, rows along y; empty without logits or grid."""
    import torch  # noqa: PLC0415 - saved slices are read without it

    from polytope_lm.models.interventions import run_patched  # noqa: PLC0415
    from polytope_lm.models.prefix import share_prefix  # noqa: PLC0415 - it imports transformers

    if not model.has_logits or not len(sides):
        return np.empty((0, 0), np.int64)
    x, y = np.meshgrid(sides[:, 0], sides[:, 1])
    points = np.stack([x.reshape(-1), y.reshape(-1)], axis=1)
    layer, position = site.layer, start.position
    prefix = share_prefix(model, torch.as_tensor(start.ids), layer=layer, position=position)
    top = []
    for first in range(0, len(points), _AT_ONCE):
        vectors = origin + points[first : first + _AT_ONCE] @ axes
        run = run_patched(model, start.ids, vectors, layer=layer, position=position, at="mlp_in", prefix=prefix)
        assert run.logits is not None  # noqa: S101 - the model has logits
        top.append(run.logits.argmax(axis=1))
    return np.concatenate(top).reshape(x.shape)


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)
