"""Batches of windows by length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Int64

    from polytope_lm.tokens.windowing import Window


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows padded on the right to one length.

    Attributes:
        input_ids: [B, S].
        attention_mask: [B, S], 1 where a token is, 0 where padding is.
        windows: the B windows, in order of row.

    """

    input_ids: Int64[np.ndarray, "B S"]
    attention_mask: Int64[np.ndarray, "B S"]
    windows: tuple[Window, ...]


def batches(windows: Sequence[Window], *, token_budget: int, pad_id: int) -> Iterator[Batch]:
    """Batches of windows of like length: sorted by length (ties in the order given), padded on the right.

    Args:
        windows: what to read; nothing outside this list has an influence.
        token_budget: most rows times columns of a batch; a longer window is a batch by itself.
        pad_id: what fills up; it is masked, so any id of the vocabulary will do.

    Raises:
        PolytopeError: a budget below 1.

    """
    if token_budget < 1:
        msg = f"token_budget={token_budget} is below 1; give the tokens that one batch may have"
        raise PolytopeError(msg)
    rows: list[Window] = []
    for window in sorted(windows, key=lambda window: len(window.input_ids)):
        if rows and (len(rows) + 1) * len(window.input_ids) > token_budget:
            yield _pad(rows, pad_id)
            rows = []
        rows.append(window)
    if rows:
        yield _pad(rows, pad_id)


def _pad(rows: Sequence[Window], pad_id: int) -> Batch:
    shape = (len(rows), len(rows[-1].input_ids))
    ids, mask = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, window in enumerate(rows):
        ids[row, : len(window.input_ids)] = window.input_ids
        mask[row, : len(window.input_ids)] = 1
    return Batch(ids, mask, tuple(rows))
