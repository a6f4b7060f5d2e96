"""The script that trains small-gpt2 and small-relu: prepared, trained and placed at toy size."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import polytope_lm as plm
from analyses import train_small, train_tiny

SHAPE = [
    "--layers",
    "2",
    "--width",
    "32",
    "--heads",
    "2",
    "--context",
    "32",
    "--batch",
    "4",
    "--warm-up",
    "2",
    "--rate",
    "0.01",
]
SOURCE = {"version": "1.0", "licences": "GPL-2+", "bytes": 5}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("work")
    lines = [
        json.dumps({"source": "a", "text": f"The {word} reads file {i} and prints what it has found there."})
        for i, word in enumerate(["program", "printer", "reader", "command"] * 20)
    ]
    note = {"sources": {"a-package": SOURCE}}
    for part, some in (("train", lines[:60]), ("held_out", lines[60:])):
        (directory / f"{part}.jsonl").write_text("\n".join(some) + "\n")
        note[part] = {"documents": len(some), "bytes": 1, "sha256": "0"}
    (directory / "sources.json").write_text(json.dumps(note))
    train_small.main(["prepare", str(directory), "--vocabulary", "300"])
    return directory


def test_the_tokens_are_the_documents_each_behind_an_end(work):
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    tokens = train_small.tokens_of(work, "held_out")
    texts = [json.loads(line)["text"] for line in (work / "held_out.jsonl").read_text().splitlines()]
    assert tokenizer.decode(tokens) == "".join(train_tiny.END + text for text in texts)
    assert json.loads((work / "tokens.json").read_text())["held_out"]["tokens"] == len(tokens)


@pytest.mark.parametrize("activation", sorted(train_small.NAMES))
def test_the_loss_written_out_is_that_of_transformers_and_so_is_its_gradient(activation):
    recipe = replace(train_tiny.Recipe(), activation=activation, vocabulary=99, layers=2, width=32, context=16)
    model = train_tiny.build(replace(recipe, dropout=0.0)).double()
    for parameter in model.parameters():  # biases start at 0, which would hide their order
        parameter.data += 0.1 * torch.randn_like(parameter)
    batch = torch.randint(0, 99, (3, 17))
    loss = train_small.loss_of(torch.device("cpu"), fast=False)(model, batch)
    logits = model(input_ids=batch[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)  # the logits are read in float32
    parameters = list(model.parameters())
    for mine, theirs in zip(*(torch.autograd.grad(x, parameters) for x in (loss, expected)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_both_twins_are_trained_placed_and_loaded(work, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    train_small.main(["train", str(work), str(out), "--steps", "20", *SHAPE])
    monkeypatch.setattr(train_small, "MODELS", tmp_path / "models")
    train_small.main(["place", str(work), str(out)])
    capsys.readouterr()
    for activation, name in train_small.NAMES.items():
        record = json.loads((out / f"{name}.json").read_text())
        assert record["steps"] == 20
        assert record["final"] < record["held_out"]["1"]
        kept = sorted(path.name for path in (out / "checkpoints" / name).iterdir())
        assert kept == [f"step-{step:06d}.safetensors" for step in (0, 1, 2, 4, 8, 16)]
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "models" / name)
        assert model.config.activation_function == activation
        tokens = train_small.tokens_of(work, "held_out")
        windows = [tokens[start : start + 33] for start in range(0, len(tokens) - 32, 32)]
        windows = windows[: len(windows) // 4 * 4]
        losses = [model(input_ids=w[None, :-1], labels=w[None, :-1]).logits[0].log_softmax(-1) for w in windows]
        expected = np.mean([-x[torch.arange(32), w[1:]].mean().item() for x, w in zip(losses, windows, strict=True)])
        assert record["final"] == pytest.approx(expected, abs=1e-5)  # the stored weights' own figure
        card = (tmp_path / "models" / name / "README.md").read_text()
        assert "| a-package | 1.0 | GPL-2+ |" in card
        assert f"{record['final']:.3f}" in card
        assert "None" not in card
        codes = plm.encode(plm.load(tmp_path / "models" / name), ["The printer reads file 3."])
        assert len(codes) > 3


def test_a_stopped_training_goes_on(work, tmp_path, capsys, monkeypatch):
    arguments = ["--steps", "20", "--activation", "relu", *SHAPE]
    train_small.main(["train", str(work), str(tmp_path / "whole"), *arguments])
    counted = train_small.log_spaced

    def interrupt(step: int) -> bool:
        if step == 9:
            raise KeyboardInterrupt
        return counted(step)

    with monkeypatch.context() as patched:
        patched.setattr(train_small, "log_spaced", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_small.main(["train", str(work), str(tmp_path / "parts"), *arguments])
    train_small.main(["train", str(work), str(tmp_path / "parts"), *arguments])
    capsys.readouterr()
    first, second = ((tmp_path / place / "small-relu.safetensors").read_bytes() for place in ("whole", "parts"))
    assert first == second
