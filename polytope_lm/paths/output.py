"""How a next-token distribution changes from one place of a path to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import entr, softmax

from polytope_lm.paths.crossings import OutputChange

if TYPE_CHECKING:
    from jaxtyping import Float


def js_distances(probabilities: Float[np.ndarray, "places V"]) -> Float[np.ndarray, " steps"]:
    """Return the Jensen-Shannon distance between successive distributions.

    `sqrt(H((p + q) / 2) - (H(p) + H(q)) / 2)`, `H` in bits: a metric from 0 to 1 (Endres & Schindelin 2003).

    Args:
        probabilities: one distribution a row.

    """
    entropies = entr(probabilities).sum(axis=1)
    middles = entr((probabilities[:-1] + probabilities[1:]) / 2).sum(axis=1)
    divergences = (middles - (entropies[:-1] + entropies[1:]) / 2) / np.log(2)
    distances: np.ndarray = np.sqrt(np.clip(divergences, 0.0, 1.0))
    return distances


def output_change(
    t: Float[np.ndarray, " places"], logits: Float[np.ndarray, "places V"], tokenizer: Any
) -> OutputChange:
    """Compare the next-token distributions along a path.

    Args:
        t: the places.
        logits: next-token logits at each of them.
        tokenizer: shows the likeliest tokens as text.

    """
    probabilities = softmax(logits.astype(np.float64), axis=1)
    top = probabilities.argmax(axis=1)
    words = {int(token): str(tokenizer.decode([int(token)])) for token in np.unique(top)}
    return OutputChange(
        t=t,
        js=js_distances(probabilities),
        top=tuple(words[int(token)] for token in top),
        top_probability=probabilities.max(axis=1),
    )
