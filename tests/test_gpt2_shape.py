"""GPT-2 small's own: 12 layers of 3,072 neurons, learned positions, no BOS; on random weights of its very shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import SENTENCES
from transformers import GPT2Config, GPT2LMHeadModel

import polytope_lm as plm
from analyses import gpt2_all

LONG = " ".join(SENTENCES * 30)


@pytest.fixture(scope="module")
def gpt2(tokenizer):
    torch.manual_seed(0)
    return plm.wrap(GPT2LMHeadModel(GPT2Config()).eval(), tokenizer, name="gpt2")


def test_sites_premises_and_bytes(gpt2):
    assert [site.key for site in gpt2.sites] == [f"L{layer:02d}.pre" for layer in range(12)]
    assert {(site.width, site.d_model, site.n_bytes) for site in gpt2.sites} == {(3072, 768, 384)}
    premises = gpt2.sites[8].premises
    assert (premises.linearity, premises.activation, premises.norm) == ("smooth", "gelu_new", "LayerNorm")
    assert gpt2.sites[8].hook == "blocks.8.mlp.hook_pre"
    assert gpt2.context_length == 1024
    assert gpt2.has_logits


def test_codes_of_all_layers_equal_plain_hooks_and_no_bos_is_read(gpt2, tokenizer):
    text = SENTENCES[0]
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    h: list[torch.Tensor] = []
    hooks = [b.mlp.c_fc.register_forward_hook(lambda _m, _i, out: h.append(out[0])) for b in gpt2.hf.transformer.h]
    with torch.no_grad():
        gpt2.hf(ids)
    for hook in hooks:
        hook.remove()
    codes = plm.encode(gpt2, text, keep=())
    assert len(codes) == ids.shape[1]
    assert codes.provenance["special_tokens"]["before"] == []
    for layer, values in enumerate(h):
        sure = (values.abs() > 1e-4).numpy()
        np.testing.assert_array_equal(codes.bits(layer)[sure], (values > 0).numpy()[sure])


def test_positions_are_learned_so_the_same_token_has_other_codes(gpt2):
    codes = plm.encode(gpt2, "the the the the", layers=[0], keep=())
    same = np.flatnonzero(codes.tokens["token_id"] == codes.tokens["token_id"].iloc[-1])
    assert len(same) >= 3
    assert (codes.bits(0)[same[0]] != codes.bits(0)[same[1]]).any()


def test_the_papers_rule_takes_six_of_a_document_after_the_first_hundred_tokens(gpt2, tokenizer):
    codes = plm.encode(gpt2, LONG, layers=[0], keep=(), tokens="every:6,skip:100")
    length = len(tokenizer(LONG)["input_ids"])
    assert length > 1024
    np.testing.assert_allclose(codes.tokens["position"], np.linspace(100, length - 1, 6), atol=1)
    with pytest.raises(plm.PolytopeError, match="every:6,skip:100"):
        plm.encode(gpt2, SENTENCES[0], layers=[0], keep=(), tokens="every:6,skip:100")


def test_a_store_its_neighbours_and_the_boundaries_of_a_path(gpt2, tmp_path):
    store = plm.capture(gpt2, SENTENCES[:2], to=tmp_path / "store", keep=["h"])
    assert store.verify() == []
    assert store.packed(11).shape[1] == 384
    assert len(store.nearest(3, 2, 11).by_direction) == 2
    path = plm.path(gpt2, SENTENCES[0], SENTENCES[1], layer=10, at="mlp_in")
    ends = [plm.encode(gpt2, text, layers=[10], keep=())[0, -1, 10] for text in SENTENCES[:2]]
    assert len(path.crossings()) == len(ends[0] ^ ends[1])
    after = plm.path(gpt2, SENTENCES[0], SENTENCES[1], layer=11).crossings(downstream=True)
    assert after.output_change is not None
    assert after.layer.tolist() == [11] * len(after)


def test_every_question_is_priced_and_the_papers_step_runs(gpt2, monkeypatch, tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    rng = np.random.default_rng(0)
    words = [sentence.split() for sentence in SENTENCES]
    lines = []
    for number in range(30):
        text = " ".join(" ".join(rng.permutation(words[number % 4])) for _ in range(9))
        lines.append(f'{{"id": "{number}", "text": "{text}", "kind": "{"ab"[number % 2]}"}}')
    corpus.write_text("\n".join(lines))
    monkeypatch.setattr(plm, "load", lambda _name, **_: gpt2)
    typed = [
        "--out",
        str(tmp_path / "out"),
        "--corpus",
        str(corpus),
        "--label",
        "kind",
        "--layers",
        "0",
        "--size",
        "small",
    ]
    gpt2_all.main([*typed, "--cost"])
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()[1:-1]] == [
        "paper", "boundaries", "stable", "directions", "determination",
    ]  # fmt: skip
    assert not (tmp_path / "out").exists()
    gpt2_all.main([*typed, "--step", "paper"])
    tables = (tmp_path / "out" / "tables.md").read_text()
    assert "| gpt2 | kind | 0 |" in tables
    result = plm.load_result(tmp_path / "out" / "paper" / "kind")
    assert result.layers[0].site.width == 3072
    assert result.settings.per_document is None
    assert not (tmp_path / "out" / "paper" / "store").exists()
