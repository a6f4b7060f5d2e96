"""Windows against their promise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import byte_bpe, cut

from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.tokens.tokenising import tokenise
from polytope_lm.tokens.windowing import Windowing, parse_rule


@settings(deadline=None, max_examples=200)
@given(
    n=st.integers(0, 150),
    context=st.integers(3, 40),
    min_context=st.integers(0, 30),
    bos=st.booleans(),
    causal=st.booleans(),
)
def test_each_token_is_in_one_window_with_its_context(n, context, min_context, bos, causal):
    sides = 1 if causal else 2
    room = context - bos
    document = Document("d", "ab" * (n // 2) + "z" * (n % 2))
    tokenizer = byte_bpe()
    ids = tokenise([document.text], tokenizer)[0].ids
    options = {"context_length": context, "min_context": min_context, "bos": bos, "causal": causal}
    if sides * min_context >= room:
        with pytest.raises(PolytopeError, match="leaves no room"):
            cut(document, tokenizer, **options)
        return
    found = cut(document, tokenizer, **options)
    stored = [p for w in found for p in w.position.tolist()]
    assert stored == list(range(len(ids)))
    for window in found:
        assert len(window.input_ids) <= context
        first = int(window.position[0] - (window.keep[0] - bos))  # document position of the window's first token
        inside = window.input_ids[int(bos) :]
        assert inside.tolist() == ids[first : first + len(inside)].tolist()
        assert (window.input_ids[window.keep] == window.token_id).all()
        assert (ids[window.position] == window.token_id).all()
        before = window.position - first
        assert ((before >= min_context) | (first == 0)).all()
        after = first + len(inside) - 1 - window.position
        if not causal:
            assert ((after >= min_context) | (first + len(inside) == len(ids))).all()


def test_windows_that_store_nothing_are_left_out():
    document = Document("d", "ab" * 200)
    every = cut(document, context_length=20, min_context=5)
    some = cut(document, context_length=20, min_context=5, rule="every:2")
    assert len(some) == 2
    assert len(every) > 10
    assert [w.position.tolist() for w in some] == [[0], [every[-1].position[-1]]]


def test_counts_of_documents_that_give_nothing():
    how = Windowing(parse_rule("every:3,skip:2"), 64, 8)
    result = how.apply([Document("a", "z"), Document("b", "z" * 9), Document("c", "")], 10, byte_bpe())
    assert (result.n_without, result.n_kept) == (2, 3)
    assert [w.document for w in result.windows] == [11]
    assert result.n_tokens == sum(len(t.ids) for t in tokenise(["z", "z" * 9, ""], byte_bpe()))
    assert how.apply([], 0, byte_bpe()).windows == ()


def test_a_negative_seed_is_refused():
    with pytest.raises(PolytopeError, match="seed=-1"):
        cut(Document("d", "a"), seed=-1)
