"""Isolates what any code of `u`'s angles gives: random hyperplanes through the origin, a noisy cosine.

Bit i of token t is `1[g_i . u_t > 0]`, `g_i` standard normal, as many bits as the real code has. `P[bit
differs] = angle / pi` (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002), so
with many bits its Hamming distance orders pairs as the raw cosine of `u` does. A code that it equals is
compression; the rate-matched draws say what firing rates add to it. In joined codes of several layers each
layer's hyperplanes act on its own `u`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.widths import columns_of
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.sites import Site

NAME = "SimHash, zero bias"
DRAWS = 3
BLOCK = 512


@representation(
    NAME, isolates="a noisy cosine of u: hyperplanes through the origin", role="control", draws=DRAWS
)
def simhash_zero_bias(u: Float[np.ndarray, "T D"], site: Site, seed: int) -> Rows:
    """Return packed codes of N random hyperplanes through the origin, compared by Hamming distance.

    Args:
        u: the MLP's true input.
        site: whose width N is the number of hyperplanes.
        seed: of the hyperplanes.

    """
    rng = np.random.default_rng(seed)
    out = np.empty((len(u), site.width), dtype=bool)
    for inputs, neurons in zip(columns_of(site, "u"), columns_of(site, "h"), strict=True):
        layer, fired = u[:, inputs], out[:, neurons]
        for start in range(0, fired.shape[1], BLOCK):
            planes = rng.standard_normal(
                (min(BLOCK, fired.shape[1] - start), layer.shape[1]), dtype=np.float32
            )
            fired[:, start : start + BLOCK] = layer @ planes.T > 0
    return Rows(np.packbits(out, axis=1, bitorder="little"), "Hamming")
