"""The claim itself: tokens are alike if they lie in nearby polytopes, by the Hamming distance of their codes.

`d(a, b) = sum_i |z_ai - z_bi|`, the number of hyperplanes between the two points' polytopes (Black et al.,
"Interpreting Neural Networks through the Polytope Lens", 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

NAME = "code"


@representation(NAME, isolates="the claim: which polytope a token lies in", role="claim")
def code(packed: UInt8[np.ndarray, "T B"]) -> Rows:
    """Return the packed codes, compared by Hamming distance."""
    return Rows(packed, "Hamming")
