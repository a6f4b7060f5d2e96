"""Crossings in later layers: as many forward evaluations as it takes, and what may still be missed.

`h_i(t)` has no closed form downstream. The model is run at n + 1 Chebyshev nodes, and at 7 places halfway
(in angle) between nodes that are held out. A rational function `I_i = P_i / q` goes through `h_i` at the
nodes, `q` of degree 4 at most and the same for all neurons of a layer, positive; how far it is from `h_i` at
the held-out places is its error. n is doubled, keeping every run, until the crossings of the interpolants
through the nodes and of those through all places agree, or the evaluations are used up. The crossings are the
sign changes of the latter.

Behind ReLUs `h_i` has kinks, and interpolants converge slowly: crossings are found, but at 40
evaluations most are not placed within 1e-4.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Followed:
    """What the model did along a path.

    Attributes:
        t: where the model was run, in order, `[n]`.
        node: which of these are Chebyshev nodes; the others were held out, `[n]`.
        values: what was followed, a row a place.
        layers: crossings of those that are searched, and turns in doubt.
        agreed: whether it ended because the interpolants agreed, not because the evaluations were used up.

    """

    t: Float[np.ndarray, " n"]
    node: Bool[np.ndarray, " n"]
    values: tuple[Float[np.ndarray, "n _"], ...]
    layers: tuple[Changes, ...]
    agreed: bool

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
    n, shares, parts = _FIRST, np.empty(0), []
    while True:
        wanted = np.concatenate([np.arange(n + 1) / n, _halfway(n)])
        new = np.setdiff1d(wanted, shares)  # multiples of powers of two: equal ones are equal to the bit
        parts.append(run(places(new)))
        shares = np.concatenate([shares, new])
        order = np.argsort(shares)
        values = tuple(np.concatenate(columns)[order] for columns in zip(*parts, strict=True))
        t, node = places(shares[order]), np.isin(shares[order], np.arange(n + 1) / n)
        last = 2 * n + 1 + _HELD_OUT > evaluations
        layers, agreed = [], True
        for h in values[:signs]:
            found, agrees = _search(t, node, h, compare=not last)
            layers.append(found)
            agreed = agreed and agrees
            if not (agreed or last):
                break  # the rest will be searched with more nodes anyway
        if agreed or last:
            return Followed(t, node, values, tuple(layers), agreed)
        n *= 2


def _halfway(n: int) -> Float[np.ndarray, " 7"]:
    """Return places between nodes, in shares of the half circle, that are nodes of the next round."""
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


def _search(t: np.ndarray, node: np.ndarray, h: np.ndarray, *, compare: bool) -> tuple[Changes, bool]:
    """Find one layer's crossings; tell whether the interpolant without the held-out places has the same."""
    h = h.astype(np.float64)
    error = _SAFETY * np.abs(predicted(t[node], h[node], t[~node]) - h[~node]).max(axis=0)
    found = _crossings(t, h, error)
    if not compare:
        return found, False
    other = _crossings(t[node], h[node], error)
    counts, theirs = (np.bincount(part.neuron, minlength=h.shape[1]) for part in (found, other))
    placed = error[found.neuron] <= _PLACED * found.speed
    sure = not found.doubtful.any() and np.array_equal(counts, theirs)
    return found, sure and (not len(placed) or float(placed.mean()) >= _SHARE)


def _crossings(t: np.ndarray, h: np.ndarray, error: np.ndarray) -> Changes:
    q = denominator(t, h)[:, None]
    return sign_changes(coefficients(t, h * q), h[0] > 0, h[-1] > 0, error)
