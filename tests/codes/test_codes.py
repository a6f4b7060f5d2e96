"""Codes as a user handles them: indexing, comparing, selecting, showing."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.codes.codes import Codes, TokenCodes
from polytope_lm.documents import Document, Span

PROMPTS = [
    Document(str(i), text, {"side": "ab"[i % 2]}, (Span(0, text.index(" "), {"pos": "FIRST"}),))
    for i, text in enumerate(SENTENCES)
]


@pytest.fixture(scope="module", params=["memory", "disk"])
def codes(request, model, tmp_path_factory) -> TokenCodes:
    if request.param == "memory":
        return plm.encode(model, PROMPTS)
    return plm.capture(model, PROMPTS, to=tmp_path_factory.mktemp("codes") / "s", keep=["h"], shard_documents=1)


def rows_of(codes: TokenCodes, prompt: int) -> np.ndarray:
    return np.flatnonzero(codes.tokens["document"] == prompt)


def test_indexing_by_prompt_token_and_layer(codes):
    table, packed = codes.tokens, codes.packed(2)
    for prompt in (0, 3, -1):
        rows = rows_of(codes, prompt % 4)
        np.testing.assert_array_equal(codes[prompt].packed(2), packed[rows])
        assert codes[prompt].layers == (0, 1, 2)
    rows = rows_of(codes, 0)
    one = codes[0, " river", 2]
    where = rows[table["token"].iloc[rows] == " river"]
    np.testing.assert_array_equal(one.packed, packed[where[0]])
    assert one.context[1] == " river"
    np.testing.assert_array_equal(codes[0, "river", 2].packed, one.packed)
    np.testing.assert_array_equal(codes[0, 0, 2].packed, packed[rows[0]])
    np.testing.assert_array_equal(codes[0, -1, 2].packed, packed[rows[-1]])
    np.testing.assert_array_equal(codes[np.int64(0), np.int64(1), np.int64(2)].packed, packed[rows[1]])
    np.testing.assert_array_equal(codes[1, 2:5, 2].packed(2), packed[rows_of(codes, 1)[2:5]])
    np.testing.assert_array_equal(codes[1, :, 2].packed(), packed[rows_of(codes, 1)])
    np.testing.assert_array_equal(codes[1, [3, 0, " owes"], 2].packed()[:2], packed[rows_of(codes, 1)[[3, 0]]])
    np.testing.assert_array_equal(codes[1:3, :, [0, 2]].packed(2), packed[np.isin(table["document"], [1, 2])])
    assert codes[0, :, [0, 2]].layers == codes[0, :, ::2].layers == (0, 2)
    assert len(codes[:]) == len(codes)
    assert isinstance(codes[0, " river"], Codes)
    assert codes[0, 0, 2].activations["h"].tolist() == codes.activations("h", 2)[rows[0]].tolist()


def test_position_is_the_document_s_own(model):
    codes = plm.encode(model, SENTENCES, tokens="every:3,skip:2")
    positions = codes.tokens["position"][codes.tokens["document"] == 1].tolist()
    assert positions[0] == 2
    np.testing.assert_array_equal(codes[1, positions[1], 0].packed, codes.packed(0)[4])
    np.testing.assert_array_equal(codes[1, -1, 0].packed, codes.packed(0)[5])
    with pytest.raises(
        plm.PolytopeError, match=rf"no token at position 0 of prompt 1; stored are 3, from 2 to {positions[-1]}"
    ):
        codes[1, 0, 0]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ((1, " the", 0), r"token ' the' is 2 times in prompt 1, at positions (\d+), (\d+): index by position"),
        ((0, " moon", 0), r"no token ' moon' in prompt 0; its stored tokens are '.+' '.+' …? ?"),
        ((4,), "no prompt 4: there are 4, from 0 to 3"),
        ((-5,), "no prompt -5"),
        (("0",), "no prompt '0'"),
        ((True,), "no prompt True"),
        ((0, 99, 0), "no token at position 99 of prompt 0; stored are"),
        ((0, -99, 0), "no token at position -99"),
        ((0, 0, 7), r"no codes of layer 7 here; there are L00\.pre, L01\.pre, L02\.pre"),
        ((0, 0, [0, 7]), "no codes of layer 7 here; there are 0, 1, 2"),
        ((0, 0, "0"), "no layer '0'"),
        ((0, 0, 0, 0), "at most"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(codes, key, said):
    with pytest.raises(plm.PolytopeError, match=said) as error:
        codes[key]
    assert "\n" not in str(error.value)
    if "is 2 times" in said:
        first, second = (int(p) for p in str(error.value).split("positions ")[1].split(":")[0].split(", "))
        assert codes[1, first, 0].context[1] == codes[1, second, 0].context[1] == " the"


def test_the_difference_of_two_codes(codes):
    a, b = codes[0, 0, 1], codes[1, 0, 1]
    bits = codes.bits(1)
    differ = bits[0] != bits[rows_of(codes, 1)[0]]
    assert repr(a ^ b) == f"{differ.sum()} of 96 bits differ"
    np.testing.assert_array_equal((a ^ b).neurons, np.flatnonzero(differ))
    np.testing.assert_array_equal((a ^ b).turned_on, ~bits[0][differ])
    assert len(a ^ b) == (a ^ b).hamming == differ.sum()
    assert a.n_on == bits[0].sum()
    assert repr(a).startswith(f"Code of {a.context[1]!r} in ")
    with pytest.raises(plm.PolytopeError, match=r"different sites can't be compared: L01\.pre and L02\.pre"):
        a ^ codes[0, 0, 2]


def test_the_differences_of_many(codes):
    n = min(len(codes[0]), len(codes[1]))
    found = codes[0, :n] ^ codes[1, :n]
    expected = (codes[0, :n].bits(1) != codes[1, :n].bits(1)).sum(1)
    np.testing.assert_array_equal(found.counts["L01.pre"], expected)
    assert found.to_frame()["L01.pre"].tolist() == expected.tolist()
    assert f"L01.pre: {expected.mean():.1f} of 96" in repr(found)
    with pytest.raises(plm.PolytopeError, match="row by row, and there are"):
        codes[0, :2] ^ codes[1, :3]
    with pytest.raises(plm.PolytopeError, match="different sites"):
        codes[0, :2, 0] ^ codes[1, :2, 1]


def test_selecting_rows(codes):
    bits = codes.bits(0)
    mask = (codes.tokens["pos"] == "FIRST").to_numpy(dtype=bool, na_value=False) & (
        codes.tokens["side"] == "b"
    ).to_numpy()
    assert 0 < mask.sum() < len(codes)
    for rows in (
        mask,
        np.flatnonzero(mask),
        list(np.flatnonzero(mask)),
        {"pos": "FIRST", "side": "b"},
        codes.tokens.index[mask],
    ):
        np.testing.assert_array_equal(codes.select(rows).bits(0), bits[mask])
    np.testing.assert_array_equal(codes.select(5).bits(0), bits[[5]])
    assert len(codes.select([])) == 0
    assert codes.select([7, 2, 7]).tokens["position"].tolist() == codes.tokens["position"].iloc[[7, 2, 7]].tolist()
    with pytest.raises(plm.PolytopeError, match="a mask of 3 for"):
        codes.select(np.ones(3, bool))
    with pytest.raises(plm.PolytopeError, match="no token -1: there are"):
        codes.select([-1])
    with pytest.raises(plm.PolytopeError, match="no label 'upos' here; there are document, position"):
        codes.select({"upos": "NOUN"})
    with pytest.raises(plm.PolytopeError, match="rows of type float64"):
        codes.select([0.5])


def test_distances_rates_and_neighbours_against_booleans(codes):
    bits = codes.bits(2)
    brute = (bits[:, None] != bits[None]).sum(-1)
    np.testing.assert_array_equal(
        codes.hamming({"side": "a"}, [0, 3], 2), brute[(codes.tokens["side"] == "a").to_numpy()][:, [0, 3]]
    )
    np.testing.assert_allclose(codes.rates(2), bits.mean(0))
    np.fill_diagonal(brute, 10**6)
    np.testing.assert_array_equal(codes.knn(3, 2).distances, np.sort(brute, axis=1)[:, :3])
    np.testing.assert_array_equal(codes.knn(3, 2, device="cpu").indices, codes.knn(3, 2).indices)
    np.testing.assert_array_equal(codes.to_numpy(2), bits)


def test_bits_that_separate(codes):
    found = codes.separating({"side": "a"}, {"side": "b"}, 1, by_document=False)
    bits, a = codes.bits(1), (codes.tokens["side"] == "a").to_numpy()
    np.testing.assert_allclose(found.rate_a, bits[a].mean(0))
    np.testing.assert_allclose(found.rate_b, bits[~a].mean(0))
    assert found.units == len(codes)
    row = int(found.examples_a[found.order[0]][0])
    assert found.contexts[int(found.order[0])][0][0] == codes.context(row)
    assert codes.separating({"side": "a"}, {"side": "b"}, 1).units == 4, "documents are the units"
    with pytest.raises(plm.PolytopeError, match="both groups"):
        codes.separating([0, 1], [1, 2], 1)


def test_several_sites_ask_for_a_layer(codes):
    with pytest.raises(
        plm.PolytopeError, match=r"codes of several sites here \(L00\.pre, L01\.pre, L02\.pre\): name one layer"
    ):
        codes.bits()
    assert codes[0, :, 1].bits().shape[1] == 96
    with pytest.raises(plm.PolytopeError, match="no activations 'z'; choose among x, u, h, up, post"):
        codes.select([0]).activations("z", 0)


def test_what_is_shown_is_inert(model, tmp_path):
    texts = ["<script>alert(1)</script> & \u202eevil\x1b[31m\x00", *SENTENCES]
    memory = plm.encode(model, [Document(str(i), t, {"<b>": "<i>"}) for i, t in enumerate(texts)])
    stored = plm.capture(model, texts, to=tmp_path / "s", keep=["h"])
    for codes in (memory, stored):
        shown = (
            codes._repr_html_()
            + codes.nearest(0, 3, 0)._repr_html_()
            + codes.separating([0, 1], [9, 12], 0)._repr_html_()
        )
        assert "<script" not in shown
        assert "<i>" not in shown
        assert "<b><" not in shown
        for text in (shown, repr(codes.nearest(2, 20, 0)), repr(codes), repr(codes[0, 0, 0])):
            assert not {"\x1b", "\x00", "\u202e"} & set(text)
    assert "5 tokens" in repr(memory.select(range(5)))


def test_frames_and_data_sets(codes):
    frame = codes.to_frame()
    frame["token"] = "x"
    assert codes.tokens["token"].iloc[0] != "x"
    data = codes.to_dataset()
    assert len(data) == len(codes)
    assert data[3]["token"] == codes.tokens["token"].iloc[3]
    np.testing.assert_array_equal(np.array(data["L01.pre"][:]), codes.packed(1))
    assert data.features["L01.pre"].length == 12


def test_iterating_gives_prompts_and_numpy_gives_booleans(model, sentences):
    codes = plm.encode(model, sentences, layers=[1])
    prompts = list(codes)
    assert len(prompts) == len(sentences)
    assert all(np.array_equal(p.bits(1), codes[i].bits(1)) for i, p in enumerate(prompts))
    array = np.asarray(codes)
    assert array.dtype == bool
    assert np.array_equal(array, codes.bits(1))
    assert np.asarray(codes, np.float32).dtype == np.float32
    code = codes[0, 0, 1]
    assert np.array_equal(np.asarray(code), code.bits)
    with pytest.raises(ValueError, match="always a copy"):
        np.array(code, copy=False)
    with pytest.raises(plm.PolytopeError, match="codes of several sites here"):
        np.asarray(plm.encode(model, sentences))


def test_codes_differ_from_codes_only(model, sentences):
    codes = plm.encode(model, sentences, layers=[1])
    for thing in (codes, codes[0, 0, 1]):
        with pytest.raises(TypeError, match="unsupported operand"):
            thing ^ 3


def test_a_code_can_be_sent_to_another_process(codes):
    code = codes[0, 0, 0]
    back = pickle.loads(pickle.dumps(code))
    assert (code ^ back).hamming == 0
    assert back.context == code.context
    assert back.activations.keys() == code.activations.keys()
    whole = pickle.loads(pickle.dumps(codes))
    assert whole.tokens.equals(codes.tokens)
    np.testing.assert_array_equal(whole.packed(0), codes.packed(0))


def test_codes_in_memory_are_saved_and_opened_to_the_same(model, tmp_path):
    spans = (Span(0, 2, {"pos": "X"}),)
    documents = [Document(f"d{i}", t, {"genre": "news"} if i else {}, spans) for i, t in enumerate(SENTENCES)]
    memory = plm.encode(model, documents, layers=[0, 2], keep=["h"], keep_dtype="float16")
    shuffled = memory.select(np.random.default_rng(0).permutation(len(memory))[:20])
    for number, codes in enumerate((memory, shuffled, memory.joined(), memory.select([]))):
        codes.save(tmp_path / f"{number}")
        store = plm.open_store(tmp_path / f"{number}")
        assert store.verify() == []
        assert store.complete
        assert len(store) == len(codes)
        if len(codes):
            pd.testing.assert_frame_equal(store.tokens, codes.tokens)
            assert (list(store.ids), list(store.texts)) == (list(codes.ids), list(codes.texts))
        assert store.sites == codes.sites
        for layer in codes.layers:
            np.testing.assert_array_equal(store.packed(layer), codes.packed(layer))
            np.testing.assert_array_equal(store.activations("h", layer), codes.activations("h", layer))
        with pytest.raises(plm.PolytopeError, match="holds a store"):
            codes.save(tmp_path / f"{number}")
    assert store.provenance["revision"] == memory.provenance["revision"]


def test_a_word_of_several_tokens_means_its_last_and_an_ambiguous_one_is_one_line(model):
    text = "Zyx sat by xylophones. A xylophone is no xylophone!"
    codes = plm.encode(model, [text], layers=[0])
    before, token, after = codes[0, "xylophones", 0].context
    assert (before + token).endswith("by xylophones")
    assert after.startswith(". A")
    assert codes[0, "Zyx", 0].context[2].startswith(" sat")
    with pytest.raises(plm.PolytopeError, match="xylophone' is 2 times in prompt 0, at positions") as error:
        codes[0, " xylophone", 0]
    assert "\n" not in str(error.value)
    with pytest.raises(plm.PolytopeError, match="no token 'ylophone' in prompt 0"):
        codes[0, "ylophone", 0]
