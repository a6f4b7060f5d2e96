"""Crossings in later layers: as many forward evaluations as it takes, and what may still be missed.

`h_i(t)` has no closed form downstream. The model is run at 17 Chebyshev nodes, and at 7 places halfway (in
angle) between nodes that are held out. A rational function `I_i = P_i / q` goes through `h_i` at the nodes,
`q` of degree 4 at most and the same for all neurons of a layer, positive; how far it is from `h_i` at the
held-out places is its error. Evaluations are added, in twice as many as before keeping every run, until the
crossings of the interpolants through the nodes and of those through all places agree, or the evaluations are
used up. The crossings are the sign changes of the latter. Where they are hardest to tell is seen in the first
round; later places are denser there, and the interpolants' variable is stretched there (see `stretch`).

Behind ReLUs `h_i` has kinks, and interpolants converge slowly: crossings are found, but at 40
evaluations half of them are not placed within 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.paths.chebyshev import (
    Changes,
    coefficients,
    denominator,
    evaluate,
    places,
    sign_changes,
)
from polytope_lm.paths.stretch import Stretch, leja

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

Run = Callable[["Float[np.ndarray, ' n']"], Sequence["Float[np.ndarray, 'n _']"]]

EVALUATIONS = 40
_MOST = 1032  # nodes are solved for together: beyond this they take minutes and gigabytes
_FIRST = 16
_HELD_OUT = 7
_SAFETY = 2.0  # the error between the held-out places may exceed the largest at them
_PLACED = 1e-4  # in t: where crossings are to be
_SHARE = 0.999  # of the crossings that must be placed as well as that
_WIDTH = 0.3  # of the region that is stretched, the path being 2 long
_LOOKED_AT = 64  # neurons of each layer that tell where it is


@dataclass(frozen=True, eq=False)
class Followed:
    """What the model did along a path.

    Attributes:
        t: where the model was run, in order, `[n]`.
        node: which of these are nodes; the others were held out, `[n]`.
        values: what was followed, a row a place.
        layers: crossings of those that are searched, and turns in doubt.
        agreed: whether it ended because the interpolants agreed, not because the evaluations were used up.
        stretch: the variable of the interpolants.

    """

    t: Float[np.ndarray, " n"]
    node: Bool[np.ndarray, " n"]
    values: tuple[Float[np.ndarray, "n _"], ...]
    layers: tuple[Changes, ...]
    agreed: bool
    stretch: Stretch

    def interpolated(
        self, values: Float[np.ndarray, "n N"], t: Float[np.ndarray, " m"]
    ) -> Float[np.ndarray, "m N"]:
        """Return the interpolants of what was followed at other places."""
        return predicted(self.stretch.s(self.t), values, self.stretch.s(t))

    def guessed(self, values: Float[np.ndarray, "n N"]) -> Float[np.ndarray, "held N"]:
        """Return, at the held-out places, the interpolants through the nodes alone."""
        s = self.stretch.s(self.t)
        return predicted(s[self.node], values[self.node], s[~self.node])

    def missed_at_most(self, layer: int) -> int:
        """Return how many crossings of a layer may be missing: two for each turn in doubt.

        Let `|I_i - h_i| <= e_i` along the path, so that `|P_i - q h_i| <= e_i` as `0 < q <= 1`, and let
        `q h_i`, which has the signs of `h_i`, turn only where `P_i` does. The signs at both ends are the
        model's own. Between two turns both are monotone and have one crossing, or none, alike, unless a turn
        of `P_i` stays on its side of zero by no more than `e_i`: only there `h_i` may reach over zero and
        come back, which is two crossings. So

            missed <= 2 * #{turns of P_i towards zero with 0 <= |P_i| <= e_i}, summed over neurons.

        `e_i` is an estimate: twice the largest error at the held-out places, of the interpolant without them,
        which is the worse one. A kink narrower than the nodes are apart (ReLU) may escape it.
        """
        return int(2 * self.layers[layer].doubtful.sum())


def follow(run: Run, *, evaluations: int = EVALUATIONS, signs: int) -> Followed:
    """Follow `h` of several layers along t in [0, 1].

    Args:
        run: evaluates the model at places: one array a quantity, a row a place.
        evaluations: places at most; 24, 40, 72 and so on are used to the full.
        signs: how many quantities, from the first, are searched for sign changes; later ones are only kept.

    Raises:
        PolytopeError: fewer evaluations than the first round takes, or more than 1,032.

    """
    if evaluations < _FIRST + 1 + _HELD_OUT:
        raise PolytopeError(
            f"evaluations={evaluations}: at least {_FIRST + 1 + _HELD_OUT} are needed (40 is the default)"
        )
    if evaluations > _MOST:
        raise PolytopeError(f"evaluations={evaluations}: at most {_MOST:,} (40 is the default)")
    shares = np.concatenate([np.arange(_FIRST + 1) / _FIRST, _halfway(_FIRST)])
    new, stretch = places(shares), Stretch()
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
            found, agrees = _search(t, node, h, stretch, compare=not last)
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
    """Return where (as `x = 2 t - 1`) interpolants with and without the held-out places differ most."""
    where = places(np.linspace(0, 1, 62)[1:-1])
    differ = np.zeros(len(where))
    for h in values:
        some = h[:, :: max(1, h.shape[1] // _LOOKED_AT)].astype(np.float64)
        scale = np.maximum(np.abs(some).max(axis=0), 1e-30)
        gap = predicted(t, some, where) - predicted(t[node], some[node], where)
        differ += np.median(np.abs(gap) / scale, axis=1)
    smooth = np.convolve(np.pad(differ, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    return float(2 * where[int(smooth.argmax())] - 1)


def _halfway(n: int) -> Float[np.ndarray, " 7"]:
    """Return places between nodes, in shares of the half circle."""
    gaps = np.floor((np.arange(_HELD_OUT) + 0.5) * n / _HELD_OUT)
    return (2 * gaps + 1) / (2 * n)


def predicted(
    t: Float[np.ndarray, " n"], values: Float[np.ndarray, "n N"], new: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m N"]:
    """Return the rational interpolants' values at other places."""
    q = denominator(t, values)
    above, below = (evaluate(coefficients(t, part), new) for part in (values * q[:, None], q[:, None]))
    found: np.ndarray = above / below
    return found


def _search(
    t: np.ndarray, node: np.ndarray, h: np.ndarray, stretch: Stretch, *, compare: bool
) -> tuple[Changes, bool]:
    """Find one layer's crossings; tell whether the interpolant without the held-out places has the same."""
    h, s = h.astype(np.float64), stretch.s(t)
    error = _SAFETY * np.abs(predicted(s[node], h[node], s[~node]) - h[~node]).max(axis=0)
    found = _crossings(s, h, error, stretch)
    if not compare:
        return found, False
    other = _crossings(s[node], h[node], error, stretch)
    counts, theirs = (np.bincount(part.neuron, minlength=h.shape[1]) for part in (found, other))
    placed = error[found.neuron] <= _PLACED * found.speed
    sure = not found.doubtful.any() and np.array_equal(counts, theirs)
    return found, sure and (not len(placed) or float(placed.mean()) >= _SHARE)


def _crossings(s: np.ndarray, h: np.ndarray, error: np.ndarray, stretch: Stretch) -> Changes:
    q = denominator(s, h)[:, None]
    found = sign_changes(coefficients(s, h * q), h[0] > 0, h[-1] > 0, error)
    return found._replace(t=stretch.t(found.t), speed=found.speed / stretch.rate(found.t))
