"""World 6: equal distances, and more flip-backs where the meaning differs. The test must find it.

The pairs of world 5 without the shift, so that every covariate has one distribution in both classes; neurons
that flip and flip back, which no endpoint distance sees, are more frequent by a stated factor in pairs of
different meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polytope_lm.worlds.distance_world import distance_world

if TYPE_CHECKING:
    from polytope_lm.inference.pair_table import PairTable

EFFECT = 0.2
"""Log of the factor by which different meaning multiplies flip-backs: 22 % more, an AUC of about 0.66."""


def flipback_world(pairs: int = 480, *, groups: int = 60, effect: float = EFFECT, seed: int = 0) -> PairTable:
    """Draw one world's pairs.

    Args:
        pairs: half of them different in meaning.
        groups: items or words.
        effect: log of the factor on flip-backs.
        seed: of everything.

    """
    return distance_world(pairs, groups=groups, shift=0.0, effect=effect, seed=seed)
