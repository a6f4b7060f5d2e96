"""Isolates the learned placement of hyperplanes: random ones on the same `u`, each as often on as the neuron.

Bit i of token t is `1[g_i . u_t > c_i]`, with `g_i` standard normal and `c_i` the quantile at which the bit
is on for exactly as many of the compared tokens as neuron i (but for ties). Without thresholds, for random
hyperplanes through the origin, `P[bit differs] = angle / pi` (Charikar, "Similarity estimation techniques
from rounding algorithms", STOC 2002): such a code is a noisy cosine, and a learned code earns its keep only
where it beats this one. One draw is not enough: their spread reached .03 AMI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.controls.firing import fire
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

NAME = "SimHash, rate-matched"
DRAWS = 5
BLOCK = 512


@representation(NAME, isolates="the learned placement of the hyperplanes", role="control", draws=DRAWS)
def simhash_rate_matched(u: Float[np.ndarray, "T D"], bits: Bool[np.ndarray, "T N"], seed: int) -> Rows:
    """Return packed codes of N random hyperplanes on `u`, compared by Hamming distance.

    Args:
        u: the MLP's true input.
        bits: the real code, of which only each neuron's count of on-bits is used.
        seed: of the hyperplanes.

    """
    rng = np.random.default_rng(seed)
    on = bits.sum(axis=0)
    out = np.empty(bits.shape, dtype=bool)
    for start in range(0, bits.shape[1], BLOCK):
        chosen = slice(start, start + BLOCK)
        planes = rng.standard_normal((len(on[chosen]), u.shape[1]), dtype=np.float32)
        out[:, chosen] = fire(planes @ u.T, on[chosen]).T
    return Rows(np.packbits(out, axis=1, bitorder="little"), "Hamming")
