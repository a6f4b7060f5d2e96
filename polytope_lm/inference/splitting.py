"""How much purer a list of tokens is in groups than as one list, for thousands of lists.

`purity = sum_c max_l n_cl / n`, with `n_cl` of the list's n tokens in group c with label l. Any groups
raise it, small ones most, so that only what is above random groups of the same sizes counts; see
`inference.nulls`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, no_type_check

import numba
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def purity_against_chance(
    groups: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    strata: Int[np.ndarray, " n"],
    keys: Float[np.ndarray, "draws n"],
) -> tuple[float, Float[np.ndarray, " draws"]]:
    """Return the purity inside the groups, and inside groups permuted within strata.

    Args:
        groups: id of each token's group, from 0.
        labels: id of each token's label, from 0.
        strata: id of each token's stratum, from 0; all 0 to permute freely.
        keys: uniform random numbers in [0, 1), a row for each random grouping.

    """
    base = np.argsort(strata, kind="stable")
    order = np.argsort(strata[None] + keys, axis=1)
    ids = np.unique(groups, return_inverse=True)[1]
    kinds = np.unique(labels, return_inverse=True)[1]
    found = _purities(ids[base], ids[np.concatenate([base[None], order])], kinds[base])
    return float(found[0]), found[1:]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _purities(
    ids: Int[np.ndarray, " n"], drawn: Int[np.ndarray, "draws n"], kinds: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " draws"]:
    counts = np.zeros((ids.max() + 1, kinds.max() + 1), np.int64)
    most = np.zeros(ids.max() + 1, np.int64)
    out = np.empty(len(drawn))
    for draw in range(len(drawn)):
        total = 0
        for i in range(len(kinds)):
            group = drawn[draw, i]
            counts[group, kinds[i]] += 1
            if counts[group, kinds[i]] > most[group]:
                most[group] += 1
                total += 1
        out[draw] = total / len(kinds)
        counts[:] = 0
        most[:] = 0
    return out
