"""Every family beside plain forward hooks on the transformers module, as the docs' table says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers as tf

import polytope_lm as plm
from benchmarks.families import COLUMNS, DATA, FAMILIES, IDS, TABLE, captured, generate, hooked
from polytope_lm.models.interventions import run_patched

SMALL = {
    "vocab_size": 60, "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
ENCODERS = {"BERT", "RoBERTa", "DistilBERT", "ModernBERT"}


@pytest.fixture(scope="module")
def generated() -> tuple[str, str]:
    return generate()  # raises where something is neither right nor refused


def test_the_docs_table_is_what_the_script_finds(generated: tuple[str, str]) -> None:
    page, data = generated
    assert TABLE.read_text(encoding="utf-8") == page
    assert DATA.read_text(encoding="utf-8") == data


def test_what_is_refused_is_what_cannot_be(generated: tuple[str, str]) -> None:
    rows = {row["family"]: row for row in json.loads(generated[1])}
    refused = {(name, c) for name, row in rows.items() for c in COLUMNS if row[c] != "proved"}
    later = {(name, c) for name in {*ENCODERS, "Gemma 3n"} for c in ("downstream", "next token")}
    assert refused == later
    assert "several streams" in rows["Gemma 3n"]["downstream"]
    assert all("reads both ways" in rows[name]["downstream"] for name in ENCODERS)
    assert "\n" not in "".join(row[c] for row in rows.values() for c in COLUMNS)


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> tuple:
    family = FAMILIES[request.param]
    hf = family.make()
    return family, hf, plm.wrap(hf, name=request.param)


def test_premises_are_read_from_the_modules(family: tuple) -> None:
    family, _, model = family
    for site in model.sites:
        assert (site.parallel, site.post_norm, model.causal) == (
            family.parallel, family.post_norm, family.causal
        )  # fmt: skip
        premises = site.premises
        assert (premises.linearity, premises.biased, premises.norm, premises.activation) == (
            family.linearity, family.biased, family.kind, family.activation
        )  # fmt: skip
        assert premises.met == (family.linearity == "piecewise affine" and family.biased)


def test_gated_kinds(family: tuple) -> None:
    family, hf, model = family
    if family.up is None:
        with pytest.raises(plm.PolytopeError, match="no code kind 'up'"):
            model.site(1, "up")
        return
    plain = hooked(family, hf, 1, IDS)
    got = captured(model, 1, IDS, "gate", "up")
    np.testing.assert_array_equal(got["gate"], plain["h"])
    np.testing.assert_array_equal(got["up"], plain["up"])
    both = model.site(1, "gate+up")
    assert (both.width, model.site(1).width, model.site(1).kind) == (88, 44, "gate")
    g = model.geometry(both)
    h = plain["u"] @ g.weight.T + g.bias
    np.testing.assert_allclose(h, np.concatenate([plain["h"], plain["up"]], -1), atol=1e-4)


def test_relu6_has_kinks_that_its_code_does_not_show() -> None:
    config = tf.GPT2Config(vocab_size=60, n_embd=24, n_layer=1, n_head=2, activation_function="relu6")
    premises = plm.wrap(tf.GPT2LMHeadModel(config)).sites[0].premises
    assert (premises.linearity, premises.met) == ("piecewise affine, further kinks", False)


def test_a_decoder_inside_a_model_of_images_is_read() -> None:
    small = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
    eye = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = tf.Gemma3Config(text_config=small, vision_config={**eye, "image_size": 8, "patch_size": 4})
    hf = tf.Gemma3ForConditionalGeneration(config).eval()
    model = plm.wrap(hf, name="seeing")
    assert (model.n_layers, model.causal, model.context_length) == (2, True, 64)
    seen = []
    gate = hf.model.language_model.layers[1].mlp.gate_proj
    handle = gate.register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.no_grad():
        hf(IDS)
    handle.remove()
    np.testing.assert_array_equal(captured(model, 1, IDS, "h")["h"], seen[0].numpy())


def test_the_context_of_roberta_ends_before_its_pads_positions(tokenizer) -> None:
    config = tf.RobertaConfig(**{**SMALL, "vocab_size": 400, "max_position_embeddings": 66}, pad_token_id=1)
    model = plm.wrap(tf.RobertaModel(config), tokenizer, name="roberta")
    assert model.context_length == 64
    assert len(plm.encode(model, "word " * 200, layers=[0])) > 64


def test_a_way_into_the_mlp_that_is_no_norm_is_refused() -> None:
    hf = tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL))

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    hf.model.layers[0].post_attention_layernorm = Twice()
    with pytest.raises(plm.PolytopeError, match=r"odd, layer 0: .*neither a norm's output") as error:
        plm.wrap(hf, name="odd")
    assert "\n" not in str(error.value)


def test_a_block_that_carries_a_copy_on_is_not_written(tokenizer) -> None:
    hf = tf.LlamaForCausalLM(tf.LlamaConfig(**{**SMALL, "vocab_size": 400})).eval()
    layer = hf.model.layers[1]

    def copying(hidden_states: torch.Tensor, **more: object) -> torch.Tensor:
        stream = hidden_states + layer.self_attn(layer.input_layernorm(hidden_states), **more)[0]
        return stream + layer.mlp(layer.post_attention_layernorm(stream.clone()))

    layer.forward = copying
    model = plm.wrap(hf, tokenizer, name="copied")
    plm.path(model, "a b", "a c", layer=0).crossings(downstream=True)
    with pytest.raises(plm.PolytopeError, match=r"copied, layer 1: LlamaDecoderLayer carries on a copy"):
        run_patched(model, np.array([3, 4]), np.ones((1, 24), np.float32), layer=1, position=1)
    run_patched(model, np.array([3, 4]), np.ones((1, 24), np.float32), layer=1, position=1, at="mlp_in")


def test_attention_that_adds_nothing_makes_no_parallel_block() -> None:
    hf = tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL)).eval()
    hf.model.layers[1].self_attn.o_proj.weight.data.zero_()
    assert [site.parallel for site in plm.wrap(hf).sites] == [False, False]


def test_unknown_families_are_refused() -> None:
    with pytest.raises(plm.PolytopeError, match="unknown family"):
        plm.wrap(torch.nn.Sequential(torch.nn.Linear(2, 2)), name="mine")
