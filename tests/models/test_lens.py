"""The model's own head on any residual: against its own logits, and by hand in earlier layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf
from small import randomised

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import read
from polytope_lm.models.logits import next_token_logits

SMALL = {
    "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 400, "max_position_embeddings": 64,
}  # fmt: skip
OPT = {k: v for k, v in SMALL.items() if k != "intermediate_size"} | {"ffn_dim": 44, "word_embed_proj_dim": 24}
MODELS = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(n_layer=2, n_embd=24, n_head=2, vocab_size=400)),
    "neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SMALL)),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(
        tf.Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=8, final_logit_softcapping=3.0)
    ),
}
IDS = torch.tensor([[5, 9, 100, 7]])


def residual(model, layer):
    found = []
    read(model, IDS, None, {(layer, "resid_post"): lambda value: found.append(value[0].clone().numpy())})
    return found[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_last_blocks_output_gives_the_models_own_logits(name, tokenizer):
    model = plm.wrap(randomised(MODELS[name]()), tokenizer, name=name)
    own = model.hf(IDS).logits[0].detach().numpy()
    rows = residual(model, 1)
    np.testing.assert_allclose(next_token_logits(model, rows), own, atol=1e-4, rtol=1e-4)
    many = next_token_logits(model, np.tile(rows, (100, 1)))
    np.testing.assert_allclose(many, np.tile(own, (100, 1)), atol=1e-4, rtol=1e-4)
    assert np.array_equal(model.hf(IDS).logits[0].detach().numpy(), own)  # nothing is left behind


def test_earlier_layers_are_read_by_the_final_norm_and_head(model):
    rows = residual(model, 0)
    by_hand = model.hf.lm_head(model.hf.transformer.ln_f(torch.as_tensor(rows))).detach().numpy()
    np.testing.assert_allclose(next_token_logits(model, rows), by_hand, atol=1e-4)


def test_a_model_without_a_head_and_other_widths_are_refused(model, tokenizer):
    trunk = plm.wrap(tf.GPT2Model(tf.GPT2Config(n_layer=2, n_embd=24, n_head=2)), tokenizer, name="trunk")
    with pytest.raises(PolytopeError, match="trunk has no LM head"):
        next_token_logits(trunk, np.zeros((1, 24), np.float32))
    with pytest.raises(PolytopeError, match=r"residual has shape \(2, 5\), expected \[n, 24\]"):
        next_token_logits(model, np.zeros((2, 5), np.float32))
