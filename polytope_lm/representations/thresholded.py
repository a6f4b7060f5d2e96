"""Does it matter that the boundary is where the network put it: bits cut at each neuron's median instead.

`z_ti = 1[h_ti > median_t h_ti]`, with the median over the compared tokens: every bit fires on half of them
(but for ties), the hyperplanes keep their directions and lose their places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Float

NAME = "median-threshold code"


@representation(NAME, isolates="whether it matters that each boundary is where the network put it")
def median_threshold_code(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return bits above each neuron's median, compared by Hamming distance."""
    return Rows(np.packbits(pre > np.median(pre, axis=0), axis=1, bitorder="little"), "Hamming")
