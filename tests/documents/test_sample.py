"""The built-in sample against the topics that it is made of."""

from __future__ import annotations

import json
from itertools import pairwise
from pydoc_data.topics import topics

from reading import refused, texts

from polytope_lm.documents import Documents, documents


def test_the_sample_is_the_topics_grouped():
    found = documents("sample")
    assert {d.text for d in found} == set(topics.values())
    groups = [d.labels["group"] for d in found if d.labels]
    assert min(groups.count(g) for g in groups) >= 5
    assert len(set(groups)) >= 5
    assert len(found.sha256) == 64
    refused("sample", "header=False means nothing", header=False)


def test_the_samples_classes_cover_its_text_and_hold_what_they_say():
    share = dict.fromkeys(("prose", "code", "literal"), 0)
    for document in documents("sample"):
        spans = document.spans
        outside = [document.text[a.end : b.start] for a, b in pairwise(spans)]
        assert not "".join(outside).strip()
        assert document.text[: spans[0].start].strip() == ""
        assert document.text[spans[-1].end :].strip() == ""
        for span in spans:
            piece = document.text[span.start : span.end]
            share[span.labels["class"]] += len(piece)
            assert span.kind == "region"
            if "::=" in piece or piece.lstrip().startswith(">>>"):
                assert span.labels["class"] in {"code", "literal"}
    assert min(share.values()) > 0.05 * sum(share.values())


def test_the_samples_classes_on_a_page_known_by_heart():
    text = topics["lambda"]
    (document,) = [d for d in documents("sample") if d.id == "lambda"]
    assert document.labels == {"group": "expression"}

    def kind(piece):
        at = text.index(piece)
        return next(s.labels["class"] for s in document.spans if s.start <= at < s.end)

    assert kind("lambda_expr ::=") == "code"
    assert kind("def <lambda>(parameters)") == "code"
    assert kind("Lambda expressions (sometimes") == "prose"
    assert kind("Note that functions") == "prose"
    assert kind('"lambda parameters: expression"') == "literal"


def test_a_file_called_sample_needs_a_separator(write, monkeypatch):
    path = write("sample/a.txt", "mine")
    monkeypatch.chdir(path.parents[1])
    assert texts("./sample") == ["mine"]
    assert len(texts("sample")) > 50


def test_documents_is_a_type_for_annotations():
    assert isinstance(documents(["a"]), Documents)
    assert json.loads(json.dumps(documents(["a"]).describe())) == "1 text"
