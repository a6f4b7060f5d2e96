"""Codes compared by bits: the claim, other thresholds, the second bit of a gated MLP, bits weighted.

- *code*, the claim: tokens are alike if they lie in nearby polytopes. `d(a, b) = sum_i |z_ai - z_bi|` is the
  number of hyperplanes between the two points' polytopes (Black et al., "Interpreting Neural Networks through
  the Polytope Lens", 2022).
- *up code*, *gate+up code*: `act(g) * up` is a product. With the gate's sign fixed, the sign of `up` still
  says on which side of a second hyperplane the token lies. Codes of kind `gate` with `up` kept give both
  without a second capture.
- *median-threshold code*: does it matter that the boundary is where the network put it? `z_ti = 1[h_ti >
  median_t h_ti]` over the compared tokens: every bit fires on half of them (but for ties), the hyperplanes
  keep their directions and lose their thresholds.
- *rate-standardised code*, the claim without hubs from extreme firing rates: `(z_i - r_i) / sqrt(r_i (1 -
  r_i))`, then cosine, with `r_i` the share of the compared tokens for which neuron i is on. A bit that never
  changes (`r_i` 0 or 1) has no spread: it is dropped and counted.
- *margin-weighted* `sign(h) min(1, m)` and *large-margin* `sign(h) 1[m >= 1]`: do near-boundary bits matter?
  A token's distance to hyperplane i in `u`-space is `|h_i| / ||w_i||`. In units of the neuron's own median
  over the compared tokens, `||w_i||` cancels: `m_ti = |h_ti| / median_t |h_ti|`. Bits of the nearer half
  count in proportion to their distance, or nothing. Both are compared by cosine, under which the hard code
  `sign(h)` orders pairs as Hamming does. A neuron with median 0 has no unit: it is dropped and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8

    from polytope_lm.models.sites import Site

CODE = "code"


@representation(CODE, isolates="the claim: which polytope a token lies in", role="claim")
def code(packed: UInt8[np.ndarray, "T B"]) -> Rows:
    """Return the packed codes, compared by Hamming distance."""
    return Rows(packed, "Hamming")


THROUGH = "code, through to the output"


@representation(
    THROUGH, isolates="what later layers add: the codes of this one and of all later ones that were captured"
)
def code_through(through: UInt8[np.ndarray, "T B"]) -> Rows:
    """Return the packed codes of several layers side by side, compared by Hamming distance."""
    return Rows(through, "Hamming")


UP = "up code"
BOTH = "gate+up code"


def need_gate(site: Site, name: str) -> None:
    """Check that a site's bits are a gate's, for the representation of that name."""
    if site.kind != "gate":
        raise PolytopeError(
            f"{name!r} needs codes of kind 'gate', and {site.key} has kind {site.kind!r}; capture with "
            'kind="gate" and keep=("u", "h", "up")'
        )


@representation(UP, isolates="the second bit of a gated MLP alone: the sign of `up`")
def up_code(up: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return `1[up > 0]`, compared by Hamming distance; for codes of kind `gate`."""
    need_gate(site, UP)
    return Rows(np.packbits(up > 0, axis=1, bitorder="little"), "Hamming")


@representation(BOTH, isolates="what the second bit of a gated MLP adds to the first")
def gate_and_up_code(bits: Bool[np.ndarray, "T N"], up: Float[np.ndarray, "T N"], site: Site) -> Rows:
    """Return the 2N bits `(1[g > 0], 1[up > 0])`, compared by Hamming distance; for codes of kind `gate`."""
    need_gate(site, BOTH)
    return Rows(np.packbits(np.concatenate([bits, up > 0], axis=1), axis=1, bitorder="little"), "Hamming")


MEDIAN = "median-threshold code"


@representation(MEDIAN, isolates="whether it matters that each boundary is where the network put it")
def median_threshold_code(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return bits above each neuron's median, compared by Hamming distance."""
    return Rows(np.packbits(pre > np.median(pre, axis=0), axis=1, bitorder="little"), "Hamming")


STANDARDISED = "rate-standardised code"


@representation(STANDARDISED, isolates="the claim without hubs from extreme firing rates", role="claim")
def rate_standardised_code(bits: Bool[np.ndarray, "T N"], rates: Float[np.ndarray, " N"]) -> Rows:
    """Return bits in units of their spread, compared by cosine."""
    varies = (rates > 0) & (rates < 1)
    if not varies.any():
        msg = f"none of {len(rates)} bits changes over these {len(bits)} tokens; compare other tokens or another layer"
        raise PolytopeError(msg)
    r = rates[varies].astype(np.float32)
    values = bits[:, varies].astype(np.float32)  # then in place: of many tokens one such array is gigabytes
    values -= r
    values /= np.sqrt(r * (1 - r))
    return Rows(values, dropped_bits=int((~varies).sum()))


WEIGHTED = "margin-weighted code"
LARGE = "large-margin code"


@representation(WEIGHTED, isolates="whether near-boundary bits matter: they count less")
def margin_weighted_code(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return `sign(h) min(1, m)`, compared by cosine."""
    signed, dropped = _signed_margins(pre)
    return Rows(np.clip(signed, -1, 1), dropped_bits=dropped)


@representation(LARGE, isolates="whether near-boundary bits matter: they do not count")
def large_margin_code(pre: Float[np.ndarray, "T N"]) -> Rows:
    """Return `sign(h) 1[m >= 1]`, compared by cosine."""
    signed, dropped = _signed_margins(pre)
    return Rows(np.sign(signed) * (np.abs(signed) >= 1), dropped_bits=dropped)


def _signed_margins(pre: Float[np.ndarray, "T N"]) -> tuple[Float[np.ndarray, "T M"], int]:
    median = np.median(np.abs(pre), axis=0)
    has = median > 0
    if not has.any():
        raise PolytopeError(
            f"h is 0 on most of these {len(pre)} tokens for all {pre.shape[1]} neurons, so no margin has a "
            "unit; compare other tokens or another layer"
        )
    return pre[:, has] / median[has], int((~has).sum())
