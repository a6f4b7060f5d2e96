"""Isolates the basis from the spectrum: the same pre-activations, biases too, in a random orthonormal basis.

`h' = R h` with R Haar-orthogonal in R^N: all distances and angles between tokens' `h` stay, the neurons are
gone. A code that loses nothing owes nothing to its own neurons. Bits are cut at 0 as the real ones, or so
that bit i is on for as many of the compared tokens as neuron i.

R is the Q of a Gaussian matrix's QR with the signs of R's diagonal (Mezzadri, "How to generate random
matrices from the classical compact groups", Notices of the AMS 2007), in float32: O(N^3) time, 3 N^2 floats.
In joined codes of several layers each layer's `h` is rotated on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import qr

from polytope_lm.codes.widths import columns_of
from polytope_lm.controls.firing import fire
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from polytope_lm.models.sites import Site

ZERO = "rotation, threshold 0"
RATE_MATCHED = "rotation, rate-matched"
DRAWS = 3


@representation(ZERO, isolates="basis against spectrum, bits cut at 0", role="control", draws=DRAWS)
def rotation_zero(pre: Float[np.ndarray, "T N"], seed: int, site: Site | None = None) -> Rows:
    """Return packed signs of the rotated pre-activations, compared by Hamming distance.

    Args:
        pre: the pre-activations.
        seed: of the rotation.
        site: of joined codes: says which columns are which layer's.

    """
    return Rows(np.packbits(rotated(pre, seed, site) > 0, axis=1, bitorder="little"), "Hamming")


@representation(
    RATE_MATCHED,
    isolates="basis against spectrum, bits as often on as the neurons",
    role="control",
    draws=DRAWS,
)
def rotation_rate_matched(
    pre: Float[np.ndarray, "T N"], bits: Bool[np.ndarray, "T N"], seed: int, site: Site | None = None
) -> Rows:
    """Return packed rotated pre-activations above rate-matched thresholds, compared by Hamming distance.

    Args:
        pre: the pre-activations.
        bits: the real code, of which only each neuron's count of on-bits is used.
        seed: of the rotation.
        site: of joined codes: says which columns are which layer's.

    """
    fired = fire(np.ascontiguousarray(rotated(pre, seed, site).T), bits.sum(axis=0))
    return Rows(np.packbits(fired.T, axis=1, bitorder="little"), "Hamming")


def rotated(pre: Float[np.ndarray, "T N"], seed: int, site: Site | None = None) -> Float[np.ndarray, "T N"]:
    """Return `R h` of every token, with one Haar-orthogonal R for all; one a layer of joined codes."""
    rng = np.random.default_rng(seed)
    parts = [_rotated(pre[:, columns], rng) for columns in columns_of(site, "h")]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _rotated(pre: Float[np.ndarray, "T N"], rng: np.random.Generator) -> Float[np.ndarray, "T N"]:
    width = pre.shape[1]
    q, r = qr(rng.standard_normal((width, width), dtype=np.float32), overwrite_a=True, check_finite=False)
    q *= np.sign(np.diag(r))
    out: Float[np.ndarray, "T N"] = pre @ q.T
    return out
