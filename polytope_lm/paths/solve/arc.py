"""Every boundary that an arc crosses at one site: closed forms, polished; nothing missed.

On the arc of `curves.py`, a site's pre-activations are

    h_i(t) = m(t) (A_i cos(Omega t) + B_i sin(Omega t)) + b_i,   A_i = w_i . e1,   B_i = w_i . e2.

In the MLP's input space `m` is the length `rho(t)`; before a norm (whose gain is folded into `W` and whose
bias is folded into `b`) it is `rho / sqrt(rho^2 / D + eps)`: the norm cancels the length, so that `m` is
constant at eps = 0. With constant `m` (there, or with ends of equal length) `h_i` is a sinusoid plus `b_i`:
at most two roots, in closed form. In general `m` is log-concave, `(m' / m)' <= 0`, and so

    h_i'(t) = 0   iff   tan(Omega t - phi_i) = m'(t) / (Omega m(t)),

whose left side rises and whose right side doesn't: one stationary point at most on each branch of the
tangent, that is on each side of `A cos + B sin = 0`, a maximum where this is positive and a minimum where it
is negative. Of these branches an arc of less than half a circle meets two at most. Between stationary points
`h_i` is monotone: signs there and at the ends count its roots, of which there are two at most. (For three,
say with a maximum first: if `b_i > 0`, the start, below zero, would lie in a branch before the maximum's; if
`b_i < 0`, the end, above zero, in one after the minimum's.) They are placed in brackets, from the closed form
with a mean `m`.

`h = 0` is off, and touching a boundary is no crossing, as on lines (`line.py`). Everything is float64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from polytope_lm.compiled import compiled
from polytope_lm.paths.solve.curves import arc
from polytope_lm.paths.solve.line import LineCrossings, solved_in_blocks
from polytope_lm.paths.solve.roots import Filled, bracketed, fill, solved

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.sites import Geometry
    from polytope_lm.paths.solve.line import Folded


class _Arc(NamedTuple):
    """`rho(t) = start + change t`, the angle `w`, and `m = rho / sqrt(share rho^2 + rest)`."""

    angle: float
    start: float
    change: float
    share: float
    rest: float


class _Wave(NamedTuple):
    """`A cos + B sin` and the bias."""

    cosine: float
    sine: float
    bias: float


@compiled(error_model="numpy")
def _factor(p: _Arc, t: float) -> float:
    rho = p.start + p.change * t
    return rho / math.sqrt(p.share * rho * rho + p.rest)


@compiled(error_model="numpy")
def _relative(p: _Arc, t: float) -> float:
    """Compute `m' / m`."""
    rho = p.start + p.change * t
    return p.change * p.rest / (rho * (p.share * rho * rho + p.rest))


@compiled(error_model="numpy")
def _value(wp: tuple[_Wave, _Arc], t: float) -> float:
    w, p = wp
    angle = p.angle * t
    return _factor(p, t) * (w.cosine * math.cos(angle) + w.sine * math.sin(angle)) + w.bias


@compiled(error_model="numpy")
def _slope(wp: tuple[_Wave, _Arc], t: float) -> float:
    """Compute `f' / m`, which has the sign of `f'`."""
    w, p = wp
    cosine, sine = math.cos(p.angle * t), math.sin(p.angle * t)
    turned = p.angle * (w.sine * cosine - w.cosine * sine)
    return turned + _relative(p, t) * (w.cosine * cosine + w.sine * sine)


@compiled(error_model="numpy")
def _sign_changes(
    cosine: float, sine: float, bias: float, arc: np.ndarray, found: np.ndarray, signs: np.ndarray
) -> int:
    """Fill in where a neuron's sign changes and its signs after that; return how often."""
    w, p = _Wave(cosine, sine, bias), _Arc(arc[0], arc[1], arc[2] - arc[1], arc[3], arc[4])
    wp = (w, p)
    # Where A cos + B sin = 0 the tangent changes its branch; the half circle has at most one such point.
    pole = math.atan2(-w.cosine, w.sine)
    pole = pole + math.pi if pole < 0 else pole
    between = pole / p.angle if pole < p.angle else 1.0
    last, was, count = 0.0, _value(wp, 0.0) > 0, 0
    for branch in range(2):
        low, high = (0.0, between) if branch == 0 else (between, 1.0)
        if low >= high:
            continue
        at_low, at_high = _slope(wp, low), _slope(wp, high)
        if at_low * at_high >= 0:
            continue
        extremum = bracketed(_slope, wp, low, high, at_low, at_high, -1.0, 0.0)
        value = _value(wp, extremum)
        if value != 0 and (value > 0) != was:
            found[count], signs[count] = _root(w, p, last, extremum), not was
            last, was, count = extremum, not was, count + 1
        elif value != 0:
            last = extremum
    if (_value(wp, 1.0) > 0) != was:
        found[count], signs[count] = _root(w, p, last, 1.0), not was
        count += 1
    return count


@compiled(error_model="numpy")
def _guess(w: _Wave, p: _Arc, low: float, high: float) -> float:
    """Solve for the root with `m` as it is halfway: exact where `m` is constant."""
    radius = math.hypot(w.cosine, w.sine) * _factor(p, (low + high) / 2)
    middle = (low + high) / 2
    if radius <= abs(w.bias) or p.angle == 0:
        return middle
    phase, half = math.atan2(w.sine, w.cosine), math.acos(-w.bias / radius)
    for side in (-1.0, 1.0):
        for rounds in (-1.0, 0.0, 1.0):
            t = (phase + side * half + rounds * 2 * math.pi) / p.angle
            if low <= t <= high:
                return t
    return middle


@compiled(error_model="numpy")
def _root(w: _Wave, p: _Arc, low: float, high: float) -> float:
    """Find the one root between two points over which `f` is monotone and changes its sign."""
    tiny = 2e-16 * (abs(w.bias) + math.hypot(w.cosine, w.sine) * max(_factor(p, low), _factor(p, high)))
    wp, t = (w, p), _guess(w, p, low, high)
    return bracketed(_value, wp, low, high, _value(wp, low), _value(wp, high), t, tiny)


@compiled(error_model="numpy")
def _fill(first: np.ndarray, second: np.ndarray, bias: np.ndarray, arcs: np.ndarray, out: Filled) -> int:
    return fill(_sign_changes, first, second, bias, arcs, out)


def arc_crossings(
    geometry: Geometry, a: Float[np.ndarray, "*P D"], b: Float[np.ndarray, "*P D"], *, at: str = "resid_mid"
) -> LineCrossings:
    """Find every crossing of the arcs from `a` to `b`; arcs in what the norm reads are centred if the norm centres.

    Raises:
        PolytopeError: the ends' shapes differ or don't fit the site, an end isn't finite or has no direction,
            `at` is unknown, or the ends of an arc are opposite.

    """
    return solved_in_blocks(_solve, geometry, a, b, at)


def _solve(folded: Folded, a: np.ndarray, b: np.ndarray) -> Filled:
    drawn = arc(a, b, centred=folded.centred)
    cosine, sine = drawn.first @ folded.weight.T, drawn.second @ folded.weight.T
    # m = rho / sqrt(share rho^2 + rest): rho itself without a norm.
    share, rest = (1 / a.shape[1], folded.eps) if folded.normed else (0.0, 1.0)
    numbers = np.stack([drawn.angle, *drawn.norms, np.full(len(a), share), np.full(len(a), rest)], axis=1)
    return solved(_fill, cosine, sine, folded.bias, numbers)
