from __future__ import annotations

import pytest
import torch
from small import randomised
from transformers import BertConfig, BertForMaskedLM, BertModel, Gemma2Config, Gemma2ForCausalLM

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models.logits import logits_at

GEMMA = Gemma2Config(
    hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    head_dim=12, vocab_size=400, max_position_embeddings=64, final_logit_softcapping=5.0,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma"])
def test_chosen_logits_are_those_of_a_whole_forward(kind: str, gpt2, llama, tokenizer) -> None:
    hf = randomised(Gemma2ForCausalLM(GEMMA)) if kind == "gemma" else {"gpt2": gpt2, "llama": llama}[kind]()
    model = plm.wrap(hf, tokenizer)
    ids = torch.randint(1, 400, (3, 17), generator=torch.Generator().manual_seed(0))
    rows, columns = torch.tensor([0, 2, 2, 1, 0]), torch.tensor([16, 0, 5, 3, 16])
    with torch.no_grad():
        whole = hf(ids).logits
    found = logits_at(model, ids, rows, columns)
    assert found.shape == (5, 400)
    torch.testing.assert_close(found, whole[rows, columns], atol=1e-4, rtol=1e-4)
    # Nothing is left on the model.
    with torch.no_grad():
        assert hf(ids).logits.shape == (3, 17, 400)


def test_an_encoder_and_a_trunk_have_no_next_token(gpt2, tokenizer) -> None:
    config = BertConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=400
    )
    ids, at = torch.ones(1, 4, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    for hf in (BertModel(config), BertForMaskedLM(config)):
        with pytest.raises(PolytopeError, match="is an encoder, which reads both ways") as error:
            logits_at(plm.wrap(hf.eval(), tokenizer, name="bert"), ids, at, at)
        assert "\n" not in str(error.value)
    with pytest.raises(PolytopeError, match="loaded without an LM head"):
        logits_at(plm.wrap(gpt2().transformer, tokenizer), ids, at, at)
