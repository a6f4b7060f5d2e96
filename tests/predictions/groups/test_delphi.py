"""Groups of tokens as latents of delphi's: its own reader opens what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm.predictions.groups.delphi import delphi_records, write_latents
from polytope_lm.predictions.groups.intruders import intruder_items

ANIMALS, TOOLS = ("cat", "dog", "hen", "pig"), ("saw", "axe", "nail", "drill")
HOOK = "blocks.0.mlp.hook_pre"


@pytest.fixture(scope="module")
def codes(model) -> plm.codes.codes.Codes:
    """Sixty documents about animals or tools."""
    rng = np.random.default_rng(0)
    texts = []
    for i in range(60):
        words = ANIMALS if i % 2 else TOOLS
        filler = ["the", "of", "and", "a"]
        texts.append(" ".join(f"{rng.choice(filler)} {rng.choice(words)}" for _ in range(6 + i % 5)) + f" {i}")
    return plm.encode(model, texts, layers=[0], tokens="word-final")


def _topic(codes) -> np.ndarray:
    return (codes.tokens["document"] % 2).to_numpy(copy=True)


def test_delphis_own_reader_opens_the_latents(codes, tokenizer, tmp_path) -> None:
    pytest.importorskip("delphi", reason="pip install --no-deps eai-delphi")
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents.loader import LatentDataset

    groups = _topic(codes)
    groups[::7] = -1
    write_latents(codes, groups, tokenizer, tmp_path, HOOK, context=8)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    construct = ConstructorConfig(example_ctx_len=8, min_examples=10, n_non_activating=12)
    sample = SamplerConfig(n_examples_train=10, n_examples_test=10, n_quantiles=1)
    records = list(LatentDataset(tmp_path, sample, construct, tokenizer=tokenizer))
    assert sorted(record.latent.latent_index for record in records) == [0, 1]
    total = sum(-(-len(tokenizer(t)["input_ids"]) // 8) for t in codes.texts) * 8
    for record in records:
        assert str(record.latent) == f"{HOOK}_latent{record.latent.latent_index}"
        assert record.per_token_frequency == (groups == record.latent.latent_index).sum() / total
        assert len(record.train) == len(record.test) == 10
        assert len(record.not_active) == 12
        own = codes.texts[record.latent.latent_index :: 2]
        for example in record.train:
            assert example.max_activation == 1
            read = example.tokens[example.tokens != padding]
            assert any(tokenizer.decode(read) in text for text in own)


def arrays(example: dict) -> dict:
    """Lists of numbers as delphi has them."""
    return {key: torch.tensor(v) if isinstance(v, list) and key != "str_tokens" else v for key, v in example.items()}


def test_delphis_own_records_take_the_items(codes, tokenizer) -> None:
    latents = pytest.importorskip("delphi.latents.latents", reason="pip install --no-deps eai-delphi")
    for record in delphi_records(intruder_items(codes, _topic(codes), items=4), tokenizer, HOOK):
        kinds = {"test": latents.ActivatingExample, "not_active": latents.NonActivatingExample}
        made = latents.LatentRecord(
            **{**record, "latent": latents.Latent(**record["latent"])}
            | {name: [kind(**arrays(example)) for example in record[name]] for name, kind in kinds.items()}
        )
        assert all(example.max_activation == 1 for example in made.test)


def test_what_makes_no_latent_is_refused(codes, tokenizer, tmp_path) -> None:
    groups = _topic(codes)
    with pytest.raises(plm.PolytopeError, match=r"none of \d+ tokens has a group"):
        write_latents(codes, np.full(len(codes), -1), tokenizer, tmp_path, HOOK)
    with pytest.raises(plm.PolytopeError, match="3 group ids for"):
        write_latents(codes, groups[:3], tokenizer, tmp_path, HOOK)
    for name in ("../x", "a/b", ""):
        with pytest.raises(plm.PolytopeError, match="module_name = "):
            write_latents(codes, groups, tokenizer, tmp_path / "out", name)
    other = plm.load("tiny-gpt2").tokenizer
    with pytest.raises(plm.PolytopeError, match="is cut otherwise by this tokenizer"):
        write_latents(codes, groups, other, tmp_path / "out", HOOK)
    assert not (tmp_path / "out").exists()
    write_latents(codes, groups, tokenizer, tmp_path / "out", HOOK)
    with pytest.raises(plm.PolytopeError, match="there already"):
        write_latents(codes, groups, tokenizer, tmp_path / "out", HOOK)


def test_delphis_records_mark_the_grouped_token(codes, tokenizer) -> None:
    items = intruder_items(codes, _topic(codes), items=10)
    records = json.loads(json.dumps(delphi_records(items, tokenizer, "blocks.0.mlp.hook_pre")))
    assert sorted(r["latent"]["latent_index"] for r in records) == [0, 1]
    assert sum(len(r["not_active"]) for r in records) == 10
    assert sum(len(r["test"]) for r in records) == 40
    words = {codes.tokens["token"][row].strip() for item in items.items for row in item.rows}
    for record in records:
        for example in record["test"] + record["not_active"]:
            lengths = {len(example[name]) for name in ("tokens", "activations", "str_tokens")}
            assert len(lengths) == 1
            active = [s for s, a in zip(example["str_tokens"], example["activations"], strict=True) if a > 0]
            assert "".join(active).strip() in words
        assert all(max(e["normalized_activations"]) == 10 for e in record["test"])
        assert all(e["distance"] == -1.0 for e in record["not_active"])
