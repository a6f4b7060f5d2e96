"""Sign changes of `f(t) = m(t) (A cos(w t) + B sin(w t)) + b` on [0, 1]: the inner loop of `arc.py`.

`m = rho / sqrt(share rho^2 + rest)` with `rho` linear and positive is log-concave. Signs at the ends and at
the stationary points, two at most, count the roots; they are then placed by Newton's method in brackets.

Every boundary that an arc crosses at one site: closed forms, polished; nothing missed.

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
`b_i < 0`, the end, above zero, in one after the minimum's.) They are placed by Newton's method, from the
closed form with a mean `m`.

`h = 0` is off, and touching a boundary is no crossing, as on lines (`line.py`). Everything is float64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from polytope_lm.compiled import compiled
from polytope_lm.paths.solve.curves import arc
from polytope_lm.paths.solve.line import BLOCK, LineCrossings, checked_ends, fold

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.sites import Geometry
    from polytope_lm.paths.solve.line import Folded

_ITERATIONS = 100
_MOST = 2  # roots of one neuron


class Turn(NamedTuple):
    """`rho(t) = start + change t`, the angle `w`, and `m = rho / sqrt(share rho^2 + rest)`."""

    angle: float
    start: float
    change: float
    share: float
    rest: float


class Wave(NamedTuple):
    """`A cos + B sin` and the bias."""

    cosine: float
    sine: float
    bias: float


def cross_arcs(
    cosine: Float[np.ndarray, "P N"],
    sine: Float[np.ndarray, "P N"],
    bias: Float[np.ndarray, " N"],
    arcs: Float[np.ndarray, "P 5"],
) -> tuple[np.ndarray, ...]:
    """Find all sign changes for P arcs and N neurons.

    Args:
        cosine: A.
        sine: B.
        bias: each neuron's b.
        arcs: angle, `rho` at both ends, `share` and `rest`, a row an arc.

    Returns:
        Crossings of each arc `[P]`, bits in which its ends differ `[P]`; then `[n]`, arc by arc and ordered
        by place: t, neuron, whether it turns on, whether that neuron crosses twice.

    """
    room = _MOST * cosine.size
    t, neuron = np.empty(room), np.empty(room, dtype=np.int32)
    on, returns = np.empty(room, dtype=np.bool_), np.empty(room, dtype=np.bool_)
    counts, hamming = (np.zeros(len(cosine), dtype=np.int64) for _ in range(2))
    n = _cross(cosine, sine, bias, arcs, counts, hamming, t, neuron, on, returns)
    return counts, hamming, *(array[:n].copy() for array in (t, neuron, on, returns))


@compiled(error_model="numpy")
def _cross(  # noqa: PLR0913, PLR0917 - compiled code fills the caller's arrays
    cosine: np.ndarray,
    sine: np.ndarray,
    bias: np.ndarray,
    arcs: np.ndarray,
    counts: np.ndarray,
    hamming: np.ndarray,
    t: np.ndarray,
    neuron: np.ndarray,
    on: np.ndarray,
    returns: np.ndarray,
) -> int:
    n, found, signs = 0, np.empty(_MOST), np.empty(_MOST, np.bool_)
    for row in range(cosine.shape[0]):
        p = Turn(arcs[row, 0], arcs[row, 1], arcs[row, 2] - arcs[row, 1], arcs[row, 3], arcs[row, 4])
        first = n
        for i in range(cosine.shape[1]):
            count = _sign_changes(Wave(cosine[row, i], sine[row, i], bias[i]), p, found, signs)
            for k in range(count):
                t[n], neuron[n], on[n], returns[n] = found[k], i, signs[k], count > 1
                n += 1
            hamming[row] += count % 2
        counts[row] = n - first
        # Stable: where rounding gives two crossings of a neuron one place, the first stays first.
        order = first + np.argsort(t[first:n], kind="mergesort")
        t[first:n], neuron[first:n] = t[order], neuron[order]
        on[first:n], returns[first:n] = on[order], returns[order]
    return n


@compiled(error_model="numpy")
def _factor(p: Turn, t: float) -> float:
    rho = p.start + p.change * t
    return rho / math.sqrt(p.share * rho * rho + p.rest)


@compiled(error_model="numpy")
def _relative(p: Turn, t: float) -> float:
    """Compute `m' / m`."""
    rho = p.start + p.change * t
    return p.change * p.rest / (rho * (p.share * rho * rho + p.rest))


@compiled(error_model="numpy")
def _value(w: Wave, p: Turn, t: float) -> float:
    angle = p.angle * t
    return _factor(p, t) * (w.cosine * math.cos(angle) + w.sine * math.sin(angle)) + w.bias


@compiled(error_model="numpy")
def _slope(w: Wave, p: Turn, t: float) -> float:
    """Compute `f' / m`, which has the sign of `f'`."""
    cosine, sine = math.cos(p.angle * t), math.sin(p.angle * t)
    turned = p.angle * (w.sine * cosine - w.cosine * sine)
    return turned + _relative(p, t) * (w.cosine * cosine + w.sine * sine)


@compiled(error_model="numpy")
def _stationary(w: Wave, p: Turn, low: float, high: float) -> float:
    """Bisect for the one zero of the slope between two places where its signs differ."""
    rising = _slope(w, p, low) > 0
    for _ in range(_ITERATIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if (_slope(w, p, middle) > 0) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@compiled(error_model="numpy")
def _sign_changes(w: Wave, p: Turn, found: np.ndarray, signs: np.ndarray) -> int:
    """Fill in the places of a neuron's sign changes and its signs after them; return how many."""
    # Where A cos + B sin = 0 the tangent changes its branch; the half circle has at most one such place.
    pole = math.atan2(-w.cosine, w.sine)
    pole = pole + math.pi if pole < 0 else pole
    between = pole / p.angle if pole < p.angle else 1.0
    last, was, count = 0.0, _value(w, p, 0.0) > 0, 0
    for branch in range(2):
        low, high = (0.0, between) if branch == 0 else (between, 1.0)
        if low >= high:
            continue
        at_low, at_high = _slope(w, p, low), _slope(w, p, high)
        if at_low * at_high >= 0:
            continue
        place = _stationary(w, p, low, high)
        value = _value(w, p, place)
        if value != 0 and (value > 0) != was:
            found[count], signs[count] = _root(w, p, last, place), not was
            last, was, count = place, not was, count + 1
        elif value != 0:
            last = place
    if (_value(w, p, 1.0) > 0) != was:
        found[count], signs[count] = _root(w, p, last, 1.0), not was
        count += 1
    return count


@compiled(error_model="numpy")
def _guess(w: Wave, p: Turn, low: float, high: float) -> float:
    """Solve for the root with `m` as it is halfway: exact where `m` is constant."""
    radius = math.hypot(w.cosine, w.sine) * _factor(p, (low + high) / 2)
    middle = (low + high) / 2
    if radius <= abs(w.bias) or p.angle == 0:
        return middle
    phase, half = math.atan2(w.sine, w.cosine), math.acos(-w.bias / radius)
    for side in (-1.0, 1.0):
        for turns in (-1.0, 0.0, 1.0):
            t = (phase + side * half + turns * 2 * math.pi) / p.angle
            if low <= t <= high:
                return t
    return middle


@compiled(error_model="numpy")
def _root(w: Wave, p: Turn, low: float, high: float) -> float:
    """Find the one root between two places over which `f` is monotone and changes its sign.

    Newton's method from the closed form; a step that leaves the bracket becomes a bisection.
    """
    rising = _value(w, p, high) > _value(w, p, low)
    scale = abs(w.bias) + math.hypot(w.cosine, w.sine) * max(_factor(p, low), _factor(p, high))
    t = _guess(w, p, low, high)
    for _ in range(_ITERATIONS):
        value = _value(w, p, t)
        if abs(value) <= 2e-16 * scale:
            break
        if (value > 0) == rising:
            high = t
        else:
            low = t
        if not low < high:
            break
        slope = _slope(w, p, t) * _factor(p, t)
        t = t - value / slope if slope != 0 else low
        if not low < t < high:
            t = (low + high) / 2
    return t


def arc_crossings(
    geometry: Geometry, a: Float[np.ndarray, "*P D"], b: Float[np.ndarray, "*P D"], *, at: str = "resid_mid"
) -> LineCrossings:
    """Find every crossing of the arcs from `a` to `b`.

    Args:
        geometry: the site's norm, weight and bias.
        a: start of one arc `[D]` or of P arcs `[P, D]`.
        b: their ends, of the same shape.
        at: the space of the arcs: `resid_mid`, what the norm reads, centred if the norm centres, or
            `mlp_in`, what the MLP reads.

    Returns:
        The crossings, ordered by arc and then by place.

    Raises:
        PolytopeError: the ends' shapes differ or don't fit the site, an end isn't finite or has no direction,
            `at` is unknown, or the ends of an arc are opposite.

    """
    starts, ends = checked_ends(geometry, a, b)
    folded = fold(geometry, at)
    block = max(1, BLOCK // len(folded.weight))
    firsts = range(0, max(1, len(starts)), block)
    parts = [_solve(folded, starts[i : i + block], ends[i : i + block]) for i in firsts]
    counts, hamming, t, neuron, on, returns = (np.concatenate(part) for part in zip(*parts, strict=True))
    pair = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return LineCrossings(pair, t, neuron, on, returns, hamming)


def _solve(folded: Folded, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    turn = arc(a, b, centred=folded.centred)
    cosine, sine = turn.first @ folded.weight.T, turn.second @ folded.weight.T
    # m = rho / sqrt(share rho^2 + rest): rho itself without a norm.
    share, rest = (1 / a.shape[1], folded.eps) if folded.normed else (0.0, 1.0)
    numbers = np.stack([turn.angle, *turn.norms, np.full(len(a), share), np.full(len(a), rest)], axis=1)
    return cross_arcs(cosine, sine, folded.bias, numbers)
