"""Isolates what is special about a direction: pushes of the same size that mean nothing.

- *equal norm*: a random direction with the data's covariance (the mixture of Lee & Heimersheim, 2024), as long;
- *equal output*: the same, as long as it takes to change the MLP's output by as much;
- *other boundaries*: flips along the tangent at rate-matched random hyperplanes in place of the network's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from polytope_lm.errors import PolytopeError
from polytope_lm.paths.path import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Bool, Float

    from polytope_lm.changes.flips import LayerTangent
    from polytope_lm.controls.planes import Planes

_DOUBLINGS = 40


def equal_norm(
    sample: Float[np.ndarray, "n D"], length: float, *, seed: int | np.random.Generator = 0
) -> Float[np.ndarray, " D"]:
    """Return a random direction with the sample's covariance, of a length.

    Raises:
        PolytopeError: fewer than two rows, or a length that is not positive.

    """
    if len(sample) < 2 or not 0 < length < np.inf:
        raise PolytopeError(f"{len(sample)} rows and length = {length}: give at least 2 and a positive length")
    rng = np.random.default_rng(seed)
    found = draw(sample, rng) - draw(sample, rng)
    return np.asarray(found * (length / np.linalg.norm(found)))


def equal_output(
    output: Callable[[Float[np.ndarray, " D"]], Float[np.ndarray, " D"]],
    x: Float[np.ndarray, " D"],
    direction: Float[np.ndarray, " D"],
    size: float,
) -> Float[np.ndarray, " D"]:
    """Return the shortest multiple of a direction that changes an MLP's output by a size, by doubling and bisection.

    Args:
        output: the MLP.
        x: where.
        direction: of the push.
        size: Euclidean length of the output's change that is wanted.

    Raises:
        PolytopeError: no multiple up to `2^40` times the direction changes it as much.

    """
    clean = output(x)

    def moved(share: float) -> float:
        return float(np.linalg.norm(output(x + share * direction) - clean))

    high = 2.0**-20
    for _ in range(_DOUBLINGS + 20):
        if moved(high) >= size:
            break
        high *= 2
    else:
        raise PolytopeError(f"size = {size:g}: along this direction the output never changes as much; ask for less")
    low = high / 2
    for _ in range(_DOUBLINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if moved(middle) >= size else (middle, high)
    return np.asarray(high * direction)


def flips_of_planes(
    planes: Planes, number: int, layers: Sequence[LayerTangent], first: int, steps: Float[torch.Tensor, "n S"]
) -> Callable[[int, int], Bool[torch.Tensor, "S k N"]]:
    """Return which random hyperplanes flip along the tangent, for `changes.flips.masses`.

    Args:
        planes: of the layers.
        number: which draw.
        layers: the tangents, with `u`.
        first: the first one's layer.
        steps: along each direction.

    """

    def flipped(index: int, direction: int) -> Bool[torch.Tensor, "S k N"]:
        layer = layers[index]
        assert layer.u is not None  # noqa: S101 - read with inputs=True
        assert layer.du is not None  # noqa: S101
        count = len(planes.thresholds[first + index]) // planes.draws
        rows = slice(number * count, (number + 1) * count)
        normals, heights = (
            torch.as_tensor(one[first + index][rows]).to(layer.u) for one in (planes.normals, planes.thresholds)
        )
        base = layer.u @ normals.T - heights
        moved = base + steps[direction].to(layer.u)[:, None, None] * (layer.du[direction] @ normals.T)
        return (moved > 0) != (base > 0)

    return flipped
