"""Sign changes of many polynomials on [0, 1] at once, from their values at a few dozen nodes.

Polynomials are columns of Chebyshev coefficients `c` in `x = 2 t - 1`: `P(t) = sum_k c_k T_k(x)`, evaluated
by Clenshaw's recurrence in float64. Signs at a dense set of points and at extrema isolate the roots; each is then
found inside its bracket. No companion matrix: those cost the cube of the degree for every neuron. Source:
Trefethen, "Approximation Theory and Approximation Practice" (2013), chapters 5 and 18.

Where to evaluate: along most paths `h` turns fast in one region and slowly elsewhere. The map of Tee and Trefethen,

    x = d + e sinh((alpha + beta) (s - 1) / 2 + alpha),
    alpha = asinh((1 - d) / e),   beta = asinh((1 + d) / e),

of [-1, 1] onto itself (`x = 2 t - 1`) stretches a region of width e about d: in `s` functions are smoother
there, and Chebyshev's basis in `s` needs fewer points. New points are Leja's: each is where the product of
the distances in `s` from all others is largest, which keeps interpolation through old and new points together
well-conditioned. Sources: Tee & Trefethen, "A rational spectral collocation method with adaptively
transformed Chebyshev grid points" (SIAM J. Sci. Comput. 28, 2006); Leja (1957).

In later layers `h_i(t)` has no closed form. The model is run at 17 Chebyshev nodes, and at 7 points halfway (in
angle) between nodes that are held out. A rational function `I_i = P_i / q` goes through `h_i` at the nodes,
`q` of degree 4 at most and the same for all neurons of a layer, positive; how far it is from `h_i` at the
held-out points is its error. Evaluations are added, in twice as many as before keeping every run, until the
crossings of the interpolants through the nodes and of those through all points agree, or the evaluations are
used up. The crossings are the sign changes of the latter. Where they are hardest to tell is seen in the first
round; later points are denser there, and the interpolants' variable is stretched there (see `Stretch`).

Behind ReLUs `h_i` has kinks, and these interpolants converge slowly: see `paths.solve.kinks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from einops import rearrange
from numpy.polynomial import chebyshev

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError
from polytope_lm.paths.solve.roots import bracketed

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_CELLS = 4  # dense cells to a node: a polynomial that is resolved has at most one extremum in one
_STEEP = 1e-3  # a root is at a dense point if it is off by less than this share of a cell
_DEGREE, _LAST, _NOISE = 4, 8, 1e-6
_LEAST = 1e-3  # a denominator that comes nearer to zero than this share of its largest value has a pole there


class Changes(NamedTuple):
    """Sign changes of N polynomials, ordered by t; `neuron` is the column, `speed` is `|dI/dt|` there.

    `doubtful` counts each column's extrema that stay on their side of zero by no more than the error, `slight` those
    beyond zero by no more than it: the truth may turn back earlier or later there, or more than once.
    """

    t: Float[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]
    on: Bool[np.ndarray, " n"]
    speed: Float[np.ndarray, " n"]
    doubtful: Int[np.ndarray, " N"]
    slight: Int[np.ndarray, " N"]


def chebyshev_points(shares: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return `(1 - cos(pi s)) / 2`: Chebyshev points on [0, 1] for equal shares `s` of the half circle."""
    return np.asarray((1 - np.cos(np.pi * shares)) / 2)


def coefficients(t: Float[np.ndarray, " n"], values: Float[np.ndarray, "n N"]) -> Float[np.ndarray, "n N"]:
    """Return the coefficients of the polynomials through given values; ill-conditioned far from Chebyshev's points."""
    return np.linalg.solve(chebyshev.chebvander(2 * t - 1, len(t) - 1), values.astype(np.float64))


def denominator(t: Float[np.ndarray, " n"], values: Float[np.ndarray, "n N"]) -> Float[np.ndarray, " n"]:
    """Return a positive `q(t)`, at most 1, for which polynomials fit `q f` better than `f`, for all columns.

    Functions that went through the same layers share their nearest poles in the complex plane, and these
    limit a polynomial's convergence. `q`, of degree 4 or less, is the linear Pade-Chebyshev denominator: it
    makes the last 8 coefficients of all `q f` together least (Trefethen, chapters 23 and 26), with a ridge at
    float32's rounding, so that it is 1 where nothing is left to gain. Signs of `q f` are those of `f`.
    """
    scaled = values / np.maximum(np.abs(values).max(axis=0), 1e-30)
    last = np.linalg.inv(chebyshev.chebvander(2 * t - 1, len(t) - 1))[-_LAST:]
    dense = np.linspace(-1, 1, 1001)
    for degree in range(_DEGREE, 0, -2):
        powers = chebyshev.chebvander(2 * t - 1, degree)
        rows = rearrange(np.einsum("ks,si,sc->kic", last, scaled, powers, optimize=True), "k i c -> (k i) c")
        gram = rows.T @ rows
        ridge = len(rows) * _NOISE**2 * np.eye(degree)
        q = np.concatenate([[1.0], np.linalg.solve(gram[1:, 1:] + ridge, -gram[1:, 0])])
        everywhere = chebyshev.chebval(dense, q)
        if everywhere.min() > _LEAST * everywhere.max():
            return np.asarray(chebyshev.chebval(2 * t - 1, q / everywhere.max()))
    return np.ones(len(t))


def evaluate(coefs: Float[np.ndarray, "n N"], t: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m N"]:
    """Return the polynomials' values at each t."""
    return np.asarray(chebyshev.chebvander(2 * t - 1, len(coefs) - 1) @ coefs)


def sign_changes(
    coefs: Float[np.ndarray, "n N"],
    starts: Bool[np.ndarray, " N"],
    ends: Bool[np.ndarray, " N"],
    error: Float[np.ndarray, " N"],
) -> Changes:
    """Find every sign change in [0, 1], pairs of them about one extremum included.

    Args:
        coefs: Chebyshev coefficients, a polynomial a column.
        starts: whether each is positive at 0, where rounding must not decide.
        ends: whether it is at 1.
        error: how far each may be from the truth; only extrema are compared with it.

    """
    # |I - c_0| <= sum |c_k|, k > 0: most neurons are too far from zero to cross or to be in doubt.
    spread = np.abs(coefs[1:]).sum(axis=0)
    side = coefs[0] > 0
    kept = np.flatnonzero((np.abs(coefs[0]) <= spread + error) | (side != starts) | (side != ends))
    t = chebyshev_points(np.linspace(0, 1, _CELLS * len(coefs) + 1))
    columns = np.ascontiguousarray(coefs[:, kept].T)
    slopes = np.ascontiguousarray(2 * chebyshev.chebder(columns, axis=1))
    dense, rates = (np.ascontiguousarray(evaluate(c.T, t).T) for c in (columns, slopes))
    rounding = 4 * len(coefs) * np.finfo(float).eps * (np.abs(coefs[0]) + spread)[kept]
    room = len(kept) * 2 * len(coefs)
    out = (np.empty(room), np.empty(room, np.int32), np.empty(room, np.bool_), np.empty(room))
    doubts = np.zeros((2, len(kept)), np.int64)
    forced = np.stack([starts[kept], ends[kept]], axis=1)
    n = _search(columns, slopes, t, dense, rates, forced, rounding, error[kept], doubts, *out)
    order = np.argsort(out[0][:n], kind="stable")
    roots, column, on, speed = (part[:n][order] for part in out)
    counted = np.zeros((2, coefs.shape[1]), np.int64)
    counted[:, kept] = doubts
    return Changes(roots, kept[column], on, speed, *counted)


@compiled(error_model="numpy")
def _search(  # noqa: C901, PLR0913, PLR0917 - compiled code fills the caller's arrays
    columns: np.ndarray,
    slopes: np.ndarray,
    t: np.ndarray,
    dense: np.ndarray,
    rates: np.ndarray,
    ends: np.ndarray,
    rounding: np.ndarray,
    error: np.ndarray,
    doubts: np.ndarray,
    roots: np.ndarray,
    column: np.ndarray,
    on: np.ndarray,
    speed: np.ndarray,
) -> int:
    """Go from one value of known sign to the next: a change of sign between two is one root.

    Extrema and both ends have known signs, and so do dense points but where the value is rounding alone. Such
    a point is a root itself if the slope there is not: its sign before and after is the slope's. (Left to
    rounding, that root would be found on both sides of the point, in the place of its neighbour.)
    """
    n, final = 0, len(t) - 1
    for i in range(len(columns)):
        c, d, least = columns[i], slopes[i], rounding[i]
        last, value, was = t[0], dense[i, 0], ends[i, 0]
        for j in range(1, final + 1):
            here, there = t[j], dense[i, j]
            root = j < final and abs(there) <= least
            if root and abs(rates[i, j]) * (t[j] - t[j - 1]) * _STEEP <= least:
                root = False
            for part in range(3):  # an extremum on the way, the point, and, if that is a root, what follows
                if part == 0:
                    if (rates[i, j - 1] > 0) == (rates[i, j] > 0):
                        continue
                    at = bracketed(_clenshaw, d, t[j - 1], t[j], rates[i, j - 1], rates[i, j], -1.0, 0.0)
                    height = _clenshaw(c, at)
                    minimum = rates[i, j] > 0
                    now = minimum if abs(height) <= least else height > 0  # a touch is no crossing
                    if abs(height) <= error[i]:
                        doubts[0, i] += now == was and now == minimum
                        doubts[1, i] += now != minimum
                    if abs(height) <= least:
                        continue
                elif root:
                    at, now = here, (rates[i, j] > 0) == (part == 2)
                    height = least if now else -least
                elif part == 2 or (j < final and abs(there) <= least):
                    continue
                else:
                    at, height, now = here, there, ends[i, 1] if j == final else there > 0
                if now != was and n < 2 * (i + 1) * len(c):  # a polynomial with more roots is rounding alone
                    roots[n] = bracketed(_clenshaw, c, last, at, value, height, -1.0, 0.0)
                    column[n], on[n], speed[n] = i, now, abs(_clenshaw(d, roots[n]))
                    n += 1
                last, value, was = at, height, now
    return n


@compiled(error_model="numpy")
def _clenshaw(c: np.ndarray, t: float) -> float:
    x = 2 * t - 1
    last, before = 0.0, 0.0
    for k in range(len(c) - 1, 0, -1):
        last, before = c[k] + 2 * x * last - before, last
    value: float = c[0] + x * last - before
    return value


class Stretch(NamedTuple):
    """The map's `d` and `e`, in `x`; an infinite `e` maps every point to itself."""

    centre: float = 0.0
    width: float = math.inf

    def _slopes(self) -> tuple[float, float]:
        """Return alpha, and half of alpha + beta."""
        alpha, beta = (math.asinh((1 + side * self.centre) / self.width) for side in (-1, 1))
        return alpha, (alpha + beta) / 2

    def s(self, t: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Map t to the variable that functions are interpolated in, both in [0, 1]."""
        if math.isinf(self.width):
            return t
        alpha, half = self._slopes()
        s = 1 + (np.arcsinh((2 * t - 1 - self.centre) / self.width) - alpha) / half
        return np.clip((s + 1) / 2, 0, 1)

    def t(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Map back."""
        if math.isinf(self.width):
            return s
        alpha, half = self._slopes()
        x = self.centre + self.width * np.sinh(half * (2 * s - 2) + alpha)
        return np.clip((x + 1) / 2, 0, 1)

    def rate(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return `dt / ds`."""
        if math.isinf(self.width):
            return np.ones_like(s)
        alpha, half = self._slopes()
        return np.asarray(self.width * half * np.cosh(half * (2 * s - 2) + alpha))


def leja(s: Float[np.ndarray, " n"], count: int) -> Float[np.ndarray, " count"]:
    """Return so many further points in [0, 1] than the distinct `s`, in the order in which they are chosen."""
    candidates = chebyshev_points(np.linspace(0, 1, 16 * (len(s) + count) + 1))
    with np.errstate(divide="ignore"):
        product = np.log(np.abs(candidates[:, None] - s)).sum(axis=1)
        added = np.empty(count)
        for number in range(count):
            added[number] = candidates[int(product.argmax())]
            product += np.log(np.abs(candidates - added[number]))
    return added


Run = Callable[["Float[np.ndarray, ' n']"], Sequence["Float[np.ndarray, 'n _']"]]

EVALUATIONS = 40
_MOST = 1032  # nodes are solved for together: beyond this they take minutes and gigabytes
_FIRST = 16
_HELD_OUT = 7
_SAFETY = 2.0  # the error between the held-out points may exceed the largest at them
_PLACED = 1e-4  # in t: where crossings are to be
_SHARE = 0.999  # of the crossings that must be placed as well as that
_WIDTH = 0.3  # of the region that is stretched, the path being 2 long
_LOOKED_AT = 64  # neurons of each layer that tell where it is


@dataclass(frozen=True, eq=False)
class Followed:
    """What the model did along a path: `values`, a row a point, at `t`; those that are no nodes were held out.

    `agreed` says whether it ended because the interpolants agreed, not because the evaluations were used up.
    """

    t: Float[np.ndarray, " n"]
    node: Bool[np.ndarray, " n"]
    values: tuple[Float[np.ndarray, "n _"], ...]
    layers: tuple[Changes, ...]
    agreed: bool
    stretch: Stretch

    def interpolated(self, values: Float[np.ndarray, "n N"], t: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m N"]:
        """Return the interpolants of what was followed at other points."""
        return predicted(self.stretch.s(self.t), values, self.stretch.s(t))

    def guessed(self, values: Float[np.ndarray, "n N"]) -> Float[np.ndarray, "held N"]:
        """Return, at the held-out points, the interpolants through the nodes alone."""
        s = self.stretch.s(self.t)
        return predicted(s[self.node], values[self.node], s[~self.node])

    def missed_estimate(self, layer: int) -> int:
        """Return how many crossings of a layer may be missing: two for each extremum within the error of zero.

        Let `|I_i - h_i| <= e_i` along the path, so that `|P_i - q h_i| <= e_i` as `0 < q <= 1`, and let
        `q h_i`, which has the signs of `h_i`, have extrema only where `P_i` does. The signs at both ends are
        the model's own. Between two extrema both are monotone and have one crossing, or none, alike, unless
        an extremum of `P_i` stays on its side of zero by no more than `e_i`: only there `h_i` may reach over
        zero and come back, which is two crossings. So

            missed <= 2 * #{extrema of P_i towards zero with 0 <= |P_i| <= e_i}, summed over neurons.

        An extremum beyond zero by no more than `e_i` counts, too: where `h_i` is no more than its rounding, it may
        change its sign again and again.

        `e_i` is an estimate: twice the largest error at the held-out points, of the interpolant without them,
        which is the worse one, halfway (in squares) to the other neurons' mean, as one neuron may have been
        lucky at all of these few points. Behind ReLUs (`paths.solve.kinks`) it is `3 kappa_i P(t)` instead.
        """
        found = self.layers[layer]
        return int(2 * (found.doubtful.sum() + found.slight.sum()))


def follow(run: Run, *, evaluations: int = EVALUATIONS, signs: int) -> Followed:
    """Follow `h` of several layers along t in [0, 1].

    Args:
        run: evaluates the model at points: one array a quantity, a row a point.
        evaluations: evaluation points at most; 24, 40, 72 and so on are used to the full.
        signs: how many quantities, from the first, are searched for sign changes; later ones are only kept.

    """
    if evaluations < (least := _FIRST + 1 + _HELD_OUT):
        raise PolytopeError(f"evaluations={evaluations}: at least {least} are needed (40 is the default)")
    if evaluations > _MOST:
        raise PolytopeError(f"evaluations={evaluations}: at most {_MOST:,} (40 is the default)")
    shares = np.concatenate([np.arange(_FIRST + 1) / _FIRST, halfway(_FIRST)])
    new, stretch = chebyshev_points(shares), Stretch()
    t, values = np.empty(0), tuple[np.ndarray, ...]()
    while True:
        fresh = run(new)
        order = np.argsort(every := np.concatenate([t, new]))
        parts = zip(values, fresh, strict=True) if values else ((part,) for part in fresh)
        t, values = every[order], tuple(np.concatenate(rows)[order] for rows in parts)
        node = ~np.isin(t, new[-_HELD_OUT:])
        last = 2 * len(t) - _HELD_OUT - 1 > evaluations
        layers, agreed = [], True
        for h in values[:signs]:
            found, agrees = _search_adaptive(t, node, h, stretch, compare=not last)
            layers.append(found)
            agreed = agreed and agrees
            if not (agreed or last):
                break  # the rest will be searched with more nodes anyway
        if agreed or last:
            return Followed(t, node, values, tuple(layers), agreed, stretch)
        if math.isinf(stretch.width):
            stretch = Stretch(_hardest(t, node, values[:signs]), _WIDTH)
        new = stretch.t(leja(stretch.s(t), len(t) - _HELD_OUT - 1))


def _hardest(t: np.ndarray, node: np.ndarray, values: Sequence[np.ndarray]) -> float:
    """Return where (as `x = 2 t - 1`) interpolants with and without the held-out points differ most."""
    where = chebyshev_points(np.linspace(0, 1, 62)[1:-1])
    differ = np.zeros(len(where))
    for h in values:
        some = h[:, :: max(1, h.shape[1] // _LOOKED_AT)].astype(np.float64)
        scale = np.maximum(np.abs(some).max(axis=0), 1e-30)
        gap = predicted(t, some, where) - predicted(t[node], some[node], where)
        differ += np.median(np.abs(gap) / scale, axis=1)
    smooth = np.convolve(np.pad(differ, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    return float(2 * where[int(smooth.argmax())] - 1)


def halfway(n: int) -> Float[np.ndarray, " 7"]:
    """Return points between nodes, in shares of the half circle."""
    gaps = np.floor((np.arange(_HELD_OUT) + 0.5) * n / _HELD_OUT)
    return (2 * gaps + 1) / (2 * n)


def predicted(
    t: Float[np.ndarray, " n"], values: Float[np.ndarray, "n N"], new: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m N"]:
    """Return the rational interpolants' values at other points."""
    q = denominator(t, values)
    above, below = (evaluate(coefficients(t, part), new) for part in (values * q[:, None], q[:, None]))
    return np.asarray(above / below)


def _search_adaptive(
    t: np.ndarray, node: np.ndarray, h: np.ndarray, stretch: Stretch, *, compare: bool
) -> tuple[Changes, bool]:
    """Find one layer's crossings; tell whether the interpolant without the held-out points has the same."""
    h, s = h.astype(np.float64), stretch.s(t)
    own = np.abs(predicted(s[node], h[node], s[~node]) - h[~node]).max(axis=0)
    error = _SAFETY * own
    # A neuron may have been lucky at all seven held-out points: doubts are counted as if it was half the others.
    found = _crossings(s, h, _SAFETY * np.sqrt((own**2 + (own**2).mean()) / 2), stretch)
    if not compare:
        return found, False
    other = _crossings(s[node], h[node], error, stretch)
    counts, theirs = (np.bincount(part.neuron, minlength=h.shape[1]) for part in (found, other))
    placed = error[found.neuron] <= _PLACED * found.speed
    sure = not other.doubtful.any() and np.array_equal(counts, theirs)
    return found, sure and (not len(placed) or float(placed.mean()) >= _SHARE)


def _crossings(s: np.ndarray, h: np.ndarray, error: np.ndarray, stretch: Stretch) -> Changes:
    q = denominator(s, h)[:, None]
    found = sign_changes(coefficients(s, h * q), h[0] > 0, h[-1] > 0, error)
    return found._replace(t=stretch.t(found.t), speed=found.speed / stretch.rate(found.t))
