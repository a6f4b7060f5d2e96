"""Every family's codes against an independent plain forward hook on the transformers module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf
from small import randomised

import polytope_lm as plm
from polytope_lm.models.hooks import read

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
OPT = {k: v for k, v in SMALL.items() if k != "intermediate_size"} | {
    "ffn_dim": 44,
    "word_embed_proj_dim": 24,
}
GPT2 = {
    "n_layer": 2,
    "n_embd": 24,
    "n_head": 2,
    "vocab_size": 60,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

# name: model class, config, then by hand from transformers' source: path of layer 1's pre-activation module,
# of its norm, whether it is parallel, post-norm, causal; linearity, biased, norm, activation
FAMILIES = {
    "gpt2": (
        tf.GPT2LMHeadModel,
        tf.GPT2Config(**GPT2),
        "transformer.h.1.mlp.c_fc",
        "transformer.h.1.ln_2",
        False,
        False,
        True,
        "smooth",
        True,
        "LayerNorm",
        "gelu_new",
    ),
    "gpt2-relu": (
        tf.GPT2LMHeadModel,
        tf.GPT2Config(**GPT2, activation_function="relu"),
        "transformer.h.1.mlp.c_fc",
        "transformer.h.1.ln_2",
        False,
        False,
        True,
        "piecewise affine",
        True,
        "LayerNorm",
        "relu",
    ),
    "neox-parallel": (
        tf.GPTNeoXForCausalLM,
        tf.GPTNeoXConfig(**SMALL),
        "gpt_neox.layers.1.mlp.dense_h_to_4h",
        "gpt_neox.layers.1.post_attention_layernorm",
        True,
        False,
        True,
        "smooth",
        True,
        "LayerNorm",
        "gelu",
    ),
    "neox-sequential": (
        tf.GPTNeoXForCausalLM,
        tf.GPTNeoXConfig(**SMALL, use_parallel_residual=False),
        "gpt_neox.layers.1.mlp.dense_h_to_4h",
        "gpt_neox.layers.1.post_attention_layernorm",
        False,
        False,
        True,
        "smooth",
        True,
        "LayerNorm",
        "gelu",
    ),
    "opt": (
        tf.OPTForCausalLM,
        tf.OPTConfig(**OPT),
        "model.decoder.layers.1.fc1",
        "model.decoder.layers.1.final_layer_norm",
        False,
        False,
        True,
        "piecewise affine",
        True,
        "LayerNorm",
        "relu",
    ),
    "opt-post-norm": (
        tf.OPTForCausalLM,
        tf.OPTConfig(**OPT, do_layer_norm_before=False),
        "model.decoder.layers.1.fc1",
        "model.decoder.layers.1.self_attn_layer_norm",
        False,
        True,
        True,
        "piecewise affine",
        True,
        "LayerNorm",
        "relu",
    ),
    "opt-gelu": (
        tf.OPTForCausalLM,
        tf.OPTConfig(**OPT, activation_function="gelu"),
        "model.decoder.layers.1.fc1",
        "model.decoder.layers.1.final_layer_norm",
        False,
        False,
        True,
        "smooth",
        True,
        "LayerNorm",
        "gelu",
    ),
    "llama": (
        tf.LlamaForCausalLM,
        tf.LlamaConfig(**SMALL),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.post_attention_layernorm",
        False,
        False,
        True,
        "gated",
        False,
        "RMSNorm",
        "silu",
    ),
    "llama-biased": (
        tf.LlamaForCausalLM,
        tf.LlamaConfig(**SMALL, mlp_bias=True),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.post_attention_layernorm",
        False,
        False,
        True,
        "gated",
        True,
        "RMSNorm",
        "silu",
    ),
    "mistral": (
        tf.MistralForCausalLM,
        tf.MistralConfig(**SMALL, num_key_value_heads=1),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.post_attention_layernorm",
        False,
        False,
        True,
        "gated",
        False,
        "RMSNorm",
        "silu",
    ),
    "qwen2": (
        tf.Qwen2ForCausalLM,
        tf.Qwen2Config(**SMALL, num_key_value_heads=1),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.post_attention_layernorm",
        False,
        False,
        True,
        "gated",
        False,
        "RMSNorm",
        "silu",
    ),
    "qwen3": (
        tf.Qwen3ForCausalLM,
        tf.Qwen3Config(**SMALL, **GROUPED),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.post_attention_layernorm",
        False,
        False,
        True,
        "gated",
        False,
        "RMSNorm",
        "silu",
    ),
    "gemma": (
        tf.GemmaForCausalLM,
        tf.GemmaConfig(**SMALL, **GROUPED),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.post_attention_layernorm",
        False,
        False,
        True,
        "gated",
        False,
        "RMSNorm",
        "gelu_pytorch_tanh",
    ),
    "gemma2": (
        tf.Gemma2ForCausalLM,
        tf.Gemma2Config(**SMALL, **GROUPED),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.pre_feedforward_layernorm",
        False,
        False,
        True,
        "gated",
        False,
        "RMSNorm",
        "gelu_pytorch_tanh",
    ),
    "gemma3": (
        tf.Gemma3ForCausalLM,
        tf.Gemma3TextConfig(**SMALL, **GROUPED),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.pre_feedforward_layernorm",
        False,
        False,
        True,
        "gated",
        False,
        "RMSNorm",
        "gelu_pytorch_tanh",
    ),
    "bert": (
        tf.BertModel,
        tf.BertConfig(**SMALL),
        "encoder.layer.1.intermediate.dense",
        "encoder.layer.1.attention.output.LayerNorm",
        False,
        True,
        False,
        "smooth",
        True,
        "LayerNorm",
        "gelu",
    ),
}


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> tuple:
    made, config, *rest = FAMILIES[request.param]
    hf = randomised(made(config))
    return plm.wrap(hf, name=request.param), hf, *rest


def plain_hook(
    hf: torch.nn.Module, path: str, ids: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of one module, by a forward hook and a whole forward pass."""
    seen = []
    handle = hf.get_submodule(path).register_forward_hook(lambda _m, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        hf(ids, attention_mask=mask)
    handle.remove()
    return tuple(v.reshape(*ids.shape, -1).numpy() for v in seen[0])


def captured(model: plm.models.loading.Model, ids: torch.Tensor, *points: str) -> dict[str, np.ndarray]:
    got: dict[str, np.ndarray] = {}
    read(model, ids, None, {(1, p): (lambda v, p=p: got.__setitem__(p, v.clone().numpy())) for p in points})
    return got


IDS = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(3))


def test_what_is_read_of_a_block(family: tuple) -> None:
    model, hf, pre, norm, *_ = family
    got = captured(model, IDS, "x", "u", "h")
    u, h = plain_hook(hf, pre, IDS)
    x, _ = plain_hook(hf, norm, IDS)
    np.testing.assert_array_equal(got["u"], u)
    np.testing.assert_array_equal(got["h"], h)
    np.testing.assert_array_equal(got["x"], x)


def test_premises_are_read_from_the_modules(family: tuple) -> None:
    model, _hf, _pre, _norm, parallel, post_norm, causal, linearity, biased, kind, activation = family
    site = model.site(1)
    assert (site.parallel, site.post_norm, model.causal) == (parallel, post_norm, causal)
    premises = site.premises
    assert (premises.linearity, premises.biased, premises.norm, premises.activation) == (
        linearity,
        biased,
        kind,
        activation,
    )
    assert premises.met == (linearity == "piecewise affine" and biased)


def test_geometry_reproduces_the_pre_activations(family: tuple) -> None:
    model, *_ = family
    got = {k: v.astype(float) for k, v in captured(model, IDS, "x", "u", "h").items()}
    g = model.geometry(model.site(1))
    cx = got["x"] - got["x"].mean(-1, keepdims=True) if g.norm == "LayerNorm" else got["x"]
    u = cx / np.sqrt((cx**2).mean(-1, keepdims=True) + g.eps) * g.gain + g.shift
    np.testing.assert_allclose(u, got["u"], atol=2e-6)
    np.testing.assert_allclose(u @ g.weight.T.astype(float) + g.bias, got["h"], atol=1e-5)


def test_padded_against_unpadded_and_batch_of_one_against_sixteen(family: tuple) -> None:
    model, hf, pre, *_ = family
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 12, 16)
    ids, mask = torch.zeros(16, 12, dtype=torch.long), torch.zeros(16, 12, dtype=torch.long)
    for row, n in enumerate(lengths):
        ids[row, :n], mask[row, :n] = torch.from_numpy(rng.integers(1, 60, n)), 1
    got: list[np.ndarray] = []
    read(model, ids, mask, {(1, "h"): lambda v: got.append(v.clone().numpy())})
    for row, n in enumerate(lengths):
        _, alone = plain_hook(hf, pre, ids[row : row + 1, :n])
        together = got[0][row, :n]
        sure = np.abs(alone[0]) > 1e-4
        assert sure.mean() > 0.99
        np.testing.assert_array_equal((together > 0)[sure], (alone[0] > 0)[sure])


def test_gated_kinds(family: tuple) -> None:
    model, hf, pre, *_ = family
    if "gate_proj" not in pre:
        with pytest.raises(plm.PolytopeError, match="no code kind 'up'"):
            model.site(1, "up")
        return
    got = captured(model, IDS, "gate", "up")
    np.testing.assert_array_equal(got["gate"], plain_hook(hf, pre, IDS)[1])
    np.testing.assert_array_equal(got["up"], plain_hook(hf, pre.replace("gate_proj", "up_proj"), IDS)[1])
    assert model.site(1, "gate+up").width == 88
    assert model.site(1).kind == "gate"


def test_mixtures_of_experts_are_refused_in_one_line() -> None:
    moe = tf.MixtralForCausalLM(tf.MixtralConfig(**SMALL, num_key_value_heads=1))
    with pytest.raises(plm.PolytopeError, match=r"moe, layer 0: .*mixture of experts") as error:
        plm.wrap(moe, name="moe")
    assert "\n" not in str(error.value)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(plm.PolytopeError, match="unknown family"):
        plm.wrap(torch.nn.Sequential(torch.nn.Linear(2, 2)), name="mine")
