"""What a smooth activation adds to the sign: how sure it is of each bit.

`p_i = P(on) = act(h_i)/h_i` (see `polytope_lm.codes.soft`; Balestriero & Baraniuk, "From Hard to Soft", ICLR
2019). Two readings:

- *soft code*: the cosine of `2p - 1`, so that a bit that the network does not decide on counts nothing;
- *expected Hamming*: `d(p, q) = sum_i p_i (1 - q_i) + q_i (1 - p_i)`, the mean Hamming distance of codes that
  are drawn from both. It is no metric: `d(p, p) = 2 sum_i p_i (1 - p_i)` is not 0, and tokens with
  decided bits are near to everything, so hubs. Read its in-degrees before its scores.

For a ReLU, `p` is the bit itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.soft import probability
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import columns_of
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.sites import Site

SOFT = "soft code"
EXPECTED = "expected Hamming"


@representation(SOFT, isolates="what the smooth activation adds to the sign")
def soft_code(pre: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return `2p - 1`, compared by cosine."""
    return Rows(2 * _probability(pre, site, SOFT) - 1)


@representation(
    EXPECTED, isolates="the same, as a mean number of bits (warning: the distance of a token to itself is not 0; hubs)"
)
def expected_hamming(pre: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return `p`, compared by expected Hamming distance."""
    return Rows(_probability(pre, site, EXPECTED), "expected Hamming")


def _probability(pre: Float[np.ndarray, "T N"], site: Site, name: str) -> Float[np.ndarray, "T N"]:
    if "up" in site.kind.split("+"):
        raise PolytopeError(
            f"{name!r} of {site.key}: the up branch has no activation, so no P(on); capture codes of kind 'gate' for it"
        )
    parts = zip(site.components, columns_of(site, "h"), strict=True)
    each = [probability(pre[:, columns], part.premises.activation) for part, columns in parts]
    return each[0] if len(each) == 1 else np.concatenate(each, axis=1)
