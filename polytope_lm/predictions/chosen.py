"""Which tokens a score of pairs looks at: all of a grouping, or as many of them as it can afford."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.nulls import NOISE
from polytope_lm.predictions.seeds import derived

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.inference.pairs import PairScore

PAIRS, NULLS, SPLITS, ITEMS = range(100, 104)
"""What a seed is for in the scores of groups: tokens of the pairs, random groups, thirds of the documents,
intruder items."""


def rows_of(
    codes: TokenCodes, groups: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"] | None
) -> Int[np.ndarray, " n"]:
    """Return the rows in the codes that group ids speak of: all of them where none are named.

    Raises:
        PolytopeError: as many rows and ids there are not, or a row that the codes do not have.

    """
    found = np.arange(len(codes)) if rows is None else np.asarray(rows)
    if len(found) != len(groups):
        raise PolytopeError(
            f"{len(groups)} group ids for {len(found)} tokens; give one a token (-1 for noise), or say rows="
        )
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= len(codes)):
        raise PolytopeError(
            f"rows from {int(found.min())} to {int(found.max())}, and these codes have {len(codes)} tokens; "
            "give rows of these codes"
        )
    return found


def rows_of_table(codes: TokenCodes, table: pd.DataFrame) -> Int[np.ndarray, " n"]:
    """Return the rows in the codes that a result's table of tokens speaks of.

    Raises:
        PolytopeError: the codes have other tokens in these rows.

    """
    rows = table["row"].to_numpy().astype(np.int64)
    same = len(rows) > 0 and int(rows.max()) < len(codes)
    if same:
        here = codes.tokens.iloc[rows]
        ids = [str(codes.ids[int(each)]) for each in here["document"]]
        same = ids == table["document"].tolist()
        same = same and bool((here["position"].to_numpy() == table["position"].to_numpy()).all())
    if not same:
        raise PolytopeError(
            f"this result's {len(rows)} tokens are not in these codes; give the codes that it was made from"
        )
    return rows


def affordable(groups: Int[np.ndarray, " n"], tokens: int, seed: int) -> Int[np.ndarray, " m"]:
    """Return indices of at most so many tokens that are in a group, drawn at random, ascending.

    Raises:
        PolytopeError: a limit below 2.

    """
    if tokens < 2:
        raise PolytopeError(f"tokens = {tokens} makes no pair; at least 2 are needed, 1,000 is the default")
    inside = np.flatnonzero(groups != NOISE)
    if len(inside) > tokens:
        rng = np.random.default_rng(derived(seed, PAIRS))
        inside = np.sort(rng.choice(inside, size=tokens, replace=False))
    return inside


def of_all(score: PairScore, groups: Int[np.ndarray, " n"], chosen: int) -> PairScore:
    """Return a score of some of the tokens with the noise of all, and how many were not drawn."""
    noise = int((groups == NOISE).sum())
    return replace(score, noise=noise, beyond=len(groups) - noise - chosen)


def documents_and_words(
    codes: TokenCodes, rows: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return each token's document and vocabulary id."""
    table = codes.tokens.iloc[rows]
    return table["document"].to_numpy().astype(np.int64), table["token_id"].to_numpy().astype(np.int64)
