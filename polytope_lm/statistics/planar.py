"""A map of the tokens: two coordinates each, so that near tokens are near, for looking at.

t-SNE (van der Maaten & Hinton, "Visualizing data using t-SNE", JMLR 2008) of some landmark tokens, the others
between their nearest landmarks. What is near on the map is near in the representation; sizes of clumps and
the distances between them mean little, and no number here is read from a map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.manifold import TSNE

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float

LANDMARKS = 1500
"""t-SNE takes seconds for so many, minutes for four times as many."""
_PERPLEXITY = 30
_ITERATIONS = 400
_NEAREST = 3
_LEAST = 4


def planar(distance: Float[np.ndarray, "n n"], *, seed: int, landmarks: int = LANDMARKS) -> Float[np.ndarray, "n 2"]:
    """Return a place on a map for each of n tokens, float32, centred, the wider side from -1 to 1.

    t-SNE places the landmarks, random tokens; the others lie at the mean of their three nearest landmarks,
    weighted by closeness.
    """
    n = len(distance)
    if n < _LEAST:
        raise PolytopeError(f"{n} tokens make no map; at least {_LEAST} are needed")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(n, size=min(n, landmarks), replace=False))
    between = np.maximum(distance[np.ix_(chosen, chosen)], 0)
    np.fill_diagonal(between, 0)
    placed = TSNE(
        metric="precomputed",
        init="random",
        perplexity=min(_PERPLEXITY, (len(chosen) - 1) / 3),
        max_iter=_ITERATIONS,
        random_state=int(rng.integers(2**31)),
        n_jobs=1,
    ).fit_transform(between)
    found = _between(distance[:, chosen], placed)
    found[chosen] = placed
    found -= (found.max(axis=0) + found.min(axis=0)) / 2
    return (found / max(float(np.abs(found).max()), 1e-12)).astype(np.float32)


def _between(
    away: Float[np.ndarray, "n landmarks"], placed: Float[np.ndarray, "landmarks 2"]
) -> Float[np.ndarray, "n 2"]:
    """Return the mean of each token's nearest landmarks, the nearer the heavier."""
    count = min(_NEAREST, away.shape[1])
    near = np.argpartition(away, count - 1, axis=1)[:, :count]
    # The smallest distance of a row counts as no farther than this, so that a duplicate takes all the weight.
    distances = np.maximum(np.take_along_axis(away, near, axis=1).astype(np.float64), 1e-9)
    weights = 1 / distances**2
    found: np.ndarray = (placed[near] * (weights / weights.sum(axis=1, keepdims=True))[..., None]).sum(axis=1)
    return found
