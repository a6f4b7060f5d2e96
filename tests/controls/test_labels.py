from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytope_lm.controls.labels import permuted_labels
from polytope_lm.errors import PolytopeError

tokens = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from(["N", "V", None])), max_size=40
)


@given(tokens, st.integers(0, 5))
def test_each_word_keeps_its_labels_in_each_document(rows: list, seed: int) -> None:
    word, document, label = ([row[i] for row in rows] for i in range(3))
    made = permuted_labels(np.array(label, dtype=object), word, document, seed=seed)
    assert Counter(zip(word, document, made.values, strict=True)) == Counter(zip(word, document, label, strict=True))
    assert [v is None for v in made.values] == [v is None for v in label]
    kinds = {}
    for w, d, v in rows:
        kinds.setdefault((w, d), set()).add(v)
    free = sum(v is not None and len(kinds[w, d] - {None}) > 1 for w, d, v in rows)
    assert made.movable == free


def test_every_order_inside_a_group_is_as_likely() -> None:
    labels, word = ["N", "V", "J", "N"], ["a", "a", "a", "b"]
    seen = Counter("".join(permuted_labels(labels, word, seed=i).values) for i in range(1200))
    assert len(seen) == 6
    assert all(150 < count < 250 for count in seen.values())
    assert all(order.endswith("N") for order in seen)


def test_numbers_no_groups_missing_groups_and_lengths() -> None:
    made = permuted_labels(np.arange(50), seed=1)
    assert sorted(made.values) == list(range(50))
    assert made.movable == 50
    assert made.values.dtype == np.arange(1).dtype
    stay = permuted_labels(pd.Series(["N", "V"] * 10), pd.Series([None] * 10 + ["w"] * 10), seed=0)
    assert list(stay.values[:10]) == ["N", "V"] * 5
    assert stay.movable == 10
    with pytest.raises(PolytopeError, match="property 1 of `within` has 2 entries for 3 labels"):
        permuted_labels(["N", "V", "N"], ["a"] * 3, ["d"] * 2)
