"""Position check: does a grouping follow where tokens stand in their document, instead of what they say.

Two numbers for groups: AMI with ten bins of the position (equal shares of the tokens), and the correlation
ratio `eta^2 = between-group / total sum of squares` of `log2(1 + position)` (the first positions differ
most). Their null permutes groups within each document, so that what remains is position and not which
document, or how long a one, a token comes from. One for neighbours: the share that stand at the very same
position; its null permutes positions within each document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.ami import adjusted_mutual_information
from polytope_lm.inference.nulls import AgainstNull, against, counted, random_groups
from polytope_lm.predictions.chosen import NULLS
from polytope_lm.predictions.seeds import derived

if TYPE_CHECKING:
    from jaxtyping import Float, Int

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
        raise PolytopeError(
            f"all {len(where)} tokens stand at position {int(where[0])}; there is no position to check"
        )
    edges = np.unique(np.quantile(where, np.linspace(0, 1, BINS + 1)[1:-1], method="higher"))
    bins, scale = np.searchsorted(edges, where, side="right"), np.log2(1 + where.astype(np.float64))
    nulls = derived(seed, NULLS)
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
        same_position=same,
        bins=len(np.unique(bins)),
        tokens=int(inside.sum()),
        noise=int((~inside).sum()),
    )


def correlation_ratio(groups: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> float:
    """Return `eta^2`, the share of the values' variance that lies between groups (Fisher, 1925).

    Args:
        groups: group ids, 0 and up.
        values: one number a token; 0 where they are all the same.

    """
    sizes, centred = np.bincount(groups), values - values.mean()
    sums = np.bincount(groups, weights=centred)
    total = float(centred @ centred)
    between = float((sums[sizes > 0] ** 2 / sizes[sizes > 0]).sum())
    return between / total if total > 0 else 0.0


def same_position(neighbours: Int[np.ndarray, "n k"], positions: Int[np.ndarray, " n"]) -> float:
    """Return the share of neighbours that stand at their token's own position.

    Args:
        neighbours: indices, -1 for none.
        positions: each token's position.

    """
    there = neighbours >= 0
    return float((positions[neighbours] == positions[:, None])[there].mean())
