"""The exact regions of a small ReLU network in a window of its plane, and which codes exist anywhere.

Each neuron cuts the convex faces that its zero line passes through. In the first layer these lines are straight; a
later layer's `h` is affine inside each face that the layers before have left, so its line bends at their boundaries and
nowhere else. All is float64: a vertex counts as on a line where `|h|` is below 1e-12 of the sum of its terms' sizes.

Whether a code exists at all, in the window or on the whole plane, is a question to a linear program (`margin`): inside
its region all earlier layers are affine, so each bit is one half-plane. Neither of the two looks at the other.

Source of the construction: Balestriero & Baraniuk (2018); van Laarhoven's regioncam and Humayun et al.'s SplineCam
compute the same pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.geometry.relu_network import ReluNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from jaxtyping import Bool, Float, Int

    from polytope_lm.geometry.relu_network import AffineMaps

Window = tuple[float, float, float, float]
"""`(x0, x1, y0, y1)`."""
SQUARE: Window = (-1.0, 1.0, -1.0, 1.0)
_ON_THE_LINE = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Faces:
    """Convex polygons that tile a window and share their corners.

    Attributes:
        window: `(x0, x1, y0, y1)`.
        vertices: `[V, 2]`.
        corners: the faces' vertices, face after face, each in order around it, `[C]`.
        starts: where in `corners` each face begins, `[R]`.

    """

    window: Window
    vertices: Float[np.ndarray, "V 2"]
    corners: Int[np.ndarray, " C"]
    starts: Int[np.ndarray, " R"]

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {len(self):,} in {self.window}"

    @property
    def sides(self) -> Int[np.ndarray, " R"]:
        """How many corners each face has."""
        return np.asarray(np.diff(self.starts, append=len(self.corners)))

    @cached_property
    def faces(self) -> tuple[tuple[int, ...], ...]:
        """For each face, its vertices in order."""
        return tuple(tuple(part.tolist()) for part in np.split(self.corners, self.starts[1:]))

    @cached_property
    def following(self) -> Int[np.ndarray, " C"]:
        """The vertex after each corner, around the same face."""
        place = np.arange(1, len(self.corners) + 1)
        place[self.starts + self.sides - 1] = self.starts
        return self.corners[place]

    @cached_property
    def areas(self) -> Float[np.ndarray, " R"]:
        """Each face's area."""
        here, then = self.vertices[self.corners], self.vertices[self.following]
        cross = here[:, 0] * then[:, 1] - here[:, 1] * then[:, 0]
        return np.asarray(np.abs(np.add.reduceat(cross, self.starts)) / 2)

    @cached_property
    def centres(self) -> Float[np.ndarray, "R 2"]:
        """The mean of each face's corners, which lies inside it: faces are convex."""
        return np.asarray(np.add.reduceat(self.vertices[self.corners], self.starts) / self.sides[:, None])

    @cached_property
    def beyond(self) -> Int[np.ndarray, " C"]:
        """The face on the other side of the edge from each corner to the next, -1 at the window's border."""
        ends = np.sort(np.stack([self.corners, self.following], axis=1), axis=1)
        face = np.repeat(np.arange(len(self)), self.sides)
        order = np.lexsort(ends.T)
        same = np.flatnonzero((ends[order][1:] == ends[order][:-1]).all(axis=1))
        one, other = order[same], order[same + 1]
        found = np.full(len(face), -1)
        found[one], found[other] = face[other], face[one]
        return found

    @property
    def neighbours(self) -> Int[np.ndarray, "E 2"]:
        """Pairs of faces that share an edge."""
        pairs = np.stack([np.repeat(np.arange(len(self)), self.sides), self.beyond], axis=1)
        return pairs[pairs[:, 0] < pairs[:, 1]]

    @property
    def on_border(self) -> Bool[np.ndarray, " R"]:
        """Which faces reach the window's border."""
        x, y = self.vertices.T
        x0, x1, y0, y1 = self.window
        near = 1e-9 * max(x1 - x0, y1 - y0)
        outer = (np.abs(x - x0) < near) | (np.abs(x - x1) < near) | (np.abs(y - y0) < near) | (np.abs(y - y1) < near)
        return np.logical_or.reduceat(outer[self.corners], self.starts)

    def holding(self, point: Sequence[float]) -> Int[np.ndarray, " n"]:
        """Return the faces that a point lies in: several where it lies on an edge."""
        here, then = self.vertices[self.corners], self.vertices[self.following]
        along, away = then - here, np.asarray(point, np.float64) - here
        side = along[:, 0] * away[:, 1] - along[:, 1] * away[:, 0]  # faces run counter-clockwise
        near = _ON_THE_LINE * np.abs(self.window).max() ** 2
        return np.flatnonzero(np.logical_and.reduceat(side >= -near, self.starts))


@dataclass(frozen=True, eq=False, repr=False)
class Regions(Faces):
    """The regions of a network in a window.

    A face may be less than a whole polytope of the plane, as the window cuts it.

    Attributes:
        network: whose they are.

    """

    network: ReluNetwork

    @cached_property
    def codes(self) -> Bool[np.ndarray, "R N"]:
        """Each region's code, all layers' bits side by side. A neuron that is 0 all over a region is off there."""
        found, values = [], self.centres
        for weight, bias in zip(self.network.weights, self.network.biases, strict=True):
            h = values @ np.asarray(weight, np.float64).T + bias
            found.append(h > _ON_THE_LINE * _size(values, weight, bias))
            values = np.maximum(h, 0)
        return np.concatenate(found, axis=1)

    @cached_property
    def layers(self) -> Int[np.ndarray, " C"]:
        """The first layer in which the two sides of the edge from each corner to the next differ, -1 at the border."""
        face, outside = np.repeat(np.arange(len(self)), self.sides), self.beyond < 0
        differ = self.codes[face] != self.codes[self.beyond]
        layer = np.repeat(np.arange(len(self.network.biases)), [len(bias) for bias in self.network.biases])
        return np.where(outside, -1, layer[differ.argmax(axis=1)])

    @cached_property
    def maps(self) -> AffineMaps:
        """Each region's map to the network's output; its dual point is `(A, c)`."""
        return self.network.affine(self.codes)

    @cached_property
    def values(self) -> Float[np.ndarray, "V K"]:
        """The network's output at the vertices, between which it is linear in each face."""
        return self.network.output(self.vertices)


def regions(network: ReluNetwork | torch.nn.Module, window: Window = SQUARE) -> Regions:
    """Cut a window into a network's regions.

    Args:
        network: of two inputs; its output layer draws no boundary. A module is read by `ReluNetwork.read`.
        window: `(x0, x1, y0, y1)`.

    Raises:
        PolytopeError: another number of inputs, a window of no area, a module that is not linear layers with ReLUs.

    Examples:
        >>> import numpy as np
        >>> from polytope_lm.geometry.plane_regions import regions
        >>> from polytope_lm.geometry.relu_network import ReluNetwork
        >>> found = regions(ReluNetwork([np.eye(2)], [np.zeros(2)]))  # two lines that cross in the middle
        >>> len(found), found.areas.tolist()
        (4, [1.0, 1.0, 1.0, 1.0])

    """
    if not isinstance(network, ReluNetwork):
        network = ReluNetwork.read(network)
    if network.n_inputs != 2:
        raise PolytopeError(
            f"the network reads {network.n_inputs} numbers: regions are drawn in a plane, give one of 2"
        )
    cut = cut_faces(window, list(zip(network.weights, network.biases, strict=True)))
    return Regions(cut.window, cut.vertices, cut.corners, cut.starts, network)


def cut_faces(window: Window, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Faces:
    """Cut a window by the zero lines of layers of neurons, a ReLU between one layer and the next.

    Args:
        window: `(x0, x1, y0, y1)`.
        layers: weight `[N, M]` and bias `[N]` of each.

    """
    x0, x1, y0, y1 = checked(window)
    vertices = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    corners, starts, values = np.arange(4), np.zeros(1, np.int64), vertices
    for weight, bias in layers:
        w, b = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
        for row, shift in zip(w, b, strict=True):
            h = values @ row + shift
            h[np.abs(h) <= _ON_THE_LINE * _size(values, row, shift)] = 0
            corners, starts, edges = _divided(corners, starts, h)
            if len(edges):
                a, c = edges.T
                share = (h[a] / (h[a] - h[c]))[:, None]
                vertices = np.concatenate([vertices, (1 - share) * vertices[a] + share * vertices[c]])
                values = np.concatenate([values, (1 - share) * values[a] + share * values[c]])
        values = np.maximum(values @ w.T + b, 0)
    return Faces((x0, x1, y0, y1), vertices, corners, starts)


def checked(window: object) -> Window:
    """Return a window as numbers.

    Raises:
        PolytopeError: no four finite numbers, or no area.

    """
    given = tuple(window) if isinstance(window, tuple | list | np.ndarray) else ()
    if len(given) != 4 or not all(isinstance(side, Real) and math.isfinite(side) for side in given):
        raise PolytopeError(f"window={brief(window)}: give four numbers, (x0, x1, y0, y1)")
    x0, x1, y0, y1 = (float(side) for side in given)
    if not (x0 < x1 and y0 < y1):
        raise PolytopeError(f"window={brief(window)} has no area: give x0 < x1 and y0 < y1")
    return x0, x1, y0, y1


def _size(values: np.ndarray, weight: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
    """Return how large the terms of `h` are: what its rounding is measured against."""
    largest = np.abs(values).max(axis=0)
    return np.asarray(np.abs(np.asarray(weight, np.float64)) @ largest + np.abs(bias))


def _divided(corners: np.ndarray, starts: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the faces that a line passes through.

    Returns:
        The corners and starts of all faces, and the edges, pairs of old vertices, on which new vertices lie: the first
        has the number `len(h)`, and so on.

    """
    at = h[corners]
    cut = (np.maximum.reduceat(at, starts) > 0) & (np.minimum.reduceat(at, starts) < 0)
    if not cut.any():
        return corners, starts, np.empty((0, 2), np.int64)
    sides = np.diff(starts, append=len(corners))
    new: dict[tuple[int, int], int] = {}
    parts: list[list[int]] = []
    for which in np.flatnonzero(cut):
        start, size = starts[which], sides[which]
        ids, side = corners[start : start + size].tolist(), at[start : start + size].tolist()
        below: list[int] = []
        above: list[int] = []
        for here, there, h_here, h_there in zip(ids, ids[1:] + ids[:1], side, side[1:] + side[:1], strict=True):
            if h_here >= 0:
                above.append(here)
            if h_here <= 0:
                below.append(here)
            if (h_here > 0 > h_there) or (h_here < 0 < h_there):
                edge = (here, there) if here < there else (there, here)
                vertex = new.setdefault(edge, len(h) + len(new))
                above.append(vertex)
                below.append(vertex)
        parts += [above, below]
    corners = np.concatenate([corners[np.repeat(~cut, sides)], np.fromiter(chain.from_iterable(parts), np.int64)])
    sides = np.concatenate([sides[~cut], np.array([len(part) for part in parts])])
    return corners, np.cumsum(sides) - sides, np.array(list(new), np.int64).reshape(-1, 2)


def margin(network: ReluNetwork, code: Bool[np.ndarray, " N"], window: Window | None = None) -> float:
    """Return by how much all neurons can be on their sides at once: the largest `t` with `h_i >= t`, or `h_i <= -t`.

    Each neuron's `h` is divided by the length of its normal, so `t` is a distance. A region exists where `t > 0`. On
    the whole plane `t` is at most 1 here, by a bound that keeps the linear program finite.

    Args:
        network: of any number of inputs.
        code: bits of all layers, side by side.
        window: where; None: the whole plane.

    Raises:
        PolytopeError: a code of another width; the solver gave up.

    """
    from scipy.optimize import linprog  # noqa: PLC0415 - pictures need none

    normals, offsets = half_spaces(network, code)
    lengths = np.linalg.norm(normals, axis=1)
    scale = np.where(lengths > 0, lengths, 1)
    bounds: list[tuple[float | None, float | None]] = [(None, None)] * network.n_inputs
    if window is not None:
        x0, x1, y0, y1 = checked(window)
        bounds = [(x0, x1), (y0, y1)]
    # normal . x + offset >= t, as -normal . x + t <= offset.
    rows = np.column_stack([-normals / scale[:, None], np.ones(len(normals))])
    found = linprog(
        np.append(np.zeros(network.n_inputs), -1.0), A_ub=rows, b_ub=offsets / scale, bounds=[*bounds, (None, 1.0)]
    )
    if found.x is None:
        raise PolytopeError(f"the linear program of a code gave up: {found.message}")
    return float(found.x[-1])


def half_spaces(
    network: ReluNetwork, code: Bool[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, " N"]]:
    """Return a code's region as `normals . x + offsets >= 0`, a row a neuron.

    Raises:
        PolytopeError: a code of another width.

    """
    bits = np.asarray(code, bool)
    widths = [len(bias) for bias in network.biases]
    if bits.shape != (sum(widths),):
        raise PolytopeError(f"the code has shape {bits.shape}, expected [{sum(widths)}]")
    matrix, offset, normals, offsets = np.eye(network.n_inputs), np.zeros(network.n_inputs), [], []
    for weight, bias, on in zip(network.weights, network.biases, np.split(bits, np.cumsum(widths)[:-1]), strict=True):
        matrix, offset = weight @ matrix, weight @ offset + bias
        sign = np.where(on, 1.0, -1.0)
        normals.append(sign[:, None] * matrix)
        offsets.append(sign * offset)
        matrix, offset = on[:, None] * matrix, on * offset
    return np.concatenate(normals), np.concatenate(offsets)
