"""How a next-token distribution changes from one place of a path to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.paths.crossings import OutputChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float


def probabilities(logits: Float[np.ndarray, "rows V"]) -> Float[np.ndarray, "rows V"]:
    """Return the next-token distributions of logits, float64."""
    found: np.ndarray = torch.softmax(torch.from_numpy(np.asarray(logits)).double(), dim=1).numpy()
    return found


def js_distances(probabilities: Float[np.ndarray, "places V"]) -> Float[np.ndarray, " steps"]:
    """Return the Jensen-Shannon distance between successive distributions.

    `sqrt(H((p + q) / 2) - (H(p) + H(q)) / 2)`, `H` in bits: a metric from 0 to 1 (Endres & Schindelin 2003).

    Args:
        probabilities: one distribution a row.

    """
    own = _entropy(probabilities)
    return _distance(probabilities[:-1], probabilities[1:], (own[:-1] + own[1:]) / 2)


def js_distance(p: Float[np.ndarray, "rows V"], q: Float[np.ndarray, "rows V"]) -> Float[np.ndarray, " rows"]:
    """Return the Jensen-Shannon distance of each row of `p` from the same row of `q`; see `js_distances`."""
    return _distance(p, q, (_entropy(p) + _entropy(q)) / 2)


def _distance(p: np.ndarray, q: np.ndarray, own: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.sqrt(np.clip((_entropy((p + q) / 2) - own) / np.log(2), 0.0, 1.0))
    return distances


def _entropy(p: np.ndarray) -> np.ndarray:
    # In float64 (the difference of two entropies is small) and by torch, which has a vectorised logarithm.
    found: np.ndarray = torch.special.entr(torch.from_numpy(np.ascontiguousarray(p)).double()).sum(1).numpy()
    return found


def output_change(
    t: Float[np.ndarray, " places"],
    logits: Float[np.ndarray, "places V"],
    tokenizer: Any,
    error: float = 0.0,
) -> OutputChange:
    """Compare the next-token distributions along a path.

    Args:
        t: the places.
        logits: next-token logits at each of them.
        tokenizer: shows the likeliest tokens as text.
        error: how far the distributions may be from the model's own.

    """
    chances = probabilities(logits)
    top = chances.argmax(axis=1)
    words = {int(token): str(tokenizer.decode([int(token)])) for token in np.unique(top)}
    return OutputChange(
        t=t,
        js=js_distances(chances),
        top=tuple(words[int(token)] for token in top),
        top_probability=chances.max(axis=1),
        error=error,
    )


def joined(changes: Sequence[OutputChange]) -> OutputChange:
    """Put the changes along successive stretches of a path together; each begins where the last one ends."""
    first, *rest = changes
    return OutputChange(
        t=np.concatenate([first.t, *(one.t[1:] for one in rest)]),
        js=np.concatenate([one.js for one in changes]),
        top=(*first.top, *(token for one in rest for token in one.top[1:])),
        top_probability=np.concatenate([first.top_probability, *(one.top_probability[1:] for one in rest)]),
    )
