from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytope_lm.controls.labels import drawn_per_document, exchanged_between_documents, permuted_labels
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


def test_documents_of_similar_size_exchange_their_labels() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 40, 43)
    documents = rng.permutation(np.repeat(np.arange(43), sizes))
    labels = np.zeros(len(documents), dtype=np.int64)
    for i in range(43):
        labels[documents == i] = 100 * i + np.arange(sizes[i])
    drawn = exchanged_between_documents(labels, documents, 30, seed=0)
    givers = set()
    for new in drawn:
        taken = []
        for i in range(43):
            got = new[documents == i]
            giver = int(got[0] // 100)
            # A shorter document takes the first labels, a longer one repeats them cyclically.
            assert giver != i
            assert list(got) == [100 * giver + j % sizes[giver] for j in range(sizes[i])]
            taken.append(giver)
            givers.add((i, giver))
        assert sorted(taken) == list(range(43))
    rank = np.argsort(np.argsort(sizes, kind="stable"))
    assert max(abs(int(rank[a]) - int(rank[b])) for a, b in givers) <= 15 + (np.bincount(sizes).max())
    assert (drawn == exchanged_between_documents(labels, documents, 30, seed=0)).all()


def test_documents_of_one_size_exchange_over_the_whole_sample() -> None:
    """Files are sorted by genre: blocks by place would exchange inside a genre and no null would come out."""
    documents = np.repeat(np.arange(80), 5)
    drawn = exchanged_between_documents(documents // 20, documents, 200, seed=1)
    kept = (drawn == documents // 20).mean()
    assert kept == pytest.approx(19 / 79, abs=0.04)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(0, 3))
def test_every_document_takes_the_first_labels_of_one(documents: list[int], seed: int) -> None:
    names = np.array(documents)
    if len(set(documents)) < 2:
        with pytest.raises(PolytopeError, match="labels of 1 document can not be exchanged"):
            exchanged_between_documents(names, names, 2, seed=seed)
        return
    for new in exchanged_between_documents(names, names, 3, seed=seed):
        assert all(set(new[names == i]) not in ({i}, set()) for i in set(documents))
        assert all(len(set(new[names == i])) == 1 for i in set(documents))
        assert sorted({int(new[names == i][0]) for i in set(documents)}) == sorted(set(documents))


def test_labels_drawn_per_document_are_alike_within_them_as_asked() -> None:
    labels, documents = np.random.default_rng(0).choice(3, 4000, p=[0.6, 0.3, 0.1]), np.repeat(np.arange(200), 20)
    drawn = drawn_per_document(labels, documents, 40, correlation=0.1, seed=0)
    assert (drawn == 0).mean() == pytest.approx(0.6, abs=0.03)
    on = (drawn == 0).reshape(40, 200, 20) - (drawn == 0).mean()
    pairs = (on.sum(axis=2) ** 2 - (on**2).sum(axis=2)) / (20 * 19)
    assert pairs.mean() / (on**2).mean() == pytest.approx(0.1, abs=0.02)
    with pytest.raises(PolytopeError, match="correlation = 2"):
        drawn_per_document(labels, documents, 1, correlation=2, seed=0)
