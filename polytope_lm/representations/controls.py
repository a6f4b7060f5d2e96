"""Controls that are representations: random hyperplanes, rotations, shuffled bits.

- *SimHash, rate-matched* isolates the learned placement of the hyperplanes: random ones on the same `u`,
  each as often on as the neuron. Bit i of token t is `1[g_i . u_t > c_i]`, with `g_i` standard normal and
  `c_i` the quantile at which the bit is on for exactly as many of the compared tokens as neuron i (but for
  ties). A learned code earns its keep only where it beats this one. One draw is not enough: their spread
  reached .03 AMI.
- *SimHash, zero bias*: hyperplanes through the origin, `1[g_i . u_t > 0]`. `P[bit differs] = angle / pi`
  (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002), so with many bits its
  Hamming distance orders pairs as the raw cosine of `u` does: a noisy cosine. A code that it equals is
  compression; the rate-matched draws say what firing rates add to it.
- *rotation* isolates the basis from the spectrum: the same pre-activations, biases too, in a random
  orthonormal basis, `h' = R h` with R Haar-orthogonal. All distances and angles between tokens' `h` stay, the
  neurons are gone; a code that loses nothing owes nothing to its own neurons. Bits are cut at 0 as the real
  ones, or so that bit i is on for as many of the compared tokens as neuron i. R is the Q of a Gaussian
  matrix's QR with the signs of R's diagonal (Mezzadri, "How to generate random matrices from the classical
  compact groups", Notices of the AMS 2007), in float32: O(N^3) time, 3 N^2 floats.
- *shuffled bits* isolates firing rates from joint structure: each neuron's bits shuffled among the tokens, on
  their own. What is left knows nothing of which tokens fired: its scores must be at chance, and where they
  are not, the scores, not the codes, are at fault.

In joined codes of several layers each neuron reads its own layer's `u` or `h`, so its random partner does
too: a hyperplane across layers would see what no neuron sees, and fewer on one layer would give it other
rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import qr

from polytope_lm.models.sites import columns_of
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from polytope_lm.models.sites import Site


def fire(projection: Float[np.ndarray, "N T"], on: Int[np.ndarray, " N"]) -> Bool[np.ndarray, "N T"]:
    """Switch each row on for its `on` largest values (fewer if the last one is tied)."""
    tokens = projection.shape[1]
    fired = np.empty(projection.shape, dtype=bool)
    for i, count in enumerate(on):
        if count == tokens:
            fired[i] = True
            continue
        threshold = np.partition(projection[i], tokens - count - 1)[tokens - count - 1]
        fired[i] = projection[i] > threshold
    return fired


SIMHASH = "SimHash, rate-matched"
SIMHASH_DRAWS = 5
BLOCK = 512


@representation(SIMHASH, isolates="the learned placement of the hyperplanes", role="control", draws=SIMHASH_DRAWS)
def simhash_rate_matched(
    u: Float[np.ndarray, "T D"], bits: Bool[np.ndarray, "T N"], seed: int, site: Site | None = None
) -> Rows:
    """Return packed codes of N random hyperplanes on `u`, each on as often as its neuron's bit."""
    rng = np.random.default_rng(seed)
    on = bits.sum(axis=0)
    out = np.empty(bits.shape, dtype=bool)
    for inputs, neurons in zip(columns_of(site, "u"), columns_of(site, "h"), strict=True):
        layer, rates, fired = u[:, inputs], on[neurons], out[:, neurons]
        for start in range(0, len(rates), BLOCK):
            chosen = slice(start, start + BLOCK)
            planes = rng.standard_normal((len(rates[chosen]), layer.shape[1]), dtype=np.float32)
            fired[:, chosen] = fire(planes @ layer.T, rates[chosen]).T
    return Rows(np.packbits(out, axis=1, bitorder="little"), "Hamming")


SIMHASH_ZERO = "SimHash, zero bias"
DRAWS = 3


@representation(
    SIMHASH_ZERO, isolates="a noisy cosine of u: hyperplanes through the origin", role="control", draws=DRAWS
)
def simhash_zero_bias(u: Float[np.ndarray, "T D"], site: Site, seed: int) -> Rows:
    """Return packed codes of N random hyperplanes through the origin, N the width of the site."""
    rng = np.random.default_rng(seed)
    out = np.empty((len(u), site.width), dtype=bool)
    for inputs, neurons in zip(columns_of(site, "u"), columns_of(site, "h"), strict=True):
        layer, fired = u[:, inputs], out[:, neurons]
        for start in range(0, fired.shape[1], BLOCK):
            planes = rng.standard_normal((min(BLOCK, fired.shape[1] - start), layer.shape[1]), dtype=np.float32)
            fired[:, start : start + BLOCK] = layer @ planes.T > 0
    return Rows(np.packbits(out, axis=1, bitorder="little"), "Hamming")


ZERO = "rotation, threshold 0"
RATE_MATCHED = "rotation, rate-matched"


@representation(ZERO, isolates="basis against spectrum, bits cut at 0", role="control", draws=DRAWS)
def rotation_zero(pre: Float[np.ndarray, "T N"], seed: int, site: Site | None = None) -> Rows:
    """Return packed signs of the rotated pre-activations."""
    return Rows(np.packbits(rotated(pre, seed, site) > 0, axis=1, bitorder="little"), "Hamming")


@representation(
    RATE_MATCHED, isolates="basis against spectrum, bits as often on as the neurons", role="control", draws=DRAWS
)
def rotation_rate_matched(
    pre: Float[np.ndarray, "T N"], bits: Bool[np.ndarray, "T N"], seed: int, site: Site | None = None
) -> Rows:
    """Return packed rotated pre-activations above thresholds that are passed as often as the neurons fire."""
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


SHUFFLED = "shuffled bits"


@representation(
    SHUFFLED, isolates="firing rates alone, without joint structure: must be at chance", role="control", draws=DRAWS
)
def shuffled_bits(bits: Bool[np.ndarray, "T N"], seed: int) -> Rows:
    """Return packed codes whose columns are shuffled independently."""
    shuffled = np.random.default_rng(seed).permuted(bits, axis=0)
    return Rows(np.packbits(shuffled, axis=1, bitorder="little"), "Hamming")
