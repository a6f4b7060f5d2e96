"""Readings of "direction" that codes are compared with: cosines, directions found in the data, neurons.

- *cosine of h*, the reference: the same vector that the code is the sign of, so the paper's question, what
  binarising buys. Raw, and centred per coordinate over the compared tokens: pre-activations share a large
  mean, which raw cosine reads as similarity. An uncentred reference alone makes false positives, so the
  verdict asks for a lead over each of the two.
- *cosine of u*, *x*, *post*, *(g, up)*: what the MLP reads after its norm, the residual stream before it, the
  input of the down projection and, in gated MLPs, both pre-activations side by side. Codes may beat the
  cosine of `post` and lose to that of `h`, so all are shown, raw and centred.
- *NMF*, the direction lens as the paper drew it: a token is how much it has of some directions found in the
  data. `max(h, 0) ~ W H` with non-negative factors (Lee & Seung, "Learning the parts of objects by
  non-negative matrix factorization", Nature 1999); a token's row is its row of `W`, and `max(h, 0)` is the
  activation of a ReLU MLP.
- *k-means*: unit directions to the k-means centres of the tokens' centred, unit-length `h`; a token's row is
  its cosine with each. Like NMF on at most `DIRECTIONS` directions and compared by cosine.
- *top neuron*, the neuron lens: a token is what its most active neuron says. `n_t = argmax_i |post_ti|`; two
  tokens are at distance 0 if that neuron is the same, else 1. In absolute value, because a gated MLP's
  activations have both signs.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.representations.binary import need_gate
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.sites import Site

RAW = "cosine of h, raw"
CENTRED = "cosine of h, centred"
COSINES = (RAW, CENTRED)


def centred(values: Float[np.ndarray, "T W"]) -> Float[np.ndarray, "T W"]:
    """Return the rows minus their mean, which is taken in float64."""
    mean: Float[np.ndarray, " W"] = values.mean(axis=0, dtype="float64").astype(values.dtype)
    out: Float[np.ndarray, "T W"] = values - mean
    return out


@representation(RAW, isolates="what binarising buys: the direction of the same pre-activations", role="reference")
def cosine_raw(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return the pre-activations as they are."""
    return Rows(pre)


@representation(CENTRED, isolates="the same direction, without the mean that all tokens share", role="reference")
def cosine_centred(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return the pre-activations minus their mean over the compared tokens."""
    return Rows(centred(pre))


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


@representation(POST[1], isolates="the direction of the neurons' activations, without the mean that all tokens share")
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
    """Return `(g, up)`, `[T, 2N]`, as it is; for codes of kind `gate`."""
    need_gate(site, BOTH[0])
    return Rows(np.concatenate([pre, up], axis=1))


@representation(BOTH[1], isolates="the direction of both pre-activations, without the mean that all tokens share")
def gate_and_up_centred(pre: Float[np.ndarray, "T N"], up: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return `(g, up)`, `[T, 2N]`, minus its mean over the compared tokens; for codes of kind `gate`."""
    need_gate(site, BOTH[1])
    return Rows(centred(np.concatenate([pre, up], axis=1)))


NMF_NAME = "NMF directions"
K_MEANS_NAME = "k-means directions"
DIRECTIONS = 50
SWEEPS = 60
"""At most so many sweeps of coordinate descent: the rest of the way to convergence is slow and small."""


@representation(NMF_NAME, isolates="the direction lens: loadings on non-negative factors of max(h, 0)")
def nmf_directions(pre: Float[np.ndarray, "T N"], seed: int) -> Rows:
    """Return each token's loadings on the factors, compared by cosine."""
    from sklearn.decomposition import NMF  # noqa: PLC0415 -- slow to import
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    count = min(DIRECTIONS, *pre.shape)
    factors = NMF(count, init="nndsvda", max_iter=SWEEPS, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return Rows(factors.fit_transform(np.maximum(pre, 0)))


@representation(K_MEANS_NAME, isolates="the direction lens: cosines with the directions to k-means centres")
def k_means_directions(pre: Float[np.ndarray, "T N"], seed: int) -> Rows:
    """Return each token's cosine with every centre's direction, compared by cosine."""
    from sklearn.cluster import KMeans  # noqa: PLC0415 -- slow to import
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    unit = _unit(centred(pre))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of tokens that are the same
        found = KMeans(min(DIRECTIONS, len(unit)), n_init=1, random_state=seed).fit(unit)
    return Rows(unit @ _unit(found.cluster_centers_).T)


def _unit(values: Float[np.ndarray, "T W"]) -> Float[np.ndarray, "T W"]:
    """Return the rows at length 1; a zero row stays zero, for the distances to refuse by name."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


TOP_NEURON = "top neuron"


@representation(TOP_NEURON, isolates="the neuron lens: the most active neuron of each token")
def top_neuron(post: Float[np.ndarray, "T N"]) -> Rows:
    """Return each token's top neuron as a one-hot row (columns: neurons that are somebody's top)."""
    _, which = np.unique(np.abs(post).argmax(axis=1), return_inverse=True)
    return Rows(np.eye(which.max() + 1, dtype=np.float32)[which])
