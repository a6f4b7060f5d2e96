"""The claim without hubs from extreme firing rates: each bit counts in units of its own spread.

`(z_i - r_i) / sqrt(r_i (1 - r_i))`, then cosine, with `r_i` the share of the compared tokens for which neuron
i is on. A bit that never changes (`r_i` 0 or 1) has no spread: it is dropped and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

NAME = "rate-standardised code"


@representation(NAME, isolates="the claim without hubs from extreme firing rates", role="claim")
def rate_standardised_code(bits: Bool[np.ndarray, "T N"], rates: Float[np.ndarray, " N"]) -> Rows:
    """Return bits in units of their spread, compared by cosine.

    Raises:
        PolytopeError: no bit changes at all.

    """
    varies = (rates > 0) & (rates < 1)
    if not varies.any():
        msg = (
            f"none of {len(rates)} bits changes over these {len(bits)} tokens; compare other tokens or "
            "another layer"
        )
        raise PolytopeError(msg)
    r = rates[varies].astype(np.float32)
    values = (bits[:, varies] - r) / np.sqrt(r * (1 - r))
    return Rows(values.astype(np.float32), dropped_bits=int((~varies).sum()))
