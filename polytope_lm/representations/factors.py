"""The direction lens as the paper drew it: a token is how much it has of some directions found in the data.

- *NMF*: `max(h, 0) ~ W H` with non-negative factors (Lee & Seung, "Learning the parts of objects by
  non-negative matrix factorization", Nature 1999); a token's row is its row of `W`. `max(h, 0)` is the
  activation of a ReLU MLP.
- *k-means*: unit directions to the k-means centres of the tokens' centred, unit-length `h`; a token's row is
  its cosine with each.

Both on at most `DIRECTIONS` directions and compared by cosine.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.representations.cosine import centred
from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Float

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

    unit = _unit(centred(pre))
    found = KMeans(min(DIRECTIONS, len(unit)), n_init=1, random_state=seed).fit(unit)
    return Rows(unit @ _unit(found.cluster_centers_).T)


def _unit(values: Float[np.ndarray, "T W"]) -> Float[np.ndarray, "T W"]:
    """Return the rows at length 1; a zero row stays zero, for the distances to refuse by name."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)
