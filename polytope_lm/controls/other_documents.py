"""Isolates the codes from their labels, documents kept alike: each document takes another document's labels.

A null that is true by construction. Tokens of one document keep labels that are as alike as those of a real
document, in the order of a real one, and the documents stay independent of each other; but what label a token
has no longer depends on its word, its place or its code. Permuted token by token instead, labels would lose
their document correlation, and a test that mistakes tokens for independent units would pass.

`permuted_labels` within word and document is the other null: it keeps what words and documents tell of labels
and only takes away the rest, so a difference between two representations may well remain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Int


def labels_of_other_documents(
    labels: Int[np.ndarray, " n"], documents: Int[np.ndarray, " n"], *, seed: int
) -> Int[np.ndarray, " n"]:
    """Return labels in which every document has those of another one.

    Documents stand in a ring in random order, and each takes the labels of the next: from a random place on,
    in order, begun again where they are too few. So no document keeps its own.

    Args:
        labels: label id of each token.
        documents: document of each token.
        seed: of the order and of the places.

    Raises:
        PolytopeError: fewer than two documents, or arrays of different lengths.

    """
    if len(labels) != len(documents):
        raise PolytopeError(f"{len(documents)} documents for {len(labels)} labels; give one a token")
    names, index = np.unique(documents, return_inverse=True)
    if len(names) < 2:
        raise PolytopeError(f"labels of {len(names)} document can not be exchanged; at least 2 are needed")
    rng = np.random.default_rng(seed)
    tokens = [np.flatnonzero(index == i) for i in range(len(names))]
    ring = rng.permutation(len(names))
    out = np.empty_like(labels)
    for taker, giver in zip(ring, np.roll(ring, -1), strict=True):
        given = labels[tokens[giver]]
        start = int(rng.integers(len(given)))
        out[tokens[taker]] = np.take(given, start + np.arange(len(tokens[taker])), mode="wrap")
    return out
