"""World 5: the classes differ only by distance. After adjusting for it, no effect may remain.

Pairs of different meaning lie further apart; how many boundaries a path crosses, and how many neurons flip
and flip back, follows from the distance alone, through a curve and with overdispersed, skewed counts. The raw
AUC is large and carries no meaning: what cosine distance alone did to a real model's crossings.
"""

from __future__ import annotations

import numpy as np

from polytope_lm.inference.pair_table import PairTable

FLIP_BACKS = "flip-backs"
HAMMING = "endpoint Hamming"
_WIDTH = 3000  # bits


def distance_world(
    pairs: int = 480, *, groups: int = 60, shift: float = 1.0, effect: float = 0.0, seed: int = 0
) -> PairTable:
    """Draw one world's pairs.

    Args:
        pairs: half of them different in meaning, alternating within each group.
        groups: items or words; each has its own rate of flip-backs.
        shift: how much further apart different pairs are, in sd of log distance.
        effect: log of the factor by which different meaning multiplies flip-backs; 0 for world 5.
        seed: of everything.

    Returns:
        Flip-backs as the outcome; Euclidean and cosine distance and endpoint Hamming as covariates.

    """
    rng = np.random.default_rng(seed)
    different = np.arange(pairs) % 2 == 1
    group = (np.arange(pairs) // 2) % groups
    log_distance = rng.normal(0, 1, pairs) + shift * different
    distance = np.exp(0.3 * log_distance)
    cosine = np.clip(0.15 * distance + rng.normal(0, 0.02, pairs), 1e-3, 1)
    angle = np.arccos(1 - cosine) / np.pi
    hamming = rng.binomial(_WIDTH, np.clip(angle, 0, 1))
    word = rng.normal(0, 0.1, groups)[group]
    expected = 40 * np.log1p(distance**2) * np.exp(word + effect * different)
    flips = rng.poisson(expected * rng.gamma(16, 1 / 16, pairs))
    return PairTable(
        different=different,
        group=group,
        outcomes={FLIP_BACKS: flips.astype(np.float64)},
        covariates={
            "Euclidean distance": distance,
            "cosine distance": cosine,
            HAMMING: hamming.astype(np.float64),
        },
    )
