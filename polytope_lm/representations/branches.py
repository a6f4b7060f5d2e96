"""The second bit of a gated MLP: the sign of `up`, alone and beside the gate's.

`act(g) * up` is a product: with the gate's sign fixed, the sign of `up` still says on which side of a second
hyperplane the token lies. Codes of kind `gate` with `up` kept give both without a second capture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from polytope_lm.models.sites import Site

UP = "up code"
BOTH = "gate+up code"


def need_gate(site: Site, name: str) -> None:
    """Check that a site's bits are a gate's.

    Args:
        site: where the codes live.
        name: the representation that asks.

    Raises:
        PolytopeError: the code is of another kind.

    """
    if site.kind != "gate":
        msg = (
            f"{name!r} needs codes of kind 'gate', and {site.key} has kind {site.kind!r}; capture with "
            'kind="gate" and keep=("u", "h", "up")'
        )
        raise PolytopeError(msg)


@representation(UP, isolates="the second bit of a gated MLP alone: the sign of `up`")
def up_code(up: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return `1[up > 0]`, compared by Hamming distance.

    Raises:
        PolytopeError: codes of another kind than `gate`.

    """
    need_gate(site, UP)
    return Rows(np.packbits(up > 0, axis=1, bitorder="little"), "Hamming")


@representation(BOTH, isolates="what the second bit of a gated MLP adds to the first")
def gate_and_up_code(bits: Bool[np.ndarray, "T N"], up: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return the 2N bits `(1[g > 0], 1[up > 0])`, compared by Hamming distance.

    Raises:
        PolytopeError: codes of another kind than `gate`.

    """
    need_gate(site, BOTH)
    return Rows(np.packbits(np.concatenate([bits, up > 0], axis=1), axis=1, bitorder="little"), "Hamming")
