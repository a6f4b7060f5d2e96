"""One model at a time, in eval mode, and nobody else's hooks: what every pass is run in."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers as tf
from small import SENTENCES, randomised

import polytope_lm as plm
from polytope_lm.models.hooks import read
from polytope_lm.models.logits import logits_at, next_token_logits

A, B = "He sat on the bank", "She owes the bank"
IDS = torch.tensor([[5, 9, 100, 7]])
SMALL = {
    "vocab_size": 400, "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def test_eight_threads_read_what_one_reads(gpt2, tokenizer):
    """Two wraps of one module share their lock; so does a wrap of its trunk alone."""
    hf = gpt2()
    models = [plm.wrap(hf, tokenizer), plm.wrap(hf, tokenizer), plm.wrap(hf.transformer, tokenizer)]
    texts = [f"{SENTENCES[i % 4]} {i} {'x' * (i % 7)}" for i in range(50)]
    alone = [plm.encode(models[0], [text]).packed(1) for text in texts]
    ready = threading.Barrier(8)

    def all_of(number: int) -> int:
        ready.wait()
        found = (plm.encode(models[number % 3], [text]).packed(1) for text in texts)
        return sum(not np.array_equal(a, b) for a, b in zip(alone, found, strict=True))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(all_of, range(8))) == [0] * 8


def test_reading_beside_a_path_through_the_later_layers(model):
    path = plm.path(model, A, B, layer=0)
    crossings, bits = path.crossings(downstream=True), plm.encode(model, SENTENCES).packed(2)
    with ThreadPoolExecutor(3) as pool:
        paths = [pool.submit(path.crossings, downstream=True) for _ in range(2)]
        while not all(one.done() for one in paths):
            np.testing.assert_array_equal(plm.encode(model, SENTENCES).packed(2), bits)
        for one in paths:
            np.testing.assert_array_equal(one.result().to_frame(), crossings.to_frame())


def passes(model):
    path = plm.path(model, A, B, layer=0)
    rows, columns = torch.tensor([0]), torch.tensor([3])
    return {
        "encode": lambda: plm.encode(model, [A]),
        "path": lambda: path.crossings(downstream=True),
        "logits": lambda: logits_at(model, IDS, rows, columns),
        "lens": lambda: next_token_logits(model, np.ones((2, model.d_model), np.float32)),
    }


@pytest.mark.parametrize("which", ["encode", "path", "logits", "lens"])
def test_a_model_in_training_is_read_in_eval_mode_and_left_as_it_was(gpt2, tokenizer, which):
    hf = gpt2()
    codes = plm.encode(plm.wrap(hf, tokenizer), SENTENCES).packed(2)
    hf.train()
    hf.transformer.h[1].eval()  # a user may freeze one block's dropout
    flags = [module.training for module in hf.modules()]
    model = plm.wrap(hf, tokenizer)
    assert [module.training for module in hf.modules()] == flags
    np.testing.assert_array_equal(plm.encode(model, SENTENCES).packed(2), codes)
    passes(model)[which]()
    assert [module.training for module in hf.modules()] == flags
    with torch.no_grad():
        hf.transformer.h[2].mlp.c_fc.weight[:] = torch.nan
    with pytest.raises(plm.PolytopeError):
        plm.encode(model, SENTENCES)
    assert [module.training for module in hf.modules()] == flags


@pytest.mark.parametrize("which", ["encode", "path", "logits", "lens"])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_of_others_are_refused(gpt2, tokenizer, which, kind):
    hf = gpt2()
    run = passes(plm.wrap(hf, tokenizer))[which]
    run()

    def mine(_module, *values):
        return None

    handle = getattr(hf.transformer.h[1].mlp, kind)(mine)
    with pytest.raises(plm.PolytopeError, match=r"mine, sits on transformer\.h\.1\.mlp .*remove\(\)") as error:
        run()
    assert "\n" not in str(error.value)
    with pytest.raises(plm.PolytopeError, match=r"transformer\.h\.1\.mlp"):
        plm.wrap(hf, tokenizer)
    handle.remove()
    run()


@pytest.mark.parametrize("which", ["encode", "path", "logits", "lens"])
@pytest.mark.parametrize("kind", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_hooks_on_all_modules_are_refused(gpt2, tokenizer, which, kind):
    run = passes(plm.wrap(gpt2(), tokenizer))[which]

    def mine(_module, *values):
        return None

    handle = getattr(torch.nn.modules.module, kind)(mine)
    try:
        with pytest.raises(plm.PolytopeError, match=r"mine, sits on all modules .*remove\(\)"):
            run()
    finally:
        handle.remove()
    run()


def test_hooks_of_transformers_are_the_models_own(gpt2, tokenizer):
    """They record hidden states where asked for, and stay."""
    hf = gpt2()
    hf(IDS, output_hidden_states=True)
    plm.encode(plm.wrap(hf, tokenizer), [A])


def test_what_a_user_adds_to_a_bridge_is_refused(model):
    pytest.importorskip("transformer_lens")
    bridge = model.bridge
    mine = plm.wrap(bridge, model.tokenizer, name="bridge")
    plm.encode(mine, [A])
    bridge.blocks[1].hook_in.add_hook(lambda value, hook: value)  # noqa: ARG005
    with pytest.raises(plm.PolytopeError, match=r"reset_hooks\(\)"):
        plm.encode(mine, [A])
    bridge.reset_hooks()
    plm.encode(mine, [A])


def test_return_dict_of_the_configuration_is_not_minded(gpt2, tokenizer):
    hf = gpt2()
    model = plm.wrap(hf, tokenizer)
    expected = plm.path(model, A, B, layer=0).crossings(downstream=True).to_frame()
    hf.config.return_dict = False
    found = plm.path(plm.wrap(hf, tokenizer), A, B, layer=0).crossings(downstream=True).to_frame()
    np.testing.assert_array_equal(found, expected)
    assert hf.config.return_dict is False


def test_pads_beyond_the_embeddings_are_masked(llama, tokenizer):
    hf = llama()
    model = plm.wrap(hf, tokenizer)
    ids = torch.tensor([[3, 4, 5], [6, 10**6, 10**6]])
    got = []
    read(model, ids, (ids < 400).long(), {(1, "h"): lambda v: got.append(v.clone())})
    read(model, ids[1:, :1], None, {(1, "h"): lambda v: got.append(v.clone())})
    torch.testing.assert_close(got[0][1, :1], got[1][0])


def test_nan_in_a_later_layer_changes_nothing_before_it(tokenizer):
    for hf, path in [
        (tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL)), "model.layers.1.mlp.down_proj"),
        (tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL)), "model.layers.1.self_attn.o_proj"),
    ]:
        sound = plm.wrap(randomised(hf), tokenizer)
        bits = plm.encode(sound, SENTENCES, layers=[0]).packed(0)
        with torch.no_grad():
            hf.get_submodule(path).weight[:] = torch.nan
        broken = plm.wrap(hf, tokenizer)
        assert broken.causal
        assert [site.post_norm for site in broken.sites] == [False, False]
        np.testing.assert_array_equal(plm.encode(broken, SENTENCES, layers=[0]).packed(0), bits)
        broken.geometry(broken.site(0))
        with pytest.raises(plm.PolytopeError, match="layer 1: NaN"):
            broken.geometry(broken.site(1))
    bert = tf.BertModel(tf.BertConfig(**SMALL))
    randomised(bert).encoder.layer[1].output.dense.weight.data[:] = torch.nan
    assert not plm.wrap(bert, tokenizer).causal
    with torch.no_grad():
        hf.model.embed_tokens.weight[:] = torch.nan
    with pytest.raises(plm.PolytopeError, match=r"embed_tokens\.weight are NaN or infinite, first at \[0, 0\]"):
        plm.wrap(hf, tokenizer, name="broken")


class Lora(torch.nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        n, d = base.weight.shape
        self.a, self.b = torch.nn.Linear(d, 2, bias=False), torch.nn.Linear(2, n, bias=False)

    weight = property(lambda self: self.base_layer.weight)
    bias = property(lambda self: self.base_layer.bias)

    def forward(self, x):
        return self.base_layer(x) + self.b(self.a(x))


class Quantised(torch.nn.Module):
    """Eight bits a weight, in a shape of its own, as quantised linear maps keep them."""

    def __init__(self, base):
        super().__init__()
        self.scale = base.weight.abs().max() / 127
        self.weight = torch.nn.Parameter((base.weight / self.scale).round().to(torch.int8).reshape(-1, 1), False)
        self.shape = base.weight.shape

    def forward(self, x):
        return x @ (self.weight.float() * self.scale).reshape(self.shape).T


@pytest.mark.parametrize("kind", [Lora, Quantised])
def test_weights_that_are_not_what_is_computed_have_codes_and_no_closed_form(kind, tokenizer):
    hf = randomised(tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL)))
    hf.model.layers[1].mlp.gate_proj = kind(hf.model.layers[1].mlp.gate_proj)
    model = plm.wrap(hf, tokenizer, name="adapted")
    seen = []
    handle = hf.model.layers[1].mlp.gate_proj.register_forward_hook(lambda _m, _a, out: seen.append(out[0]))
    with torch.no_grad():
        hf(torch.tensor([tokenizer(A)["input_ids"]]))
    handle.remove()
    codes = plm.encode(model, [A], keep=["h"])
    np.testing.assert_array_equal(codes.activations("h", 1), seen[0].numpy())
    assert (model.site(1).width, model.site(1).d_model) == (44, 24)
    model.geometry(model.site(0))
    for refused in (
        lambda: model.geometry(model.site(1)),
        lambda: plm.path(model, A, B, layer=1, at="mlp_in").crossings(),
    ):
        with pytest.raises(plm.PolytopeError, match=r"layer 1: .*of gate .*merge_and_unload\(\)") as error:
            refused()
        assert "\n" not in str(error.value)
