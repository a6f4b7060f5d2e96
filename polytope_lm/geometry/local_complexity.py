"""Local complexity: how many neurons' boundaries pass near a point.

Around a point `x` stands a frame of `2 P` vertices, `x + r v_p` and `x - r v_p`, with orthonormal directions `v_p`. It
is pushed through the layers; in each, the neurons are counted whose sign is not the same at all vertices. In the first
layer this is the number of hyperplanes that cut the frame's convex hull. Behind it the vertices stand for their hull,
so a boundary that enters and leaves between them is missed.

Source: Humayun, Balestriero, Baraniuk, "Deep networks always grok and here is why" (2024), who take r = 0.005 for
inputs of unit scale. On a language model that is 0 nearly everywhere, so here `r = 0.005 |x|` by default. A count needs
its radius beside it: it grows with `r`, and region density alone is known to fail as a measure of nonlinearity (Gamba
et al. 2202.11749).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RADIUS = 0.005
"""Of the point's norm."""

Pre = Callable[["Float[np.ndarray, 'n D']"], "Sequence[Float[np.ndarray, 'n N']]"]
_AT_ONCE = 100_000
"""Vertices that are pushed through the layers together."""


def frames(
    points: Float[np.ndarray, "n D"], radius: float | Float[np.ndarray, " n"], *, directions: int = 25, seed: int = 0
) -> Float[np.ndarray, "n V D"]:
    """Return each point's `2 P` vertices: first `x + r v_p` for all `p`, then `x - r v_p`.

    Args:
        points: where.
        radius: `r`, one for all points or one each.
        directions: `P`, at most D; each point has directions of its own.
        seed: of the directions.

    """
    n, width = np.shape(points)
    if not 1 <= directions <= width:
        raise PolytopeError(f"directions={directions}: give 1 to {width}, the width of the points")
    r = np.broadcast_to(np.asarray(radius, np.float64), n)
    if not (np.isfinite(r).all() and (r > 0).all()):
        place = int(np.flatnonzero(~(np.isfinite(r) & (r > 0)))[0])
        raise PolytopeError(f"the radius is {r[place]} at point {place}: give numbers above 0")
    draws = np.random.default_rng(seed).standard_normal((n, width, directions))
    arms = r[:, None, None] * rearrange(np.linalg.qr(draws)[0], "n D P -> n P D")
    middle = np.asarray(points, np.float64)[:, None]
    return np.concatenate([middle + arms, middle - arms], axis=1)


def local_complexity(
    pre: Pre,
    points: np.ndarray,
    *,
    radius: float | Float[np.ndarray, " n"] | None = None,
    directions: int = 25,
    seed: int = 0,
) -> Int[np.ndarray, "n L"]:
    """Count, at each point and in each layer, the neurons whose sign changes over the point's frame.

    Args:
        pre: each layer's pre-activations at points, such as `ReluNetwork.pre`.
        points: where, `[n, D]`.
        radius: `r`, one for all points or one each; by default 0.005 times the point's norm.
        directions: `P`.
        seed: of the directions.

    Raises:
        PolytopeError: points of another shape or with NaN, more directions than dimensions, a radius of 0 (the default
            at the origin).

    Examples:
        >>> import numpy as np
        >>> from polytope_lm.geometry.local_complexity import local_complexity
        >>> from polytope_lm.geometry.relu_network import ReluNetwork
        >>> network = ReluNetwork([np.eye(2)], [np.array([-1.0, 0.0])])
        >>> near, far = [1.0, 5.0], [3.0, 5.0]
        >>> local_complexity(network.pre, np.array([near, far]), radius=0.5, directions=2).tolist()
        [[1], [0]]

    """
    values = np.asarray(points, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise PolytopeError(f"points have shape {values.shape} or values that are not finite: give [n, D] numbers")
    r = RADIUS * np.linalg.norm(values, axis=1) if radius is None else np.broadcast_to(radius, len(values))
    step = max(1, _AT_ONCE // (2 * directions))
    parts = []
    for start in range(0, len(values), step):
        chosen = slice(start, start + step)
        # Each block of points has its own stream, so that a point's directions do not depend on the others' number.
        vertices = frames(values[chosen], r[chosen], directions=directions, seed=seed + start)
        counts = []
        for h in pre(rearrange(vertices, "n V D -> (n V) D")):
            on = rearrange(np.asarray(h) > 0, "(n V) N -> n V N", V=2 * directions)
            counts.append((on.any(axis=1) & ~on.all(axis=1)).sum(axis=1))
        parts.append(np.stack(counts, axis=1))
    return np.concatenate(parts)
