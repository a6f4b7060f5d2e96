"""What the codes of routers, and paths of several routers, are compared with.

A router's code is the k-hot vector of the experts that it chose, from logits `r = W_r u (+ b)`; a *path* is the
codes of all layers (`codes.joined()`).

- *random routers, equal loads*, the control: does it matter what the router has learned? Logits `r' = G u` with
  `G` standard normal, and the k largest of `r' + c` chosen, with thresholds `c` such that each expert is chosen
  for exactly as many of the compared tokens as the real one (but for ties). A path that these equal is a noisy
  cosine of `u`, with the real loads. Groups of experts (DeepSeek-V3) are not imitated.
- *cosine of u on the router's rows*: all that a linear router can see of `u` is its projection on the rows of
  `W_r`, `P u`. Raw and centred, in coordinates of an orthonormal basis. `W_r` is found by least squares from `u`
  and `r`, exactly but for rounding, where there are more tokens than coordinates of `u`.
- *code of layer N alone*: one layer of a path, so that the path can be held against it on the same tokens.

In joined codes every layer has its own random router and its own rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lstsq

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import columns_of
from polytope_lm.representations.controls import SIMHASH, SIMHASH_DRAWS
from polytope_lm.representations.directions import centred
from polytope_lm.representations.registry import Representation, Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from polytope_lm.models.sites import Site

RANDOM_ROUTERS = "random routers, equal loads"
ON_ROWS = tuple(f"cosine of u on the router's rows, {how}" for how in ("raw", "centred"))
_SWEEPS = 50


@representation(RANDOM_ROUTERS, isolates="what the routers have learned", role="control", draws=SIMHASH_DRAWS)
def random_routers(u: Float[np.ndarray, "T D"], bits: Bool[np.ndarray, "T E"], seed: int, site: Site) -> Rows:
    """Return packed k-hot choices of a random router a layer, each expert chosen as often as the real one."""
    _need_router(site, RANDOM_ROUTERS)
    rng = np.random.default_rng(seed)
    out = np.empty_like(bits)
    for inputs, experts in zip(columns_of(site, "u"), columns_of(site, "h"), strict=True):
        loads, tokens = bits[:, experts].sum(axis=0), len(bits)
        k, odd = divmod(int(loads.sum()), tokens)
        if odd:
            raise PolytopeError(f"{site.key}: tokens choose different numbers of experts, so loads can't be matched")
        rows = rng.standard_normal((len(loads), u[:, inputs].shape[1]), dtype=np.float32)
        out[:, experts] = with_loads((u[:, inputs] @ rows.T).astype(np.float64), loads, k)
    return Rows(np.packbits(out, axis=1, bitorder="little"), "Hamming")


def random_control(site: Site) -> str:
    """Return the control that isolates what a site has learned: random routers, elsewhere rate-matched SimHash."""
    return RANDOM_ROUTERS if site.kind == "router" else SIMHASH


def with_loads(r: Float[np.ndarray, "T E"], loads: Int[np.ndarray, " E"], k: int) -> Bool[np.ndarray, "T E"]:
    """Choose the k largest of `r + c` for each token, `c` such that expert e is chosen `loads[e]` times.

    Each `c_e` in turn is set to what gives e its load while the others stand still: coordinate descent on the convex
    dual of the assignment with the largest sum of `r`. Tied tokens may leave it a few off.
    """
    experts = r.shape[1]
    if k == experts:
        return np.ones(r.shape, dtype=bool)
    c = np.array([-_threshold(r[:, e], loads[e]) for e in range(experts)])
    for _ in range(_SWEEPS):
        over = _largest(r + c, k).sum(axis=0) - loads
        if not over.any():
            break
        for e in np.argsort(-np.abs(over)):
            others = np.delete(r + c, e, axis=1)
            c[e] = -_threshold(r[:, e] - np.partition(others, experts - 1 - k, axis=1)[:, experts - 1 - k], loads[e])
    return _largest(r + c, k)


def _threshold(values: Float[np.ndarray, " T"], count: int) -> float:
    """Return a number that `count` of the values exceed, midway between two of them."""
    ordered = np.sort(values)[::-1]
    above = ordered[count - 1] if count else ordered[0] + 2
    return float(above + (ordered[count] if count < len(ordered) else ordered[-1] - 2)) / 2


def _largest(values: Float[np.ndarray, "T E"], k: int) -> Bool[np.ndarray, "T E"]:
    chosen = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(chosen, np.argpartition(values, -k, axis=1)[:, -k:], True, axis=1)
    return chosen


@representation(ON_ROWS[0], isolates="the direction of what a linear router can see of u")
def on_rows_raw(u: Float[np.ndarray, "T D"], pre: Float[np.ndarray, "T E"], site: Site) -> Rows:
    """Return the coordinates of `P u` on an orthonormal basis of the rows of `W_r`."""
    return Rows(_on_rows(u, pre, site, ON_ROWS[0]))


@representation(ON_ROWS[1], isolates="the same direction, without the mean that all tokens share")
def on_rows_centred(u: Float[np.ndarray, "T D"], pre: Float[np.ndarray, "T E"], site: Site) -> Rows:
    """Return the coordinates of `P u` minus their mean over the compared tokens."""
    return Rows(centred(_on_rows(u, pre, site, ON_ROWS[1])))


def _on_rows(
    u: Float[np.ndarray, "T D"], pre: Float[np.ndarray, "T E"], site: Site, name: str
) -> Float[np.ndarray, "T F"]:
    _need_router(site, name)
    parts = []
    for inputs, experts in zip(columns_of(site, "u"), columns_of(site, "h"), strict=True):
        x, r = u[:, inputs], pre[:, experts]
        if len(x) <= x.shape[1]:
            raise PolytopeError(
                f"{name!r} of {site.key} needs more tokens than u has coordinates, to find the router's rows; there "
                f"are {len(x)} tokens and {x.shape[1]} coordinates"
            )
        rows = lstsq(centred(x.astype(np.float64)), centred(r.astype(np.float64)), lapack_driver="gelsy")[0]
        parts.append(x @ np.linalg.qr(rows)[0].astype(x.dtype))
    return np.concatenate(parts, axis=1)


def _need_router(site: Site, name: str) -> None:
    """Check that a site's bits are a router's choice, for the representation of that name."""
    if site.kind != "router":
        raise PolytopeError(
            f"{name!r} is for routers, and {site.key} has kind {site.kind!r}; capture a mixture of experts"
        )


def one_layer(layer: int) -> Representation:
    """Return the representation that is one layer of a path; it belongs to one path and is not registered."""
    name = f"code of layer {layer} alone"

    def code_of_one_layer(bits: Bool[np.ndarray, "T E"], site: Site) -> Rows:
        for part, columns in zip(site.components, columns_of(site, "h"), strict=True):
            if part.layer == layer:
                return Rows(np.packbits(bits[:, columns], axis=1, bitorder="little"), "Hamming")
        raise PolytopeError(f"{name!r}: {site.key} has no layer {layer}")

    return Representation(name, "what the other layers of the path add", "other", code_of_one_layer, ("bits", "site"))
