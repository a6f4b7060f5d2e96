"""Sign changes of many polynomials on [0, 1] at once, from their values at a few dozen nodes.

Polynomials are columns of Chebyshev coefficients `c` in `x = 2 t - 1`: `P(t) = sum_k c_k T_k(x)`, evaluated
by Clenshaw's recurrence in float64. Signs on a dense set of places isolate the roots, and the turns between
them towards zero; each is then found inside its bracket. No companion matrix: those cost the cube of the
degree for every neuron. Source: Trefethen, "Approximation Theory and Approximation Practice" (2013), chapters
5 and 18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from polytope_lm.paths.roots import _compiled

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_CELLS = 4  # dense cells to a node: a polynomial that is resolved turns at most once in one
_ITERATIONS = 100
_DEGREE, _LAST, _NOISE = 4, 8, 1e-6
_LEAST = 1e-3  # a denominator that comes nearer to zero than this share of its largest value has a pole there


class Changes(NamedTuple):
    """Sign changes of N polynomials, ordered by place.

    Attributes:
        t: the places, `[n]`.
        neuron: the column, `[n]`.
        on: whether it is positive from there on, `[n]`.
        speed: `|dI/dt|` there, `[n]`.
        doubtful: turns that stay on their side of zero by no more than the error, in each column, `[N]`.

    """

    t: Float[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]
    on: Bool[np.ndarray, " n"]
    speed: Float[np.ndarray, " n"]
    doubtful: Int[np.ndarray, " N"]


def places(shares: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return `(1 - cos(pi s)) / 2`: Chebyshev points on [0, 1] for equal shares `s` of the half circle."""
    t: np.ndarray = (1 - np.cos(np.pi * shares)) / 2
    return t


def coefficients(t: Float[np.ndarray, " n"], values: Float[np.ndarray, "n N"]) -> Float[np.ndarray, "n N"]:
    """Return the Chebyshev coefficients of the polynomials through given values.

    Args:
        t: distinct places on [0, 1], near to Chebyshev's, or the answer is ill-conditioned.
        values: a polynomial's values there, a column each.

    """
    matrix = chebyshev.chebvander(2 * t - 1, len(t) - 1)
    found: np.ndarray = np.linalg.solve(matrix, values.astype(np.float64))
    return found


def denominator(t: Float[np.ndarray, " n"], values: Float[np.ndarray, "n N"]) -> Float[np.ndarray, " n"]:
    """Return a positive `q(t)`, at most 1, for which polynomials fit `q f` better than `f`, for all columns.

    Functions that went through the same layers share their nearest poles in the complex plane, and these
    limit a polynomial's convergence. `q`, of degree 4 or less, is the linear Pade-Chebyshev denominator: it
    makes the last 8 coefficients of all `q f` together least (Trefethen, chapters 23 and 26), with a ridge at
    float32's rounding, so that it is 1 where nothing is left to gain. Signs of `q f` are those of `f`.

    Args:
        t: distinct places on [0, 1].
        values: a function's values there, a column each.

    """
    scaled = values / np.maximum(np.abs(values).max(axis=0), 1e-30)
    last = np.linalg.inv(chebyshev.chebvander(2 * t - 1, len(t) - 1))[-_LAST:]
    dense = np.linspace(-1, 1, 1001)
    for degree in range(_DEGREE, 0, -2):
        powers = chebyshev.chebvander(2 * t - 1, degree)
        rows = np.einsum("ks,si,sc->kic", last, scaled, powers, optimize=True).reshape(-1, degree + 1)
        gram = rows.T @ rows
        ridge = len(rows) * _NOISE**2 * np.eye(degree)
        q = np.concatenate([[1.0], np.linalg.solve(gram[1:, 1:] + ridge, -gram[1:, 0])])
        everywhere = chebyshev.chebval(dense, q)
        if everywhere.min() > _LEAST * everywhere.max():
            found: np.ndarray = chebyshev.chebval(2 * t - 1, q / everywhere.max())
            return found
    return np.ones(len(t))


def evaluate(coefs: Float[np.ndarray, "n N"], t: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m N"]:
    """Return the polynomials' values at each t."""
    values: np.ndarray = chebyshev.chebvander(2 * t - 1, len(coefs) - 1) @ coefs
    return values


def sign_changes(
    coefs: Float[np.ndarray, "n N"],
    starts: Bool[np.ndarray, " N"],
    ends: Bool[np.ndarray, " N"],
    error: Float[np.ndarray, " N"],
) -> Changes:
    """Find every sign change in [0, 1], pairs of them at one turn included.

    Args:
        coefs: Chebyshev coefficients, a polynomial a column.
        starts: whether each is positive at 0, where rounding must not decide.
        ends: whether it is at 1.
        error: how far each may be from the truth; only turns are compared with it.

    """
    # |I - c_0| <= sum |c_k|, k > 0: most neurons are too far from zero to cross or to be in doubt.
    near = np.abs(coefs[0]) <= np.abs(coefs[1:]).sum(axis=0) + error
    near |= (coefs[0] > 0) != starts
    near |= (coefs[0] > 0) != ends
    kept = np.flatnonzero(near)
    t = places(np.linspace(0, 1, _CELLS * len(coefs) + 1))
    columns = np.ascontiguousarray(coefs[:, kept].T)
    slopes = np.ascontiguousarray(2 * chebyshev.chebder(columns, axis=1))
    dense, rates = (np.ascontiguousarray(evaluate(c.T, t).T) for c in (columns, slopes))
    room = len(kept) * 2 * len(coefs)  # a polynomial of degree n - 1 has fewer than n roots
    out = (np.empty(room), np.empty(room, np.int32), np.empty(room, np.bool_), np.empty(room))
    doubts = np.zeros(len(kept), np.int64)
    signs = dense > 0
    signs[:, 0], signs[:, -1] = starts[kept], ends[kept]
    n = _search(columns, slopes, t, dense, rates, signs, error[kept], doubts, *out)
    place, column, on, speed = (part[:n] for part in out)
    order = np.argsort(place, kind="stable")
    doubtful = np.zeros(coefs.shape[1], np.int64)
    doubtful[kept] = doubts
    return Changes(place[order], kept[column[order]], on[order], speed[order], doubtful)


@_compiled
def _search(  # noqa: PLR0913, PLR0917 - compiled code fills the caller's arrays
    columns: np.ndarray,
    slopes: np.ndarray,
    t: np.ndarray,
    dense: np.ndarray,
    rates: np.ndarray,
    signs: np.ndarray,
    error: np.ndarray,
    doubts: np.ndarray,
    place: np.ndarray,
    column: np.ndarray,
    on: np.ndarray,
    speed: np.ndarray,
) -> int:
    n = 0
    for i in range(len(columns)):
        for j in range(len(t) - 1):
            if signs[i, j] != signs[i, j + 1]:
                place[n] = _zero(columns[i], t[j], t[j + 1], dense[i, j], dense[i, j + 1])
                column[n], on[n], speed[n] = i, signs[i, j + 1], abs(_clenshaw(slopes[i], place[n]))
                n += 1
                continue
            side = 1.0 if signs[i, j] else -1.0
            if not (side * rates[i, j] < 0 < side * rates[i, j + 1]):
                continue
            turn = _zero(slopes[i], t[j], t[j + 1], rates[i, j], rates[i, j + 1])
            value = _clenshaw(columns[i], turn)
            if side * value >= 0:
                doubts[i] += side * value <= error[i]
                continue
            place[n] = _zero(columns[i], t[j], turn, dense[i, j], value)
            place[n + 1] = _zero(columns[i], turn, t[j + 1], value, dense[i, j + 1])
            for k in range(n, n + 2):
                column[k], on[k] = i, signs[i, j] == (k > n)
                speed[k] = abs(_clenshaw(slopes[i], place[k]))
            n += 2
    return n


@_compiled
def _clenshaw(c: np.ndarray, t: float) -> float:
    x = 2 * t - 1
    last, before = 0.0, 0.0
    for k in range(len(c) - 1, 0, -1):
        last, before = c[k] + 2 * x * last - before, last
    value: float = c[0] + x * last - before
    return value


@_compiled
def _zero(c: np.ndarray, low: float, high: float, at_low: float, at_high: float) -> float:
    """Find the zero between two places of opposite sign: false position, Illinois's variant.

    Where rounding gave both ends one sign (a zero at the path's very end), the nearer end is the place.
    """
    if at_low * at_high >= 0:
        return low if abs(at_low) <= abs(at_high) else high
    for _ in range(_ITERATIONS):
        t = (low * at_high - high * at_low) / (at_high - at_low)
        if not low < t < high:
            t = (low + high) / 2
        value = _clenshaw(c, t)
        if value == 0 or high - low < 1e-14:
            return t
        if (value > 0) == (at_high > 0):
            high, at_high, at_low = t, value, at_low / 2
        else:
            low, at_low, at_high = t, value, at_high / 2
    return (low + high) / 2
