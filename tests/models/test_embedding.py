from __future__ import annotations

import numpy as np
import pytest
import torch
from small import SENTENCES, randomised
from transformers import BertConfig, BertModel

import polytope_lm as plm
from polytope_lm.models.logits import mean_pooled


@pytest.fixture
def encoder(tokenizer) -> plm.models.model.Model:
    config = BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=400,
        max_position_embeddings=64,
    )  # fmt: skip
    return plm.wrap(randomised(BertModel(config)), tokenizer, name="small-bert")


def test_a_vector_is_the_mean_of_its_own_tokens_whatever_is_in_the_batch(encoder) -> None:
    texts = [*SENTENCES, "bank", "He sat on the bank " * 30]
    found = mean_pooled(encoder, texts)
    assert found.shape == (6, 24)
    for text, vector in zip(texts, found, strict=True):
        ids = encoder.tokenizer(text, truncation=True, max_length=64)["input_ids"]
        with torch.no_grad():
            states = encoder.hf(torch.tensor([ids])).last_hidden_state[0]
        assert vector == pytest.approx(states.mean(dim=0).numpy(), abs=1e-4)


def test_the_order_of_the_texts_is_kept(encoder) -> None:
    there, back = mean_pooled(encoder, SENTENCES), mean_pooled(encoder, SENTENCES[::-1])
    assert np.allclose(there, back[::-1], atol=1e-5)


@pytest.mark.minilm
def test_minilm_tells_meanings_apart() -> None:
    from polytope_lm.models.packaged import PACKAGED

    if not PACKAGED["minilm-l6"].installed:
        pytest.skip("needs the extra minilm")
    model = plm.load("minilm-l6")
    vectors = mean_pooled(model, ["A dog ran in the park.", "A puppy was running outside.", "Tax law is dry."])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert cosine[0, 1] > cosine[0, 2] + 0.3
