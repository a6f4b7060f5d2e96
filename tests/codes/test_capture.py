"""Codes against an independent plain forward hook; memory against disk; what capture keeps, recomputes and "
"refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import SENTENCES, randomised
from transformers import BertConfig, BertModel

import polytope_lm as plm
from polytope_lm.codes import plan
from polytope_lm.codes.plan import Cost
from polytope_lm.documents import Document, Span

MODULES = {
    "pre": ("transformer.h.1.mlp.c_fc",),
    "gate": ("model.layers.1.mlp.gate_proj",),
    "up": ("model.layers.1.mlp.up_proj",),
    "gate+up": ("model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"),
}
KEPT = {
    "pre": {
        "x": ("transformer.h.1.ln_2", 0),
        "u": ("transformer.h.1.mlp.c_fc", 0),
        "post": ("transformer.h.1.mlp.c_proj", 0),
    },
    "gate": {
        "x": ("model.layers.1.post_attention_layernorm", 0),
        "u": ("model.layers.1.mlp.gate_proj", 0),
        "up": ("model.layers.1.mlp.up_proj", 1),
        "post": ("model.layers.1.mlp.down_proj", 0),
    },
}
KEPT |= {"up": KEPT["gate"], "gate+up": KEPT["gate"]}
KINDS = list(MODULES)


def plainly(model, texts: list[str], path: str, side: int) -> np.ndarray:
    """A module's input or output at every token, text by text, by a plain hook and a whole forward pass."""
    rows = []
    handle = model.hf.get_submodule(path).register_forward_hook(
        lambda _m, args, out: rows.append((args[0], out)[side][0])
    )
    with torch.no_grad():
        for text in texts:
            model.hf(torch.tensor([model.tokenizer(text)["input_ids"]]))
    handle.remove()
    return torch.cat(rows).numpy()


@pytest.fixture(params=KINDS)
def case(request, model, gated):
    return request.param, model if request.param == "pre" else gated


def sure(h: np.ndarray) -> np.ndarray:
    """Where another batch shape can't flip a bit."""
    return np.abs(h) > 1e-4


def test_codes_equal_a_plain_hook(case):
    kind, model = case
    keep = ["h", *KEPT[kind]]
    codes = plm.encode(model, SENTENCES, layers=[1], kind=kind, keep=keep)
    h = np.concatenate([plainly(model, SENTENCES, path, 1) for path in MODULES[kind]], axis=1)
    assert codes.bits(1).shape == h.shape
    assert codes.packed(1).shape[1] == -(-h.shape[1] // 8)
    assert sure(h).mean() > 0.99
    np.testing.assert_array_equal(codes.bits(1)[sure(h)], (h > 0)[sure(h)])
    np.testing.assert_array_equal(codes.bits(1), codes.activations("h", 1) > 0)
    np.testing.assert_allclose(codes.activations("h", 1), h, atol=1e-5)
    for name, (path, side) in KEPT[kind].items():
        np.testing.assert_allclose(codes.activations(name, 1), plainly(model, SENTENCES, path, side), atol=1e-5)


def test_codes_equal_a_plain_hook_to_the_bit_in_the_same_batch(model):
    text = SENTENCES[0]
    codes = plm.encode(model, text, keep=["h"])
    np.testing.assert_array_equal(codes.activations("h", 1), plainly(model, [text], *MODULES["pre"], 1))


def test_sparse_and_dense_samples_give_the_same_rows(case):
    kind, model = case
    every = plm.encode(model, SENTENCES, kind=kind, keep=["h"])
    for rule in ("every:2", "random:3", "word-final"):
        some = plm.encode(model, SENTENCES, kind=kind, tokens=rule, keep=["h"])
        where = every.tokens.reset_index().merge(some.tokens, on=["document", "position"])["index"].to_numpy()
        assert 0 < len(some) == len(where) < len(every)
        for layer in some.layers:
            np.testing.assert_array_equal(some.packed(layer), every.packed(layer)[where])
            np.testing.assert_array_equal(some.activations("h", layer), every.activations("h", layer)[where])


def test_memory_and_disk_agree(case, tmp_path):
    kind, model = case
    spans = (Span(0, 2, {"pos": "PRON"}), Span(3, 6, {"pos": "VERB", "tense": "past"}))
    documents = [
        Document("a", SENTENCES[0], {"genre": "tale"}, spans),
        Document("b", SENTENCES[1]),
        Document("c", "x y"),
    ]
    ways = {"kind": kind, "keep": ["h", "u"]}
    memory = plm.encode(model, documents, **ways)
    stored = plm.capture(model, documents, to=tmp_path / "store", shard_documents=len(documents), **ways)
    for codes in (stored, plm.open_store(tmp_path / "store")):
        assert codes.tokens.equals(memory.tokens)
        assert codes.sites == memory.sites
        assert (codes.ids, codes.texts, codes.kept) == (["a", "b", "c"], memory.texts, memory.kept)
        assert {k: v for k, v in codes.provenance.items() if k in memory.provenance} == memory.provenance
        for layer in memory.layers:
            np.testing.assert_array_equal(codes.packed(layer), memory.packed(layer))
            np.testing.assert_array_equal(codes.activations("u", layer), memory.activations("u", layer))
            np.testing.assert_array_equal(codes.rates(layer), memory.bits(layer).mean(0))
    table = memory.tokens
    assert (table["genre"] == "tale").sum() == (table["document"] == 0).sum()
    assert table.loc[table["pos"] == "PRON", "token"].tolist() == ["He"]


def test_half_precision_is_kept_when_asked(model, tmp_path):
    store = plm.capture(
        model, SENTENCES, to=tmp_path / "s", keep="h", keep_dtype="float16", layers=1, shard_documents=3
    )
    h = store.activations("h", 1)
    assert h.dtype == np.float32
    np.testing.assert_array_equal(h, h.astype(np.float16))
    np.testing.assert_array_equal(store.bits(1)[np.abs(h) > 1e-3], (h > 0)[np.abs(h) > 1e-3])
    assert store.code(5).activations["h"].tolist() == h[5].tolist()


@pytest.mark.parametrize("name", ["h", "u", "x", "post"])
@pytest.mark.parametrize("rule", ["all", "word-final", "random:4"])
def test_what_was_not_kept_is_read_again_from_the_model(model, tmp_path, name, rule):
    # words that white space does not show: the store has no spans to choose them by
    spans = tuple(Span(i, i + 1, {"pos": "X"}) for i in (1, 4, 9))
    documents = [Document(str(i), text * 4, spans=spans) for i, text in enumerate(SENTENCES)]
    ways = {"tokens": rule, "layers": [1], "shard_documents": 3}
    kept = plm.capture(model, documents, to=tmp_path / "kept", keep=[name], **ways)
    store = plm.capture(model, documents, to=tmp_path / "bare", **ways)
    assert store.can_give(name)
    np.testing.assert_array_equal(store.activations(name, 1), kept.activations(name, 1))
    assert store.nearest(0, 3).by_direction is not None
    opened = plm.open_store(tmp_path / "bare")
    assert not opened.can_give(name)
    with pytest.raises(
        plm.PolytopeError, match=rf"not kept \(kept: none\); capture again with keep=\['{name}'\] \(--keep {name}\)"
    ):
        opened.activations(name, 1)
    assert opened.nearest(0, 3).by_direction is None
    assert "--keep h" in opened.nearest(0, 3).note


def test_long_documents_and_special_tokens(model, tokenizer):
    text = " ".join(SENTENCES * 3)
    codes = plm.encode(model, text, bos=True, layers=[2])
    ids = tokenizer(text)["input_ids"]
    assert codes.tokens["token_id"].tolist() == ids
    assert codes.tokens["position"].tolist() == list(range(len(ids)))
    assert len(ids) > model.context_length
    assert "".join(codes.tokens["token"]) == text


def test_an_encoder_reads_padded_batches_as_single_ones(tokenizer):
    config = BertConfig(
        hidden_size=24,
        intermediate_size=44,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=400,
        max_position_embeddings=64,
    )
    model = plm.wrap(randomised(BertModel(config)), tokenizer, name="bert")
    together = plm.encode(model, SENTENCES, layers=[1])
    h = plainly(model, SENTENCES, "encoder.layer.1.intermediate.dense", 1)
    np.testing.assert_array_equal(together.bits(1)[sure(h)], (h > 0)[sure(h)])


@pytest.mark.parametrize("rule", ["all", "random:1"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_one_line_with_their_place(gpt2, tokenizer, tmp_path, value, rule):
    hf = gpt2()
    token = tokenizer(" duck")["input_ids"][-1]
    hf.transformer.wte.weight.data[token] = value
    model = plm.wrap(hf, tokenizer, name="broken")
    texts = [SENTENCES[0], tokenizer.decode([token])]
    for run in (plm.encode, lambda *a, **o: plm.capture(*a, to=tmp_path / "store", **o)):
        with pytest.raises(
            plm.PolytopeError, match=rf"L01\.pre, document 1, token 0 \({token}\), neuron 0: pre-activation"
        ) as error:
            run(model, texts, layers=[1], tokens=rule)
        assert "\n" not in str(error.value)


def test_what_is_not_stored_may_be_infinite(gpt2, tokenizer, monkeypatch):
    """Half-precision models overflow at their first token: a special one is no reason to refuse the "
    "others."""
    hf = gpt2()
    model = plm.wrap(hf, tokenizer, name="hot")
    sound = plm.encode(model, SENTENCES, layers=[0], bos=True)
    c_fc = hf.transformer.h[0].mlp.c_fc
    own = c_fc.forward
    monkeypatch.setattr(c_fc, "forward", lambda x: own(x.index_fill(1, torch.tensor([0]), torch.inf)))
    hot = plm.encode(model, SENTENCES, layers=[0], bos=True)
    np.testing.assert_array_equal(hot.packed(0), sound.packed(0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": [3]}, "no layer 3; it has 3, from 0 to 2"),
        ({"layers": [1, 1]}, "each layer once"),
        ({"layers": []}, "no layers"),
        ({"layers": "some"}, "give 'all' or a list"),
        ({"kind": "gate"}, "no code kind 'gate'; choose among pre"),
        ({"keep": ["up"]}, "can't keep 'up' at L00.pre; choose among x, u, h, post"),
        ({"keep": "everything"}, "can't keep"),
        ({"keep": ["h"], "keep_dtype": "int8"}, "choose float32 or float16"),
        ({"tokens": "some"}, "no sample rule"),
        ({"layers": None}, "layers None: give 'all'"),
        ({"batch_tokens": 0}, "at least 1"),
        ({"max_length": 0}, "at least 1"),
        ({"min_context": 99}, "min_context=99 leaves no room"),
    ],
)
def test_impossible_options_are_one_line(model, tmp_path, options, said):
    for run in (plm.encode, lambda *a, **o: plm.capture(*a, to=tmp_path / "store", **o)):
        with pytest.raises(plm.PolytopeError, match=said) as error:
            run(model, SENTENCES, **options)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "store").exists()


def test_impossible_texts_are_one_line(model, gpt2, tmp_path):
    for texts, said in [
        ([], "no texts"),
        (["a", ""], "text 1 is empty"),
        ([1], "item 0 .*int"),
        (5, "type int"),
        (None, "NoneType"),
        (["\ud800"], "lone surrogate"),
    ]:
        with pytest.raises(plm.PolytopeError, match=said):
            plm.encode(model, texts)
    with pytest.raises(plm.PolytopeError, match="no tokenizer"):
        plm.encode(plm.wrap(gpt2()), "x")
    for part in [(0, 1), (2, 1)]:
        with pytest.raises(plm.PolytopeError, match="i from 1 to n"):
            plm.capture(model, ["x"], to=tmp_path / "s", part=part)
    with pytest.raises(plm.PolytopeError, match="label 'token' has the name of a column"):
        plm.capture(model, [Document("a", "text", {"token": "x"})], to=tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(plm.PolytopeError, match="label 'start' has the name of a column"):
        plm.encode(model, [Document("a", "text", {}, (Span(0, 2, {"start": "x"}),))])


def test_cost_is_told_first_and_only_when_asked(model, tmp_path, capfd):
    plm.capture(model, SENTENCES, to=tmp_path / "quiet")
    assert capfd.readouterr().err == ""
    store = plm.capture(model, SENTENCES, to=tmp_path / "told", progress=True)
    said = capfd.readouterr().err
    assert said.startswith("capture: 4 documents, about ")
    assert f"{len(store)} to store" in said.replace("\n", " ")


def test_cost_in_words():
    assert str(Cost(1, 9, 1, 1, 4.12e-6, 0.001, 1.0)) == (
        "1 document, about 1 token to read, 1 to store, 4.1 kB, under a minute on this machine"
    )
    assert "2 documents, about 1,500 tokens" in (large := str(Cost(2, 9, 1500, 1, 3.25, 61.2, 750.0)))
    assert large.endswith("3.2 GB, 61 minutes on this machine")
    assert str(Cost(2, 9, 1500, 1, 0.0125, 150, 750.0)).endswith("12.5 MB, 2.5 hours on this machine")
    assert "1 minute on" in str(Cost(2, 9, 1500, 1, 1e-9, 1.2, 750.0))


def test_documents_that_give_no_token_are_said(model, tmp_path, caplog):
    texts = ["short", *SENTENCES[:2]]
    said = "1 of 3 documents is too short for every:3,skip:10 and gives no token"
    plm.encode(model, texts, tokens="every:3,skip:10")
    assert said in caplog.text
    caplog.clear()
    plm.capture(model, texts, to=tmp_path / "s", tokens="every:3,skip:10", shard_documents=1)
    assert said in caplog.text
    caplog.clear()
    plm.capture(model, SENTENCES, to=tmp_path / "all")
    assert not caplog.records


def test_a_rule_that_stores_nothing_is_refused(model, tmp_path, monkeypatch):
    texts = [*SENTENCES, "a", "b"]
    said = "no token is stored: 6 of 6 documents are too short for every:6,skip:100 .* use tokens 'all' or"
    with pytest.raises(plm.PolytopeError, match=said):
        plm.encode(model, texts, tokens="every:6,skip:100")
    with pytest.raises(plm.PolytopeError, match=said):
        plm.capture(model, texts, to=tmp_path / "s", tokens="every:6,skip:100")
    assert not (tmp_path / "s").exists()
    monkeypatch.setattr(plan, "SAMPLE", 2)  # more documents than the estimate reads
    with pytest.raises(plm.PolytopeError, match=said):
        plm.capture(model, texts, to=tmp_path / "s", tokens="every:6,skip:100")
    assert plm.open_store(tmp_path / "s").verify() == []


def test_another_models_tokenizer_is_one_line(gpt2, tokenizer, tmp_path):
    model = plm.wrap(gpt2(vocab_size=100), tokenizer, name="few")
    with pytest.raises(plm.PolytopeError, match=r"few: the tokenizer gives token \d+ and the model has 100"):
        plm.encode(model, SENTENCES)
    with pytest.raises(plm.PolytopeError, match="the model has 100 embeddings"):
        plm.capture(model, SENTENCES, to=tmp_path / "s")


def test_values_beyond_float16_are_refused_with_value_site_and_token(gpt2, tokenizer, tmp_path):
    large = gpt2()
    with torch.no_grad():
        large.transformer.h[1].mlp.c_fc.bias[7] = -70_000.0
    model = plm.wrap(large, tokenizer, name="large")
    ways = {"layers": [1], "keep": ["h"]}
    said = r"L01\.pre\.h, document \d, token \d+ \(\d+\), neuron 7: -(69,99|70,00)\d.* is beyond float16"
    with pytest.raises(plm.PolytopeError, match=said) as error:
        plm.capture(model, SENTENCES, to=tmp_path / "s", keep_dtype="float16", **ways)
    assert "\n" not in str(error.value)
    with pytest.raises(plm.PolytopeError, match=said):
        plm.encode(model, SENTENCES, keep_dtype="float16", **ways)
    assert np.isfinite(plm.encode(model, SENTENCES, **ways).activations("h", 1)).all()
    with torch.no_grad():
        large.transformer.h[1].mlp.c_fc.bias[7] = 1_000.0
    fits = plm.encode(plm.wrap(large, tokenizer), SENTENCES, keep_dtype="float16", **ways)
    assert np.isfinite(fits.activations("h", 1)).all()
