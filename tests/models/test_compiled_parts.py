"""Parts of a model that torch.compile has: allowed where nothing is read, and written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import SENTENCES

import polytope_lm as plm


def test_compiled_attention_is_in_the_manifest_and_moves_no_certain_bit(gpt2, tokenizer, tmp_path):
    plain = plm.encode(plm.wrap(gpt2(), tokenizer), SENTENCES)
    hf = gpt2()
    for block in hf.transformer.h:
        block.attn.compile(backend="eager")  # what needs no compiler
    model = plm.wrap(hf, tokenizer)
    store = plm.capture(model, SENTENCES, to=tmp_path / "store")
    assert store.provenance["compiled"] == "attn"
    assert "compiled" not in plain.provenance
    for layer in range(3):
        certain = np.abs(plain.activations("h", layer)) > 1e-4
        np.testing.assert_array_equal(store.bits(layer)[certain], plain.bits(layer)[certain])
    with pytest.raises(plm.PolytopeError, match="with compiled 'attn', this run has None"):
        plm.capture(plm.wrap(gpt2(), tokenizer), SENTENCES, to=tmp_path / "store")


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (lambda hf: hf.transformer.h[1].mlp, "transformer.h.1.mlp"),
        (lambda hf: hf.transformer.h[0].ln_2, "transformer.h.0.ln_2"),
        (lambda hf: hf.transformer.h[2], "transformer.h.2"),
        (lambda hf: hf, "the whole model"),
    ],
)
def test_a_compiled_part_that_is_read_is_refused(gpt2, tokenizer, part, named):
    hf = gpt2()
    part(hf).compile(backend="eager")
    with pytest.raises(plm.PolytopeError, match=rf"^mine: {named} is compiled, and what is read inside"):
        plm.wrap(hf, tokenizer, name="mine")


def test_a_model_out_of_torch_compile_is_refused(gpt2, tokenizer):
    with pytest.raises(plm.PolytopeError, match=r"^mine: the whole model is compiled"):
        plm.wrap(torch.compile(gpt2(), backend="eager"), tokenizer, name="mine")
