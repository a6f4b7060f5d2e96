"""Sites that a user declares at any hook point."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import SENTENCES, randomised
from transformers import BertConfig, BertModel

import polytope_lm as plm
from polytope_lm.models.sites import Premises, Site

RNG = np.random.default_rng(0)
W, B = RNG.standard_normal((13, 24)).astype(np.float32), RNG.standard_normal(13).astype(np.float32)


def by_bridge(model, hook: str) -> np.ndarray:
    rows = []
    with torch.no_grad():
        for text in SENTENCES:
            ids = torch.tensor([model.tokenizer(text)["input_ids"]])
            model.bridge.run_with_hooks(
                ids,
                return_type=None,
                fwd_hooks=[(hook, lambda v, hook: rows.append(v[0].clone()))],  # noqa: ARG005
            )
    return torch.cat(rows).numpy()


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.1.hook_resid_mid",
        "blocks.1.ln2.hook_out",
        "blocks.1.hook_resid_post",
        "blocks.2.hook_mlp_out",
        "blocks.0.hook_resid_pre",
    ],
)
def test_codes_of_a_declared_site(model, tmp_path, hook):
    mine = model.with_site(hook, W, B)
    h = by_bridge(model, hook) @ W.T + B
    codes = plm.encode(mine, SENTENCES, kind=hook)
    store = plm.capture(mine, SENTENCES, to=tmp_path / "s", kind=hook, shard_documents=3)
    layer = int(hook.split(".")[1])
    for found in (codes, store, plm.open_store(tmp_path / "s")):
        assert found.layers == (layer,)
        assert found.site(kind=hook).premises == Premises("unknown", "none", biased=True, norm="none")
        assert found.bits(layer).shape == h.shape
        sure = np.abs(h) > 1e-4
        np.testing.assert_array_equal(found.bits(layer)[sure], (h > 0)[sure])
    assert store.verify() == []
    np.testing.assert_allclose(codes.activations("h"), h, atol=1e-4)
    np.testing.assert_allclose(store.activations("h"), codes.activations("h"), atol=1e-4)
    assert store.nearest(0, 2).by_direction is not None
    assert mine.sites[-1].key == f"custom.{hook}"
    np.testing.assert_array_equal(mine.geometry(mine.site(layer, hook)).weight, W)


def test_a_store_belongs_to_the_declared_numbers(model, tmp_path):
    hook = "blocks.1.ln2.hook_out"
    plm.capture(model.with_site(hook, W, B), SENTENCES, to=tmp_path / "s", kind=hook)
    for other in (model.with_site(hook, 2 * W, B), model.with_site(hook, W, -B)):
        with pytest.raises(plm.PolytopeError, match=r"was written with declared\.custom"):
            plm.capture(other, SENTENCES, to=tmp_path / "s", kind=hook)


def test_what_cannot_be_declared_is_one_line(model, tokenizer):
    for hook, weight, bias, said in [
        ("hook_embed", W, B, "expected TransformerLens's name"),
        ("blocks.9.hook_resid_mid", W, B, "no layer 9"),
        ("blocks.1.hook_nothing", W, B, r"has no hook point 'blocks\.1\.hook_nothing'"),
        ("blocks.1.ln2.hook_out", W[0], B, r"shape \(24,\)"),
        ("blocks.1.ln2.hook_out", W, B[:3], r"bias has shape \(3,\), expected \[13\]"),
        ("blocks.1.ln2.hook_out", W[:, :5], B, "takes 5 values, the activation there has 24"),
        ("blocks.1.ln2.hook_out", np.where(W > 1, np.nan, W), B, "of 312 values of weight are NaN or infinite"),
        ("blocks.1.ln2.hook_out", W, np.full(13, np.inf), "13 of 13 values of bias are NaN or infinite"),
        ("blocks.1.ln2.hook_out", "W", B, "weight of type str is no array of numbers"),
        ("blocks.1.mlp.hook_post", W, B, "takes 24 values, the activation there has 96"),
        ("blocks.1.attn.hook_z", W[:, :5], B, "takes 5 values, the activation there has 24"),
        ("blocks.1.hook_resid_mid", W.T, None, r"takes 13 values, the activation there has 24; it is turned round"),
    ]:
        with pytest.raises(plm.PolytopeError, match=said) as error:
            model.with_site(hook, weight, bias)
        assert "\n" not in str(error.value)
    mine = model.with_site("blocks.1.ln2.hook_out", W)
    assert not mine.sites[-1].premises.biased
    with pytest.raises(plm.PolytopeError, match="has a declared site already"):
        mine.with_site("blocks.1.ln2.hook_out", W, B)
    with pytest.raises(plm.PolytopeError, match="can't keep 'u' at custom"):
        plm.encode(mine, "x", kind="blocks.1.ln2.hook_out", keep=["u"])
    config = BertConfig(
        hidden_size=24, intermediate_size=44, num_hidden_layers=1, num_attention_heads=2, vocab_size=400
    )
    bert = plm.wrap(randomised(BertModel(config)), tokenizer, name="bert")
    with pytest.raises(plm.PolytopeError, match="need a causal model"):
        bert.with_site("blocks.0.hook_resid_post", W, B)


def test_names_of_declared_sites_are_files_and_collide_with_none():
    premises = Premises("unknown", "none", biased=False, norm="none")
    hooks = [
        "blocks.1.a_b",
        "blocks.1.a.b",
        "blocks.1.a/b",
        "blocks.1.a%2Fb",
        "../../x",
        "blocks.1.é",
        "blocks.1.a b",
        "CON:1\x00",
    ]
    keys = [Site(1, "custom", hook, 3, 4, premises).key for hook in hooks]
    assert len(set(keys)) == len(keys)
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-~%") for key in keys)
    site = Site(1, "custom", hooks[0], 3, 4, premises)
    assert Site.from_dict(site.to_dict()) == site
