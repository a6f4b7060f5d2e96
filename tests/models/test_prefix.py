"""A shared prefix against whole sequences, on every family, to the bit where it matters."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import transformers as tf
from small import randomised

import polytope_lm as plm
from polytope_lm.models.interventions import run_patched, run_replaced
from polytope_lm.models.prefix import share_context, share_prefix

A, B = "He sat on the bank of the river", "She owes a lot of money"
SMALL = {
    "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 4, "num_attention_heads": 2,
    "vocab_size": 400, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
OPT = {k: v for k, v in SMALL.items() if k != "intermediate_size"} | {"ffn_dim": 44, "word_embed_proj_dim": 24}
FAMILIES = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(n_layer=4, n_embd=24, n_head=2, vocab_size=400, n_positions=64)),
    "gpt2-eager": lambda: tf.GPT2LMHeadModel._from_config(
        tf.GPT2Config(n_layer=4, n_embd=24, n_head=2, vocab_size=400), attn_implementation="eager"
    ),
    "neox-parallel": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SMALL)),
    "neox-sequential": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SMALL, use_parallel_residual=False)),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT)),
    "opt-post-norm": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT, do_layer_norm_before=False)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL, num_key_value_heads=1)),
    "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**SMALL, **GROUPED)),
    "gemma2-sliding": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**SMALL, **GROUPED, sliding_window=4)),
    "gemma3-sliding": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**SMALL, **GROUPED, sliding_window=4)),
}


@pytest.fixture(scope="module", params=FAMILIES)
def causal(request, tokenizer):
    return plm.wrap(randomised(FAMILIES[request.param]()), tokenizer, name=request.param)


def runs(model, path, vectors, taps):
    """The same versions, whole and shared."""
    shared = share_prefix(model, torch.as_tensor(path.input_ids), layer=path.site.layer, position=path.position)
    settings = {"layer": path.site.layer, "position": path.position, "at": path.at, "taps": taps}
    whole = run_patched(model, path.input_ids, vectors, **settings)
    return whole, run_patched(model, path.input_ids, vectors, **settings, prefix=shared), shared


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("position", [-1, 5])
def test_a_shared_prefix_gives_what_whole_sequences_give(causal, at, layer, position):
    path = plm.path(causal, A, B, at=at, layer=layer, position=position)
    point = "gate" if "gate" in causal.block(0).pre else "h"
    taps = [(n, point) for n in range(layer, 4)]
    whole, lent, shared = runs(causal, path, path.points(np.linspace(-1, 2, 7)), taps)
    assert shared is not None
    for tap in taps:
        h, other = whole.activations[tap], lent.activations[tap]
        np.testing.assert_array_equal((other > 0)[np.abs(h) > 1e-4], (h > 0)[np.abs(h) > 1e-4])
        np.testing.assert_allclose(other, h, atol=2e-4, rtol=1e-4)
        assert tap[0] == layer or (np.ptp(h, axis=0) > 1e-3).any()
    np.testing.assert_allclose(lent.logits, whole.logits, atol=2e-4, rtol=1e-4)


def test_the_ends_of_a_shared_run_are_the_clean_runs(causal):
    """B's end too, where the contexts are the same but for the last token."""
    a, b = "He sat on the bank", "He sat on the boat"
    ids = [causal.tokenizer(text)["input_ids"] for text in (a, b)]
    same = [x == y for x, y in zip(*ids, strict=False)]
    assert all(same[:-1])
    assert len(ids[0]) == len(ids[1])
    path = plm.path(causal, a, b, layer=1)
    whole, lent, _ = runs(causal, path, path.points(np.array([0.0, 1.0])), [])
    with torch.no_grad():
        clean = np.stack([causal.hf(torch.tensor([x])).logits[0, -1].numpy() for x in ids])
    if "parallel" in causal.name:  # this block's own attention is A's: only the start is a clean run
        whole, lent, clean = (x[:1] for x in (whole.logits, lent.logits, clean))
        np.testing.assert_allclose(lent, clean, atol=2e-4, rtol=1e-4)
        return
    np.testing.assert_allclose(lent.logits, clean, atol=2e-4, rtol=1e-4)


def test_nothing_is_left_behind(causal):
    path = plm.path(causal, A, B, layer=2)
    ids = torch.as_tensor(path.input_ids)
    with torch.no_grad():
        before = causal.hf(ids[None]).logits
    shared = share_prefix(causal, ids, layer=2, position=path.position)
    length = shared.cache.get_seq_length()
    settings = {"layer": 2, "position": path.position, "prefix": shared}
    first, again = (run_patched(causal, path.input_ids, path.points(np.arange(3.0)), **settings) for _ in "ab")
    np.testing.assert_array_equal(first.logits, again.logits)
    assert shared.cache.get_seq_length() == length
    assert not any("forward" in vars(block.module) for block in causal.blocks)
    with torch.no_grad():
        assert torch.equal(before, causal.hf(ids[None]).logits)


def test_a_failing_run_leaves_the_blocks_as_they_were(model, monkeypatch):
    def stop(*_args, **_kwargs):
        assert "forward" in vars(model.block(0).module)
        raise RuntimeError("stop")

    path = plm.path(model, A, B, layer=1)
    shared = share_prefix(model, torch.as_tensor(path.input_ids), layer=1, position=path.position)
    settings = {"layer": 1, "position": path.position, "prefix": shared}
    run_patched(model, path.input_ids, path.points(np.zeros(2)), **settings)  # what is checked once is checked here
    monkeypatch.setattr(model.block(2).module, "forward", stop)
    with pytest.raises(RuntimeError, match="stop"):
        run_patched(model, path.input_ids, path.points(np.zeros(2)), **settings)
    assert "forward" not in vars(model.block(0).module)


def test_a_position_without_a_prefix_is_run_whole(model):
    assert share_prefix(model, torch.tensor([3, 4]), layer=0, position=0) is None


def test_a_model_whose_shared_run_differs_is_run_whole(gpt2, tokenizer):
    """This trunk forgets where it is once keys are lent; a plain forward shows it, once a model."""
    hf = gpt2()
    own = hf.transformer.forward
    forgetful = True

    def wrong(ids, **options):
        lent = any(options.get(name) is not None for name in ("cache", "past_key_values"))
        if lent and forgetful:
            options["position_ids"] = torch.zeros_like(ids)
        return own(ids, **options)

    hf.transformer.forward = functools.wraps(own)(wrong)
    odd = plm.wrap(hf, tokenizer, name="odd")
    ids = torch.as_tensor(plm.path(odd, A, B, layer=0).input_ids)
    assert share_prefix(odd, ids, layer=0, position=len(ids) - 1) is None
    forgetful = False
    assert share_prefix(odd, ids, layer=0, position=len(ids) - 1) is None
    fresh = plm.wrap(gpt2(), tokenizer, name="fresh")
    assert share_prefix(fresh, ids, layer=0, position=len(ids) - 1) is not None


@pytest.mark.parametrize("layer", [0, 2])
def test_positions_that_are_moved_together_are_each_moved_by_itself(causal, layer):
    ids = np.array(causal.tokenizer(A)["input_ids"])
    places, rng = np.array([0, 3, len(ids) - 1]), np.random.default_rng(0)
    point = "gate" if "gate" in causal.block(0).pre else "h"
    taps = [(n, point) for n in range(layer, 4)]
    moved = rng.standard_normal((5, len(places), 24)).astype(np.float32)
    context = share_context(causal, torch.as_tensor(ids), layer=layer, positions=torch.as_tensor(places))
    if causal.name.endswith("sliding"):
        assert context is None  # the window is shorter than the sequence
        return
    assert context is not None
    together = run_replaced(
        causal, context.tokens.numpy(), moved, layer=layer, positions=[0, 1, 2], taps=taps, logits=False, prefix=context
    ).activations
    for number, place in enumerate(places):
        alone = run_patched(causal, ids, moved[:, number], layer=layer, position=int(place), taps=taps).activations
        for tap in taps:
            np.testing.assert_allclose(together[tap].reshape(5, 3, -1)[:, number], alone[tap], atol=2e-4, rtol=1e-4)


def test_a_family_that_takes_no_such_mask_has_no_shared_context(tokenizer):
    bloom = tf.BloomForCausalLM(tf.BloomConfig(hidden_size=24, n_layer=2, n_head=2, vocab_size=400))
    model = plm.wrap(randomised(bloom), tokenizer, name="bloom")
    ids = torch.as_tensor(tokenizer(A)["input_ids"])
    assert share_context(model, ids, layer=0, positions=torch.tensor([1, 3])) is None
