"""What binarising buys, the paper's question: the cosine of the same vector that the code is the sign of.

Raw, and centred per coordinate over the compared tokens: pre-activations share a large mean, which raw cosine
reads as likeness. An uncentred reference alone makes false positives, so the verdict takes the better of the
two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

RAW = "cosine of h, raw"
CENTRED = "cosine of h, centred"
COSINES = (RAW, CENTRED)


def centred(values: Float[np.ndarray, "T W"]) -> Float[np.ndarray, "T W"]:
    """Return the rows minus their mean, which is taken in float64."""
    mean: Float[np.ndarray, " W"] = values.mean(axis=0, dtype="float64").astype(values.dtype)
    out: Float[np.ndarray, "T W"] = values - mean
    return out


@representation(
    RAW, isolates="what binarising buys: the direction of the same pre-activations", role="reference"
)
def cosine_raw(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return the pre-activations as they are."""
    return Rows(pre)


@representation(
    CENTRED, isolates="the same direction, without the mean that all tokens share", role="reference"
)
def cosine_centred(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return the pre-activations minus their mean over the compared tokens."""
    return Rows(centred(pre))
