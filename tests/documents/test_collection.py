"""Documents and collections of them: what is left out, counted, refused."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pytest
from reading import refused, texts

import polytope_lm as plm
from polytope_lm.documents import Document, Span, documents
from polytope_lm.errors import PolytopeError


@pytest.mark.parametrize(
    "spans",
    [
        (Span(0, 9, {}),),
        (Span(1, 1, {}),),
        (Span(-1, 1, {}),),
        (Span(0, 2, {}), Span(1, 3, {})),
        (Span(2, 3, {}), Span(0, 1, {})),
    ],
)
def test_spans_that_make_no_sense_are_refused(spans):
    with pytest.raises(PolytopeError, match="document 'd'"):
        Document("d", "abcd", {}, spans)


def test_words_and_regions_may_overlap_each_other():
    word, region = Span(1, 2, {"a": "x"}), Span(0, 4, {"b": "y"}, "region")
    document = Document("d", "abcd", {}, (region, word))
    assert (document.words, document.regions) == ((word,), (region,))


def test_the_package_and_the_function_have_one_name():
    assert texts(["a"]) == [d.text for d in plm.documents(["a"])]
    assert plm.documents.Document is Document


def test_repeated_and_blank_texts_are_left_out_counted_and_said_once(caplog):
    found = documents(["a", "b", "a", " \n", "a"])
    with caplog.at_level(logging.WARNING):
        assert [d.text for d in found] == ["a", "b"]
        assert [d.text for d in found] == ["a", "b"]
    assert [r.getMessage() for r in caplog.records] == ["5 texts: 2 documents, 2 repeated and 1 blank left out"]
    assert (found.tally.documents, found.tally.repeated, found.tally.blank) == (2, 2, 1)
    assert repr(found) == "Documents(5 texts: 2 documents, 2 repeated and 1 blank left out)"


def test_the_digest_is_that_of_the_texts_in_order():
    digests = b"".join(hashlib.sha256(t.encode()).digest() for t in ("a", "é"))
    assert documents(["a", "é", "a"]).sha256 == hashlib.sha256(digests).hexdigest()
    assert documents(["é", "a"]).sha256 != documents(["a", "é"]).sha256


def test_a_pass_that_stops_early_leaves_no_counts():
    found = documents(["a", "b"])
    next(iter(found))
    assert repr(found) == "Documents(2 texts)"
    assert found.tally.documents == 2


def test_a_limit_counts_what_is_handed_out():
    found = documents(["a", "a", "b", "c"], max_documents=2)
    assert [d.text for d in found] == ["a", "b"]
    assert found.describe() == "4 texts; first 2 documents"
    assert texts(documents(["a", "b"]), max_documents=1) == ["a"]
    with pytest.raises(PolytopeError, match="max_documents=0"):
        documents(["a"], max_documents=0)


def test_reading_is_lazy(write):
    path = write("x.jsonl", '{"text": "a"}\nbroken\n')
    assert next(iter(documents(path))).text == "a"
    assert texts(path, max_documents=1) == ["a"]
    refused(path, "line 2")


def test_documents_pass_through():
    found = documents(["a"])
    assert documents(found) is found
    with pytest.raises(PolytopeError, match="text_column='x' means nothing"):
        documents(found, text_column="x")


def test_lists_of_strings_documents_and_rows():
    document = Document("mine", "b", {"g": "1"})
    found = list(documents(["a", document, {"id": 7, "text": "c", "l": 3}], label_columns=["l"]))
    assert [(d.id, d.text, d.labels) for d in found] == [
        ("0", "a", {}),
        ("mine", "b", {"g": "1"}),
        ("7", "c", {"l": "3"}),
    ]
    refused([b"a"], "item 0 of the list is of type bytes")
    refused((x for x in "ab"), "generator.*list.source.")
    refused([Document("d", "a"), Document("d", "b")], "'d' occurs twice")


def test_a_lone_surrogate_is_no_text(write):
    refused(["a\ud800"], r"character 1 is the lone surrogate U\+D800")
    rows = '{"text": "fine"}\n{"text": "a\\ud800", "kind": "b"}\n'
    refused(write("x.jsonl", rows), r"x\.jsonl, line 2: .*character 1 is the lone surrogate U\+D800")
    rows = '{"text": "a", "kind": "\\udc00"}\n'
    refused(write("y.jsonl", rows), r"y\.jsonl, line 1: .*kind.*character 0 .*U\+DC00", label_columns="kind")


@pytest.mark.parametrize("source", [[], ["", " "]])
def test_a_source_of_nothing_is_refused(source):
    refused(source, "no document with text")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Document(3, "x"), "id is 3 of type int"),
        (lambda: Document("d", b"x"), "'d': text is b'x' of type bytes"),
        (lambda: Document("d", "x", {"y": 3}), "'d': label 'y' is 3 of type int"),
        (lambda: Document("d", "x", {"y": None}), "'d': label 'y' is None"),
        (lambda: Document("d", "x", {3: "y"}), "'d': label name is 3"),
        (lambda: Document("d", "x", {"y": "\ud800"}), r"'d': label 'y': character 0 .*U\+D800"),
        (lambda: Document("d", "x", {"\ud800": "y"}), r"U\+D800"),
        (lambda: Document("\ud800", "x"), r"id: character 0 .*U\+D800"),
        (lambda: Document("d", "x", [("y", "z")]), "'d': labels are"),
        (lambda: Document("d", "x", {}, ((0, 1, {}),)), r"'d': span \(0, 1, \{\}\) is no Span"),
        (lambda: Document("d", "x", {}, {"start": 0}), "'d': spans are"),
        (lambda: Document("d", "x", {}, 3), "'d': spans are 3"),
        (lambda: Span(0.0, 1, {}), "start is 0.0"),
        (lambda: Span(0, "1", {}), "end is '1'"),
        (lambda: Span(0, 1, {"y": 3}), "0:1: label 'y' is 3"),
        (lambda: Span(0, 1, ["y"]), "0:1: labels are"),
        (lambda: Span(0, 1, {}, "sentence"), "kind 'sentence'"),
    ],
)
def test_what_is_made_by_hand_is_checked_when_it_is_made(made, says):
    with pytest.raises(PolytopeError, match=says) as caught:
        made()
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_and_lists_of_spans_are_taken():
    document = Document("d", "hello", {}, [Span(np.int64(0), np.uint8(5), {"t": "x"})])
    assert document.spans == (Span(0, 5, {"t": "x"}),)
    assert type(document.spans[0].start) is type(document.spans[0].end) is int
    assert hash(Span(0, 1, {}).start) == hash(0)


def test_nothing_in_data_reaches_the_terminal_raw(write, caplog):
    name = "x\u202ey\x1b[31m.txt"
    found = documents(write(name, "a\n\nb\n\na"), split="blank-lines")
    list(found)
    path = write("z\u202e.csv", "text;l\na;b\n")
    shown = repr(found) + caplog.text + repr(documents(path)) + repr(next(iter(found)))
    with pytest.raises(PolytopeError) as caught:
        list(documents(path, text_column="\u202e"))
    assert not {"\u202e", "\x1b"} & set(shown + caplog.text + str(caught.value))
