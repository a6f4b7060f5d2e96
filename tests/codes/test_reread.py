from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.codes.capture import with_model
from polytope_lm.codes.reread import at_hand, read_again
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.groups.coherence import next_token_distributions


def _places(codes, rows, model) -> dict[int, tuple[int, int]]:
    """Each wanted row with its token id in the batch, and how much the model reads before it."""
    found = {}
    for batch, index, (which, column) in read_again(codes, rows, model):
        for i, r, c in zip(index, which, column, strict=True):
            found[int(rows[i])] = (int(batch.input_ids[r, c]), int(c))
    return found


@pytest.mark.parametrize("bos", [None, True])
def test_tokens_are_read_in_the_windows_of_the_capture(model, bos) -> None:
    texts = [" ".join(SENTENCES * 4), *SENTENCES]  # the first is longer than the context
    codes = plm.encode(model, texts, layers=[0], tokens="random:30", bos=bos, min_context=8, max_length=40)
    rows = np.random.default_rng(0).permutation(len(codes))[:40]
    found = _places(codes, rows, model)
    assert sorted(found) == sorted(rows)
    for row, (token, before) in found.items():
        record = codes.tokens.iloc[row]
        assert token == record["token_id"]
        assert before >= min(8, record["position"]) + (bos is True)


def test_distributions_are_the_models_own_after_each_token(model, sentences) -> None:
    codes = plm.encode(model, sentences, layers=[0])
    rows = np.array([len(codes) - 1, 3, 20, 0, 11])
    found = next_token_distributions(codes, rows)
    for row, p in zip(rows, found, strict=True):
        record = codes.tokens.iloc[row]
        ids = model.tokenizer(sentences[record["document"]])["input_ids"][: record["position"] + 1]
        with torch.no_grad():
            logits = model.hf(torch.tensor([ids])).logits[0, -1]
        assert p == pytest.approx(logits.softmax(dim=0).numpy(), abs=1e-5)
    assert next_token_distributions(codes, rows[:0]).shape == (0, 0)


def test_a_store_needs_its_own_model_at_hand(model, gpt2, tokenizer, tmp_path) -> None:
    plm.capture(model, SENTENCES, to=tmp_path / "store", layers=[1], progress=False)
    store = plm.open_store(tmp_path / "store")
    with pytest.raises(PolytopeError, match="opened without their model") as error:
        at_hand(store)
    assert "\n" not in str(error.value)
    assert at_hand(store, model) is model
    assert at_hand(with_model(store, model)) is model
    other = plm.wrap(gpt2(seed=5), tokenizer, name="another")
    with pytest.raises(PolytopeError, match="give the same model"):
        at_hand(store, other)


def test_another_cut_of_the_texts_is_noticed(model, sentences) -> None:
    codes = plm.encode(model, sentences, layers=[0])
    rows = np.arange(10)
    moved = replace(codes, texts=[f"Yes. {text}" for text in sentences])
    with pytest.raises(PolytopeError, match="its tokenizer now finds another token"):
        list(read_again(moved, rows, model))
    short = replace(codes, texts=[text[:3] for text in sentences])
    with pytest.raises(PolytopeError, match=r"its tokenizer now finds"):
        list(read_again(short, rows, model))
    bare = replace(codes, provenance={"model": "small-gpt2"})
    with pytest.raises(PolytopeError, match="do not say 'special_tokens'"):
        list(read_again(bare, rows, model))
