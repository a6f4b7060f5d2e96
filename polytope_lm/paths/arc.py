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
`b_i < 0`, the end, above zero, in one after the minimum's.) They are placed by Newton's method, from the
closed form with a mean `m`.

`h = 0` is off, and touching a boundary is no crossing, as on lines (`line.py`). Everything is float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.paths.arc_roots import cross_arcs
from polytope_lm.paths.curves import arc
from polytope_lm.paths.line import BLOCK, LineCrossings, checked_ends, fold

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.sites import Geometry
    from polytope_lm.paths.line import Folded


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
