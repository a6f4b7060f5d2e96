"""What changes while a network is trained: its weights, its codes, and how tight its classes are.

- relative change of the weights: `||W' - W|| / ||W||` over all of some weights together;
- bits changed: the share of the bits of a fixed batch that differ between two checkpoints (2602.08333 claims that codes
  settle some three times earlier than weights);
- settled: the first step from which on the distance to the last checkpoint stays within a tenth of the first
  checkpoint's;
- neural collapse: `tr S_W / tr S_B`, the variance within classes over that between them (Papyan, Han, Donoho 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Int


def relative_change(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> float:
    """Return `||W' - W|| / ||W||` over all arrays together.

    Raises:
        PolytopeError: other names or shapes; weights that are all zero.

    """
    if {name: value.shape for name, value in before.items()} != {name: value.shape for name, value in after.items()}:
        raise PolytopeError(f"weights {sorted(before)} and {sorted(after)} are not of one network")
    change = sum(float(((after[name].astype(np.float64) - before[name]) ** 2).sum()) for name in before)
    size = sum(float((before[name].astype(np.float64) ** 2).sum()) for name in before)
    if size == 0:
        raise PolytopeError(f"the weights {sorted(before)} are all zero: they have no relative change")
    return float(np.sqrt(change / size))


def bits_changed(before: Bool[np.ndarray, "T N"], after: Bool[np.ndarray, "T N"]) -> float:
    """Return the share of bits that differ."""
    return float((before != after).mean())


def settled(steps: Sequence[int], distance: Sequence[float], *, share: float = 0.1) -> int:
    """Return the first step from which on the distance to the end is at most a share of the first distance.

    Args:
        steps: of the checkpoints, in order.
        distance: of each checkpoint to the last; the last is 0.
        share: of the first distance.

    Examples:
        >>> settled([0, 1, 2, 4, 8], [1.0, 0.5, 0.08, 0.05, 0.0])
        2

    """
    above = np.flatnonzero(np.asarray(distance) > share * distance[0])
    return steps[min(int(above[-1]) + 1, len(steps) - 1)] if len(above) else steps[0]


def within_over_between(features: np.ndarray, labels: Int[np.ndarray, " n"]) -> float:
    """Return `tr S_W / tr S_B`; 0 where every class has collapsed to its mean.

    `S_W` is the mean over points of the squared distance to their class mean, `S_B` that of the class means to the
    mean of all points, each class counted as often as it has points.

    Args:
        features: points, `[n, D]`.
        labels: the class of each.

    Raises:
        PolytopeError: one class only, or classes with one mean.

    """
    values = np.asarray(features, np.float64)
    names, which = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise PolytopeError(f"labels has one class, {names[0] if len(names) else 'none'}: give two or more")
    means = np.stack([values[which == i].mean(axis=0) for i in range(len(names))])
    within = float(((values - means[which]) ** 2).sum(axis=1).mean())
    between = float(((means[which] - values.mean(axis=0)) ** 2).sum(axis=1).mean())
    if between == 0:
        raise PolytopeError(f"the {len(names)} classes have the same mean: nothing is between them")
    return within / between
