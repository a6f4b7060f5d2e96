"""Other readings of "direction": the cosine of what the MLP reads, of what it writes, of the stream.

Codes may beat the cosine of `post` and lose to that of `h`, so all are shown: `u` (the MLP's input after its
norm), `x` (the residual stream before it), `post` (the input of the down projection) and, in gated MLPs,
`(g, up)`, both pre-activations side by side. Each raw, and centred per coordinate over the compared tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.representations.branches import need_gate
from polytope_lm.representations.cosine import centred
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.sites import Site

U, POST, X, BOTH = (
    tuple(f"cosine of {of}, {how}" for how in ("raw", "centred")) for of in ("u", "post", "x", "(g, up)")
)


@representation(U[0], isolates="the direction of the MLP's input")
def u_raw(u: Float[np.ndarray, "T D"]) -> Rows:
    """Return the MLP's inputs as they are."""
    return Rows(u)


@representation(U[1], isolates="the direction of the MLP's input, without the mean that all tokens share")
def u_centred(u: Float[np.ndarray, "T D"]) -> Rows:
    """Return the MLP's inputs minus their mean over the compared tokens."""
    return Rows(centred(u))


@representation(POST[0], isolates="the direction of the neurons' activations")
def post_raw(post: Float[np.ndarray, "T N"]) -> Rows:
    """Return the activations as they are."""
    return Rows(post)


@representation(
    POST[1], isolates="the direction of the neurons' activations, without the mean that all tokens share"
)
def post_centred(post: Float[np.ndarray, "T N"]) -> Rows:
    """Return the activations minus their mean over the compared tokens."""
    return Rows(centred(post))


@representation(X[0], isolates="the direction of the residual stream before the norm")
def x_raw(x: Float[np.ndarray, "T D"]) -> Rows:
    """Return the residual stream as it is."""
    return Rows(x)


@representation(X[1], isolates="the direction of the residual stream, without the mean that all tokens share")
def x_centred(x: Float[np.ndarray, "T D"]) -> Rows:
    """Return the residual stream minus its mean over the compared tokens."""
    return Rows(centred(x))


@representation(BOTH[0], isolates="the direction of both pre-activations of a gated MLP")
def gate_and_up_raw(pre: Float[np.ndarray, "T N"], up: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return `(g, up)`, `[T, 2N]`, as it is.

    Raises:
        PolytopeError: codes of another kind than `gate`.

    """
    need_gate(site, BOTH[0])
    return Rows(np.concatenate([pre, up], axis=1))


@representation(
    BOTH[1], isolates="the direction of both pre-activations, without the mean that all tokens share"
)
def gate_and_up_centred(pre: Float[np.ndarray, "T N"], up: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return `(g, up)`, `[T, 2N]`, minus its mean over the compared tokens.

    Raises:
        PolytopeError: codes of another kind than `gate`.

    """
    need_gate(site, BOTH[1])
    return Rows(centred(np.concatenate([pre, up], axis=1)))
