"""Batches against their budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytope_lm.errors import PolytopeError
from polytope_lm.tokens.windowing import Window, batches


def window_of(length, name):
    return Window(np.full(length, 7), np.arange(0), name, *(np.arange(0) for _ in range(4)))


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 80))
def test_batches_hold_each_window_once_within_the_budget(lengths, budget):
    given_windows = [window_of(n, i) for i, n in enumerate(lengths)]
    found = list(batches(given_windows, token_budget=budget, pad_id=9))
    order = [w.document for b in found for w in b.windows]
    assert order == sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for batch in found:
        rows, columns = batch.input_ids.shape
        assert rows * columns <= budget or rows == 1
        assert columns == max(len(w.input_ids) for w in batch.windows)
        for ids, mask, window in zip(batch.input_ids, batch.attention_mask, batch.windows, strict=True):
            n = len(window.input_ids)
            assert ids.tolist() == [7] * n + [9] * (columns - n)
            assert mask.tolist() == [1] * n + [0] * (columns - n)


def test_a_batch_is_filled_before_the_next_begins():
    found = list(batches([window_of(4, i) for i in range(5)], token_budget=8, pad_id=0))
    assert [len(b.windows) for b in found] == [2, 2, 1]


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(PolytopeError, match="token_budget=0"):
        list(batches([window_of(1, 0)], token_budget=0, pad_id=0))
