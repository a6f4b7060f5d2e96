"""Isolates the learned placement of hyperplanes: random ones on the same `u`, each as often on as the neuron.

Bit i of token t is `1[g_i . u_t > c_i]`, with `g_i` standard normal and `c_i` the quantile at which the bit
is on for exactly as many of the compared tokens as neuron i (but for ties). Without thresholds, for random
hyperplanes through the origin, `P[bit differs] = angle / pi` (Charikar, "Similarity estimation techniques
from rounding algorithms", STOC 2002): such a code is a noisy cosine, and a learned code earns its keep only
where it beats this one. One draw is not enough: their spread reached .03 AMI.

In joined codes of several layers each neuron reads its own layer's `u`, so its random partner does too: a
hyperplane across layers would see what no neuron sees, and fewer on one layer would give it other rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.widths import columns_of
from polytope_lm.controls.firing import fire
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from polytope_lm.models.sites import Site

NAME = "SimHash, rate-matched"
DRAWS = 5
BLOCK = 512


@representation(NAME, isolates="the learned placement of the hyperplanes", role="control", draws=DRAWS)
def simhash_rate_matched(
    u: Float[np.ndarray, "T D"], bits: Bool[np.ndarray, "T N"], seed: int, site: Site | None = None
) -> Rows:
    """Return packed codes of N random hyperplanes on `u`, compared by Hamming distance.

    Args:
        u: the MLP's true input.
        bits: the real code, of which only each neuron's count of on-bits is used.
        seed: of the hyperplanes.
        site: of joined codes: says which columns are which layer's.

    """
    rng = np.random.default_rng(seed)
    on = bits.sum(axis=0)
    out = np.empty(bits.shape, dtype=bool)
    for inputs, neurons in zip(columns_of(site, "u"), columns_of(site, "h"), strict=True):
        layer, rates, fired = u[:, inputs], on[neurons], out[:, neurons]
        for start in range(0, len(rates), BLOCK):
            chosen = slice(start, start + BLOCK)
            planes = rng.standard_normal((len(rates[chosen]), layer.shape[1]), dtype=np.float32)
            fired[:, chosen] = fire(planes @ layer.T, rates[chosen]).T
    return Rows(np.packbits(out, axis=1, bitorder="little"), "Hamming")
