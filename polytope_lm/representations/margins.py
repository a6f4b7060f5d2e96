"""Do near-boundary bits matter: codes in which they count less, or not at all.

A token's distance to hyperplane i in `u`-space is `|h_i| / ||w_i||`. In units of the neuron's own median over
the compared tokens, `||w_i||` cancels: `m_ti = |h_ti| / median_t |h_ti|`.

- *margin-weighted*: `sign(h) min(1, m)`: bits of the nearer half count in proportion to their distance;
- *large-margin*: `sign(h) 1[m >= 1]`: bits of the nearer half count nothing.

Both compared by cosine, under which the hard code `sign(h)` orders pairs as Hamming does. A neuron with
median 0 has no unit: it is dropped and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Float

WEIGHTED = "margin-weighted code"
LARGE = "large-margin code"


@representation(WEIGHTED, isolates="whether near-boundary bits matter: they count less")
def margin_weighted_code(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return `sign(h) min(1, m)`, compared by cosine.

    Raises:
        PolytopeError: every neuron's median is 0.

    """
    signed, dropped = _signed_margins(pre)
    return Rows(np.clip(signed, -1, 1), dropped_bits=dropped)


@representation(LARGE, isolates="whether near-boundary bits matter: they do not count")
def large_margin_code(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return `sign(h) 1[m >= 1]`, compared by cosine.

    Raises:
        PolytopeError: every neuron's median is 0.

    """
    signed, dropped = _signed_margins(pre)
    return Rows(np.sign(signed) * (np.abs(signed) >= 1), dropped_bits=dropped)


def _signed_margins(pre: Float[np.ndarray, "T N"]) -> tuple[Float[np.ndarray, "T M"], int]:
    median = np.median(np.abs(pre), axis=0)
    has = median > 0
    if not has.any():
        msg = (
            f"h is 0 on most of these {len(pre)} tokens for all {pre.shape[1]} neurons, so no margin has a "
            "unit; compare other tokens or another layer"
        )
        raise PolytopeError(msg)
    return pre[:, has] / median[has], int((~has).sum())
