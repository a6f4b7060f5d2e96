"""What the worlds of tokens share: documents whose tokens are alike, words without meaning, codes in memory.

Document correlation. A token takes its document's own label with probability `sqrt(c)`, and a label of its
own else, both from the same distribution. Two tokens of one document then both have the document's with
probability c: the intraclass correlation of every label's indicator is c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from polytope_lm.codes.codes import Codes
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

Sizes = Literal["equal", "zipf"]

WORDS = 300
"""Words, each as likely as the other and without any relation to regions or labels."""


def shares(count: int, sizes: Sizes) -> Float[np.ndarray, " count"]:
    """Return how likely each of `count` regions is: all alike, or the i-th as `1/i` (Zipf).

    Raises:
        PolytopeError: another kind of sizes.

    """
    if sizes not in {"equal", "zipf"}:
        raise PolytopeError(f"sizes = {sizes!r} of a world's regions; choose 'equal' or 'zipf'")
    weight = np.ones(count) if sizes == "equal" else 1 / np.arange(1, count + 1)
    out: Float[np.ndarray, " count"] = weight / weight.sum()
    return out


def documents_of(tokens: int, documents: int) -> Int[np.ndarray, " n"]:
    """Return the document of each token, as evenly as possible.

    Raises:
        PolytopeError: fewer tokens than documents, or no document.

    """
    if not 1 <= documents <= tokens:
        raise PolytopeError(
            f"{tokens} tokens in {documents} documents; give every document of a world a token"
        )
    return np.arange(tokens) * documents // tokens


def correlated(
    rng: np.random.Generator,
    document: Int[np.ndarray, " n"],
    share: Float[np.ndarray, " count"],
    correlation: float,
    shown: float = 1.0,
) -> Int[np.ndarray, " n"]:
    """Draw a label for each token, with that intraclass correlation within documents.

    Args:
        rng: of everything.
        document: document of each token.
        share: how likely each label is.
        correlation: the intraclass correlation.
        shown: the share of tokens that will keep these labels; the others know nothing of documents, so
            these get a correlation of `correlation / shown^2`.

    Raises:
        PolytopeError: a correlation outside [0, 1].

    """
    if not 0 <= correlation <= 1:
        raise PolytopeError(f"document correlation = {correlation}; it goes from 0 to 1")
    home = rng.choice(len(share), int(document.max()) + 1, p=share)
    own = rng.random(len(document)) < np.sqrt(correlation) / shown
    drawn: Int[np.ndarray, " n"] = rng.choice(len(share), len(document), p=share)
    return np.where(own, home[document], drawn)


def random_hyperplanes(
    rng: np.random.Generator, u: Float[np.ndarray, "n D"], width: int
) -> Float[np.ndarray, "n N"]:
    """Return pre-activations of random hyperplanes on `u`, each with a bias of its own."""
    weight = rng.normal(size=(u.shape[1], width)) * np.sqrt(len(u) / (u**2).sum())
    out: Float[np.ndarray, "n N"] = u @ weight + 0.3 * rng.normal(size=width)
    return out


def planted_codes(
    rng: np.random.Generator,
    name: str,
    document: Int[np.ndarray, " n"],
    columns: Mapping[str, Int[np.ndarray, " n"]],
    u: Float[np.ndarray, "n D"],
    h: Float[np.ndarray, "n N"],
) -> Codes:
    """Return codes in memory with `u` and `h` kept, as a capture would give them.

    Args:
        rng: of the words.
        name: what the provenance calls the world.
        document: document of each token, ascending from 0.
        columns: label columns by name, as ids; they are written `NAME 3`.
        u: the MLP's input.
        h: the pre-activations.

    """
    table = _token_table(rng, document)
    for column, ids in columns.items():
        table[column] = pd.Series([f"{column} {i}" for i in ids], dtype="object")
    premises = Premises("piecewise affine", "relu", True, "none")
    site = Site(0, "pre", "blocks.0.mlp.hook_pre", h.shape[1], u.shape[1], premises)
    count = int(document.max()) + 1
    texts = [f"{i:04d} " + " ".join(table["token"].to_numpy()[document == i]) for i in range(count)]
    return Codes(
        sites=(site,),
        table=table,
        arrays={site.key: np.packbits(h > 0, axis=1, bitorder="little")},
        ids=[f"document {i}" for i in range(count)],
        texts=texts,
        kept=("u", "h"),
        provenance={"model": f"planted: {name}"},
        kept_arrays={f"{site.key}.u": u.astype(np.float32), f"{site.key}.h": h.astype(np.float32)},
    )


def _token_table(rng: np.random.Generator, document: Int[np.ndarray, " n"]) -> pd.DataFrame:
    """Return what a capture says of each token; words are drawn, each four characters and a space."""
    words = rng.integers(0, WORDS, len(document))
    # From 1: there is no attention sink here to leave out.
    position = 1 + np.arange(len(document)) - np.searchsorted(document, document)
    return pd.DataFrame(
        {
            "document": document,
            "position": position,
            "start": 5 * position,
            "end": 5 * position + 4,
            "token_id": words,
            "token": [f"w{word:03d}" for word in words],
        }
    )
