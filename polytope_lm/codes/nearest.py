"""The tokens nearest to one token by code and by direction, side by side."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from polytope_lm.codes.code import Code, visible_frame
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.indexing import is_integer
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Float

    from polytope_lm.codes.codes import TokenCodes

_BLOCK = 4096  # rows in float64 at one time


@dataclass(frozen=True, eq=False)
class Nearest:
    """One token's neighbourhoods.

    Attributes:
        query: the token that was asked for.
        by_code: columns `hamming`, `row`, `left`, `token`, `right`; nearest first.
        by_direction: columns `cosine`, `row`, `left`, `token`, `right`; None where no pre-activations were
            kept.
        note: what direction means here, or how to get it.

    """

    query: Code
    by_code: pd.DataFrame
    by_direction: pd.DataFrame | None
    note: str

    def to_frame(self) -> pd.DataFrame:
        """Return both neighbourhoods side by side, the columns prefixed `code` and `direction`."""
        sides = {"code": self.by_code}
        if self.by_direction is not None:
            sides["direction"] = self.by_direction
        return pd.concat(sides, axis=1)

    def __repr__(self) -> str:
        return f"{self.query!r}\n{visible_frame(self.to_frame()).to_string(index=False)}\n{self.note}"

    def _repr_html_(self) -> str:
        table = visible_frame(self.to_frame()).to_html(escape=True, index=False)
        return f"<p>{html.escape(repr(self.query))}</p>{table}<p>{html.escape(self.note)}</p>"


def nearest(codes: TokenCodes, query: Code | int, k: int, layer: int | None) -> Nearest:
    """Find the k nearest tokens by Hamming distance and by the cosine of centred pre-activations.

    Directions are centred per coordinate by the searched tokens' mean: without it, the layer's common
    direction makes every token similar to every other.

    Args:
        codes: where to search.
        query: a `Code` of the same site, or a row number.
        k: how many.
        layer: the layer for a row number.

    Raises:
        PolytopeError: k out of range, a code of another site, or no tokens.

    """
    if not isinstance(query, Code):
        query = codes.code(query, layer)
    row = query.origin[1] if query.origin is not None and query.origin[0] is codes else None
    site = codes.site(query.site.layer, query.site.name)
    if site.width != query.site.width:
        raise PolytopeError(
            f"a code of {query.site.width} bits can't be searched among {site.width}-bit codes of {site.key}"
        )
    if not is_integer(k):
        raise PolytopeError(f"k = {k!r}: give a whole number")
    others = len(codes) - (row is not None)
    if not 1 <= k <= others:
        raise PolytopeError(f"k = {k}: choose from 1 to {others}, the number of other tokens")
    blocks = codes.blocks(site)
    near = np.concatenate([hamming.distances(query.packed[None], np.ascontiguousarray(b))[0] for b in blocks])
    frame = _frame(codes, _rank(near, row, k), "hamming", near)
    if note := _missing(codes, query, row):
        return Nearest(query, frame, None, note)
    h = query.activations["h"] if "h" in query.activations else codes.rows(site, np.array([row]), "h")[0]
    cosine = _cosines(h, lambda: codes.blocks(site, "h"))
    by_direction = _frame(codes, _rank(-cosine, row, k), "cosine", cosine.round(4))
    return Nearest(
        query, frame, by_direction, "by direction: cosine of pre-activations h, centred per coordinate"
    )


def _missing(codes: TokenCodes, query: Code, row: int | None) -> str | None:
    """Say which pre-activations are not there, and how to get them."""
    if not codes.can_give("h"):
        return (
            "by direction: needs the pre-activations of these tokens; capture again with keep=['h'] (--keep "
            "h)"
        )
    if row is None and "h" not in query.activations:
        return "by direction: needs the query's pre-activations; encode it with keep=('h',)"
    return None


def _rank(distance: np.ndarray, row: int | None, k: int) -> np.ndarray:
    order = np.argsort(distance, kind="stable")[: k + 1]
    return order[order != row][:k] if row is not None else order[:k]


def _frame(codes: TokenCodes, rows: np.ndarray, name: str, values: np.ndarray) -> pd.DataFrame:
    contexts = [codes.context(int(r)) for r in rows]
    table = pd.DataFrame({name: values[rows], "row": rows})
    return table.assign(
        left=[c[0] for c in contexts], token=[c[1] for c in contexts], right=[c[2] for c in contexts]
    )


def _cosines(
    query: Float[np.ndarray, " N"], blocks: Callable[[], Iterator[np.ndarray]]
) -> Float[np.ndarray, " T"]:
    """Return the cosine of every row with the query, both less the rows' mean, in bounded memory."""
    total = sum(block.sum(0, dtype=np.float64) for block in blocks())
    mean = total / sum(len(block) for block in blocks())
    centred_query = query.astype(np.float64) - mean
    parts = []
    for block in blocks():
        for start in range(0, len(block), _BLOCK):
            centred = block[start : start + _BLOCK] - mean
            product = np.linalg.norm(centred, axis=1) * np.linalg.norm(centred_query)
            parts.append(
                np.divide(centred @ centred_query, product, out=np.zeros(len(centred)), where=product > 0)
            )
    return np.concatenate(parts)
