from __future__ import annotations

import copy
import dataclasses
import inspect

import numpy as np
import pytest
import torch
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.controls import weights
from polytope_lm.controls.weights import permuted, recaptured, untrained
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError


def _parameters(model) -> dict[str, np.ndarray]:
    return {name: p.detach().float().numpy() for name, p in model.hf.named_parameters()}


@pytest.mark.parametrize("which", ["model", "gated"])
def test_every_matrix_keeps_its_entries_and_loses_their_order(which: str, request) -> None:
    real = request.getfixturevalue(which)
    before = {name: p.copy() for name, p in _parameters(real).items()}
    made = _parameters(permuted(real, seed=1))
    assert made.keys() == before.keys()
    for name, old in before.items():
        if old.ndim == 1:
            np.testing.assert_array_equal(made[name], old)
            continue
        np.testing.assert_array_equal(np.sort(made[name], axis=None), np.sort(old, axis=None))
        assert (made[name] == old).mean() < 0.02
        # Entries leave their rows too.
        assert abs(np.corrcoef(made[name].mean(axis=1), old.mean(axis=1))[0, 1]) < 0.75
    for name, old in before.items():
        np.testing.assert_array_equal(_parameters(real)[name], old)
    assert any("mb" in n or "wte" in n for n, p in before.items() if p.ndim == 2)


def test_tied_matrices_stay_tied_and_the_seed_decides(model) -> None:
    one, same, other = (permuted(model, seed=s) for s in (1, 1, 2))
    assert one.hf.transformer.wte.weight is one.hf.lm_head.weight
    assert one.revision == same.revision != other.revision != model.revision
    assert one.name == "small-gpt2 (weights permuted, seed 1)"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_keep_their_entries(gpt2, tokenizer, dtype: torch.dtype) -> None:
    real = plm.wrap(gpt2().to(dtype), tokenizer)
    old, new = real.hf.transformer.h[0].mlp.c_fc.weight, permuted(real).hf.transformer.h[0].mlp.c_fc.weight
    assert new.dtype == dtype
    assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
    assert not torch.equal(old, new)


@pytest.mark.parametrize("which", ["model", "gated"])
def test_untrained_is_the_architectures_own_beginning(which: str, request) -> None:
    real = request.getfixturevalue(which)
    state = torch.random.get_rng_state()
    made, same, other = (untrained(real, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert made.revision == same.revision != other.revision
    assert made.attention == real.attention
    assert [s.to_dict() for s in made.sites] == [
        {**s.to_dict(), "premises": m.to_dict()["premises"]} for s, m in zip(real.sites, made.sites, strict=True)
    ]
    for name, values in _parameters(made).items():
        if values.ndim == 2 and "c_proj" not in name:
            assert values.std() == pytest.approx(0.02, rel=0.15), name
        if "norm" in name or "ln_" in name:
            assert (values == (0 if name.endswith("bias") else 1)).all()
    assert not made.hf.training


@pytest.mark.parametrize("which", ["model", "gated"])
@pytest.mark.parametrize("tokens", ["all", "every:3,skip:2", "random:4", "word-final"])
def test_the_real_model_read_again_gives_the_codes_that_there_were(which: str, tokens: str, request) -> None:
    """With the model itself as its own control, nothing changes: sites, tokens, labels, bits, activations."""
    real = request.getfixturevalue(which)
    codes = plm.encode(real, SENTENCES, layers=[1], keep=("u", "h"), tokens=tokens, seed=3, bos=True, max_length=12)
    again = recaptured(codes, real)
    np.testing.assert_array_equal(again.packed(1), codes.packed(1))
    np.testing.assert_allclose(again.activations("h", 1), codes.activations("h", 1), atol=1e-5)
    assert again.tokens.equals(codes.tokens)
    assert again.provenance == codes.provenance
    some = codes.select(np.array([9, 2, 5]))
    np.testing.assert_array_equal(recaptured(some, real).packed(1), some.packed(1))
    twice = recaptured(codes.select([4, 1, 4]), real)
    np.testing.assert_array_equal(twice.packed(1), codes.packed(1)[[4, 1, 4]])
    made = recaptured(codes, permuted(real))
    assert made.tokens.equals(codes.tokens)
    assert 0.2 < (made.bits(1) != codes.bits(1)).mean() < 0.8
    assert "weights permuted" in made.provenance["model"]


def test_a_store_is_read_again_with_what_is_asked_for(model, tmp_path) -> None:
    labelled = [Document(id=str(i), text=t, labels={"topic": "ab"[i % 2]}) for i, t in enumerate(SENTENCES)]
    store = plm.capture(model, labelled, to=tmp_path / "s", layers=[0, 2], tokens="random:5", progress=False)
    again = recaptured(store, model, keep=("u", "h"))
    assert again.tokens.equals(store.tokens)
    assert set(again.tokens["topic"]) == {"a", "b"}
    for layer in (0, 2):
        np.testing.assert_array_equal(again.packed(layer), store.packed(layer))
    assert again.kept == ("u", "h")


def test_another_tokenizer_is_noticed(model, gpt2, tokenizer) -> None:
    with_bos = plm.encode(model, SENTENCES, layers=[1], bos=True)
    other = copy.deepcopy(tokenizer)
    other.bos_token = "!"
    with pytest.raises(PolytopeError, match=r"other special tokens than \[0\] and \[\]"):
        recaptured(with_bos, plm.wrap(gpt2(), other))
    plain = plm.encode(model, SENTENCES, layers=[1])
    table = plain.tokens.assign(token_id=plain.tokens["token_id"] + 1)
    with pytest.raises(PolytopeError, match="another token at position 0 of document 2 than 'A'"):
        recaptured(dataclasses.replace(plain, table=table), model)


def test_mistakes_are_one_line(model, gated, gpt2, tokenizer) -> None:
    codes = plm.encode(model, SENTENCES, layers=[1])
    with pytest.raises(PolytopeError, match="layer"):
        recaptured(plm.encode(model, SENTENCES, layers=[2]), gated)
    with pytest.raises(PolytopeError, match="0 tokens of 'small-gpt2' were not captured"):
        recaptured(codes.select([]), model)
    declared = model.with_site("blocks.1.hook_resid_post", np.ones((5, 24), np.float32))
    for make in (permuted, untrained):
        with pytest.raises(PolytopeError, match=r"has declared sites \(blocks.1.hook_resid_post\)"):
            make(declared)
        with pytest.raises(PolytopeError, match="is inside a TransformerBridge"):
            make(plm.wrap(model.bridge, tokenizer))


def test_line_one_says_what_it_isolates() -> None:
    assert inspect.getdoc(weights).startswith("Isolates learning from architecture")
