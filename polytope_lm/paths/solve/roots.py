"""Sign changes of `g(t) = p0 + (p1 - p0) t + b sigma(t)` on [0, 1]: the inner loop of `line.py`.

With `sigma(t) = sqrt(q0 + 2 qh t + q2 t^2)` convex, `g` turns at most once. How often it changes sign follows
from its signs at the ends and at that turn, never from a discriminant; closed-form roots then only say where.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from polytope_lm.compiled import compiled

if TYPE_CHECKING:
    from jaxtyping import Float


class Line(NamedTuple):
    """`sigma(t)^2 = q0 + 2 qh t + q2 t^2 = least + q2 (t - nearest)^2`, and `sigma(1)`."""

    q0: float
    qh: float
    q2: float
    least: float
    nearest: float
    end: float


class Neuron(NamedTuple):
    """`g(t) = start + slope t + bias sigma(t)`."""

    start: float
    slope: float
    bias: float


def cross(
    p0: Float[np.ndarray, "P N"],
    p1: Float[np.ndarray, "P N"],
    bias: Float[np.ndarray, " N"],
    lines: Float[np.ndarray, "P 6"],
) -> tuple[np.ndarray, ...]:
    """Find all sign changes for P lines and N neurons.

    Args:
        p0: the linear part at t = 0.
        p1: the linear part at t = 1.
        bias: each neuron's b.
        lines: the numbers of a `Line`, a row a line.

    Returns:
        Crossings of each line `[P]`, how many of them belong to neurons that cross twice `[P]`; then `[n]`,
        line by line and ordered by place: t, neuron, whether it turns on, whether that neuron crosses twice.

    """
    room = 2 * p0.size
    t, neuron = np.empty(room), np.empty(room, dtype=np.int32)
    on, returns = np.empty(room, dtype=np.bool_), np.empty(room, dtype=np.bool_)
    counts, returning = (np.zeros(len(p0), dtype=np.int64) for _ in range(2))
    n = _cross(p0, p1, bias, lines, counts, returning, t, neuron, on, returns)
    return counts, returning, *(array[:n].copy() for array in (t, neuron, on, returns))


@compiled(error_model="numpy")
def _cross(  # noqa: PLR0913, PLR0917 - compiled code fills the caller's arrays
    p0: np.ndarray,
    p1: np.ndarray,
    bias: np.ndarray,
    lines: np.ndarray,
    counts: np.ndarray,
    returning: np.ndarray,
    t: np.ndarray,
    neuron: np.ndarray,
    on: np.ndarray,
    returns: np.ndarray,
) -> int:
    n = 0
    for row in range(p0.shape[0]):
        q = Line(lines[row, 0], lines[row, 1], lines[row, 2], lines[row, 3], lines[row, 4], lines[row, 5])
        sigma0 = math.sqrt(q.q0)
        first = n
        for i in range(p0.shape[1]):
            w = Neuron(p0[row, i], p1[row, i] - p0[row, i], bias[i])
            on0, on1 = p0[row, i] + bias[i] * sigma0 > 0, p1[row, i] + bias[i] * q.end > 0
            if on0 != on1:
                t[n], neuron[n], on[n], returns[n] = _root(w, q), i, on1, False
                n += 1
            elif w.bias != 0 and on0 == (w.bias > 0) and _returns(w, q):
                early, late = _roots(w, q)
                t[n], neuron[n], on[n], returns[n] = early, i, not on0, True
                t[n + 1], neuron[n + 1], on[n + 1], returns[n + 1] = late, i, on0, True
                returning[row] += 2
                n += 2
        counts[row] = n - first
        # Stable: where rounding gives both crossings of a neuron one place, the first stays first.
        order = first + np.argsort(t[first:n], kind="mergesort")
        t[first:n], neuron[first:n] = t[order], neuron[order]
        on[first:n], returns[first:n] = on[order], returns[order]
    return n


@compiled(error_model="numpy")
def _sigma(q: Line, t: float) -> float:
    # As a sum of squares: multiplied out, it would lose its digits where the line passes near the centre.
    away = t - q.nearest
    return math.sqrt(q.least + q.q2 * away * away)


@compiled(error_model="numpy")
def _value(w: Neuron, q: Line, t: float) -> float:
    return w.start + w.slope * t + w.bias * _sigma(q, t)


@compiled(error_model="numpy")
def _slope(w: Neuron, q: Line, t: float) -> float:
    return w.slope + w.bias * q.q2 * (t - q.nearest) / _sigma(q, t)


@compiled(error_model="numpy")
def _turn(w: Neuron, q: Line) -> float:
    """Solve `sigma'(t) = k := -slope / bias`: `s^2 q2 (q2 - k^2) = k^2 least` with `s = t - nearest`."""
    k = -w.slope / w.bias
    room = max(q.q2 - k * k, 1e-300)
    return min(max(q.nearest + k * math.sqrt(q.least / (q.q2 * room)), 0.0), 1.0)


@compiled(error_model="numpy")
def _returns(w: Neuron, q: Line) -> bool:
    """Tell whether `g`, of the bias's sign at both ends, has the other one where it turns (not zero)."""
    sign = 1.0 if w.bias > 0 else -1.0
    if sign * _slope(w, q, 0.0) >= 0 or sign * _slope(w, q, 1.0) <= 0:
        return False
    return sign * _value(w, q, _turn(w, q)) < 0


@compiled(error_model="numpy")
def _quadratic(w: Neuron, q: Line) -> tuple[float, float]:
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
def _polished(w: Neuron, q: Line, t: float, low: float, high: float) -> float:
    """Apply Newton's method to the closed form, inside a bracket over which `g` changes sign.

    The closed form is nearly always at rounding already. Where it isn't (a line past the centre, a root that
    is nearly double) a step that leaves the bracket becomes a bisection.
    """
    rising = _value(w, q, high) > 0
    t = min(max(t, low), high) if t == t else low  # noqa: PLR0124 - NaN where the quadratic degenerates
    for _ in range(100):
        value = _value(w, q, t)
        if abs(value) <= 3e-16 * (abs(w.start) + abs(w.slope) * t + abs(w.bias) * _sigma(q, t)):
            break
        if (value > 0) == rising:
            high = t
        else:
            low = t
        t -= value / _slope(w, q, t)
        if not low < t < high:
            t = (low + high) / 2
    return t


@compiled(error_model="numpy")
def _root(w: Neuron, q: Line) -> float:
    """Find the one root in [0, 1] of a neuron whose ends differ.

    The squared equation also has the roots of `start + slope t = bias sigma(t)`, where `g` is far from zero.
    """
    if w.bias == 0:
        return -w.start / w.slope
    first, second = _quadratic(w, q)
    first, second = min(max(first, 0.0), 1.0), min(max(second, 0.0), 1.0)
    nearer = first if abs(_value(w, q, first)) <= abs(_value(w, q, second)) else second
    return _polished(w, q, nearer, 0.0, 1.0)


@compiled(error_model="numpy")
def _roots(w: Neuron, q: Line) -> tuple[float, float]:
    """Find both roots of a neuron that crosses and returns, one on each side of its turn."""
    first, second = _quadratic(w, q)
    turn = _turn(w, q)
    return _polished(w, q, min(first, second), 0.0, turn), _polished(w, q, max(first, second), turn, 1.0)
