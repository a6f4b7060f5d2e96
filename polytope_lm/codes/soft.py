"""Soft codes: how sure a smooth network is that a neuron is on.

A smooth activation is a ReLU whose on/off decision is drawn at random: `act(h) = h P(on)`, where `P(on)` is
the probability that noise does not push `h` over the boundary. So `P(on) = act(h)/h`:

| activation | `P(on)` |
|---|---|
| ReLU (leaky ones too: only the decision counts, not the slopes) | `1[h > 0]` |
| GELU with erf | `Phi(h)`, the standard normal distribution function |
| GELU with tanh (`gelu_new`) | `(1 + tanh(sqrt(2/pi) (h + 0.044715 h^3)))/2`, within 1.8e-4 of `Phi` |
| quick GELU | `sigmoid(1.702 h)` |
| SiLU | `sigmoid(h)` |
| beta-VQ | `sigmoid(beta h/(1 - beta))`; beta = 1/2 is SiLU, beta -> 1 ReLU |

Sources: Balestriero & Baraniuk, "From Hard to Soft: Understanding Deep Network Nonlinearities via Vector
Quantization and Statistical Inference" (ICLR 2019); Black et al., "Interpreting Neural Networks through the
Polytope Lens" (2022), appendix C; Hendrycks & Gimpel, "Gaussian Error Linear Units" (2016).

For a gated MLP this is the gate's soft code; its `up` branch has no activation, so no probability.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import entr, expit, ndtr

from polytope_lm.codes.overview import AMBIGUOUS_BELOW
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float


def _step(h: np.ndarray) -> np.ndarray:
    return np.asarray(h > 0, h.dtype)


def _tanh_gelu(h: np.ndarray) -> np.ndarray:
    # saturated far inside the bounds, which keep the cube finite in single precision
    h = np.clip(h, -100, 100)
    return np.asarray((1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) / 2)


def _quick_gelu(h: np.ndarray) -> np.ndarray:
    return np.asarray(expit(1.702 * h))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": _step,
    "leaky_relu": _step,
    "prelu": _step,
    "rrelu": _step,
    "gelu": ndtr,
    "gelu_python": ndtr,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": _quick_gelu,
    "silu": expit,
    "swish": expit,
}


def probability(h: Float[np.ndarray, "*rows N"], activation: str) -> Float[np.ndarray, "*rows N"]:
    """Return `P(on)` of every pre-activation, in `h`'s own precision.

    Args:
        h: pre-activations.
        activation: the activation's name in the model's configuration, as `Premises.activation` has it.

    Raises:
        PolytopeError: an activation without a known `P(on)`, or `h` that is not finite.

    """
    _check_finite(h)
    if activation not in ACTIVATIONS:
        raise PolytopeError(
            f"no P(on) is known for the activation {activation!r}; known ones are {', '.join(ACTIVATIONS)}"
        )
    return np.asarray(ACTIVATIONS[activation](h))


def beta_vq(h: Float[np.ndarray, "*rows N"], beta: float) -> Float[np.ndarray, "*rows N"]:
    """Return `P(on) = sigmoid(beta h/(1 - beta))` of the beta-VQ family; beta = 1 is the hard code.

    Source: Balestriero & Baraniuk, "From Hard to Soft" (ICLR 2019).

    Args:
        h: pre-activations.
        beta: from 0 (every bit a coin toss) over 1/2 (SiLU) to 1 (ReLU).

    Raises:
        PolytopeError: beta outside [0, 1], or `h` that is not finite.

    """
    _check_finite(h)
    if not 0 <= beta <= 1:
        raise PolytopeError(f"beta is {beta}; give 0 to 1 (1/2 is SiLU, 1 the hard code of ReLU)")
    return _step(h) if beta == 1 else np.asarray(expit(h * (beta / (1 - beta))))


def ambiguity(p: Float[np.ndarray, "*rows N"]) -> Float[np.ndarray, "*rows"]:
    """Return the entropy in bits of each soft code, `sum_i H2(p_i)`: 0 for a hard code, at most N; float64."""
    p = np.asarray(p, np.float64)
    outside = ~((p >= 0) & (p <= 1))
    if outside.any():
        raise PolytopeError(f"P(on) has the value {p[outside][0]} outside 0 to 1; soft.probability gives proper ones")
    return np.asarray((entr(p) + entr(1 - p)).sum(axis=-1) / np.log(2))


def ambiguous_share(h: Float[np.ndarray, "*rows N"], below: float = AMBIGUOUS_BELOW) -> float:
    """Return the share of bits with `|h| < below`: bits that a smooth network hardly decides on."""
    _check_finite(h)
    if h.size == 0:
        raise PolytopeError(f"the share of ambiguous bits needs pre-activations; h has shape {h.shape}")
    return float(np.mean(np.abs(h) < below))


def _check_finite(h: np.ndarray) -> None:
    finite = np.isfinite(h)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise PolytopeError(f"h is {h[place]} at {place}; look for an overflow in the forward pass (float32 is safest)")
