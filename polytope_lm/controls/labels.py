"""Isolates the single token from its word and its document: labels permuted among tokens that share both.

The null that a user's own data face: words keep their labels' frequencies, documents too, and a score that
does not fall was never about the token in its context. Labels without any choice (a word's only occurrence in
its document, or one whose occurrences agree) stay where they are: `movable` counts the others.

Isolates the codes from their labels, documents kept alike: documents exchange their labels.

A null that is true by construction. Tokens of one document keep labels that are as alike as those of a real
document, in the order of a real one, and the documents stay independent of each other; but what label a token
has no longer depends on its word, its place or its code. Permuted token by token instead, labels would lose
their document correlation, and a test that mistakes tokens for independent units would pass. AMI is adjusted
for exchanging tokens, not documents: clusters that know documents score above 0 by themselves, some
representation's more than another's. So every score counts from its mean over such exchanges.

`permuted_labels` within word and document is the other null: it keeps what words and documents tell of labels
and only takes away the rest, so a difference between two representations may well remain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class PermutedLabels:
    """Labels after a permutation inside groups.

    Attributes:
        values: the labels, in the order of the tokens; a missing one (None, NaN) stays missing.
        movable: tokens whose group has more than one label, so that theirs could change.

    """

    values: np.ndarray
    movable: int


def permuted_labels(
    labels: Sequence[object] | np.ndarray | pd.Series, *within: Sequence[object] | np.ndarray | pd.Series, seed: int = 0
) -> PermutedLabels:
    """Permute labels among tokens that agree in all of `within`, each group on its own, uniformly.

    `within` has one array a property, such as word and document; with none, all tokens are one group. Tokens of
    which the label or a property is missing do not move.
    """
    values = _plain(labels)
    here = ~pd.isna(values)
    properties = [_plain(each) for each in within]
    for i, each in enumerate(properties):
        if len(each) != len(values):
            msg = f"property {i} of `within` has {len(each)} entries for {len(values)} labels; give one a token"
            raise PolytopeError(msg)
        here &= ~pd.isna(each)
    at = np.flatnonzero(here)
    group = np.zeros(len(at), dtype=np.int64)
    for each in properties:
        ids = pd.factorize(each[at])[0]
        # Renumbered each time, so that ids of pairs stay below the square of the number of tokens.
        group = np.unique(group * (ids.max(initial=0) + 1) + ids, return_inverse=True)[1]
    # A random order, then a stable sort by group: uniform inside each group.
    order = np.random.default_rng(seed).permutation(len(at))
    out = values.copy()
    out[at[np.argsort(group, kind="stable")]] = values[at[order[np.argsort(group[order], kind="stable")]]]
    kinds = pd.Series(values[at], dtype=object).groupby(group).transform("nunique")
    return PermutedLabels(out, int((kinds > 1).sum()))


def _plain(values: Sequence[object] | np.ndarray | pd.Series) -> np.ndarray:
    return values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values)


EXCHANGES = 20
"""Exchanges whose mean a score counts from."""
_BLOCK = 8


def exchanged_between_documents(
    labels: Int[np.ndarray, " n"], documents: Int[np.ndarray, " n"], draws: int, *, seed: int
) -> Int[np.ndarray, "draws n"]:
    """Return labels in which documents of similar size have exchanged theirs, `draws` times.

    Documents stand by size (equal sizes in random order) in blocks of 8, the last of up to 15, and are permuted
    inside each block: in a ring in random order each takes the labels of the next, so that none keeps its own (a
    null of which an eighth is no exchange would take off a part of the effect). A shorter document takes the
    other's first labels, a longer one repeats them cyclically.

    Args:
        labels: one a token.
        documents: each token's document.
        draws: how often.
        seed: of the draws, the same for all labels of the same tokens.

    Raises:
        PolytopeError: other documents than labels, or fewer than two documents.

    """
    if len(labels) != len(documents):
        raise PolytopeError(f"{len(documents)} documents for {len(labels)} labels; give one a token")
    _, index, sizes = np.unique(documents, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise PolytopeError(f"labels of {len(sizes)} document can not be exchanged; at least 2 are needed")
    rng = np.random.default_rng(seed)
    # The tokens sorted by document: where each document begins, and each token's place in its own.
    order = np.argsort(index, kind="stable")
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = np.arange(len(labels)) - np.repeat(first, sizes)
    out = np.empty((draws, len(labels)), dtype=labels.dtype)
    for draw in range(draws):
        by_size = np.lexsort((rng.random(len(sizes)), sizes))
        giver = np.empty(len(sizes), dtype=np.int64)
        for block in np.split(by_size, range(_BLOCK, len(sizes) - _BLOCK + 1, _BLOCK)):
            ring = rng.permutation(block)
            giver[ring] = np.roll(ring, -1)
        given = np.repeat(giver, sizes)
        out[draw, order] = labels[order[first[given] + place % sizes[given]]]
    return out


def drawn_per_document(
    labels: Int[np.ndarray, " n"], documents: Int[np.ndarray, " n"], draws: int, *, correlation: float, seed: int
) -> Int[np.ndarray, "draws n"]:
    """Return labels drawn anew, `draws` times: each as frequent as in `labels`, alike within documents.

    A token takes its document's label with probability `sqrt(correlation)`, else one of its own: the indicator of
    every label then has that intra-class correlation.
    """
    if not 0 <= correlation <= 1:
        raise PolytopeError(f"correlation = {correlation} within documents; it goes from 0 to 1")
    rng = np.random.default_rng(seed)
    index = np.unique(documents, return_inverse=True)[1]
    out = np.empty((draws, len(labels)), dtype=labels.dtype)
    for draw in range(draws):
        home = rng.choice(labels, int(index.max()) + 1)[index]
        own = rng.choice(labels, len(labels))
        out[draw] = np.where(rng.random(len(labels)) < np.sqrt(correlation), home, own)
    return out
