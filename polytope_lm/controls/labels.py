"""Isolates the single token from its word and its document: labels permuted among tokens that share both.

The null that a user's own data face: words keep their labels' frequencies, documents too, and a score that
does not fall was never about the token in its context. Labels without any choice (a word's only occurrence in
its document, or one whose occurrences agree) stay where they are: `movable` counts the others.

Isolates the codes from their labels, documents kept alike: each document takes another document's labels.

A null that is true by construction. Tokens of one document keep labels that are as alike as those of a real
document, in the order of a real one, and the documents stay independent of each other; but what label a token
has no longer depends on its word, its place or its code. Permuted token by token instead, labels would lose
their document correlation, and a test that mistakes tokens for independent units would pass.

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


def labels_of_other_documents(
    labels: Int[np.ndarray, " n"], documents: Int[np.ndarray, " n"], *, seed: int
) -> Int[np.ndarray, " n"]:
    """Return labels in which every document has those of another one.

    Documents stand in a ring in random order, and each takes the labels of the next: from a random place on,
    in order, begun again where they are too few. So no document keeps its own.
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
