"""Every boundary that a straight line crosses at one site, in closed form: no step size, nothing missed.

With the norm's gain folded into `W` and its bias into `b`, a site's `h` along `x(t) = a + t (c - a)` is

    h_i(t) = (p0 + p1 t) / sigma(t) + b_i,    p0 = w_i . C a,   p1 = w_i . C (c - a),
    sigma(t)^2 = q0 + 2 qh t + q2 t^2 = |C x(t)|^2 / D + eps,

`C` being the centring of a LayerNorm (the identity for an RMSNorm). `h_i` has the sign of

    g_i(t) = p0 + p1 t + b_i sigma(t),

and `sigma` is convex (the root of a positive quadratic), so `g_i` is convex for `b_i > 0`, concave for
`b_i < 0`, linear for `b_i = 0`. Hence exactly one crossing where the ends' codes differ; where they agree,
two if the only stationary point lies on the other side of zero, otherwise none: the parity of a neuron's
crossings is always that of its ends' codes. How many there are follows from these signs, never from a
discriminant; where they are, from the roots of `(p0 + p1 t)^2 = b_i^2 sigma(t)^2` that also solve
`g_i(t) = 0`. In the MLP's own input space, or without a norm, `h_i` is linear and crossings
equal the ends' Hamming distance.

`h = 0` is off; a line that touches a boundary and goes back crosses nothing. Everything is float64: bits of
the model's own float32 forward with `|h| < 1e-4` may differ from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError
from polytope_lm.on_device import checked_device
from polytope_lm.paths.solve.roots import Filled, bracketed, fill, solved

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from jaxtyping import Bool, Float, Int

    from polytope_lm.models.sites import Geometry

BLOCK = 1 << 19  # neurons times lines solved at once: the two products' results take 4 MB each


@dataclass(frozen=True, eq=False, repr=False)
class LineCrossings:
    """The crossings of P straight lines, or arcs, at one site, ordered by line (`pair`) and then by t in [0, 1].

    `on` says whether the neuron turns on there; `returns` that it crosses twice, so that the ends' codes agree on
    it. A line has as many crossings as `hamming`, the distance of its ends' codes, plus those that return.
    """

    pair: Int[np.ndarray, " n"]
    t: Float[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]
    on: Bool[np.ndarray, " n"]
    returns: Bool[np.ndarray, " n"]
    hamming: Int[np.ndarray, " P"]

    def __repr__(self) -> str:
        lines = "1 line" if len(self.hamming) == 1 else f"{len(self.hamming):,} lines"
        again = int(self.returns.sum())
        return f"LineCrossings: {len(self.t):,} on {lines}, {again:,} of them of neurons that cross twice"

    @property
    def counts(self) -> Int[np.ndarray, " P"]:
        """Crossings of each line."""
        return np.bincount(self.pair, minlength=len(self.hamming))


def in_layer_crossings(
    geometry: Geometry, a: Float[np.ndarray, "*P D"], b: Float[np.ndarray, "*P D"], *,
    at: str = "resid_mid", device: torch.device | str | None = None,
) -> LineCrossings:  # fmt: skip
    """Find every crossing of the straight lines from `a` to `b`, in what the norm (`at`) or what the MLP reads.

    Their number is exact up to float64 rounding of `h` itself (see the module's text). With `device`, the products with
    all neurons stay there, and the two numbers of a neuron that crosses, or may cross twice, come to the processor,
    which solves them.

    Raises:
        PolytopeError: the ends' shapes differ or don't fit the site, an end isn't finite, `at` is unknown, or
            an end has no direction under a norm with `eps = 0`.

    """
    return solved_in_blocks(partial(_solve, None if device is None else checked_device(device)), geometry, a, b, at)


def mlp_inputs(geometry: Geometry, x: Float[np.ndarray, "*n D"]) -> Float[np.ndarray, "*n D"]:
    """Return `u = gain * C x / sigma + shift`, `sigma^2 = |C x|^2 / D + eps`; `x` itself without a norm."""
    if geometry.norm == "none":
        return x
    centred = x - x.mean(axis=-1, keepdims=True) if geometry.norm == "LayerNorm" else x
    sigma = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + geometry.eps)
    return np.asarray(geometry.gain * centred / sigma + geometry.shift)


def solved_in_blocks(
    solve: Callable[[Folded, np.ndarray, np.ndarray], Filled], geometry: Geometry, a: np.ndarray, b: np.ndarray, at: str
) -> LineCrossings:
    """Solve lines or arcs, so many at a time that products stay small; see `in_layer_crossings`."""
    starts, ends = _checked_ends(geometry, a, b)
    folded = _fold(geometry, at)
    block = max(1, BLOCK // len(folded.weight))
    firsts = range(0, max(1, len(starts)), block)  # no paths: one empty block
    parts = [solve(folded, starts[i : i + block], ends[i : i + block]) for i in firsts]
    found = Filled(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    pair = np.repeat(np.arange(len(found.counts), dtype=np.int32), found.counts)
    return LineCrossings(pair, found.t, found.neuron, found.on, found.returns, found.hamming)


def _checked_ends(geometry: Geometry, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends as `[P, D]`, float64, or refuse them."""
    width = geometry.weight.shape[1]
    ends = []
    for name, given in (("a", a), ("b", b)):
        value = np.atleast_2d(np.asarray(given, dtype=np.float64))
        if value.ndim != 2 or value.shape[1] != width:
            shape = np.shape(given)
            raise PolytopeError(
                f"{name} has shape {shape}, but this site reads vectors of {width}: give [{width}] or [P, {width}]"
            )
        if not np.isfinite(value).all():
            row = int(np.flatnonzero(~np.isfinite(value).all(axis=1))[0])
            raise PolytopeError(
                f"{name}[{row}] has NaN or infinite values: leave this pair out, or mend what gave them"
            )
        ends.append(value)
    if ends[0].shape != ends[1].shape:
        raise PolytopeError(f"a holds {len(ends[0])} points and b {len(ends[1])}: a line needs one of each")
    return ends[0], ends[1]


@dataclass(frozen=True)
class Folded:
    """A site as a path sees it, float64; without `normed`, `h` is linear in the path's space."""

    weight: np.ndarray
    bias: np.ndarray
    normed: bool
    centred: bool
    eps: float


def _fold(geometry: Geometry, at: str) -> Folded:
    """Fold a site's norm into its weight and bias, or leave it out in the MLP's own input space."""
    if at not in {"resid_mid", "mlp_in"}:
        raise PolytopeError(f"at={at!r} is not a space of a line: give 'resid_mid' (the norm's input) or 'mlp_in'")
    parts = (geometry.weight, geometry.bias, geometry.gain, geometry.shift)
    weight, bias, gain, shift = (np.asarray(part, dtype=np.float64) for part in parts)
    if at == "mlp_in":
        return Folded(weight, bias, normed=False, centred=False, eps=0.0)
    normed, centred = geometry.norm != "none", geometry.norm == "LayerNorm"
    return Folded(weight * gain, bias + weight @ shift, normed, centred, float(geometry.eps))


def _solve(device: torch.device | None, folded: Folded, a: np.ndarray, b: np.ndarray) -> Filled:
    if folded.centred:
        a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    # A line without a norm is the same equation with sigma = 1 and the bias inside the products.
    added, bias = (0.0 * folded.bias, folded.bias) if folded.normed else (folded.bias, 0.0 * folded.bias)
    flat = np.tile([1.0, 0.0, 0.0, 1.0, 0.0, 1.0], (len(a), 1))
    lines = _lengths(a, b, folded.eps) if folded.normed else flat
    if device is not None:
        return solved(_fill, *_may_cross(device, folded.weight, added, bias, lines, (a, b)), bias, lines)
    p0, p1 = a @ folded.weight.T, b @ folded.weight.T
    still = (a == b).all(axis=1)
    p1[still] = p0[still]  # equal ends give equal products, whatever the order of the sums inside BLAS
    return solved(_fill, p0 + added, p1 + added, bias, lines)


def _may_cross(
    device: torch.device, weight: np.ndarray, added: np.ndarray, bias: np.ndarray, lines: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Multiply on a device; return both products of the neurons that may cross, of others numbers that do not.

    A neuron may if the signs at the ends differ, or are that of its b while `g` falls towards zero from both ends.
    """
    import torch  # noqa: PLC0415 - slow to import

    W, c, b, x0, x1, q = (torch.as_tensor(part, device=device) for part in (weight, added, bias, *ends, lines))
    first, second = x0 @ W.T + c, x1 @ W.T + c
    second = torch.where((x0 == x1).all(dim=1, keepdim=True), first, second)
    q0, _, q2, _, nearest, end = (column[:, None] for column in q.T)
    slope, start = second - first, q0.sqrt()
    on, on_end = first + b * start > 0, second + b * end > 0
    falls = b.sign() * (slope - b * q2 * nearest / start) < 0
    rises = b.sign() * (slope + b * q2 * (1 - nearest) / end) > 0
    row, neuron = ((on != on_end) | ((on == (b > 0)) & falls & rises)).nonzero(as_tuple=True)
    idle = np.broadcast_to(np.where(bias < 0, -1.0, 1.0), first.shape)  # no sign changes from here to here
    at = (row.cpu().numpy(), neuron.cpu().numpy())
    both = idle.copy(), idle.copy()
    for to, values in zip(both, (first, second), strict=True):
        to[at] = values[row, neuron].cpu().numpy()
    return both


def _lengths(a: np.ndarray, b: np.ndarray, eps: float) -> Float[np.ndarray, "P 6"]:
    """Describe `sigma` along each line by the numbers of a `_Line`, a row a line."""
    d = b - a
    width = a.shape[1]
    q0, qh, q2, q_end = ((x * y).sum(axis=1) / width for x, y in ((a, a), (a, d), (d, d), (b, b)))
    if not (q0 + eps > 0).all() or not (q_end + eps > 0).all():
        raise PolytopeError(
            "an end has no direction (all coordinates equal) and the norm's eps is 0: leave this pair out"
        )
    nearest = np.divide(-qh, q2, out=np.zeros_like(q2), where=q2 > 0)
    # Subtracted, q0 - qh^2 / q2 loses all digits where the line nearly meets the centre: square what is left.
    least = ((a + nearest[:, None] * d) ** 2).sum(axis=1) / width + eps
    return np.stack([q0 + eps, qh, q2, least, nearest, np.sqrt(q_end + eps)], axis=1)


class _Line(NamedTuple):
    """`sigma(t)^2 = q0 + 2 qh t + q2 t^2 = least + q2 (t - nearest)^2`, and `sigma(1)`."""

    q0: float
    qh: float
    q2: float
    least: float
    nearest: float
    end: float


class _Neuron(NamedTuple):
    """`g(t) = start + slope t + bias sigma(t)`."""

    start: float
    slope: float
    bias: float


@compiled(error_model="numpy")
def _sigma(q: _Line, t: float) -> float:
    # As a sum of squares: multiplied out, it would lose its digits where the line passes near the centre.
    away = t - q.nearest
    return math.sqrt(q.least + q.q2 * away * away)


@compiled(error_model="numpy")
def _value(p: tuple[_Neuron, _Line], t: float) -> float:
    w, q = p
    return w.start + w.slope * t + w.bias * _sigma(q, t)


@compiled(error_model="numpy")
def _slope(p: tuple[_Neuron, _Line], t: float) -> float:
    w, q = p
    return w.slope + w.bias * q.q2 * (t - q.nearest) / _sigma(q, t)


@compiled(error_model="numpy")
def _extremum(w: _Neuron, q: _Line) -> float:
    """Solve `sigma'(t) = k := -slope / bias`: `s^2 q2 (q2 - k^2) = k^2 least` with `s = t - nearest`."""
    k = -w.slope / w.bias
    room = max(q.q2 - k * k, 1e-300)
    return min(max(q.nearest + k * math.sqrt(q.least / (q.q2 * room)), 0.0), 1.0)


@compiled(error_model="numpy")
def _quadratic(w: _Neuron, q: _Line) -> tuple[float, float]:
    """Solve `(start + slope t)^2 = bias^2 sigma(t)^2` without subtracting nearly equal numbers."""
    p, s, b = w.start, w.slope, abs(w.bias)
    square = (s - b * math.sqrt(q.q2)) * (s + b * math.sqrt(q.q2))
    constant = (p - b * math.sqrt(q.q0)) * (p + b * math.sqrt(q.q0))
    half = p * s - b * b * q.qh
    # half^2 - square * constant = b^2 * inner, multiplied out: what cancels there is gone from inner.
    inner = s * s * q.q0 - 2 * p * s * q.qh + p * p * q.q2 - b * b * q.q2 * q.least
    pivot = -(half + math.copysign(b * math.sqrt(max(inner, 0.0)), half))
    return pivot / square, constant / pivot


@compiled(error_model="numpy")
def _root(w: _Neuron, q: _Line, t: float, low: float, high: float) -> float:
    """Polish a closed form, nearly always at rounding already, inside a bracket where `g` changes sign."""
    tiny = 3e-16 * (abs(w.start) + abs(w.slope) * t + abs(w.bias) * _sigma(q, t))
    p = (w, q)
    if low <= t <= high and abs(_value(p, t)) <= tiny:
        return t
    return bracketed(_value, p, low, high, _value(p, low), _value(p, high), t, tiny)


@compiled(error_model="numpy")
def _sign_changes(p0: float, p1: float, bias: float, line: np.ndarray, found: np.ndarray, signs: np.ndarray) -> int:
    """Fill in where a neuron's sign changes and its signs after that; return how often."""
    q = _Line(line[0], line[1], line[2], line[3], line[4], line[5])
    w = _Neuron(p0, p1 - p0, bias)
    on0, on1 = p0 + bias * math.sqrt(q.q0) > 0, p1 + bias * q.end > 0
    if on0 != on1:
        signs[0] = on1
        if bias == 0:
            found[0] = -w.start / w.slope
            return 1
        # The squared equation also has the roots of start + slope t = bias sigma, where g is far from zero.
        first, second = _quadratic(w, q)
        first, second = min(max(first, 0.0), 1.0), min(max(second, 0.0), 1.0)
        nearer = first if abs(_value((w, q), first)) <= abs(_value((w, q), second)) else second
        found[0] = _root(w, q, nearer, 0.0, 1.0)
        return 1
    sign = 1.0 if bias > 0 else -1.0
    if bias == 0 or on0 != (bias > 0) or sign * _slope((w, q), 0.0) >= 0 or sign * _slope((w, q), 1.0) <= 0:
        return 0
    extremum = _extremum(w, q)
    if sign * _value((w, q), extremum) >= 0:
        return 0
    first, second = _quadratic(w, q)
    found[0], signs[0] = _root(w, q, min(first, second), 0.0, extremum), not on0
    found[1], signs[1] = _root(w, q, max(first, second), extremum, 1.0), on0
    return 2


@compiled(error_model="numpy")
def _fill(first: np.ndarray, second: np.ndarray, bias: np.ndarray, lines: np.ndarray, out: Filled) -> int:
    return fill(_sign_changes, first, second, bias, lines, out)
