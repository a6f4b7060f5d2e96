"""Is one profile high where another one peaks, beyond what all profiles have in common.

`P` pairs each have a profile `d_i[s]` over n steps (crossing density, say) and a peak `k_i`, the step of
their output's largest change. The percentile of a step in its own profile, ties counted half,

    R_i[s] = (#{s': d_i[s'] < d_i[s]} + #{s' != s: d_i[s'] = d_i[s]} / 2) / (n - 1),

is 1/2 on average over the steps. Readings:

- *raw*: `T = mean_i R_i[k_i]`; against a circular shift of the profile it is `T - 1/2`, the mean over all
  shifts being 1/2. Whatever all profiles share, a hump in mid-path, counts as alignment here.
- *beyond other pairs* (the cross-pair null): `T - mean of R_i[k_j]`, j in other groups than i. A hump that
  all share is in both and cancels: only this reading speaks of the pair's own peak.

Intervals: percentile bootstrap over groups of pairs, the null taken anew from each resample's own peaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.estimate import Resampled

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def percentiles(profiles: Float[np.ndarray, "P n"]) -> Float[np.ndarray, "P n"]:
    """Return each step's percentile in its own profile, from 0 to 1; constant profiles have 1/2 everywhere."""
    if profiles.ndim != 2 or profiles.shape[1] < 2 or np.isnan(profiles).any():
        raise PolytopeError(
            f"profiles of shape {profiles.shape} have no percentiles: at least 2 steps are needed, and no NaN"
        )
    found: np.ndarray = (rankdata(profiles, axis=1) - 1) / (profiles.shape[1] - 1)
    return found


def raw(ranks: Float[np.ndarray, "P n"], peaks: Int[np.ndarray, " P"], weights: Float[np.ndarray, "r P"]) -> Resampled:
    """Return the mean percentile at the own peak, on all pairs and on each resample.

    The weights are from `estimate.resampled`.
    """
    own = ranks[np.arange(len(ranks)), peaks]
    return Resampled(float(own.mean()), weights @ own / weights.sum(axis=1))


def cross_pair(
    ranks: Float[np.ndarray, "P n"],
    peaks: Int[np.ndarray, " P"],
    groups: Int[np.ndarray, " P"],
    weights: Float[np.ndarray, "r P"],
) -> Resampled:
    """Return the mean percentile at the peaks of other groups' pairs, on all pairs and on each resample.

    A resample may have a group several times; it is never set against itself.
    """
    apart = groups[:, None] != groups[None, :]
    theirs = np.where(apart, ranks[:, peaks], 0.0)
    everything = np.ones((1, len(ranks)))
    values = []
    for w in (everything, weights):
        pairs = np.einsum("ri,ij,rj->r", w, apart.astype(np.float64), w, optimize=True)
        if (pairs == 0).any():
            count = len(np.unique(groups))
            raise PolytopeError(f"{count} groups of pairs are too few for a cross-pair null: add groups")
        values.append(np.einsum("ri,ij,rj->r", w, theirs, w, optimize=True) / pairs)
    return Resampled(float(values[0][0]), values[1])
