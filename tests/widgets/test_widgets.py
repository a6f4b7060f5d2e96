"""What the widgets are given and answer, without a browser."""

from __future__ import annotations

import base64
import sys

import numpy as np
import pytest

import polytope_lm as plm

TEXTS = ["The <b>loop</b> ends", "A list is empty", "The loop stops when the list is empty", "A\u202e loop", "It ends"]
KINDS = {"i1": np.int8, "i2": "<i2", "i4": "<i4", "f4": "<f4"}


def unpacked(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["data"]), KINDS[packed["type"]]).reshape(packed["shape"])


@pytest.fixture(scope="module")
def model():
    return plm.load("tiny-gpt2")


@pytest.fixture(scope="module")
def codes(model):
    documents = [
        plm.documents.Document(str(n), t, {"long": str(len(t) > 15)} if n else {}) for n, t in enumerate(TEXTS)
    ]
    return plm.encode(model, documents, layers=[1, 3])


@pytest.fixture(scope="module")
def widget(codes):
    return plm.widgets.neighbours(codes, k=4, label="long")


def test_neighbours_are_those_of_the_codes(codes, widget):
    for place, layer in enumerate((1, 3)):
        widget.query = {"layer": place, "row": 7}
        wanted = codes.nearest(7, 4, layer)
        by_code, by_direction = widget.answer["sides"]
        assert by_code["rows"] == wanted.by_code["row"].tolist()
        assert by_code["shown"] == wanted.by_code["hamming"].tolist()
        assert by_direction["rows"] == wanted.by_direction["row"].tolist()
        shown = np.array(by_direction["shown"]) * by_direction["unit"]
        np.testing.assert_allclose(shown, wanted.by_direction["cosine"], atol=2e-4)
        for side in (by_code, by_direction):
            for row, neurons, on in zip(side["rows"], side["differ"], side["on"], strict=True):
                difference = codes.code(7, layer) ^ codes.code(row, layer)
                np.testing.assert_array_equal(unpacked(neurons), difference.neurons)
                np.testing.assert_array_equal(unpacked(on), difference.turned_on)


def test_a_text_of_ones_own_is_read(model, codes, widget):
    text = "The loop begins"
    read = plm.encode(model, text, layers=[3])
    widget.query = {"layer": 1, "text": text}
    assert widget.answer["tokens"] == list(read.tokens["token"])
    assert widget.answer["token"] == len(read) - 1
    widget.query = {"layer": 1, "text": text, "token": 1}
    wanted = codes.nearest(read[0, 1, 3], 4)
    assert widget.answer["context"][1] == read.tokens["token"].iloc[1]
    assert [side["rows"] for side in widget.answer["sides"]] == [
        wanted.by_code["row"].tolist(), wanted.by_direction["row"].tolist()
    ]  # fmt: skip


def test_contexts_and_labels_are_all_there_and_harmless(codes, widget):
    tokens = widget.tokens
    assert len(tokens["left"]) == len(tokens["token"]) == len(tokens["right"]) == len(codes)
    values = [tokens["label_values"][i] for i in unpacked(tokens["label"])]
    wanted = ["none" if v != v else v for v in codes.tokens["long"]]  # noqa: PLR0124 - NaN
    assert values == wanted
    assert "\u202e" not in "".join(tokens["left"] + tokens["token"] + tokens["right"])


def test_a_store_without_its_model_and_without_directions_says_so(model, tmp_path):
    plm.capture(model, TEXTS, to=tmp_path / "store", layers=[1])
    store = plm.open_store(tmp_path / "store")
    bare = plm.widgets.neighbours(store, k=2)
    assert not bare.reads
    assert [side["key"] for side in bare.answer["sides"]] == ["code"]
    assert "keep=['h']" in bare.answer["note"]
    bare.query = {"layer": 0, "text": "The loop"}
    assert bare.answer["error"] == "no model is at hand to read a text: give model="
    again = plm.widgets.neighbours(store, k=2, model=model)
    again.query = {"layer": 0, "text": "The loop"}
    assert again.answer["tokens"] == ["The", " lo", "op"]
    with pytest.raises(plm.PolytopeError, match="these codes were made by tiny-gpt2"):
        plm.widgets.neighbours(store, model=plm.load("tiny-relu"))


def test_what_cannot_be_shown_or_asked_is_one_line(codes, widget, monkeypatch):
    for change, said in [
        ({"k": 0}, r"k = 0: choose from 1 to \d+"),
        ({"k": True}, "k = True"),
        ({"label": "topic"}, "no label 'topic' here"),
    ]:
        with pytest.raises(plm.PolytopeError, match=said):
            plm.widgets.neighbours(codes, **change)
    with pytest.raises(plm.PolytopeError, match=r"1 tokens: a widget shows 2 to 100,000"):
        plm.widgets.neighbours(codes.select([0]))
    for query, said in [
        ({"layer": 9, "row": 0}, "no layer 9 here"),
        ({"layer": 0, "row": 10**6}, "no token 1000000 here"),
        ({"layer": 0, "row": True}, "no token True here"),
        ({"layer": 0, "text": ""}, "text 0 is empty"),
        ({"layer": 0, "text": "x" * 5000}, "a text of 5,000 characters"),
        ({"layer": 0, "text": "The loop", "token": 9}, "no token 9 in a text of 3"),
        ({}, "no layer None here"),
    ]:
        widget.query = query
        assert said in widget.answer["error"]
    with pytest.raises(plm.PolytopeError, match="int: give a path from"):
        plm.widgets.along(3)
    for name in [n for n in sys.modules if n.startswith("polytope_lm.widgets.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(plm.PolytopeError, match=r"widgets need anywidget: pip install 'polytope-lm\[widgets\]'"):
        plm.widgets.neighbours(codes)


def test_a_path_has_every_crossing_in_order_and_its_next_tokens(model):
    path = plm.path(model, "The loop ends when the list is", "A function returns a value that is", layer=1)
    found = path.crossings(downstream=True)
    data = plm.widgets.along(path).data
    assert data["prompts"] == list(found.prompts)
    assert [layer["layer"] for layer in data["layers"]] == [1, 2, 3]
    for layer in data["layers"]:
        here = found.layer == layer["layer"]
        t = unpacked(layer["t"])
        assert (np.diff(t) >= 0).all()
        np.testing.assert_allclose(np.sort(found.t[here]), t, atol=1e-6)
        triples = zip(np.round(found.t[here], 5), found.neuron[here], found.on[here], strict=True)
        shown = zip(np.round(t.astype(float), 5), unpacked(layer["neuron"]), unpacked(layer["on"]), strict=True)
        assert {(n, bool(o)) for _, n, o in triples} == {(n, bool(o)) for _, n, o in shown}
    runs = data["next"]["stretches"]
    assert runs[0]["start"] == 0
    assert runs[-1]["end"] == 1
    assert plm.widgets.along(path.crossings()).data["next"] is None
