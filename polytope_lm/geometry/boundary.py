"""How far a point is from the nearest boundary, whose it is, and where a classifier's decision changes.

In the space that a layer reads, neuron `i` has the boundary `w_i . u + b_i = 0`, a hyperplane at the distance

    d_i = |h_i| / ||w_i||,    h_i = w_i . u + b_i,

in units of `u`. The nearest is `min_i d_i`, and its neuron owns it. It is a distance in the input of one layer: further
layers may have boundaries that are nearer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Scores = Callable[["Float[np.ndarray, 'n D']"], "Float[np.ndarray, 'n K']"]


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest boundary of each point.

    Attributes:
        distance: Euclidean, in the space that the layer reads, `[n]`.
        neuron: whose boundary it is, `[n]`.

    """

    distance: Float[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]


def nearest_boundary(h: np.ndarray, weight: np.ndarray) -> Nearest:
    """Return the distance to one layer's nearest boundary, and the neuron that owns it.

    Args:
        h: pre-activations at the points, `[n, N]`.
        weight: `W`, `[N, D]`, whose rows are the normals. A row of zeros has no boundary and is passed over.

    Raises:
        PolytopeError: shapes that do not fit, NaN or infinite values, a layer of zero rows alone.

    Examples:
        >>> import numpy as np
        >>> from polytope_lm.geometry.boundary import nearest_boundary
        >>> found = nearest_boundary(np.array([[3.0, -1.0]]), np.array([[3.0, 4.0], [0.0, 1.0]]))
        >>> found.distance.tolist(), found.neuron.tolist()
        ([0.6], [0])

    """
    values, normals = np.asarray(h, np.float64), np.asarray(weight, np.float64)
    if values.ndim != 2 or normals.ndim != 2 or values.shape[1] != len(normals):
        raise PolytopeError(f"h has shape {values.shape}, W {normals.shape}: give [n, N] and [N, D]")
    found = Margins.of(values, np.linalg.norm(normals, axis=1))
    return Nearest(found.distance, found.neuron)


def nearness(norms: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Return `1 / ||w_i||`, what makes `|h_i|` a distance; infinite where a row of zeros has no boundary.

    Raises:
        PolytopeError: rows of zeros alone.

    """
    if not norms.any():
        raise PolytopeError(f"all {len(norms)} rows of W are zeros: the layer has no boundary")
    with np.errstate(divide="ignore"):
        return np.asarray(1 / norms)


@compiled
def margins(
    h: Float[np.ndarray, "n N"], scale: Float[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return, in one pass over each point, how many neurons are on, and whose `|h_i| scale_i` is least.

    Neurons with an infinite scale are passed over; -1 where a point has a value that is not finite.
    """
    points, width = h.shape
    on, owner = np.zeros(points, np.int64), np.zeros(points, np.int64)
    for point in range(points):
        least, count, finite, mine = np.inf, 0, True, 0
        for i in range(width):
            value = h[point, i]
            count += value > 0
            away = abs(value) * scale[i]
            if away < least:
                least, mine = away, i
            finite &= abs(value) < np.inf
        on[point], owner[point] = count, mine if finite else -1
    return on, owner


@dataclass(frozen=True, eq=False)
class Margins:
    """What the signs of one layer's pre-activations say of some points.

    Attributes:
        on: neurons that are on, `[n]`.
        distance: to the nearest boundary, `[n]`.
        neuron: whose boundary it is, `[n]`.

    """

    on: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, h: Float[np.ndarray, "n N"], norms: Float[np.ndarray, " N"]) -> Margins:
        """Return them, from `||w_i||`, in one pass and without a copy of `h`.

        Raises:
            PolytopeError: NaN or infinite values; rows of zeros alone.

        """
        on, neuron = margins(h, nearness(norms))
        if (neuron < 0).any():
            row = int(neuron.argmin())
            bad = int(np.flatnonzero(~np.isfinite(h[row]))[0])
            raise PolytopeError(f"h of neuron {bad} is {h[row, bad]} at point {row}; try dtype='float32'")
        return cls(on, np.abs(h[np.arange(len(h)), neuron]).astype(np.float64) / norms[neuron], neuron)


@dataclass(frozen=True, eq=False)
class Decisions:
    """Where a classifier's decision changes between pairs of points.

    Attributes:
        points: the places, `[n, D]`.
        t: where on each segment, in (0, 1), `[n]`.
        classes: the class that is left and the class that is entered there, `[n, 2]`.

    """

    points: Float[np.ndarray, "n D"]
    t: Float[np.ndarray, " n"]
    classes: Int[np.ndarray, "n 2"]


def decision_points(scores: Scores, a: np.ndarray, b: np.ndarray, *, halvings: int = 40) -> Decisions:
    """Find a point of the decision boundary on each segment, by bisection.

    The half whose start is in the class of `a` and whose end is not is kept, so one place is found where the class of
    `a` is left, not necessarily the first.

    Args:
        scores: the classifier; the class is the largest score, the first of equal ones.
        a: points, `[n, D]`.
        b: as many points, `[n, D]`, each of another class than its `a`.
        halvings: the place is known to `2^-halvings` of the segment.

    Raises:
        PolytopeError: a pair of one class, or shapes that differ.

    """
    starts, ends = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if starts.ndim != 2 or starts.shape != ends.shape or not len(starts):
        raise PolytopeError(f"a has shape {starts.shape}, b {ends.shape}: give [n, D] points to both")
    first, last = scores(starts).argmax(axis=1), scores(ends).argmax(axis=1)
    if (first == last).any():
        row = int(np.flatnonzero(first == last)[0])
        raise PolytopeError(f"pair {row} is of one class, {first[row]}: give points of two classes")
    low, high, entered = np.zeros(len(starts)), np.ones(len(starts)), last
    for _ in range(halvings):
        middle = (low + high) / 2
        here = scores(starts + middle[:, None] * (ends - starts)).argmax(axis=1)
        same = here == first
        low, high = np.where(same, middle, low), np.where(same, high, middle)
        entered = np.where(same, entered, here)
    t = (low + high) / 2
    return Decisions(starts + t[:, None] * (ends - starts), t, np.stack([first, entered], axis=1))
