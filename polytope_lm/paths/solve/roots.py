"""Bracketed roots in compiled code, and the loop over paths and neurons that closed forms share.

A root is looked for by Chandrupatla's method: inverse quadratic interpolation where it is safe, bisection
elsewhere, so that it takes at most a few times as many evaluations as bisection. Source: Chandrupatla, "A new
hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function without using derivatives"
(Advances in Engineering Software 28, 1997).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from polytope_lm.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float, Int

_ITERATIONS = 120
_RESOLVED = 2.3e-16  # of t in [0, 1]
_MOST = 2  # roots of one neuron on a line or an arc


class Filled(NamedTuple):
    """Crossings of each of P paths and bits in which its ends differ; then, path by path and ordered by t, n crossings.

    `returns` says whether a crossing's neuron crosses twice.
    """

    counts: Int[np.ndarray, " P"]
    hamming: Int[np.ndarray, " P"]
    t: Float[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]
    on: Bool[np.ndarray, " n"]
    returns: Bool[np.ndarray, " n"]


# Inlined, because numba keeps no code on disk that takes a function.
@compiled(error_model="numpy", inline="always")
def bracketed(
    f: Callable[[Any, float], float],
    p: Any,
    low: float,
    high: float,
    at_low: float,
    at_high: float,
    guess: float,
    tiny: float,
) -> float:
    """Find the zero of `f(p, t)` between two points where its signs differ.

    Where rounding gave both one sign (a zero at the very end), the nearer one is returned. The search begins at
    `guess`, or halfway if that is outside the bracket; a value below `tiny` is as good as zero.
    """
    t = guess if low < guess < high else (low + high) / 2
    last, at_last, other, at_other = low, at_low, high, at_high
    if (at_low > 0) == (at_high > 0):
        t = low if abs(at_low) <= abs(at_high) else high
        last, other = t, t
    for _ in range(_ITERATIONS):
        if abs(other - last) <= _RESOLVED:
            break
        value = f(p, t)
        if abs(value) <= tiny:
            break
        if (value > 0) == (at_last > 0):
            before, at_before = last, at_last
        else:
            before, at_before = other, at_other
            other, at_other = last, at_last
        last, at_last = t, value
        share = 0.5
        way, height = (last - other) / (before - other), (at_last - at_other) / (at_before - at_other)
        if 1 - math.sqrt(1 - way) < height < math.sqrt(way):
            quadratic = at_last / (at_other - at_last) * at_before / (at_other - at_before)
            linear = at_last / (at_before - at_last) * at_other / (at_before - at_other)
            share = quadratic + (before - last) / (other - last) * linear
        t = last + share * (other - last)
        if not min(last, other) < t < max(last, other):
            t = (last + other) / 2
    return t


@compiled(error_model="numpy", inline="always")
def fill(
    sign_changes: Callable[..., int],
    first: np.ndarray,
    second: np.ndarray,
    bias: np.ndarray,
    paths: np.ndarray,
    out: Filled,
) -> int:
    """Fill in the sign changes of every neuron on every path; see `solved`."""
    counts, hamming, t, neuron, on, returns = out
    n, found, signs = 0, np.empty(_MOST), np.empty(_MOST, np.bool_)
    for row in range(first.shape[0]):
        start = n
        for i in range(first.shape[1]):
            count = sign_changes(first[row, i], second[row, i], bias[i], paths[row], found, signs)
            for k in range(count):
                t[n], neuron[n], on[n], returns[n] = found[k], i, signs[k], count > 1
                n += 1
            hamming[row] += count % 2
        counts[row] = n - start
        # Stable: where rounding gives two crossings of a neuron one t, the first stays first.
        order = start + np.argsort(t[start:n], kind="mergesort")
        t[start:n], neuron[start:n] = t[order], neuron[order]
        on[start:n], returns[start:n] = on[order], returns[order]
    return n


def solved(
    kernel: Callable[..., int],
    first: Float[np.ndarray, "P N"],
    second: Float[np.ndarray, "P N"],
    bias: Float[np.ndarray, " N"],
    paths: Float[np.ndarray, "P _"],
) -> Filled:
    """Find all sign changes from each neuron's two coefficients on each path, its b, and each path's own numbers."""
    counts, hamming = (np.zeros(len(first), dtype=np.int64) for _ in range(2))
    room = (np.empty(_MOST * first.size, kind) for kind in (np.float64, np.int32, np.bool_, np.bool_))
    out = Filled(counts, hamming, *room)
    n = kernel(first, second, bias, paths, out)
    return Filled(counts, hamming, *(array[:n].copy() for array in out[2:]))


def linear_roots(
    t: Float[np.ndarray, " K"], h: Float[np.ndarray, "K N"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return t, column and direction of each sign change of functions linear between points, ordered by t."""
    on = h > 0
    # h = 0 is off; touching zero and going back is no crossing.
    on[1:-1] |= (h[1:-1] == 0) & on[:-2] & on[2:]
    step, column = np.nonzero(on[1:] != on[:-1])
    before, after = (h[step + shift, column].astype(np.float64) for shift in (0, 1))
    roots = t[step] + (t[step + 1] - t[step]) * (before / (before - after))
    order = np.argsort(roots, kind="stable")
    return roots[order], column[order], on[step + 1, column][order]
