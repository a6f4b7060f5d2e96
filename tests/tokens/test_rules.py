"""Sample rules: which tokens they choose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import byte_bpe

from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.tokens.windowing import Windowing, parse_rule


@pytest.mark.parametrize("text", ["all", "word-final", "every:6", "every:6,skip:100", "random:80"])
def test_a_rule_says_what_was_written(text):
    assert str(parse_rule(text)) == text


@pytest.mark.parametrize("text", ["", "some", "every", "every:0", "random:0", "random:-1", "every:6,skip:x", "all "])
def test_other_rules_are_refused(text):
    with pytest.raises(PolytopeError, match="no sample rule"):
        parse_rule(text)


def chosen(rule, n, document_id="d", seed=0):
    return parse_rule(rule).choose(np.arange(n), np.zeros(n, bool), document_id, seed)


def test_the_papers_rule_takes_six_evenly_spaced_tokens_after_a_hundred():
    assert chosen("every:6,skip:100", 1024).tolist() == [100, 284, 469, 653, 838, 1023]
    assert chosen("every:6,skip:100", 106).tolist() == [100, 101, 102, 103, 104, 105]
    assert chosen("every:6,skip:100", 105).tolist() == []
    assert chosen("every:1,skip:3", 9).tolist() == [3]


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 200))
def test_evenly_spaced_tokens_are_distinct_inside_and_even(count, skip, n):
    found = chosen(f"every:{count},skip:{skip}", n)
    assert len(found) == (count if n - skip >= count else 0)
    gaps = np.diff(found)
    assert all(skip <= p < n for p in found)
    assert gaps.size == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_random_depends_on_seed_and_document_alone():
    first = chosen("random:5", 100)
    assert first.tolist() == chosen("random:5", 100).tolist()
    assert first.tolist() != chosen("random:5", 100, document_id="e").tolist()
    assert first.tolist() != chosen("random:5", 100, seed=1).tolist()
    assert len(set(first)) == 5
    assert (np.diff(first) > 0).all()
    assert chosen("random:5", 3).tolist() == [0, 1, 2]


def test_random_does_not_depend_on_the_documents_around():
    texts = [Document(str(i), f"{i} the cat sat on the mat and sat") for i in range(4)]
    how = Windowing(parse_rule("random:3"), 64, 8)
    together = how.apply(texts, 0, byte_bpe()).windows
    alone = [how.apply([text], i, byte_bpe()).windows[0] for i, text in enumerate(texts)]
    assert [w.position.tolist() for w in together] == [w.position.tolist() for w in alone]
    assert [w.document for w in together] == [0, 1, 2, 3]


def test_random_draws_are_even():
    counts = np.zeros(10)
    for i in range(2000):
        counts[chosen("random:2", 10, document_id=str(i))] += 1
    assert abs(counts / 400 - 1).max() < 0.2
