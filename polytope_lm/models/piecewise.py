"""Activations that are affine between break points, as their modules have them: slopes that were set or learned.

Between its break points `c_1 < ... < c_K` such an activation has slopes `s_0, ..., s_K`, and it has no jumps:

    act(h) = v + s_0 min(h - c_1, 0) + sum_k s_k clip(h - c_k, 0, c_(k+1) - c_k),   v = act(c_1),  c_(K+1) = inf.

| module | break points | slopes |
|---|---|---|
| ReLU | 0 | 0, 1 |
| LeakyReLU | 0 | its own below zero, 1 |
| RReLU, as in eval mode | 0 | the mean of its bounds below zero, 1 |
| PReLU | 0 | the learned one below zero (one, or one a neuron), 1 |
| ReLU6, Hardtanh | their two bounds | 0, 1, 0 |
| Softshrink | -lambda, lambda | 1, 0, 1 |
| Threshold that puts the threshold itself below it | the threshold | 0, 1 |

Only a break point at zero is a boundary of the code. Not here: what jumps at its threshold (Threshold with another
value, Hardshrink, JumpReLU), and what is quadratic between break points (squared ReLU, Hardswish).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class PiecewiseAffine:
    """One layer's activation: see the module's text.

    Attributes:
        at: `c`, ascending.
        slopes: `s`, a row a piece; a column a neuron, or one for all.
        value: `v`.

    """

    at: tuple[float, ...]
    slopes: Float[np.ndarray, "pieces _"]
    value: float = 0.0

    def __call__(self, h: Float[np.ndarray, "*rows N"]) -> Float[np.ndarray, "*rows N"]:
        """Return `act(h)`."""
        out = self.value + self.slopes[0] * np.minimum(h - self.at[0], 0)
        for low, high, slope in zip(self.at, (*self.at[1:], np.inf), self.slopes[1:], strict=True):
            if slope.any():
                out = out + slope * np.clip(h - low, 0, high - low)
        return np.asarray(out)


RELU = PiecewiseAffine((0.0,), np.array([[0.0], [1.0]]))


def piecewise_affine(act: Any) -> PiecewiseAffine | None:
    """Return what an activation's module does; None where it is not affine between break points."""
    kind = type(act)
    if kind is nn.ReLU:
        return RELU
    if kind in {nn.LeakyReLU, nn.RReLU, nn.PReLU}:
        return _leaky(_below_zero(act))
    if kind in {nn.ReLU6, nn.Hardtanh}:
        low, high = float(act.min_val), float(act.max_val)
        return PiecewiseAffine((low, high), _columns(0, 1, 0), low)
    if kind is nn.Softshrink:
        return PiecewiseAffine((-act.lambd, act.lambd), _columns(1, 0, 1))
    if kind is nn.Threshold and act.threshold == act.value:
        return PiecewiseAffine((float(act.threshold),), _columns(0, 1), float(act.value))
    return None


def function_of(act: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a module's function of tensors `[..., N]` of any precision, without the hooks on it."""
    if type(act) is nn.PReLU:
        return partial(_prelu, act.weight)
    return (lambda h: act.forward(h.clone())) if getattr(act, "inplace", False) else act.forward


def _prelu(weight: Tensor, h: Tensor) -> Tensor:
    # torch's own wants the neurons in the second axis, and one precision
    return torch.where(h > 0, h, weight.detach().to(h) * h)


def _below_zero(act: Any) -> np.ndarray:
    """Return the slope, or each neuron's."""
    if type(act) is nn.PReLU:
        return np.asarray(act.weight.detach().double().cpu())
    return np.array([act.negative_slope if type(act) is nn.LeakyReLU else (act.lower + act.upper) / 2], np.float64)


def _leaky(below: np.ndarray) -> PiecewiseAffine:
    return PiecewiseAffine((0.0,), np.stack([below, np.ones_like(below)]))


def _columns(*slopes: float) -> np.ndarray:
    return np.array(slopes, np.float64)[:, None]
