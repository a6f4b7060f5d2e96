"""Paths on small models: against plain hooks, dense grids of the model's own forward, and clean runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf
from small import randomised

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models.interventions import run_patched, run_replaced
from polytope_lm.paths import trace as downstream
from polytope_lm.paths.crossings import Crossings
from polytope_lm.paths.ends import activations
from polytope_lm.paths.trace import Trace, js_distances

A, B = "He sat on the bank", "She owes a lot of money"
SMALL = {
    "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 2,
    "vocab_size": 400,
    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
OPT = {k: v for k, v in SMALL.items() if k != "intermediate_size"} | {"ffn_dim": 44, "word_embed_proj_dim": 24}
BLOOM = {"n_layer": 3, "hidden_size": 24, "n_head": 2, "vocab_size": 400}
CAUSAL = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(n_layer=3, n_embd=24, n_head=2, vocab_size=400, n_positions=64)),
    "neox-parallel": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SMALL)),
    "neox-sequential": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SMALL, use_parallel_residual=False)),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT)),
    "opt-post-norm": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT, do_layer_norm_before=False)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=8)),
    "bloom": lambda: tf.BloomForCausalLM(tf.BloomConfig(**BLOOM)),
    "bloom-normed-residual": lambda: tf.BloomForCausalLM(
        tf.BloomConfig(**BLOOM, apply_residual_connection_post_layernorm=True)
    ),
}
SPACES = ("resid_mid", "mlp_in")


def neox_parallel(block, x, model, path):
    """Run the block by itself on the clean run's input with one row replaced: attention reads it too."""
    (entry,), _ = recorded(model, path.input_ids, block)
    stream = torch.tensor(entry[0])[None].clone()
    stream[0, path.position] = x[0]
    positions = torch.arange(stream.shape[1])[None]
    mask = torch.full((1, 1, stream.shape[1], stream.shape[1]), -1e9).triu(1)
    rotary = model.trunk.rotary_emb(stream, positions)
    out = block(stream, attention_mask=mask, position_embeddings=rotary)
    return (out[0] if isinstance(out, tuple) else out)[..., path.position, :].reshape(1, -1)


def feed_forward(block, u):
    return block.fc2(block.activation_fn(block.fc1(u)))


# The block's output for a new x, written down from transformers' source.
BY_HAND = {
    "gpt2": lambda b, x, *_: x + b.mlp(b.ln_2(x)),
    "neox-parallel": neox_parallel,
    "neox-sequential": lambda b, x, *_: x + b.mlp(b.post_attention_layernorm(x)),
    "opt": lambda b, x, *_: x + feed_forward(b, b.final_layer_norm(x)),
    "opt-post-norm": lambda b, x, *_: b.final_layer_norm(
        b.self_attn_layer_norm(x) + feed_forward(b, b.self_attn_layer_norm(x))
    ),
    "llama": lambda b, x, *_: x + b.mlp(b.post_attention_layernorm(x)),
    "gemma2": lambda b, x, *_: x + b.post_feedforward_layernorm(b.mlp(b.pre_feedforward_layernorm(x))),
}


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request, tokenizer):
    return plm.wrap(randomised(CAUSAL[request.param]()), tokenizer, name=request.param)


def recorded(model, ids, *modules):
    """Inputs and outputs of modules in one plain forward pass of the whole transformers model."""
    seen = {}
    handles = [
        m.register_forward_hook(
            lambda m, args, kw, out: seen.__setitem__(m, (args[0] if args else kw["hidden_states"], out)),
            with_kwargs=True,
        )
        for m in modules
    ]
    with torch.no_grad():
        logits = model.hf(torch.as_tensor(ids)[None]).logits[0].numpy()
    for handle in handles:
        handle.remove()
    return [
        tuple((v[0] if isinstance(v, tuple) else v).reshape(len(ids), -1).numpy() for v in seen[m]) for m in modules
    ], logits


@pytest.mark.parametrize("at", SPACES)
def test_the_ends_are_the_clean_runs_activations(causal, at):
    path = plm.path(causal, A, B, at=at, layer=1)
    block = causal.block(1)
    for prompt, end in ((A, path.a), (B, path.b)):
        ids = causal.tokenizer(prompt)["input_ids"]
        (norm, pre), _ = recorded(causal, ids, block.norm, next(iter(block.pre.values())))
        np.testing.assert_array_equal(end, (norm if at == "resid_mid" else pre)[0][-1].astype(np.float64))
    assert path.tokens == (" bank", " money")
    assert path.space == ("resid_pre" if at == "resid_mid" and "parallel" in causal.name else at)
    np.testing.assert_array_equal(path.points(np.array([0.0, 1.0])), np.stack([path.a, path.b]))


@pytest.mark.parametrize("at", SPACES)
def test_in_one_context_later_layers_end_at_bs_own_activations(causal, at):
    """Prompts that differ in the last token alone have one context; nothing else of B is missing at t = 1."""
    other = A.replace("bank", "pond")
    trace = Trace(plm.path(causal, A, other, at=at, layer=1, shape="line"))
    for site, h in zip(trace.sites, trace.at(np.array([0.0, 1.0])), strict=True):
        for prompt, row in ((A, h[0]), (other, h[1])):
            if at == "mlp_in" and prompt == other:
                continue  # the stream itself stays A's
            own = plm.encode(causal, [prompt], layers=[site.layer], kind=site.kind, keep=("h",))
            np.testing.assert_allclose(row, own.activations("h", site.layer)[-1], atol=1e-4)
    assert len(plm.path(causal, A, other, at=at, layer=1).crossings(downstream=True).layers) == 2


@pytest.mark.parametrize("at", SPACES)
def test_the_paths_own_layer_agrees_with_a_dense_grid_of_the_models_forward(causal, at):
    path = plm.path(causal, A, B, at=at, layer=1)
    found = path.crossings()
    assert found.missed_estimate == 0
    assert found.output_change is None
    t = np.linspace(0, 1, 2001)
    point = "gate" if "gate" in causal.block(1).pre else "h"
    run = run_patched(
        causal, path.input_ids, path.points(t), layer=1, position=path.position, at=at, taps=[(1, point)], logits=False
    )
    h = run.activations[1, point]
    on = h > 0
    step, neuron = np.nonzero(on[1:] != on[:-1])
    ours, theirs = np.lexsort((found.t, found.neuron)), np.lexsort((step, neuron))
    np.testing.assert_array_equal(found.neuron[ours], neuron[theirs])
    np.testing.assert_array_equal(found.on[ours], on[step + 1, neuron][theirs])
    assert np.abs(found.t[ours] - (t[step] + t[step + 1])[theirs] / 2).max(initial=0) < 5e-4
    assert found.method(1).hamming == (on[0] != on[-1]).sum()


@pytest.mark.parametrize("at", SPACES)
def test_at_its_start_the_path_is_the_clean_run(causal, at):
    path = plm.path(causal, A, B, at=at, layer=0)
    later = next(iter(causal.block(2).pre.values()))
    point = "gate" if "gate" in causal.block(2).pre else "h"
    ((_, h),), logits = recorded(causal, path.input_ids, later)
    run = run_patched(
        causal, path.input_ids, path.points(np.zeros(3)), layer=0, position=path.position, at=at, taps=[(2, point)]
    )
    np.testing.assert_allclose(run.activations[2, point], np.tile(h[-1], (3, 1)), atol=2e-5)
    np.testing.assert_allclose(run.logits, np.tile(logits[-1], (3, 1)), atol=2e-5)


def test_a_replaced_stream_is_carried_on(causal):
    """The block's output is `x + MLP(Norm(x))` of the new x, worked out with the block's own modules."""
    if causal.name not in BY_HAND:
        pytest.skip("BLOOM's block adds its residual inside the MLP: see where later layers end")
    path = plm.path(causal, A, B, layer=1)
    block, x = causal.block(1), torch.tensor(path.points(np.array([0.3])), dtype=torch.float32)
    taps = [(1, "x"), (2, "resid_pre")]
    run = run_patched(causal, path.input_ids, x.numpy(), layer=1, position=path.position, taps=taps)
    np.testing.assert_allclose(run.activations[1, "x"], x.numpy(), atol=1e-6)
    with torch.no_grad():
        expected = BY_HAND[causal.name](block.module, x, causal, path).numpy()
    np.testing.assert_allclose(run.activations[2, "resid_pre"], expected, atol=2e-5)


def test_a_replaced_mlp_input_leaves_the_stream_alone(causal):
    path = plm.path(causal, A, B, at="mlp_in", layer=1)
    u = path.points(np.array([0.3])).astype("float32")
    block = causal.block(1)
    points = ["gate", "up"] if "gate" in block.pre else ["h"]
    taps = [(1, point) for point in ("x", "u", *points)]
    run = run_patched(causal, path.input_ids, u, layer=1, position=path.position, at="mlp_in", taps=taps)
    (norm,), _ = recorded(causal, path.input_ids, block.norm)
    np.testing.assert_allclose(run.activations[1, "x"][0], norm[0][-1], atol=2e-5)
    np.testing.assert_allclose(run.activations[1, "u"], u, atol=1e-6)
    for point, linear in zip(points, block.pre.values(), strict=True):
        with torch.no_grad():
            np.testing.assert_allclose(run.activations[1, point], linear(torch.tensor(u)), atol=2e-5)


@pytest.mark.parametrize("at", SPACES)
def test_what_comes_before_the_position_stays_clean(causal, at):
    """And what comes after it reads the new one, from the next layer on."""
    path = plm.path(causal, A, B, at=at, layer=0, position=2)
    (clean,), _ = recorded(causal, path.input_ids, causal.block(2).norm)
    far = activations(causal, path.input_ids, 0, at)[None]
    far[0, 2] = path.points(np.array([5.0]))[0]
    where = range(len(path.input_ids))
    run = run_replaced(causal, path.input_ids, far, layer=0, positions=where, at=at, taps=[(2, "x")])
    moved = run.activations[2, "x"].reshape(len(where), -1)
    np.testing.assert_allclose(moved[:2], clean[0][:2], atol=2e-5)
    assert (np.abs(moved[2:] - clean[0][2:]).max(axis=1) > 1e-3).all()
    (after,), _ = recorded(causal, path.input_ids, causal.block(2).norm)
    np.testing.assert_array_equal(after[0], clean[0])  # no hook is left behind


def test_batches_do_not_change_what_is_read(model, monkeypatch):
    path = plm.path(model, A, B, layer=0)
    settings = {"layer": 0, "position": path.position, "taps": [(2, "h")]}
    whole = run_patched(model, path.input_ids, path.points(np.linspace(0, 1, 7)), **settings)
    monkeypatch.setattr("polytope_lm.models.interventions._TOKENS", 2 * len(path.input_ids))
    parts = run_patched(model, path.input_ids, path.points(np.linspace(0, 1, 7)), **settings)
    np.testing.assert_allclose(parts.activations[2, "h"], whole.activations[2, "h"], atol=2e-5)
    np.testing.assert_allclose(parts.logits, whole.logits, atol=2e-5)


def test_downstream_is_named_as_a_grid(model):
    path = plm.path(model, A, B, layer=0)
    found = path.crossings(downstream=True, steps=50)
    assert [part.method for part in found.layers] == ["closed form", "grid of 50 steps", "grid of 50 steps"]
    assert [part.missed_estimate for part in found.layers] == [0, None, None]
    assert found.missed_estimate is None
    t = np.linspace(0, 1, 51)
    run = run_patched(model, path.input_ids, path.points(t), layer=0, position=path.position, taps=[(1, "h"), (2, "h")])
    for layer in (1, 2):
        h = run.activations[layer, "h"]
        flips = (h[1:] > 0) != (h[:-1] > 0)
        assert found.counts(layer) == flips.sum() > 0
        np.testing.assert_array_equal(found.method(layer).hamming, ((h[0] > 0) != (h[-1] > 0)).sum())
        here = found.layer == layer
        assert (np.diff(found.t[here]) >= 0).all()
        step = np.minimum((found.t[here] * 50).astype(int), 49)
        line = (
            h[step, found.neuron[here]]
            + (found.t[here] * 50 - step) * (h[step + 1] - h[step])[np.arange(len(step)), found.neuron[here]]
        )
        assert np.abs(line).max() < 1e-4
        np.testing.assert_array_equal(found.on[here], (h[step + 1] > 0)[np.arange(len(step)), found.neuron[here]])
    assert found.counts() == len(found)


def test_output_change_compares_neighbouring_next_token_distributions(model):
    path = plm.path(model, A, B, layer=1)
    change = path.crossings(downstream=True, steps=10).output_change
    t = np.linspace(0, 1, 11)
    logits = run_patched(model, path.input_ids, path.points(t), layer=1, position=path.position).logits
    p = torch.softmax(torch.tensor(logits).double(), -1).numpy()
    middle = (p[1:] + p[:-1]) / 2
    kl = [(q * np.log2(q / middle)).sum(1) for q in (p[1:], p[:-1])]
    np.testing.assert_allclose(change.js, np.sqrt((kl[0] + kl[1]) / 2), atol=2e-5)
    np.testing.assert_allclose(change.length, change.js.sum())
    assert change.top == tuple(model.tokenizer.decode([i]) for i in logits.argmax(1))
    np.testing.assert_allclose(change.top_probability, p.max(1), atol=2e-5)


def test_js_distance_is_one_between_disjoint_and_zero_between_equal_distributions():
    np.testing.assert_allclose(js_distances(np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]])), [1, 0])


def test_the_last_layer_has_no_layer_after_it_but_an_output(model):
    found = plm.path(model, A, B, layer=2).crossings(downstream=True, steps=4)
    assert [part.layer for part in found.layers] == [2]
    assert len(found.output_change.js) == 4


@pytest.mark.parametrize("at", SPACES)
def test_kinds_of_a_gated_model(gated, at):
    both = plm.path(gated, A, B, at=at, layer=0, kind="gate+up").crossings(downstream=True)
    gate, up = (plm.path(gated, A, B, at=at, layer=0, kind=kind).crossings(downstream=True) for kind in ("gate", "up"))
    width = gate.site.width
    assert both.site.width == 2 * width
    for layer in (0, 1):
        gates, ups, here = (found.layer == layer for found in (gate, up, both))
        neuron = np.concatenate([gate.neuron[gates], up.neuron[ups] + width])
        t = np.concatenate([gate.t[gates], up.t[ups]])
        order, theirs = np.lexsort((both.t[here], both.neuron[here])), np.lexsort((t, neuron))
        np.testing.assert_array_equal(both.neuron[here][order], neuron[theirs])
        np.testing.assert_allclose(both.t[here][order], t[theirs], atol=1e-4)
        assert 0 < len(gate.t[gates]) < len(t)


def test_the_line_in_the_mlps_input_has_as_many_crossings_as_bits_differ(causal):
    found = plm.path(causal, A, B, at="mlp_in", layer=1).crossings()
    assert len(found) == found.method(1).hamming > 0
    assert found.scope == "mlp"


@pytest.mark.parametrize("at", SPACES)
def test_equal_prompts_make_a_path_of_length_zero(model, at):
    path = plm.path(model, A, A, at=at, layer=0)
    found = path.crossings(downstream=True)
    assert path.length == found.length == 0
    assert len(found) == 0
    np.testing.assert_allclose(found.output_change.js, 0, atol=1e-3)


def test_encoders_have_the_paths_own_layer_only(tokenizer):
    bert = plm.wrap(randomised(tf.BertModel(tf.BertConfig(**SMALL))), tokenizer, name="small-bert")
    path = plm.path(bert, A, B, layer=0)
    assert len(path.crossings()) > 0
    with pytest.raises(PolytopeError, match="small-bert reads both ways"):
        path.crossings(downstream=True)


def test_a_bos_token_is_not_counted(gpt2, tokenizer):
    from tokenizers.processors import TemplateProcessing

    other = tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer.__class__.from_str(tokenizer.backend_tokenizer.to_str()),
        bos_token="<|endoftext|>",
    )
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    model = plm.wrap(gpt2(), other, name="with-bos")
    first = plm.path(model, A, B, layer=0, position=0)
    assert first.input_ids[0] == 0
    assert first.position == 1
    assert first.tokens[0] == A[: len(first.tokens[0])]


@pytest.mark.parametrize("block", [1, 7, 50])
def test_a_grid_in_blocks_is_the_same_grid(model, monkeypatch, block):
    path = plm.path(model, A, B, layer=0)
    whole = path.crossings(downstream=True, steps=50)
    monkeypatch.setattr(downstream, "BLOCK", block)
    parts = path.crossings(downstream=True, steps=50)
    assert parts.layers == whole.layers
    np.testing.assert_array_equal(parts.layer, whole.layer)
    np.testing.assert_array_equal(parts.neuron, whole.neuron)
    np.testing.assert_allclose(parts.t, whole.t, atol=1e-4)
    one, other = parts.output_change, whole.output_change
    assert one.top == other.top
    for name in ("t", "js", "top_probability"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=2e-4)


def test_a_path_and_its_patches_are_shown_in_a_line(model):
    path = plm.path(model, "bank " * 30, B, layer=0)
    assert repr(path).startswith("Path: 'bank bank")
    assert len(repr(path)) < 200
    assert "resid_mid of layer 0" in repr(path)
    run = run_patched(model, path.input_ids, path.points(np.array([0.0, 1.0])), layer=0, position=3, taps=[(1, "h")])
    assert repr(run) == f"Patched: h of layer 1 [2, {model.site(1).width}], logits [2, {model.hf.config.vocab_size}]"


def test_saved_crossings_are_the_same(gated, tmp_path):
    found = plm.path(gated, A, B, layer=0).crossings(downstream=True)
    again = Crossings.load(found.save(tmp_path / "crossings.json"))
    assert again.to_dict() == found.to_dict()
    for name in ("t", "layer", "neuron", "on"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == getattr(found, name).dtype
    assert again.layers == found.layers
    assert again.site == found.site
    assert again.provenance["model"] == "small-llama"
