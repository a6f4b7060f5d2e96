"""Would other documents have given the same regions, and do regions follow more than position.

*Stability.* The documents are cut at random into three parts of (nearly) equal numbers of documents. The
tokens of the first and those of the second are clustered, each on their own, and every token of the third
goes to its nearest medoid of either clustering: AMI between the two assignments. Repeated over seeds, each of
which cuts anew. A clustering that is not stable can not be a fact about the model, whatever it scores; a
stable one need not mean anything. A medoid is the member with the smallest sum of distances to its cluster:
where FasterPAM has ended, it could not be exchanged with profit.

*Position.* Two numbers for groups: AMI with ten bins of the position (equal shares of the tokens), and the
correlation ratio `eta^2 = between-group / total sum of squares` of `log2(1 + position)` (the first positions
differ most). Their null permutes groups within each document, so that what remains is position and not which
document, or how long a one, a token comes from. One for neighbours: the share that stand at the very same
position; its null permutes positions within each document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.arguments import asked
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.agreement import adjusted_mutual_information
from polytope_lm.statistics.clustering import k_medoids
from polytope_lm.statistics.nulls import AgainstNull, against, counted, random_groups

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

REPEATS = 5


@dataclass(frozen=True)
class Stability:
    """How far clusterings of two disjoint thirds of the documents agree on the last third.

    Attributes:
        ami: mean over the cuts.
        sd: its standard deviation between cuts (not of the mean); None for a single cut.
        each: AMI of each cut.
        k: clusters of each third.
        tokens: tokens assigned, on average over the cuts.

    """

    ami: float
    sd: float | None
    each: tuple[float, ...]
    k: int
    tokens: float


@asked
def stability(
    distance: Float[np.ndarray, "n n"], documents: Int[np.ndarray, " n"], k: int, *, repeats: int = REPEATS,
    seed: int = 0,
) -> Stability:  # fmt: skip
    """Cluster two thirds of the documents apart and compare what they make of the last one.

    Args:
        distance: all pairwise distances of one representation.
        documents: each token's document.
        k: clusters of each third.
        repeats: cuts.
        seed: of the cuts and of the first medoids.

    Raises:
        PolytopeError: fewer than 3 documents, a third with no more than k tokens, or shapes that do not fit.

    """
    if distance.shape != (len(documents), len(documents)) or repeats < 1:
        raise PolytopeError(
            f"distances of shape {distance.shape} for {len(documents)} tokens and {repeats} cuts; give one "
            "row and column a token, and at least 1 cut"
        )
    if not np.isfinite(distance).all():
        row = int(np.argwhere(~np.isfinite(distance))[0, 0])
        raise PolytopeError(f"a distance of token {row} is not finite; look for NaN in the rows")
    scores, sizes = [], []
    for number in range(repeats):
        first, second, last = thirds(documents, derived(seed, Purpose.SPLITS, number))
        least = int(min(first.sum(), second.sum()))
        if k >= least or not last.any():
            raise PolytopeError(
                f"a third of the documents has {least} tokens, which k = {k} clusters do not fit; ask for "
                "fewer clusters or more tokens"
            )
        start = derived(seed, Purpose.MEDOIDS, number)
        one, two = (_assigned(distance, part, last, k, start) for part in (first, second))
        scores.append(adjusted_mutual_information(one, two))
        sizes.append(int(last.sum()))
    spread = float(np.std(scores, ddof=1)) if repeats > 1 else None
    return Stability(float(np.mean(scores)), spread, tuple(scores), k, float(np.mean(sizes)))


def thirds(
    documents: Int[np.ndarray, " n"], seed: int
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Cut the documents at random into three disjoint parts; return which tokens each part has."""
    names, document = np.unique(documents, return_inverse=True)
    if len(names) < 3:
        raise PolytopeError(f"{len(names)} documents can not be cut into thirds; add documents")
    part = np.random.default_rng(seed).permutation(len(names)) % 3
    mine = part[document]
    return mine == 0, mine == 1, mine == 2


def medoids(distance: Float[np.ndarray, "n n"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """Return each cluster's medoid, by cluster id: the member with the smallest sum of distances to it."""
    out = []
    for cluster in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == cluster)
        out.append(members[distance[np.ix_(members, members)].sum(axis=1, dtype=np.float64).argmin()])
    return np.array(out, dtype=np.int64)


def _assigned(
    distance: Float[np.ndarray, "n n"], part: Bool[np.ndarray, " n"], last: Bool[np.ndarray, " n"], k: int, seed: int
) -> Int[np.ndarray, " m"]:
    """Cluster one part, and send the last part's tokens to the nearest medoids."""
    rows = np.flatnonzero(part)
    own = np.ascontiguousarray(distance[np.ix_(rows, rows)])
    centres = rows[medoids(own, k_medoids(own, k, seed=seed))]
    return np.asarray(distance[np.ix_(np.flatnonzero(last), centres)].argmin(axis=1))


BINS = 10


@dataclass(frozen=True)
class PositionCheck:
    """How much a grouping follows position. p is small where it does: no finding, an artefact.

    Attributes:
        ami: AMI of groups with bins of the position.
        correlation_ratio: eta^2 of `log2(1 + position)` between groups, 0 to 1.
        same_position: share of neighbours at the very same position; None without neighbours.
        bins: bins of the position that differ.
        tokens: tokens counted.
        noise: tokens in no group, left out of the first two.

    """

    ami: AgainstNull
    correlation_ratio: AgainstNull
    same_position: AgainstNull | None
    bins: int
    tokens: int
    noise: int


@asked
def position_check(
    groups: Int[np.ndarray, " n"],
    positions: Int[np.ndarray, " n"],
    documents: Int[np.ndarray, " n"],
    *,
    neighbours: Int[np.ndarray, "n k"] | None = None,
    draws: int = 100,
    seed: int = 0,
) -> PositionCheck:
    """Check a grouping, and its neighbours if there are any, against position.

    Args:
        groups: id of each token's group, -1 for none.
        positions: each token's position in its document.
        documents: each token's document.
        neighbours: indices of each token's nearest others, -1 for none.
        draws: permutations within documents behind each z and p.
        seed: of these.

    Raises:
        PolytopeError: lengths that differ, no token in a group, or all tokens at one position.

    """
    inside = counted(groups, positions, documents)
    here, where = np.unique(groups[inside], return_inverse=True)[1], positions[inside]
    if (where == where[0]).all():
        raise PolytopeError(f"all {len(where)} tokens stand at position {int(where[0])}; there is no position to check")
    edges = np.unique(np.quantile(where, np.linspace(0, 1, BINS + 1)[1:-1], method="higher"))
    bins, scale = np.searchsorted(edges, where, side="right"), np.log2(1 + where.astype(np.float64))
    nulls = derived(seed, Purpose.NULLS)
    shuffled = list(random_groups(here, draws=draws, seed=nulls, within=documents[inside]))
    ami = [adjusted_mutual_information(other, bins) for other in (here, *shuffled)]
    ratio = [correlation_ratio(other, scale) for other in (here, *shuffled)]
    same = None
    if neighbours is not None and (neighbours >= 0).any():
        moved = random_groups(positions, draws=draws, seed=nulls, within=documents)
        null = np.array([same_position(neighbours, other) for other in moved])
        same = against(same_position(neighbours, positions), null, "higher")
    return PositionCheck(
        ami=against(ami[0], np.array(ami[1:]), "higher"),
        correlation_ratio=against(ratio[0], np.array(ratio[1:]), "higher"),
        same_position=same, bins=len(np.unique(bins)), tokens=int(inside.sum()), noise=int((~inside).sum()),
    )  # fmt: skip


def correlation_ratio(groups: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> float:
    """Return `eta^2`, the share of the values' variance that lies between groups (Fisher, 1925)."""
    sizes, centred = np.bincount(groups), values - values.mean()
    sums = np.bincount(groups, weights=centred)
    total = float(centred @ centred)
    between = float((sums[sizes > 0] ** 2 / sizes[sizes > 0]).sum())
    return between / total if total > 0 else 0.0


def same_position(neighbours: Int[np.ndarray, "n k"], positions: Int[np.ndarray, " n"]) -> float:
    """Return the share of neighbours that stand at their token's own position."""
    there = neighbours >= 0
    return float((positions[neighbours] == positions[:, None])[there].mean())
