"""Alignment against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import byte_bpe, cut, surface

from polytope_lm.documents import Document, Span
from polytope_lm.tokens.alignment import align, last_of_each


def by_hand(starts, ends, spans):
    """Count the characters that each token shares with each span; first span of the most."""
    owners = []
    for start, end in zip(starts, ends, strict=True):
        shared = [len(set(range(start, end)) & set(range(a, b))) for a, b in spans]
        owners.append(int(np.argmax(shared)) if shared and max(shared) > 0 else -1)
    return owners


@st.composite
def stretches(draw, *, overlapping):
    edges = sorted(draw(st.lists(st.integers(0, 40), min_size=0, max_size=16, unique=not overlapping)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(stretches(overlapping=True), stretches(overlapping=False))
def test_alignment_is_the_count_of_shared_characters(tokens, spans):
    starts, ends = (np.array([t[i] for t in tokens], dtype=np.int64) for i in (0, 1))
    span_starts, span_ends = (np.array([s[i] for s in spans], dtype=np.int64) for i in (0, 1))
    owner = align(starts, ends, span_starts, span_ends)
    assert owner.tolist() == by_hand(starts, ends, spans)
    final = last_of_each(owner, len(spans))
    expected = {max(np.flatnonzero(owner == s)) for s in set(owner.tolist()) - {-1}}
    assert set(np.flatnonzero(final)) == expected


def test_a_tie_goes_to_the_first_span():
    assert align(np.array([1]), np.array([5]), np.array([0, 3]), np.array([3, 9])).tolist() == [0]


def tagged(text, words, name="tag", kind="word"):
    spans, at = [], 0
    for word, tag in words:
        start = text.index(word, at)
        at = start + len(word)
        spans.append(Span(start, at, {name: tag}, kind))
    return Document("d", text, {}, tuple(spans))


def test_a_words_label_goes_to_its_last_token_or_to_all():
    document = tagged("hello playing", [("hello", "A"), ("playing", "B")])
    (window,) = cut(document)
    pieces = surface(document, window)
    assert "".join(pieces) == document.text
    assert len(pieces) > 2
    labels = window.labels["tag"]
    assert labels[-1] == "B"
    assert [t for t in labels if t] == ["A", "B"]
    everywhere = cut(document, all_pieces=True)[0].labels["tag"]
    space = [p.isspace() for p in pieces]
    assert everywhere == [None if blank else "A" if e <= 5 else "B" for blank, e in zip(space, window.end, strict=True)]


def test_a_token_across_two_words_belongs_to_the_larger_share():
    tokenizer = byte_bpe()
    piece = tokenizer("there", add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][0]
    assert piece[1] - piece[0] >= 3  # "the" is one token
    document = Document("d", "there", {}, (Span(0, 2, {"tag": "A"}), Span(2, 5, {"tag": "B"})))
    (window,) = cut(document)
    assert window.labels["tag"][0] == "A"
    assert window.labels["tag"][-1] == "B"


def test_leading_space_does_not_count():
    # " a" and the span that ends with the space: without the rule the tie would go to the first
    document = Document("d", "the cat a", {}, (Span(0, 8, {"c": "x"}, "region"), Span(8, 9, {"c": "y"}, "region")))
    (window,) = cut(document)
    assert surface(document, window)[-1] == " a"
    assert window.labels["c"][-1] == "y"


def test_white_space_alone_belongs_to_the_region_around_it():
    document = Document("d", "a\n\n\n\n\nb", {}, (Span(0, 7, {"c": "x"}, "region"),))
    (window,) = cut(document)
    assert set(window.labels["c"]) == {"x"}


def test_a_region_labels_every_token_and_a_word_comes_first():
    text = "hello there"
    spans = (Span(0, 11, {"c": "region", "r": "yes"}, "region"), Span(0, 5, {"c": "word"}))
    (window,) = cut(Document("d", text, {}, spans))
    assert set(window.labels["r"]) == {"yes"}
    last = [i for i, e in enumerate(window.end) if e <= 5][-1]
    assert [i for i, c in enumerate(window.labels["c"]) if c == "word"] == [last]


def test_labels_can_be_named():
    document = tagged("hello there", [("hello", "A")])
    assert cut(document, labels=("tag", "other"))[0].labels.keys() == {"tag", "other"}
    assert set(cut(document, labels=("other",))[0].labels["other"]) == {None}
    assert cut(Document("d", "hello"))[0].labels == {}


def test_bytes_of_one_character_share_its_offsets_and_the_last_one_ends_the_word():
    text = "hello 🙂 there"
    document = tagged(text, [("hello", "A"), ("🙂", "B"), ("there", "C")])
    (window,) = cut(document)
    emoji = [i for i, (s, e) in enumerate(zip(window.start, window.end, strict=True)) if text[s:e] == "🙂"]
    assert len(emoji) == 4
    assert [window.labels["tag"][i] for i in emoji] == [None, None, None, "B"]
    everywhere = cut(document, all_pieces=True)[0].labels["tag"]
    assert [everywhere[i] for i in emoji] == ["B"] * 4
    final = cut(document, rule="word-final")[0]
    assert final.labels["tag"] == ["A", "B", "C"]


@pytest.mark.parametrize("trim", [False, True])
def test_trimmed_offsets_give_the_same_labels(trim):
    document = tagged("the cat  sat", [("the", "A"), ("cat", "B"), ("sat", "C")])
    (window,) = cut(document, byte_bpe(trim=trim), rule="word-final")
    assert window.labels["tag"] == ["A", "B", "C"]


def test_word_final_goes_by_white_space_without_words():
    document = Document("d", "hello  there,\ncat", {}, (Span(0, 5, {"c": "x"}, "region"),))
    (window,) = cut(document, rule="word-final")
    assert window.end.tolist() == [5, 13, 17]
    assert window.labels == {"c": ["x", None, None]}


def test_word_final_goes_by_the_documents_words():
    document = tagged("hello there, cat", [("there", "A"), ("cat", "B")])
    (window,) = cut(document, rule="word-final")
    assert window.end.tolist() == [11, 16]


@settings(deadline=None)
@given(st.text("abc don't\n🙂é ", max_size=60))
def test_word_final_keeps_each_white_space_word_once(text):
    found = cut(Document("d", text), rule="word-final", context_length=400)
    words = text.split()
    assert sum(len(w.keep) for w in found) == len(words)
