"""Nearest tokens by code and by direction, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.codes import code as module
from polytope_lm.seeds import tie_order


@pytest.fixture(scope="module", params=["memory", "disk"])
def codes(request, model, tmp_path_factory):
    if request.param == "memory":
        return plm.encode(model, SENTENCES)
    return plm.capture(model, SENTENCES, to=tmp_path_factory.mktemp("n") / "s", keep=["h"], shard_documents=1)


def by_hand(codes, row: int, layer: int) -> tuple[np.ndarray, np.ndarray]:
    bits = codes.bits(layer)
    h = codes.activations("h", layer).astype(float)
    h -= h.mean(0)
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    return (bits != bits[row]).sum(1), h @ h[row]


@pytest.mark.parametrize("row", [0, 7, 30])
def test_against_brute_force(codes, monkeypatch, row):
    monkeypatch.setattr(module, "CHUNK", 5)
    distance, cosine = by_hand(codes, row, 1)
    found = codes.nearest(row, 6, 1)
    drawn = tie_order(len(codes))
    others = drawn[drawn != row]
    np.testing.assert_array_equal(found.by_code["hamming"], np.sort(distance[others])[:6])
    np.testing.assert_array_equal(found.by_code["row"], others[np.argsort(distance[others], kind="stable")][:6])
    np.testing.assert_array_equal(found.by_direction["row"], others[np.argsort(-cosine[others], kind="stable")][:6])
    np.testing.assert_allclose(found.by_direction["cosine"], np.sort(cosine[others])[::-1][:6], atol=1e-4)
    assert row not in found.by_code["row"].tolist() + found.by_direction["row"].tolist()
    for side in (found.by_code, found.by_direction):
        assert [tuple(r) for r in side[["left", "token", "right"]].to_numpy()] == [
            codes.context(r) for r in side["row"]
        ]


def test_every_other_token_can_be_asked_for(codes):
    found = codes.nearest(3, len(codes) - 1, 0)
    assert sorted([3, *found.by_code["row"]]) == sorted([3, *found.by_direction["row"]]) == list(range(len(codes)))
    for k in (0, len(codes)):
        with pytest.raises(plm.PolytopeError, match=f"k = {k}: choose from 1 to {len(codes) - 1}"):
            codes.nearest(3, k, 0)


def test_a_code_of_other_codes_finds_its_equal(codes, model):
    query = plm.encode(model, SENTENCES[2])[0, -1, 2]
    row = np.flatnonzero(codes.tokens["document"] == 2)[-1]
    found = codes.nearest(query, 3)
    assert found.by_code["hamming"][0] == 0
    assert row in found.by_code["row"].tolist()
    assert (found.by_direction["row"][0], found.by_direction["cosine"][0]) == (row, 1)
    bare = plm.encode(model, SENTENCES[2], keep=())[0, -1, 2]
    assert "encode it with keep=('h',)" in codes.nearest(bare, 3).note
    assert row not in codes.nearest(codes[2, -1, 2], 9).by_code["row"].tolist(), "its own row is left out"


def test_a_code_of_another_site_or_width_is_refused(codes, gated, model):
    with pytest.raises(plm.PolytopeError, match=r"no codes of layer 1 and kind 'gate' here"):
        codes.nearest(plm.encode(gated, "a")[0, 0, 1], 1)
    with pytest.raises(plm.PolytopeError, match="no token 10000"):
        codes.nearest(10_000, 1, 1)
    with pytest.raises(plm.PolytopeError, match="name one layer"):
        codes.nearest(0, 1)


def test_without_pre_activations_there_is_a_note(model):
    found = plm.encode(model, SENTENCES, keep=(), layers=1).nearest(0, 3)
    assert found.by_direction is None
    assert found.note in repr(found)
    assert "keep=['h']" in found.note
    assert list(found.to_frame().columns.get_level_values(0).unique()) == ["code"]


def test_both_sides_stand_beside_each_other(codes):
    frame = codes.nearest(0, 4, 1).to_frame()
    assert frame.shape == (4, 10)
    assert ("code", "hamming") in frame
    assert ("direction", "cosine") in frame


def test_k_is_a_whole_number(model):
    with pytest.raises(plm.PolytopeError, match="k = True: give a whole number"):
        plm.encode(model, ["one two three"], layers=[1]).nearest(0, k=True)
