"""Next-token agreement: do tokens of one group make the model expect the same.

The score is the mean Jensen-Shannon divergence, in bits from 0 to 1, between the model's own next-token
distributions at tokens of one group and of two documents; lower is more alike. Beside it stand random groups
of the same sizes, and groups permuted among tokens of one identity: most of what the next token can be is
decided by this one, so that a lexical cluster agrees without meaning anything.

The distributions are read where the tokens were captured, in the same windows, over the whole vocabulary. A
pair costs some 30 microseconds for 50,000 entries, so at most `tokens` of the grouped tokens are taken
(1,000: half a million pairs, 0.2 GB of float32), drawn by seed; all pairs of these count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from polytope_lm.codes.again import at_hand, read_again
from polytope_lm.inference.divergence import js_divergences
from polytope_lm.inference.pairs import PairScore, inside_groups
from polytope_lm.models.next_token import check_logits, logits_at
from polytope_lm.predictions.chosen import NULLS, affordable, documents_and_words, of_all, rows_of
from polytope_lm.predictions.seeds import derived

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.loading import Model

TOKENS = 1000


def next_token_distributions(
    codes: TokenCodes, rows: Int[np.ndarray, " n"], model: Model | None = None
) -> Float[np.ndarray, "n V"]:
    """Return the model's next-token distribution after each token, float32.

    Args:
        codes: where the tokens are.
        rows: their rows.
        model: the model that made the codes, where they do not have it at hand.

    Raises:
        PolytopeError: an encoder, no model at hand, another one, or codes that can't be read again.

    """
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
    """Return the divergences in bits between the next-token distributions of all pairs of tokens.

    Args:
        codes: where the tokens are.
        rows: their rows.
        model: the model that made the codes, where they do not have it at hand.

    Raises:
        PolytopeError: as `next_token_distributions`.

    """
    return js_divergences(next_token_distributions(codes, rows, model))


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
    nulls = derived(seed, NULLS)
    found = inside_groups(
        near, groups[some], better="lower", apart=documents, token=words, draws=draws, seed=nulls
    )
    return of_all(found, groups, len(some))
