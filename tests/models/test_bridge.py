"""A TransformerBridge gives the codes of the plain trunk; one with processed weights is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small import SENTENCES
from transformer_lens import TransformerBridge
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

import polytope_lm as plm
from polytope_lm.codes.capture import with_model
from polytope_lm.models.hooks import read
from polytope_lm.paths.ends import end


def bridged(hf, tokenizer=None):
    duplicate = copy.deepcopy(hf)
    bridge = build_bridge_from_module(duplicate, type(hf).__name__, hf_config=duplicate.config)
    bridge.tokenizer = tokenizer
    return bridge


def test_a_bridge_gives_the_codes_of_the_plain_trunk(model, gated, tokenizer):
    for plain, kind in ((model, None), (gated, None), (gated, "gate+up")):
        lens = plm.wrap(bridged(plain.hf, tokenizer), name="lens")
        assert lens.sites == plain.sites
        assert (lens.causal, lens.context_length, lens.attention) == (True, 64, "bridge")
        expected = plm.encode(plain, SENTENCES, kind=kind)
        codes = plm.encode(lens, SENTENCES, kind=kind)
        assert codes.tokens.equals(expected.tokens)
        for layer in expected.layers:
            sure = np.abs(expected.activations("h", layer)) > 1e-4
            assert sure.mean() > 0.99
            np.testing.assert_array_equal(codes.bits(layer)[sure], expected.bits(layer)[sure])
            np.testing.assert_allclose(lens.geometry(lens.site(layer)).weight, plain.geometry(plain.site(layer)).weight)


def test_its_hook_points_are_our_taps(model):
    bridge = bridged(model.hf)
    lens = plm.wrap(bridge)
    names = {
        "hook_resid_mid": "x",
        "ln2.hook_out": "u",
        "mlp.hook_pre": "h",
        "mlp.hook_post": "post",
        "hook_resid_pre": "resid_pre",
    }
    ids = torch.arange(20).reshape(2, 10)
    theirs, ours = {}, {}
    hooks = [(f"blocks.1.{n}", lambda v, hook, n=n: theirs.__setitem__(n, v.clone())) for n in names]  # noqa: ARG005
    with torch.no_grad():
        bridge.run_with_hooks(ids, return_type=None, fwd_hooks=hooks)
    for plain, tolerance in ((lens, 0), (model, 1e-5)):
        read(plain, ids, None, {(1, p): (lambda v, p=p: ours.__setitem__(p, v.clone())) for p in names.values()})
        for name, point in names.items():
            np.testing.assert_allclose(ours[point], theirs[name], atol=tolerance, err_msg=name)


@pytest.mark.parametrize("process", ["enable_compatibility_mode", "process_weights"])
def test_processed_weights_are_refused_with_the_cure(model, process):
    bridge = bridged(model.hf)
    getattr(bridge, process)()
    with pytest.raises(plm.PolytopeError, match=r"folded norms or is in compatibility mode.*boot a fresh one") as error:
        plm.wrap(bridge)
    assert "\n" not in str(error.value)


def test_a_native_relu_model_meets_the_premises(tokenizer):
    config = TransformerBridgeConfig(
        d_model=24, d_head=12, n_layers=2, n_ctx=32, n_heads=2, d_mlp=44, d_vocab=400, act_fn="relu", seed=0
    )
    model = plm.wrap(TransformerBridge.boot_native(config), tokenizer, name="native")
    assert (model.context_length, model.n_layers, model.causal) == (32, 2, True)
    assert model.site(1).premises.met
    codes = plm.encode(model, SENTENCES, keep=["x", "u", "h", "post"])
    geometry = model.geometry(model.site(1))
    h = codes.activations("u", 1) @ geometry.weight.T + geometry.bias
    np.testing.assert_allclose(codes.activations("h", 1), h, atol=1e-5)
    np.testing.assert_array_equal(codes.bits(1), codes.activations("post", 1) > 0)
    with pytest.raises(plm.PolytopeError, match="no tokenizer"):
        plm.encode(plm.wrap(TransformerBridge.boot_native(config)), "x")


def test_building_a_bridge_leaves_the_model_as_it_was(gpt2, tokenizer):
    model = plm.wrap(gpt2(), tokenizer, name="plain")
    before, modules = plm.encode(model, SENTENCES), {n: type(m) for n, m in model.hf.named_modules()}
    assert model.bridge is model.bridge
    assert "blocks.2.mlp.hook_pre" in model.bridge.hook_dict
    assert {n: type(m) for n, m in model.hf.named_modules()} == modules
    assert model.attention == "sdpa"
    np.testing.assert_array_equal(plm.encode(model, SENTENCES).packed(2), before.packed(2))


@pytest.mark.parametrize("default", [True, False])
def test_a_booted_bridge_reads_bos_as_run_with_cache_does(model, tokenizer, tmp_path, default):
    model.hf.save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    booted = TransformerBridge.boot_transformers(str(tmp_path / "small"))
    assert booted.cfg.default_prepend_bos
    booted.cfg.default_prepend_bos = default
    lens = plm.wrap(booted)
    for text in SENTENCES:
        codes = plm.encode(lens, text)
        assert codes.provenance["bos"] is default
        tokens, (_, cache) = booted.to_tokens(text)[0], booted.run_with_cache(text)
        assert (int(tokens[0]) == tokenizer.bos_token_id) is default
        assert codes.tokens["token_id"].tolist() == tokens[int(default) :].tolist()
        for layer in codes.layers:
            h = cache[f"blocks.{layer}.mlp.hook_pre"][0, int(default) :].numpy()
            sure = np.abs(h) > 1e-4
            assert sure.mean() > 0.99
            np.testing.assert_array_equal(codes.bits(layer)[sure], (h > 0)[sure])
    assert (end(lens, SENTENCES[0], "A", -1).ids[0] == tokenizer.bos_token_id) == default
    for bos in (None, True, False):
        store = plm.capture(lens, SENTENCES, to=tmp_path / f"store-{bos}", bos=bos)
        assert store.provenance["bos"] is (default if bos is None else bos)
        again = with_model(plm.open_store(store.path), lens).activations("u", 1)
        kept = plm.encode(lens, SENTENCES, bos=bos, keep="u").activations("u", 1)
        np.testing.assert_allclose(again, kept, atol=1e-5)
