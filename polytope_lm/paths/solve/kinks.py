"""Crossings behind piecewise affine activations, layer by layer; those found upstream are break points.

Behind ReLUs `h_i(t)` has a kink at every crossing of an earlier layer, and no interpolant in t converges quickly.
But most of what bends is known: with `x_l(t)` what layer l's norm reads,

    h_l = W_l Norm(x_l) + b_l,   y_l = x_l + W_out,l post(h_l),   x_(l+1) = y_l + a_l(y_l),

and only `a`, what attention adds (and whatever else stands between two MLPs), has no closed form. It is a smooth
function of `y_l`, though a kinked one of t. So the model is run at a few points, `a` is interpolated between them
*as a function of y_l*, all layers at once by one kernel

    k(f, f') = (1 + f . f')^3,   f = C y / sigma, centred on the path and scaled to length 1 at most,

and everything else is computed. (Where the norm reads another stream, `f` is that; a parallel block's attention
reads `x_l`.) In a layer without attention `a` is 0, and what is found is exact but for rounding.

Layer by layer the path is cut at all crossings found upstream (and where `h` meets another break point of the
activation, such as 6 of ReLU6: see `models.piecewise`), as ExactLine does for networks without norm
or attention (Sotoudeh & Thakur, "Computing Linear Restrictions of Neural Networks", 2019, arXiv:1908.06214).
Between two cuts `h` is smooth: signs at the cuts and at points between them bracket each crossing, parabolas
through three points look for pairs of crossings about one extremum, and brackets are closed by false position.

Where to run the model next: at the crossings that are least well placed. The kernel's power function `P(t)`
says how far a function of unit size may be from its interpolant; how large neuron j's is, `kappa_j`, is
measured at the points of each round, which are predicted first. So `h_j(t)` is uncertain by about
`kappa_j P(t)`, and a crossing's place by that over the speed `|h_j'|`. Rounds end when enough crossings are
placed, or the evaluations are used up. Source of power functions and of choosing points by them: De Marchi,
Schaback & Wendland, "Near-optimal data-independent point locations for radial basis function interpolation"
(Advances in Computational Mathematics 23, 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from polytope_lm.errors import PolytopeError
from polytope_lm.models.piecewise import RELU
from polytope_lm.paths.solve.chebyshev import Changes, Followed, Stretch
from polytope_lm.paths.solve.line import mlp_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float

    from polytope_lm.models.piecewise import PiecewiseAffine
    from polytope_lm.models.sites import Geometry
    from polytope_lm.paths.solve.chebyshev import Run

EVALUATIONS = 160
_FIRST, _ROUND = 24, 16
_DEGREE = 3
_RIDGE = 1e-11  # of the kernel's mean diagonal: float32's rounding of what is interpolated
_SAFETY = 3.0
_PLACED, _SHARE = 1e-4, 0.999  # in t: where crossings are to be, and how many of them
_WIDEST, _HALVED = 1 / 64, 2e-3  # pieces wider than this are cut further
_LEAST = 1e-7  # break points nearer than this are one
_POLISHED = 4  # rounds of false position
_DIPS = 3  # rounds of looking for extrema


class _Level(NamedTuple):
    """A value of a layer's `h`: 0, where its code changes, or another break point of its activation."""

    layer: int
    level: float


class Stream(NamedTuple):
    """At n points and P tokens: the stream behind an MLP, and what the next attention reads of it."""

    y: Float[np.ndarray, "n P D"]
    read: Float[np.ndarray, "n P D"]


@dataclass(frozen=True, eq=False)
class Layer:
    """One MLP between the streams before and behind it.

    Attributes:
        geometry: its site's numbers.
        down: the down projection, `[D, N]`; a bias needs no mention, `a` has it.
        act: its activation.
        parallel: the same block's attention reads `x`, not what the MLP leaves.
        post_norm: the norm's output is carried on, not its input.

    """

    geometry: Geometry
    down: Float[np.ndarray, "D N"]
    act: PiecewiseAffine = RELU
    parallel: bool = False
    post_norm: bool = False

    def pre(self, x: Float[np.ndarray, "n P D"]) -> Float[np.ndarray, "n P N"]:
        """Return `h`, float64."""
        h: np.ndarray = (
            mlp_inputs(self.geometry, x) @ np.asarray(self.geometry.weight, np.float64).T + self.geometry.bias
        )
        return h

    def behind(self, x: Float[np.ndarray, "n P D"]) -> Stream:
        """Return the stream behind the MLP, its bias left out."""
        h = self.pre(x)
        carried = mlp_inputs(self.geometry, x) if self.post_norm else x
        y = carried + self.act(h) @ np.asarray(self.down, np.float64).T
        return Stream(y, x if self.parallel else y)


class _Kernel:
    """Interpolants of functions of a stream through n nodes; see the module's text."""

    def __init__(self, stream: np.ndarray, *, normed: bool) -> None:
        self.normed, self.centre, self.scale = normed, np.zeros(1), 1.0
        first = self.features(stream)
        self.centre = first.mean(axis=0)
        self.scale = max(float(np.linalg.norm(first - self.centre, axis=1).max()), 1e-12)
        self.nodes = self.features(stream)
        self.lower = _cholesky(self(self.nodes, self.nodes))

    def features(self, stream: np.ndarray) -> np.ndarray:
        if self.normed:
            stream = stream - stream.mean(axis=-1, keepdims=True)
            stream = stream / np.sqrt((stream**2).mean(axis=-1, keepdims=True) + 1e-5)
        return np.asarray(
            (stream.reshape(len(stream), np.prod(stream.shape[1:], dtype=int)) - self.centre) / self.scale
        )

    def __call__(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        kernel: np.ndarray = (1 + one @ other.T) ** _DEGREE
        return kernel

    def weights(self, values: np.ndarray) -> np.ndarray:
        """Return what makes values at the nodes an interpolant: `k(f, nodes) @ weights`."""
        return _solved(self.lower, values)


def _cholesky(kernel: np.ndarray) -> np.ndarray:
    return np.linalg.cholesky(kernel + _RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel)))


def _solved(lower: np.ndarray, values: np.ndarray) -> np.ndarray:
    half = solve_triangular(lower, values, lower=True, check_finite=False)
    return np.asarray(solve_triangular(lower, half, lower=True, trans=1, check_finite=False))


class _Surrogate:
    """The layers along a path as the runs at points t know them: `x` is what each layer's norm read there."""

    def __init__(self, start: Callable[[np.ndarray], Stream], layers: Sequence[Layer], t: np.ndarray, x: list) -> None:  # type: ignore[type-arg]
        self.start, self.layers, self.t = start, layers, t
        self.kernels: list[_Kernel] = []
        self.weights: list[np.ndarray] = []
        stream = start(t)
        for layer, read in zip(layers, x, strict=True):
            kernel = _Kernel(stream.read, normed=layer.geometry.norm != "none")
            self.kernels.append(kernel)
            self.weights.append(kernel.weights((read - stream.y).reshape(len(t), -1)))
            stream = layer.behind(read)
        self.last = _Kernel(stream.y, normed=False)
        self.lower = _cholesky(self._joint([one.nodes for one in self.kernels], [one.nodes for one in self.kernels]))

    def _joint(self, one: list[np.ndarray], other: list[np.ndarray]) -> np.ndarray:
        """Return all layers' kernels together, for what may be wrong in any of them."""
        return np.asarray(sum(kernel(a, b) for kernel, a, b in zip(self.kernels, one, other, strict=True)))

    def x(self, t: np.ndarray, upto: int) -> np.ndarray:
        """Return what a layer's norm reads."""
        stream = self.start(t)
        for number in range(upto + 1):
            x = self._next(stream, number)
            if number < upto:
                stream = self.layers[number].behind(x)
        return x

    def _next(self, stream: Stream, number: int) -> np.ndarray:
        kernel = self.kernels[number]
        added = kernel(kernel.features(stream.read), kernel.nodes) @ self.weights[number]
        return np.asarray(stream.y + added.reshape(stream.y.shape))

    def h(self, t: np.ndarray, number: int) -> Float[np.ndarray, "n _"]:
        """Return a layer's `h` at points, the neurons of one token after those of another."""
        return self.layers[number].pre(self.x(t, number)).reshape(len(t), -1)

    def over(self, t: np.ndarray, at: _Level) -> Float[np.ndarray, "n _"]:
        """Return how far a layer's `h` is over a level at points."""
        return self.h(t, at.layer) - at.level

    def over_of(self, t: np.ndarray, at: _Level, column: np.ndarray) -> np.ndarray:
        """Return how far `h` of another neuron at each point is over a level."""
        geometry = self.layers[at.layer].geometry
        u, width = mlp_inputs(geometry, self.x(t, at.layer)), len(geometry.bias)
        own = u[np.arange(len(t)), column // width]
        bias = geometry.bias[column % width] - at.level
        return np.asarray((own * geometry.weight[column % width]).sum(axis=-1) + bias)

    def _behind(self, t: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Return what each layer's kernel sees at points, and the last stream."""
        stream, seen = self.start(t), []
        for number, layer in enumerate(self.layers):
            seen.append(self.kernels[number].features(stream.read))
            stream = layer.behind(self._next(stream, number))
        return seen, stream.y

    def interpolated(self, values: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Interpolate anything that was read at the nodes, as a function of the last stream."""
        seen = self.last.features(self._behind(t)[1])
        flat = self.last(seen, self.last.nodes) @ self.last.weights(values.reshape(len(self.t), -1))
        return np.asarray(flat.reshape(len(t), *values.shape[1:]))

    def power(self, t: np.ndarray) -> Float[np.ndarray, " n"]:
        """Return the power function of all layers together."""
        return np.asarray(np.sqrt(self._power(self._behind(t)[0])[0]))

    def _power(self, seen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        rows = solve_triangular(self.lower, self._joint([k.nodes for k in self.kernels], seen), lower=True)
        whole = np.sum([(1 + (one**2).sum(axis=1)) ** _DEGREE for one in seen], axis=0)
        return np.maximum(whole - (rows**2).sum(axis=0), 1e-16), rows

    def worst(self, t: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
        """Choose new points, one after another, where `weight P` is largest once the model was run at those before."""
        fresh = ~np.isin(t, self.t)
        t, weight = t[fresh], weight[fresh]
        seen = self._behind(t)[0]
        left, rows = self._power(seen)
        chosen: list[int] = []
        for _ in range(min(count, len(t))):
            i = int((weight * np.sqrt(left)).argmax())
            row = (self._joint([one[i : i + 1] for one in seen], seen)[0] - rows[:, i] @ rows) / np.sqrt(left[i])
            # By Cauchy-Schwarz no more than is left; where nothing is left, rounding would say otherwise.
            row = np.clip(row, -np.sqrt(left), np.sqrt(left))
            rows = np.concatenate([rows, row[None]])
            left = np.maximum(left - row**2, 1e-16)
            chosen.append(i)
        return np.unique(t[chosen])


@dataclass(frozen=True, eq=False)
class Pieced(Followed):
    """What the model did along a path, and what is known of it between the points; `earlier` knows the nodes only."""

    surrogate: _Surrogate
    earlier: _Surrogate

    def interpolated(self, values: Float[np.ndarray, "n N"], t: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m N"]:
        """Return what was read, interpolated as a function of the last stream."""
        return self.surrogate.interpolated(values.astype(np.float64), t)

    def guessed(self, values: Float[np.ndarray, "n N"]) -> Float[np.ndarray, "held N"]:
        """Return, at the held-out points, what the runs before tell."""
        return self.earlier.interpolated(values[self.node].astype(np.float64), self.t[~self.node])


def follow_pieces(
    run: Run,
    start: Callable[[np.ndarray], Stream],
    layers: Sequence[Layer],
    breaks: Float[np.ndarray, " n"],
    *,
    evaluations: int = EVALUATIONS,
) -> Pieced:
    """Follow `h` of several layers along t in [0, 1].

    Args:
        run: evaluates the model at points: each layer's `h` first, and last what each layer's norm reads; a
            row a point, tokens one after the other.
        start: the stream behind the path's own layer.
        layers: those searched.
        breaks: where the own layer's activation bends.
        evaluations: evaluation points at most.

    Raises:
        PolytopeError: too few evaluations.

    """
    if evaluations < _FIRST + 1:
        raise PolytopeError(
            f"evaluations={evaluations}: at least {_FIRST + 1} are needed ({EVALUATIONS} is the default here)"
        )
    share, width = np.linspace(0, 1, _FIRST), layers[0].geometry.weight.shape[1]
    t = new = (share + (1 - np.cos(np.pi * share)) / 2) / 2
    values, count, earlier = list(run(t)), len(layers), None
    scale = [np.zeros(h.shape[1]) for h in values[:count]]
    while True:
        x = [rows.astype(np.float64).reshape(len(t), -1, width) for rows in values[-count:]]
        known = _Surrogate(start, layers, t, x)
        found = _search(known, breaks, [h[[0, -1]] for h in values[:count]], scale)
        where = np.concatenate([part.t for part in found])
        doubt = np.concatenate([size[part.neuron] / part.speed for size, part in zip(scale, found, strict=True)])
        left = evaluations - len(t)
        if earlier is not None:
            placed = _SAFETY * doubt * known.power(where) <= _PLACED
            agreed = not len(where) or float(placed.mean()) >= _SHARE
            if agreed or left <= 0:
                return Pieced(t, ~np.isin(t, new), tuple(values), tuple(found), agreed, Stretch(), known, earlier)
        else:
            doubt = np.ones(len(where))
        # Now and then between crossings, too: the output is interpolated there.
        between = (t[1:] + t[:-1]) / 2
        weight = np.concatenate([doubt, np.full(len(between), np.median(doubt) / 10 if len(doubt) else 1.0)])
        new = known.worst(np.concatenate([where, between]), weight, min(_ROUND, left))
        fresh = run(new)
        size = float((known.power(new) ** 2).sum())
        for number in range(count):
            square = ((known.h(new, number) - fresh[number]) ** 2).sum(axis=0) / size
            scale[number] = np.sqrt((square + square.mean()) / 2)
        earlier, order = known, np.argsort(np.concatenate([t, new]))
        t = np.concatenate([t, new])[order]
        values = [np.concatenate(rows)[order] for rows in zip(values, fresh, strict=True)]


def _search(
    known: _Surrogate,
    breaks: Float[np.ndarray, " n"],
    ends: Sequence[Float[np.ndarray, "2 _"]],
    scale: list[np.ndarray],
) -> list[Changes]:
    """Find each layer's crossings, cutting the path at all bends of the layers before."""
    found: list[Changes] = []
    for number, h_ends in enumerate(ends):
        cuts = np.unique(np.concatenate([[0.0, 1.0], breaks]))
        cuts = cuts[np.diff(cuts, prepend=-1.0) > _LEAST]
        cuts[-1] = 1.0
        between = _between(cuts)
        code = _Level(number, 0.0)
        t, h = _with_extrema(known, code, between, cuts)
        error = _SAFETY * known.power(t)[1:-1, None] * scale[number]
        low, side = np.abs(h), h > 0
        alone = (side[1:-1] == side[:-2]) & (side[1:-1] == side[2:])
        turned = (side[1:-1] != side[:-2]) & (side[1:-1] != side[2:])
        near = low[1:-1] <= error
        lowest = (low[1:-1] <= low[:-2]) & (low[1:-1] <= low[2:])
        part = _roots(known, code, t, h, h_ends > 0)
        counts = {"doubtful": alone & lowest & near, "slight": turned & near}
        found.append(part._replace(**{name: which.sum(axis=0) for name, which in counts.items()}))
        breaks = np.concatenate([breaks, part.t])
        for level in known.layers[number].act.at:
            if level != 0:  # a bend that the code does not show
                at = _Level(number, level)
                t, h = _with_extrema(known, at, between, cuts)
                breaks = np.concatenate([breaks, _roots(known, at, t, h, h_ends > level).t])
    return found


def _between(cuts: np.ndarray) -> np.ndarray:
    """Add points to wide pieces: one in the middle, or as many as make all short."""
    more = [cuts]
    for a, b in pairwise(cuts):
        if b - a > _HALVED:
            parts = max(2, int(np.ceil((b - a) / _WIDEST)))
            more.append(a + (b - a) * np.arange(1, parts) / parts)
    return np.sort(np.concatenate(more))


def _with_extrema(known: _Surrogate, at: _Level, t: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add points where a parabola through three points inside a piece comes near the level and goes back."""
    h = known.over(t, at)
    for _ in range(_DIPS):
        i = np.flatnonzero(~np.isin(t[1:-1], cuts)) + 1
        before, after = ((h[k + 1] - h[k]) / (t[k + 1] - t[k])[:, None] for k in (i - 1, i))
        half = ((t[i + 1] - t[i - 1]) / 2)[:, None]
        slope, bend = (before + after) / 2, (after - before) / half
        side = h > 0
        towards = (side[i - 1] == side[i]) & (side[i + 1] == side[i]) & ((bend > 0) == side[i]) & (bend != 0)
        bend = np.where(towards, bend, 1.0)
        lowest = np.abs(h[i]) - slope**2 / (2 * np.abs(bend))
        there = towards & (lowest < np.abs(bend) * half**2 / 50) & (np.abs(slope / bend) <= half)
        row, column = np.nonzero(there)
        new = np.setdiff1d(t[i[row]] - slope[row, column] / bend[row, column], t)
        new = new[(new > 0) & (new < 1)]
        if not len(new):
            break
        order = np.argsort(np.concatenate([t, new]))
        t, h = np.concatenate([t, new])[order], np.concatenate([h, known.over(new, at)])[order]
    return t, h


def _roots(known: _Surrogate, at: _Level, t: np.ndarray, h: np.ndarray, ends: np.ndarray) -> Changes:
    """Close in on each change of sign between successive points; at the path's ends the model's own signs count."""
    on = h > 0
    on[0], on[-1] = ends
    row, column = np.nonzero(on[1:] != on[:-1])
    up, low, high = on[row + 1, column], t[row], t[row + 1]
    at_low, at_high = h[row, column], h[row + 1, column]
    speed = np.maximum(np.abs(at_high - at_low) / (high - low), 1e-12)
    root = low
    for turn in range(_POLISHED):
        rise = at_high - at_low
        share = np.divide(-at_low, rise, out=np.full(len(low), 0.5), where=rise != 0)
        root = low + (high - low) * np.clip(share, 0, 1)
        if turn == _POLISHED - 1 or not len(root):
            break
        value = known.over_of(root, at, column)
        before = (value > 0) != up
        low, at_low = np.where(before, root, low), np.where(before, value, at_low)
        high, at_high = np.where(before, high, root), np.where(before, at_high, value)
    order = np.argsort(root, kind="stable")
    return Changes(root[order], column[order], up[order], speed[order], *np.zeros((2, h.shape[1]), np.int64))
