"""Same direction, other polytope: how far one push does the same to tokens of one region.

The same references, controls and clusterer as prediction 1, the label replaced by the agreement of effects:
`cos(d_i, d_j)` of what one push does to the logits at tokens i and j of different documents. Its mean over
pairs of one cluster (k-medoids on the representation's own distance), and over each token's 5 nearest tokens,
less its mean over all pairs, which is what chance gives. Random halves of the documents, clustered anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.predictions.directions.result import Finding
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.clustering import k_medoids
from polytope_lm.statistics.estimate import Resampled, effective_number, half_samples
from polytope_lm.statistics.verdict import Cell

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from polytope_lm.codes.codes import TokenCodes

NAMES = ("code", "cosine of h, raw", "cosine of h, centred", "SimHash, rate-matched")
NEAR = 5
CLUSTERS = "agreement of effects inside clusters"
NEIGHBOURS = "agreement of effects with neighbours"
_PER_CLUSTER = 12


def compare(
    codes: TokenCodes,
    layer: int,
    rows: Int[np.ndarray, " n"],
    agreement: Float[np.ndarray, "n n"],
    *,
    halves: int,
    seed: int,
) -> tuple[list[Cell], list[Finding]]:
    """Return the cells of code against each reference, and each representation's own scores.

    Args:
        codes: with `u` and `h`.
        layer: the layer.
        rows: the n tokens.
        agreement: `cos(d_i, d_j)`.
        halves: random halves of the documents behind each interval.
        seed: of every random choice.

    """
    document = codes.tokens["document"].to_numpy()[rows]
    numbers = np.unique(document, return_inverse=True)[1]
    arrays = LayerArrays(codes, layer, rows)
    kept = half_samples(int(numbers.max()) + 1, halves, seed=derived(seed, Purpose.REGIONS))
    picks = np.random.default_rng(derived(seed, Purpose.REGIONS, 1)).random(halves)
    scores: dict[str, Resampled] = {}
    for name in NAMES:
        which, each = get(name), []
        for draw in range(which.draws):
            vectors = which.rows(arrays, seed=derived(seed, Purpose.REPRESENTATION, draw))
            distance = np.asarray(pairwise(vectors, which.name), dtype=np.float64)
            parts = [np.ones(len(numbers), dtype=bool), *(half[numbers] for half in kept)]
            found = np.array([_scores(distance, agreement, numbers, part, seed) for part in parts])
            each.append(Resampled(found[0], found[1:]))
        scores[name] = Resampled.mean_of_draws(each, picks)
    freedom = effective_number(numbers) - 1
    cells, shown = [], []
    for column, score in enumerate((CLUSTERS, NEIGHBOURS)):
        mine = scores["code"].column(column)
        for name in NAMES:
            other = scores[name].column(column)
            shown.append(Finding("regions", f"{score}, {name}", other.by_spread(freedom)))
            if name != "code":
                cells.append(Cell(name, score, (mine - other).by_spread(freedom)))
    return cells, shown


def _scores(
    distance: Float[np.ndarray, "n n"],
    agreement: Float[np.ndarray, "n n"],
    document: Int[np.ndarray, " n"],
    kept: Bool[np.ndarray, " n"],
    seed: int,
) -> tuple[float, float]:
    """Return the agreement inside clusters and with neighbours, beyond that of all pairs, on some of the tokens."""
    rows = np.flatnonzero(kept)
    near, same = distance[np.ix_(rows, rows)], agreement[np.ix_(rows, rows)]
    apart = document[rows][:, None] != document[rows]
    chance = float(same[apart].mean())
    cluster = np.asarray(k_medoids(near.astype(np.float32), max(2, len(rows) // _PER_CLUSTER), seed=seed))
    inside = apart & (cluster[:, None] == cluster)
    first = float(same[inside].mean()) - chance if inside.any() else 0.0
    order = np.argsort(np.where(apart, near, np.inf), axis=1, kind="stable")[:, :NEAR]
    return first, float(np.take_along_axis(same, order, axis=1).mean()) - chance
