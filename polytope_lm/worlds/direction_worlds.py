"""Planted truth for directions: a ReLU MLP, where flips alone make the error, and a softplus, where curvature does.

Both are one MLP `m(u) = c . W_out act(W u + b)` with random weights, drawn anew for each prompt's point and
direction, no norm and no attention. Everything that the test reads is computed from closed forms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float, Int

_STEPS = np.geomspace(1e-3, 4, 400)
_PER_PROMPT = 3


@dataclass(frozen=True, eq=False)
class DirectionWorld:
    """What `predictions.directions` reads of P triples.

    Attributes:
        radius: the measured radius.
        flips: the radius by flip mass.
        planes: the same by each draw of random hyperplanes.
        covariates: smooth ones.
        prompt: whose triple it is.

    """

    radius: Float[np.ndarray, " P"]
    flips: Float[np.ndarray, " P"]
    planes: tuple[Float[np.ndarray, " P"], ...]
    covariates: Mapping[str, Float[np.ndarray, " P"]]
    prompt: Int[np.ndarray, " P"]


def direction_mlp_world(
    activation: Literal["relu", "softplus"] = "relu",
    *,
    prompts: int = 60,
    neurons: int = 96,
    width: int = 24,
    draws: int = 2,
    tau: float = 0.1,
    seed: int = 0,
) -> DirectionWorld:
    """Draw a world of triples.

    Args:
        activation: `relu`: inside a polytope nothing is wrong, all error is of flipped neurons; `softplus`, of
            pre-activations so small that its second derivative is all there is: curvature tells the radius.
        prompts: points.
        neurons: N.
        width: D.
        draws: of random hyperplanes.
        tau: the relative error that is allowed.
        seed: of everything.

    Raises:
        PolytopeError: another activation.

    """
    if activation not in {"relu", "softplus"}:
        raise PolytopeError(f"activation {activation!r}: choose relu or softplus")
    rng = np.random.default_rng(seed)
    size = 1.0 if activation == "relu" else 0.25
    weight = size * rng.standard_normal((neurons, width)) / np.sqrt(width)
    bias = size * rng.standard_normal(neurons)
    worth = rng.standard_normal(neurons) / np.sqrt(neurons)
    u = np.repeat(rng.standard_normal((prompts, width)), _PER_PROMPT, axis=0)
    v = rng.standard_normal(u.shape)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    h, dh = u @ weight.T + bias, v @ weight.T
    value, slope, bend = _relu(h) if activation == "relu" else _softplus(h)
    first = (slope * dh) @ worth
    curvature = (bend * dh**2) @ worth
    moved = h[:, None] + _STEPS[:, None] * dh[:, None]
    after = (_relu(moved) if activation == "relu" else _softplus(moved))[0]
    rest = after - value[:, None] - slope[:, None] * (moved - h[:, None])
    error = rest @ worth
    linear = _STEPS * first[:, None]
    mass = np.abs(rest * worth)
    own = (moved > 0) != (h > 0)[:, None]
    planes = []
    for _ in range(draws):
        normals = rng.standard_normal((neurons, width)) / np.sqrt(width)
        heights = u @ normals.T
        on = np.clip((h > 0).mean(axis=0), 0.02, 0.98)
        threshold = np.array([np.quantile(column, 1 - share) for column, share in zip(heights.T, on, strict=True)])
        base = heights - threshold
        other = base[:, None] + _STEPS[:, None] * (v @ normals.T)[:, None]
        planes.append(_first((mass * ((other > 0) != (base > 0)[:, None])).sum(-1) > tau * np.abs(linear)))
    with np.errstate(divide="ignore"):
        quadratic = 2 * tau * np.abs(first) / np.abs(curvature)
    return DirectionWorld(
        radius=_first(np.abs(error) > tau * np.abs(linear + error)),
        flips=_first((mass * own).sum(-1) > tau * np.abs(linear)),
        planes=tuple(planes),
        covariates={
            "norm": np.linalg.norm(u, axis=1), "slope": np.abs(first),
            "curvature": np.minimum(quadratic, _STEPS[-1]),
        },
        prompt=np.repeat(np.arange(prompts), _PER_PROMPT),
    )  # fmt: skip


def _relu(h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.maximum(h, 0), (h > 0).astype(float), np.zeros_like(h)


def _softplus(h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p = 1 / (1 + np.exp(-h))
    return np.logaddexp(0, h), p, p * (1 - p)


def _first(over: Bool[np.ndarray, "P S"]) -> Float[np.ndarray, " P"]:
    """Return the first step at which something holds, the last one where it never does."""
    return np.asarray(np.where(over.any(axis=1), _STEPS[over.argmax(axis=1)], _STEPS[-1]))
