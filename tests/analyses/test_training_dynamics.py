"""The analysis of training, at toy size: its numbers against plain computations, resumed, drawn on one page."""

from __future__ import annotations

import json
from functools import partial
from pydoc_data.topics import topics as python_topics

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from analyses import train_small, train_tiny, training_dynamics
from polytope_lm.training.checkpoints import Checkpoints


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for name, value in {
        "POINTS": 6,
        "PATHS": 3,
        "NODES": 9,
        "WINDOWS": 3,
        "LENGTH": 96,
        "NEAR": 4,
        "CROSSED": 2,
    }.items():
        monkeypatch.setattr(training_dynamics, name, value)


def rows(directory) -> dict[int, dict[str, float]]:
    lines = (directory / "rows.jsonl").read_text().splitlines()
    return {entry["step"]: entry["values"] for entry in map(json.loads, lines)}


def test_digits_equal_a_plain_network_and_go_on(tmp_path, capsys):
    training_dynamics.main(["digits", str(tmp_path), "--steps", "8"])
    found = rows(tmp_path / "digits")
    assert list(found) == [0, 1, 2, 4, 8]
    data, bits, weights = training_dynamics.digits(), {}, {}
    for step in found:
        network = training_dynamics.digit_network().double()
        weights[step] = load_file(tmp_path / "digits" / "checkpoints" / f"step-{step:06d}.safetensors")
        network.load_state_dict(weights[step])
        x, labels = torch.from_numpy(data.test), torch.from_numpy(data.test_labels)
        first = network[0](x)
        second = network[2](first.relu())
        bits[step] = torch.cat([first > 0, second > 0], 1)
        logits = network(x)
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        assert found[step]["loss, test"] == pytest.approx(loss, rel=1e-6)
        norms = first.abs() / network[0].weight.norm(dim=1)
        nearest = (norms.min(1).values / x.norm(dim=1)).detach().numpy()
        assert found[step]["boundary distance over |u|, layer 0, test"] == pytest.approx(np.median(nearest), rel=1e-6)
        flips = (bits[step] != bits[8]).double().mean().item() if 8 in bits else None
        assert flips is None or found[step]["bits changed to the last"] == pytest.approx(flips)
    changed = (bits[4] != bits[2]).double().mean().item()
    assert found[4]["bits changed since the one before"] == pytest.approx(changed)
    assert "bits changed since the one before" not in found[0]
    parts = [
        torch.cat([weights[s][f"{i}.{kind}"].flatten() for i in (0, 2) for kind in ("weight", "bias")]) for s in (0, 8)
    ]
    assert found[0]["weights' relative change to the last"] == pytest.approx(
        ((parts[1] - parts[0]).norm() / parts[1].norm()).item(), rel=1e-4
    )
    before = (tmp_path / "digits" / "rows.jsonl").read_bytes()
    training_dynamics.main(["digits", str(tmp_path), "--steps", "8"])
    assert (tmp_path / "digits" / "rows.jsonl").read_bytes() == before
    training_dynamics.main(["page", str(tmp_path)])
    assert "settled: bits changed" in capsys.readouterr().out
    text = (tmp_path / "training-dynamics.html").read_text()
    assert "local complexity, r = 0.05 |x|" in text
    assert "sharpness" in text


def test_a_language_model_equals_a_plain_forward(tmp_path, capsys):
    lines = [
        json.dumps({"source": "a", "text": f"The {word} reads file {i} and prints what it has found there."})
        for i, word in enumerate(["program", "printer", "reader", "command"] * 20)
    ]
    for part in ("train", "held_out"):
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    train_small.main(["prepare", str(tmp_path), "--vocabulary", "300"])
    shape = ["--layers", "2", "--width", "32", "--heads", "2", "--context", "128", "--batch", "4", "--steps", "4"]
    train_small.main(["train", str(tmp_path), str(tmp_path / "out"), "--activation", "relu", "--warm-up", "2", *shape])
    (tmp_path / "out" / "checkpoints" / "small-relu" / "step-000000.safetensors").rename(tmp_path / "first.safetensors")
    places = ["--work", str(tmp_path), "--trained", str(tmp_path / "out")]
    training_dynamics.main(["language", str(tmp_path / "td"), "--name", "small-relu", *places])
    capsys.readouterr()
    found = rows(tmp_path / "td" / "small-relu")
    assert list(found) == [0, 1, 2, 4]
    measure = training_dynamics.LanguageMeasure(
        training_dynamics.Subject.small("small-relu", tmp_path, tmp_path / "out"), None
    )
    bits = {}
    for step in found:
        model = measure.model(measure.checkpoints.load(step)).hf
        hs: list[torch.Tensor] = []
        for block in model.transformer.h:
            block.mlp.c_fc.register_forward_hook(lambda _m, _a, out, hs=hs: hs.append(out.flatten(0, 1)))
        with torch.no_grad():
            logits = model(input_ids=measure.windows[:, :-1]).logits
        bits[step] = torch.cat(hs, 1) > 0
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), measure.windows[:, 1:].flatten()).item()
        assert found[step]["loss, held out"] == pytest.approx(loss, rel=1e-5)
    assert found[0]["bits changed to the last"] == pytest.approx((bits[0] != bits[4]).double().mean().item())
    # The untrained weights are made again from the seed where their checkpoint is missing.
    first = load_file(tmp_path / "first.safetensors")
    again = load_file(tmp_path / "out" / "checkpoints" / "small-relu" / "step-000000.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    # The Jacobian's norm, computed among neurons, is that of autograd's Jacobian.
    model = measure.model(measure.checkpoints.load(4))
    layers, _, _ = measure.layers(model)
    block = model.hf.transformer.h[1]
    rng = np.random.default_rng(training_dynamics.SEED)
    tokens = layers[1].x[rng.choice(len(layers[1].x), 4, replace=False)]
    norms = [
        torch.func.jacrev(block.mlp)(block.ln_2(torch.from_numpy(x))[None]).squeeze().norm().item() for x in tokens
    ]
    assert found[4]["norm of the Jacobian, tokens, layer 1"] == pytest.approx(np.mean(norms), rel=1e-4)


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_the_checkpoints_of_a_tiny_model(tmp_path, capsys, monkeypatch, activation):
    topics = {name: python_topics[name] for name in ("assert", "binary", "lambda", "power", "truth")}
    recipe = partial(train_tiny.Recipe, steps=6, vocabulary=300, layers=2, width=32, heads=2, context=128, batch=2)
    monkeypatch.setattr(train_tiny, "Recipe", recipe)
    monkeypatch.setattr(training_dynamics, "python_topics", topics)
    name = train_tiny.NAMES[activation]
    kept = Checkpoints(tmp_path / "kept" / name)
    train_tiny.run(recipe(activation=activation), topics, tmp_path / "model", checkpoints=kept)
    assert kept.steps == [0, 1, 2, 4, 6]
    # The last checkpoint is the model.
    for key, value in load_file(tmp_path / "model" / "model.safetensors").items():
        assert torch.equal(kept.load(6)[key], value.float())
    where = ["--name", name, "--checkpoints", str(tmp_path / "kept")]
    training_dynamics.main(["language", str(tmp_path / "td"), *where])
    capsys.readouterr()
    found = rows(tmp_path / "td" / name)
    assert list(found) == kept.steps
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    text = [0, *tokenizer(topics["binary"]).input_ids, 0, *tokenizer(topics["lambda"]).input_ids]
    starts = np.random.default_rng(training_dynamics.SEED).integers(0, len(text) - 97, 3)
    windows = torch.tensor([text[start : start + 97] for start in starts])
    with torch.no_grad():
        logits = model(input_ids=windows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    assert found[6]["loss, held out"] == pytest.approx(loss, rel=1e-5)
    with pytest.raises(SystemExit):
        training_dynamics.main(["language", str(tmp_path / "td"), "--name", name])
    assert f"{name} needs --checkpoints" in capsys.readouterr().err


def test_an_interval_is_drawn_beside_its_estimate():
    names = ["lead, AMI", "lead, AMI, low", "lead, AMI, high", "loss, held out", "bits changed to the last"]
    table = pd.DataFrame(
        [(step, name, 0.5) for step in (0, 1) for name in names], columns=["step", "quantity", "value"]
    )
    drawn = {title: [curve.name for curve in curves] for title, curves in training_dynamics.panels(table).items()}
    assert drawn == {
        "lead": ["AMI", "AMI, low", "AMI, high"],
        "loss": ["held out"],
        "changed to the last": ["bits changed to the last"],
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["page", "{0}"], r"rows\.jsonl.*digits"),
        (["language", "{0}/td", "--name", "tiny-relu", "--checkpoints", "{0}"], "no checkpoint of trained weights"),
        (["language", "{0}/td", "--work", "{0}", "--trained", "{0}"], r"small-relu\.json is missing"),
    ],
)
def test_what_is_missing_is_said_in_one_line_and_nothing_is_written(tmp_path, asked, said):
    with pytest.raises(SystemExit, match=f"^error: .*{said}"):
        training_dynamics.main([word.format(tmp_path) for word in asked])
    assert not list(tmp_path.iterdir())
