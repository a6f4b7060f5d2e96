"""Exchange tests with documents as units, for thousands of bits at once.

If a group has nothing to do with a bit, documents may exchange their groups, and the statistic after any exchange is
as likely as the one seen. The p value is the share of exchanges whose statistic is at least as far from its
expectation, two-sided, the seen one counted: `(1 + e) / (1 + B)` (exact at any number of documents: Phipson & Smyth,
"Permutation p-values should never be zero", 2010).

- *Different documents*: the difference of mean rates; documents exchange groups.
- *Both groups in each document*: the mean of the documents' differences; a document's two groups change places.

A bit that 20 exchanges have passed is done after the first 999 or 9,999 (Besag & Clifford, "Sequential Monte Carlo
p-values", Biometrika 1991); the others get all 99,999. All bits share their exchanges, which are matrix products.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float

LOOKS = (999, 9_999, 99_999)
"""Exchanges after which a bit may be done; the last is the most."""
_PASSED = 20
_AT_ONCE = 2000  # exchanges in one product


def exchanged(values: Float[np.ndarray, "D N"], group: Bool[np.ndarray, " D"], *, seed: int) -> Float[np.ndarray, " N"]:
    """Return the p value of each column's difference of means between the rows in the group and the others."""
    rng = np.random.default_rng(seed)
    centred = values - values.mean(axis=0)
    mine = group.astype(np.float32)

    def draw(count: int) -> Float[np.ndarray, "_ D"]:
        return rng.permuted(np.tile(mine, (count, 1)), axis=1)

    return _p_values(centred, mine @ centred, draw)


def turned(differences: Float[np.ndarray, "D N"], *, seed: int) -> Float[np.ndarray, " N"]:
    """Return the p value of each column's mean, whose rows may change their signs."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> Float[np.ndarray, "_ D"]:
        return (2 * rng.integers(0, 2, (count, len(differences)), dtype=np.int8) - 1).astype(np.float32)

    return _p_values(differences, differences.sum(axis=0), draw)


def _p_values(
    values: Float[np.ndarray, "D N"], seen: Float[np.ndarray, " N"], draw: Callable[[int], Float[np.ndarray, "_ D"]]
) -> Float[np.ndarray, " N"]:
    columns = values.astype(np.float32)
    # Equal statistics that were summed in another order count as equal.
    bound = np.abs(seen) - 4e-6 * np.abs(values).sum(axis=0) - 1e-12
    passed, drawn = np.zeros(values.shape[1], np.int64), np.zeros(values.shape[1], np.int64)
    left = np.arange(values.shape[1])
    for begin, end in pairwise((0, *LOOKS)):
        for first in range(begin, end, _AT_ONCE):
            weights = draw(min(_AT_ONCE, end - first))
            passed[left] += (np.abs(weights @ columns[:, left]) >= bound[left]).sum(axis=0)
        drawn[left] = end
        left = left[passed[left] < _PASSED]
        if not len(left):
            break
    return (1 + passed) / (1 + drawn)
