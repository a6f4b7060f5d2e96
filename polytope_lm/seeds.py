"""One seed becomes many: each random choice has its own stream, and neighbouring seeds share none.

With `seed + number` the draws 1 to 4 of seed 0 were the draws 0 to 3 of seed 1, so that a second seed was
hardly a second opinion.
"""

from __future__ import annotations

import numpy as np

from polytope_lm.errors import PolytopeError

TOKENS, HALVES, PICKS, MEDOIDS, REPRESENTATION, PERMUTED_LABELS, TIES, WEIGHTS, MAP = range(9)
"""What a seed is for: which tokens, which halves, which draw a half sees, first medoids, random controls,
labels permuted, neighbours drawn at random, weights permuted or drawn anew, places on a map."""


def derived(seed: int, purpose: int, number: int = 0) -> int:
    """Return the seed of one purpose, below 2^32 (what scikit-learn takes), the same on every machine.

    Args:
        seed: the user's.
        purpose: one of the constants here.
        number: the draw, for what is drawn several times.

    Raises:
        PolytopeError: a negative seed.

    """
    if seed < 0:
        msg = f"seed = {seed} is negative; give 0 or a positive whole number"
        raise PolytopeError(msg)
    return int(np.random.SeedSequence([seed, purpose, number]).generate_state(1)[0])
