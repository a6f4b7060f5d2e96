"""Thresholds at which a random feature is on as often as a real neuron."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def fire(projection: Float[np.ndarray, "N T"], on: Int[np.ndarray, " N"]) -> Bool[np.ndarray, "N T"]:
    """Switch each row on for its `on` largest values (fewer if the last one is tied).

    Args:
        projection: one feature a row.
        on: how many tokens each is on for.

    """
    tokens = projection.shape[1]
    fired = np.empty(projection.shape, dtype=bool)
    for i, count in enumerate(on):
        if count == tokens:
            fired[i] = True
            continue
        threshold = np.partition(projection[i], tokens - count - 1)[tokens - count - 1]
        fired[i] = projection[i] > threshold
    return fired
