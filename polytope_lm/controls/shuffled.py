"""Isolates firing rates from joint structure: each neuron's bits shuffled among the tokens, on their own.

Every neuron stays on for as many tokens, and what is left knows nothing of which ones: its scores must be at
chance. Where they are not, the scores, not the codes, are at fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool

NAME = "shuffled bits"
DRAWS = 3


@representation(
    NAME,
    isolates="firing rates alone, without joint structure: must be at chance",
    role="control",
    draws=DRAWS,
)
def shuffled_bits(bits: Bool[np.ndarray, "T N"], seed: int) -> Rows:
    """Return packed codes whose columns are shuffled independently, compared by Hamming distance.

    Args:
        bits: the real code.
        seed: of the shuffles.

    """
    shuffled = np.random.default_rng(seed).permuted(bits, axis=0)
    return Rows(np.packbits(shuffled, axis=1, bitorder="little"), "Hamming")
