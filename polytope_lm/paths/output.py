"""How a next-token distribution changes from one place of a path to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import entr, softmax

from polytope_lm.paths.adaptive import Followed, predicted
from polytope_lm.paths.crossings import OutputChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float


def js_distances(probabilities: Float[np.ndarray, "places V"]) -> Float[np.ndarray, " steps"]:
    """Return the Jensen-Shannon distance between successive distributions.

    `sqrt(H((p + q) / 2) - (H(p) + H(q)) / 2)`, `H` in bits: a metric from 0 to 1 (Endres & Schindelin 2003).

    Args:
        probabilities: one distribution a row.

    """
    return js_distance(probabilities[:-1], probabilities[1:])


def js_distance(p: Float[np.ndarray, "rows V"], q: Float[np.ndarray, "rows V"]) -> Float[np.ndarray, " rows"]:
    """Return the Jensen-Shannon distance of each row of `p` from the same row of `q`; see `js_distances`."""
    middles = entr((p + q) / 2).sum(axis=1)
    divergences = (middles - (entr(p).sum(axis=1) + entr(q).sum(axis=1)) / 2) / np.log(2)
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


def joined(changes: Sequence[OutputChange]) -> OutputChange:
    """Put the changes along successive stretches of a path together; each begins where the last one ends."""
    first, *rest = changes
    return OutputChange(
        t=np.concatenate([first.t, *(one.t[1:] for one in rest)]),
        js=np.concatenate([one.js for one in changes]),
        top=(*first.top, *(token for one in rest for token in one.top[1:])),
        top_probability=np.concatenate([first.top_probability, *(one.top_probability[1:] for one in rest)]),
    )


def interpolated_change(found: Followed, t: Float[np.ndarray, " places"], tokenizer: Any) -> OutputChange:
    """Compare the next-token distributions at places between those where the model was run.

    The logits are interpolated as `h` is; `error` says how far the distribution so found is from the model's
    own, at the places that were held out.

    Args:
        found: the path, the logits being the last thing that was followed.
        t: the places.
        tokenizer: shows the likeliest tokens as text.

    """
    logits, node = found.values[-1].astype(np.float64), found.node
    guessed = predicted(found.t[node], logits[node], found.t[~node])
    errors = js_distance(softmax(guessed, axis=1), softmax(logits[~node], axis=1))
    change = output_change(t, predicted(found.t, logits, t), tokenizer)
    return replace(change, error=float(errors.max()))
