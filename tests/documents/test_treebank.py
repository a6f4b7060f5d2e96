"""Treebanks: text, words and tags as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading import refused, texts

from polytope_lm.documents import documents
from polytope_lm.documents.treebank import treebank
from polytope_lm.files import File

SHARED = Path(__file__).parents[3] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data, which are not shipped")


def word(number, form, tag="X", misc="_", lemma="_"):
    return f"{number}\t{form}\t{lemma}\t{tag}\t_\t_\t0\troot\t_\t{misc}\n"


def blank(number, form, misc="_"):
    return f"{number}\t{form}\t_\t_\t_\t_\t_\t_\t_\t{misc}\n"


def test_conllu(write):
    content = (
        "# newdoc id = email-1\n# sent_id = 1\n"
        + word(1, "Hi", "INTJ", "SpaceAfter=No", "hi")
        + word(2, "!", "PUNCT")
        + "\n"
        + blank("1-2", "Don't", "SpaceAfter=No")
        + word(1, "Do", "AUX")
        + word(2, "n't", "PART")
        + word(3, ".", "PUNCT")
        + "\n# newdoc\n"
        + blank("1-2", "du")
        + word(1, "de", "ADP")
        + word(2, "le", "DET")
        + word(3, "_", "SYM", lemma="_")
        + "\n"
    )
    first, second = documents(write("x.conllu", content))
    assert (first.id, first.text, first.labels) == ("email-1", "Hi! Don't.", {"genre": "email"})
    got = [(first.text[s.start : s.end], s.labels["upos"]) for s in first.spans]
    assert got == [("Hi", "INTJ"), ("!", "PUNCT"), ("Do", "AUX"), ("n't", "PART"), (".", "PUNCT")]
    assert first.spans[0].labels == {"upos": "INTJ", "deprel": "root", "lemma": "hi", "form": "Hi"}
    assert (second.text, second.labels) == ("du _", {})
    assert second.spans[0].labels["upos"] == "ADP+DET"
    assert second.spans[0].labels["form"] == "du"
    assert second.spans[1].labels["lemma"] == "_"


def test_conllu_without_newdoc_is_one_document_and_empty_nodes_are_not_in_the_text(write):
    content = word(1, "a") + "1.1\tghost\t_\t_\t_\t_\t_\t_\t_\t_\n" + word(2, "b") + "\n" + word(1, "c") + "\n"
    assert texts(write("x.conllu", content)) == ["a b c"]


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (word(1, "a") + "\n2 b c\n\n", "x.conllu, line 3: 1 columns where CoNLL-U has 10"),
        ("# newdoc\n1\ta\n\n", "line 2: 2 columns where CoNLL-U has 10"),
        ("one\ta\t_\t_\t_\t_\t_\t_\t_\t_\n\n", "line 1: the sentence is not CoNLL-U"),
        (blank("1-3", "abc") + word(1, "a") + "\n", "line 1: word 'abc' ends after the sentence"),
        ("", "no document with text"),
    ],
)
def test_bad_conllu_has_its_line(write, content, pattern):
    refused(write("x.conllu", content), pattern)


@shared
def test_a_treebanks_text_is_the_one_that_it_states():
    path = SHARED / "treebank" / "en_ewt-ud-dev.conllu"
    stated, at = "", 0
    for line in path.read_text().splitlines():
        if line.startswith("# text = "):
            stated += line.removeprefix("# text = ")
    found = list(documents(path))
    raw = treebank(File(path, path.name))
    assert "".join("".join(d.text.split()) for d in raw) == "".join(stated.split())
    assert {d.labels["genre"] for d in found} == {"weblog", "newsgroup", "email", "reviews", "answers"}
    for document in found:
        for span in document.spans:
            at += document.text[span.start : span.end].lower() == span.labels["form"].lower()
    assert at == sum(len(d.spans) for d in found)


def sentence(*words, text=None, head="# newdoc id = a-1\n"):
    """A sentence of (number, form, last column)."""
    lines = [f"{n}\t{form}\t{form}\tX\t_\t_\t0\tx\t_\t{misc}" for n, form, misc in words]
    return head + (f"# text = {text}\n" if text else "") + "\n".join(lines) + "\n\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (sentence((1, "to", r"SpacesAfter=\s\s"), (2, "go", "_")), "to  go"),
        (sentence((1, "to", r"SpacesAfter=\s\s"), (2, "go", "_"), text="to  go"), "to  go"),
        (sentence((1, "to", "_"), (2, "go", "_"), text="to  go"), "to  go"),
        (sentence((1, "to", "_"), (2, "go", "_"), text="to\u00a0go"), "to\u00a0go"),
        (sentence((1, "to", "_"), (2, "go", "_"), text="toogo"), "to go"),
        (sentence((1, "to", r"SpacesAfter=\t\n|x=1"), (2, "go", "SpaceAfter=No")), "to\t\ngo"),
        (sentence((1, "to", r"SpacesBefore=\s")) + sentence((1, "go", "_"), head=""), " to go"),
        (sentence((1, "to", r"SpacesAfter=\n\n"), text="to") + sentence((1, "go", "_"), head=""), "to\n\ngo"),
    ],
)
def test_words_are_divided_as_the_text_has_them(write, content, text):
    (found,) = documents(write("x.conllu", content))
    assert found.text == text
    assert [found.text[span.start : span.end] for span in found.spans] == ["to", "go"]


def test_ranges_do_not_overlap(write):
    words = [("1-2", "ab", "_"), (1, "a", "_"), ("2-3", "bc", "_"), (2, "b", "_"), (3, "c", "_")]
    refused(write("x.conllu", sentence(*words)), "line 1: range 2-3 .*'ab'")


def test_one_identifier_twice_is_refused_or_numbered(write):
    path = write("x.conllu", sentence((1, "One", "_")) + sentence((1, "Two", "_")))
    refused(path, r"line 4: newdoc id 'a-1' .*line 1.*id_column=''")
    found = list(documents(path, id_column=""))
    assert [d.text for d in found] == ["One", "Two"]
    assert len({d.id for d in found}) == 2
    assert [d.labels for d in found] == [{"genre": "a"}] * 2
    refused(path, "id_column='key'", id_column="key")
