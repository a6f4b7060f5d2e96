"""Are tokens of one group alike to an encoder that reads their contexts, and to the model's next tokens.

*Context coherence.* A token's context is the text up to 150 characters to its left and right, the token
itself kept, without the word that either end cuts through. An encoder that is not the model under test reads
it (all-MiniLM-L6-v2 by default: mean over tokens of the last hidden states); the score is the mean cosine of
the contexts of tokens of one group.

*Next-token agreement.* Do tokens of one group make the model expect the same? The score is the mean
Jensen-Shannon divergence, in bits from 0 to 1, between the model's own next-token distributions; lower is
more alike. They are read where the tokens were captured, in the same windows, over the whole vocabulary. A
pair costs some 30 microseconds for 50,000 entries, so at most `tokens` of the grouped tokens are taken
(1,000: half a million pairs, 0.2 GB of float32), drawn by seed; all pairs of these count.

In both, pairs of one document do not count, for their contexts overlap. Beside both stand random groups of
the same sizes, and groups permuted among tokens of one identity: the token is in its context and decides most
of what comes next, so that a lexical cluster agrees without meaning anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from polytope_lm.codes.reread import at_hand, read_again
from polytope_lm.errors import PolytopeError
from polytope_lm.models.loading import load
from polytope_lm.models.logits import check_logits, logits_at, mean_pooled
from polytope_lm.models.model import Model
from polytope_lm.models.sources import changed_parts
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.sampling import affordable, documents_and_words, of_all, rows_of
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.similarity import PairScore, inside_groups, js_divergences

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.codes.codes import TokenCodes

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to vectors, one a row."""

ENCODER = "minilm-l6"
CHARACTERS = 150
TOKENS = 1000
RULE = f"up to {CHARACTERS} characters on each side, the token kept, without the words that the ends cut through"


def context_parts(codes: TokenCodes, row: int, characters: int = CHARACTERS) -> tuple[str, str, str]:
    """Return the text left of a token, the token without the space before it, and the text right of it."""
    left, token, right = codes.context(row, characters + 1)
    if len(left) > characters:
        left = left[1:] if left[0].isspace() else _after_space(left)
    if len(right) > characters:
        right = right[:-1] if right[-1].isspace() else _after_space(right[::-1])[::-1]
    word = token.lstrip()
    return (left + token[: len(token) - len(word)]).lstrip(), word, right.rstrip()


def context_text(codes: TokenCodes, row: int, characters: int = CHARACTERS) -> str:
    """Return a token in its context as one text; see `context_parts`."""
    return "".join(context_parts(codes, row, characters))


def _after_space(text: str) -> str:
    """Drop what comes before the first space; a text without one stays whole."""
    at = next((i for i, character in enumerate(text) if character.isspace()), -1)
    return text[at + 1 :]


def encoder_of(codes: TokenCodes, encoder: Model | Embed | str | None = None) -> Embed:
    """Return what embeds contexts, refusing the model under test."""
    if callable(encoder) and not isinstance(encoder, Model):
        return encoder
    made_by, revision = codes.provenance.get("model"), codes.provenance.get("revision")
    name = encoder if isinstance(encoder, str) else None if encoder is None else encoder.name
    loaded = encoder if isinstance(encoder, Model) else None
    if (name or ENCODER) != made_by and loaded is None:
        loaded = load(name or ENCODER)
    others = changed_parts(str(revision), loaded.revision, loaded.formerly)[0] if loaded else []
    if loaded is None or "weights" not in others:
        raise PolytopeError(
            f"the encoder {name or ENCODER!r} is the model under test; judge its groups by another one, "
            "encoder=plm.load(...) or a function of texts"
        )
    model = loaded
    return lambda texts: mean_pooled(model, texts)


def embeddings(texts: Sequence[str], embed: Embed) -> Float[np.ndarray, "n D"]:
    """Return one unit vector a text."""
    vectors = np.asarray(embed(texts), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise PolytopeError(
            f"the encoder gave shape {vectors.shape} for {len(texts)} texts; it must give one row a text"
        )
    norms = np.linalg.norm(vectors, axis=1)
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        raise PolytopeError(
            f"the encoder gave a zero or non-finite vector for text {int(np.flatnonzero(bad)[0])}; mend it"
        )
    out: Float[np.ndarray, "n D"] = vectors / norms[:, None]
    return out


def context_similarity(
    codes: TokenCodes,
    rows: Int[np.ndarray, " n"],
    encoder: Model | Embed | str | None = None,
    characters: int = CHARACTERS,
) -> Float[np.ndarray, "n n"]:
    """Return the cosines between the contexts of all pairs of tokens, float32."""
    embed = encoder_of(codes, encoder)
    unit = embeddings([context_text(codes, int(row), characters) for row in rows], embed)
    out: Float[np.ndarray, "n n"] = (unit @ unit.T).astype(np.float32)
    return out


@asked
def context_coherence(
    codes: TokenCodes,
    groups: Int[np.ndarray, " n"],
    *,
    rows: Int[np.ndarray, " n"] | None = None,
    encoder: Model | Embed | str | None = None,
    characters: int = CHARACTERS,
    tokens: int = TOKENS,
    draws: int = 200,
    seed: int = 0,
) -> PairScore:
    """Score groups by how alike their tokens' contexts are to an external encoder.

    Args:
        codes: where the tokens are.
        groups: id of each token's group, -1 for none.
        rows: the tokens' rows in the codes; None: all tokens, in order.
        encoder: see `encoder_of`; never the model under test.
        characters: of context on each side.
        tokens: take at most this many of the grouped tokens.
        draws: random groupings behind each z and p.
        seed: of the tokens and of these.

    Raises:
        PolytopeError: the encoder made these codes, is not installed, or gives no vectors; no pair inside a
            group.

    """
    at = rows_of(codes, groups, rows)
    some = affordable(groups, tokens, seed)
    near = context_similarity(codes, at[some], encoder, characters)
    documents, words = documents_and_words(codes, at[some])
    nulls = derived(seed, Purpose.NULLS)
    found = inside_groups(near, groups[some], better="higher", apart=documents, token=words, draws=draws, seed=nulls)
    return of_all(found, groups, len(some))


def next_token_distributions(
    codes: TokenCodes, rows: Int[np.ndarray, " n"], model: Model | None = None
) -> Float[np.ndarray, "n V"]:
    """Return the model's next-token distribution after each token, float32."""
    found = at_hand(codes, model)
    check_logits(found)
    out: np.ndarray | None = None
    for batch, index, (which, column) in read_again(codes, rows, found):
        ids = torch.from_numpy(batch.input_ids)
        logits = logits_at(found, ids, torch.from_numpy(which), torch.from_numpy(column))
        if out is None:
            out = np.empty((len(rows), logits.shape[1]), np.float32)
        out[index] = logits.softmax(dim=-1).cpu().numpy()
    return np.empty((0, 0), np.float32) if out is None else out


def next_token_divergences(
    codes: TokenCodes, rows: Int[np.ndarray, " n"], model: Model | None = None
) -> Float[np.ndarray, "n n"]:
    """Return the divergences in bits between the next-token distributions of all pairs of tokens."""
    return js_divergences(next_token_distributions(codes, rows, model))


@asked
def next_token_agreement(
    codes: TokenCodes,
    groups: Int[np.ndarray, " n"],
    *,
    rows: Int[np.ndarray, " n"] | None = None,
    model: Model | None = None,
    tokens: int = TOKENS,
    draws: int = 200,
    seed: int = 0,
) -> PairScore:
    """Score groups by how alike the model's next-token distributions are inside them.

    Args:
        codes: where the tokens are.
        groups: id of each token's group, -1 for none.
        rows: the tokens' rows in the codes; None: all tokens, in order.
        model: the model that made the codes, where they do not have it at hand.
        tokens: take at most this many of the grouped tokens.
        draws: random groupings behind each z and p.
        seed: of the tokens and of these.

    Raises:
        PolytopeError: an encoder, no model at hand, another one, or no pair inside a group.

    """
    at = rows_of(codes, groups, rows)
    some = affordable(groups, tokens, seed)
    near = next_token_divergences(codes, at[some], model)
    documents, words = documents_and_words(codes, at[some])
    nulls = derived(seed, Purpose.NULLS)
    found = inside_groups(near, groups[some], better="lower", apart=documents, token=words, draws=draws, seed=nulls)
    return of_all(found, groups, len(some))
