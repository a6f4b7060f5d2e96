"""Captures whose bits are packed where the model lives: on the CPU, a model in half precision takes that way."""

from __future__ import annotations

import copy
import json
import logging

import numpy as np
import pytest
import torch
from small import SENTENCES, tree

import polytope_lm as plm
from polytope_lm.codes import capture as capture_module
from polytope_lm.codes import forward


@pytest.fixture
def on_a_device(monkeypatch):
    """Let float32 models take the way of a device, too."""
    monkeypatch.setattr(forward, "runs_at_once", lambda _model: False)
    monkeypatch.setattr(capture_module, "runs_at_once", lambda _model: False)


def plain_codes(model, layer):
    """Signs read by a plain hook, a text at a time."""
    found = []
    handle = model.block(layer).pre["gate"].register_forward_hook(lambda _m, _i, out: found.append(out[0] > 0))
    with torch.inference_mode():
        for text in SENTENCES:
            model.hf(torch.tensor([model.tokenizer(text)["input_ids"]]))
    handle.remove()
    return torch.cat(found).numpy()


def test_a_half_precision_model_gives_the_signs_of_its_own_numbers(llama, tokenizer):
    half = plm.wrap(llama().bfloat16(), tokenizer)
    codes = plm.encode(half, SENTENCES, batch_tokens=1)  # a text at a time, as the plain hook
    for layer in range(2):
        np.testing.assert_array_equal(codes.bits(layer), plain_codes(half, layer))


@pytest.mark.parametrize("tokens", ["all", "random:2", "word-final"])
@pytest.mark.parametrize("kind", ["gate", "gate+up"])
def test_both_ways_write_the_same_bytes(gated, tmp_path, monkeypatch, kind, tokens):
    ways = {"kind": kind, "tokens": tokens, "keep": ["h", "x"], "batch_tokens": 40, "shard_documents": 2}
    plm.capture(gated, SENTENCES, to=tmp_path / "at-once", **ways)
    monkeypatch.setattr(forward, "runs_at_once", lambda _model: False)
    monkeypatch.setattr(capture_module, "runs_at_once", lambda _model: False)
    monkeypatch.setattr(forward, "_SMALL", 0)  # and threads write
    plm.capture(gated, SENTENCES, to=tmp_path / "later", **ways)
    assert tree(tmp_path / "at-once") == tree(tmp_path / "later")


@pytest.mark.usefixtures("on_a_device")
def test_one_batch_is_under_way_while_the_next_begins(model, monkeypatch):
    """A batch is told as done, and its rows are there, before the batch after the next begins."""
    events, real = [], forward.begin

    def begin(*args):
        events.append("begin")
        end = real(*args)
        return lambda: (events.append("end"), end())

    monkeypatch.setattr(forward, "begin", begin)
    plm.encode(model, SENTENCES, batch_tokens=1)
    assert events == ["begin", *["begin", "end"] * (len(SENTENCES) - 1), "end"]


@pytest.mark.usefixtures("on_a_device")
def test_what_is_not_finite_is_named(gpt2, tokenizer):
    broken = gpt2()
    model = plm.wrap(broken, tokenizer)
    with torch.no_grad():
        broken.transformer.h[1].mlp.c_fc.bias[5] = float("nan")
    with pytest.raises(plm.PolytopeError, match=r"^L01\.pre, document \d, token \d .*, neuron 5: pre-activation nan"):
        plm.encode(model, SENTENCES)


@pytest.mark.usefixtures("on_a_device")
def test_beyond_float16_is_named(gpt2, tokenizer):
    large = gpt2()
    with torch.no_grad():
        large.transformer.h[0].mlp.c_fc.bias[7] = 70_000.0
    with pytest.raises(plm.PolytopeError, match=r"neuron 7: (69,9|70,0)\d\d\.\d is beyond float16"):
        plm.encode(plm.wrap(large, tokenizer), SENTENCES, keep=["h"], keep_dtype="float16")


def small_memory(monkeypatch, most):
    """Let a pass over more than so many tokens run out of memory; return the sizes that were tried."""
    tried, real = [], forward.read

    def read(model, ids, mask, taps):
        tried.append(ids.numel())
        if ids.numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        real(model, ids, mask, taps)

    monkeypatch.setattr(forward, "read", read)
    return tried


def test_out_of_memory_takes_smaller_batches_says_so_and_writes_it_down(model, tmp_path, monkeypatch, caplog):
    documents = [f"{i} {text}" for i in range(3) for text in SENTENCES]
    whole = plm.capture(model, documents, to=tmp_path / "whole", shard_documents=4)
    tried = small_memory(monkeypatch, 30)
    with caplog.at_level(logging.WARNING):
        store = plm.capture(model, documents, to=tmp_path / "store", shard_documents=4)
    assert any("out of memory with" in record.message for record in caplog.records)
    records = [json.loads(p.read_text()) for p in sorted((tmp_path / "store/shards").glob("*/shard.json"))]
    fits = [record.get("batch_tokens") for record in records]
    assert fits[-1] is not None
    assert all(n is None or n < 2048 for n in fits)
    too_large = [n for n in tried if n > 30]
    assert len(too_large) <= 5  # what once did not fit is not tried again
    assert not store.verify()
    for layer in range(3):
        h = plm.encode(model, documents, layers=[layer]).activations("h", layer)
        same = store.bits(layer) == whole.bits(layer)
        assert same[np.abs(h) > 1e-4].all()


def test_codes_in_memory_say_what_fitted(model, monkeypatch):
    small_memory(monkeypatch, 30)
    assert plm.encode(model, SENTENCES).provenance["batch_tokens"] < 2048


def test_a_window_that_does_not_fit_is_one_line(model, monkeypatch):
    small_memory(monkeypatch, 3)
    with pytest.raises(plm.PolytopeError, match=r"^small-gpt2: cpu is out of memory with one window of \d+ tokens"):
        plm.encode(model, SENTENCES)


def test_half_precision_models_say_what_they_are(gpt2, tokenizer):
    half = plm.wrap(copy.deepcopy(gpt2()).half(), tokenizer)
    assert plm.encode(half, SENTENCES).provenance["dtype"] == "float16"
