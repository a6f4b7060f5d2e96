"""The analysis of training, at toy size: its numbers against plain computations, resumed, drawn on one page."""

from __future__ import annotations

import json
from functools import partial
from pydoc_data.topics import topics as python_topics

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from analyses import train_small, train_tiny, training_dynamics
from polytope_lm.geometry.local_complexity import frames
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
            logits = model(input_ids=measure.windows["held out"][:, :-1]).logits
        bits[step] = torch.cat(hs, 1) > 0
        labels = measure.windows["held out"][:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels).item()
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
    assert found[4]["norm of the Jacobian, layer 1, held out"] == pytest.approx(np.mean(norms), rel=1e-4)


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


@pytest.fixture
def subject(tmp_path):
    """A model with random weights, large enough to foretell many tokens; each text has its own tokens."""
    recipe = train_tiny.Recipe(
        activation="relu", steps=4, vocabulary=90, layers=2, width=32, heads=2, context=128, batch=2
    )
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    weights = train_tiny.weights_of(train_tiny.build(recipe))
    checkpoints.save(4, {name: value * (8 if value.ndim == 2 else 1) for name, value in weights.items()})
    rng = np.random.default_rng(1)
    texts = (torch.from_numpy(rng.integers(low, low + 45, 600)) for low in (0, 45))
    return training_dynamics.Subject("toy", recipe, checkpoints, tokenizer(), *texts)


def tokenizer():
    return AutoTokenizer.from_pretrained(train_tiny.DATA / "tiny-gpt2")


def plain(hf, rows):
    """The likeliest next token behind each row of embeddings, and what the MLPs' norms read there."""
    seen = []
    hooks = [
        block.ln_2.register_forward_hook(lambda _m, args, _out: seen.append(args[0][:, -1]))
        for block in hf.transformer.h
    ]
    with torch.no_grad():
        likeliest = hf(inputs_embeds=rows).logits[:, -1].argmax(1)
    for hook in hooks:
        hook.remove()
    return likeliest.numpy(), [each.numpy() for each in seen]


def flips(block, points, share):
    """Neurons whose sign is not the same at all vertices around a point, mean over points: vertex after vertex."""
    radius = share * np.linalg.norm(points, axis=1)
    counts = []
    for vertices in frames(points, radius, seed=training_dynamics.SEED):
        with torch.no_grad():
            signs = [
                tuple((block.mlp.c_fc(block.ln_2(torch.from_numpy(v).float()[None]))[0] > 0).tolist()) for v in vertices
            ]
        counts.append(sum(len(set(of_neuron)) == 2 for of_neuron in zip(*signs, strict=True)))
    return np.mean(counts)


def test_on_the_boundary_between_two_next_tokens(subject):
    measure = training_dynamics.LanguageMeasure(subject, None)
    weights = subject.checkpoints.load(4)
    model = measure.model(weights)
    found, windows = measure.on_paths(model), measure.windows["held out"]
    hf = model.hf.double()
    embedding = hf.transformer.wte.weight.detach()

    def along(t):
        ends = [embedding[windows[found.window, found.places[:, end]]] for end in (0, 1)]
        last = ends[0] + torch.from_numpy(np.asarray(t))[:, None] * (ends[1] - ends[0])
        return torch.cat([embedding[windows[found.window, :31]], last[:, None]], 1)

    assert len(found.t) == 4
    assert (found.places[:, 1] - found.places[:, 0] == 30).all()
    before, after = (plain(hf, along(found.t + way))[0] for way in (-1e-8, 1e-8))
    assert (before != after).all()
    assert (before == plain(hf, along(0 * found.t))[0]).all()
    at = {"decision boundary": found.t, "paths' starts": 0 * found.t, "same paths elsewhere": np.roll(found.t, 1)}
    assert at.keys() == found.x.keys()
    for kind, t in at.items():
        for theirs, ours in zip(plain(hf, along(t))[1], found.x[kind], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-7)
    pairs = [(row, first) for row in range(3) for first in range(36, 66, 6)]
    ends = [
        torch.stack([torch.cat([windows[row, :31], windows[row, [first + way]]]) for row, first in pairs])
        for way in (0, 30)
    ]
    with torch.no_grad():
        two = [hf(input_ids=ids).logits[:, -1].argmax(1) for ids in ends]
    assert 0 < found.share == (two[0] != two[1]).double().mean().item()


def test_counts_near_each_kind_of_point_are_those_of_a_brute_force(subject):
    measure = training_dynamics.LanguageMeasure(subject, None)
    for text, tokens in (("training", range(45)), ("held out", range(45, 90))):
        assert set(measure.windows[text].flatten().tolist()) <= set(tokens)
    weights = subject.checkpoints.load(4)
    numbers, model = measure(4, weights), measure.model(weights)
    chosen = np.random.default_rng(training_dynamics.SEED).choice(3 * 96, 4, replace=False)
    near = measure.on_paths(model).x
    for number, block in enumerate(model.hf.transformer.h):
        points = {kind: x[number] for kind, x in near.items()}
        for text, windows in measure.windows.items():
            seen = []
            hook = block.ln_2.register_forward_hook(
                lambda _m, args, _out, seen=seen: seen.append(args[0].flatten(0, 1))
            )
            with torch.no_grad():
                model.hf(input_ids=windows[:, :-1])
            hook.remove()
            points[text] = seen[0].numpy()[chosen]
        for label, share in (("r = 0.005 |x|", 0.005), ("r = 0.05 |x|", 0.05)):
            name = f"local complexity, {label}, layer {number}"
            counted = {kind: flips(block, each.astype(np.float64), share) for kind, each in points.items()}
            assert {kind: numbers[f"{name}, {kind}"] for kind in counted} == pytest.approx(counted)
            assert any(counted.values()) or share == 0.005
            for what, (more, less) in {
                "training less held out": ("training", "held out"),
                "boundary less elsewhere": ("decision boundary", "same paths elsewhere"),
            }.items():
                title = f"differences of {name}, {what}"
                assert numbers[title] == pytest.approx(counted[more] - counted[less])
                assert numbers[f"{title}, low"] <= numbers[title] <= numbers[f"{title}, high"]


def test_a_model_that_foretells_one_token_has_no_boundary(subject):
    weights = subject.checkpoints.load(4)
    weights["transformer.ln_f.bias"] = 100 * weights["transformer.wte.weight"][7]
    numbers = training_dynamics.LanguageMeasure(subject, None)(4, weights)
    assert numbers["pairs with two next tokens"] == 0
    assert not [name for name in numbers if "decision" in name or "elsewhere" in name or "starts" in name]
    assert "local complexity, r = 0.05 |x|, layer 1, training" in numbers


def test_a_differences_interval_is_students_where_windows_have_one_number_each():
    rng = np.random.default_rng(0)
    a, b, window = rng.normal(1, 1, 40), rng.normal(0, 1, 40), np.arange(40)
    for shared, spread in ((True, (a - b).std() / 40**0.5), (False, ((a.var() + b.var()) / 40) ** 0.5)):
        found = training_dynamics.difference(a, b, window, window if shared else window + 40)
        assert found.value == pytest.approx(a.mean() - b.mean())
        assert found.sd == pytest.approx(spread, rel=0.12)
    # What windows share does not count as many times as they have points.
    many = training_dynamics.difference(np.repeat(a, 9), np.repeat(b, 9), np.repeat(window, 9), np.repeat(window, 9))
    assert many.sd == pytest.approx((a - b).std() / 40**0.5, rel=0.12)


def test_prediction_1_is_added_where_the_treebank_comes_later(subject, tmp_path, monkeypatch, capsys):
    asked = []

    def prediction_1(self, step, _weights):
        asked.append(step)
        return {"code, AMI": 0.5}

    monkeypatch.setattr(training_dynamics.Subject, "tiny", lambda *_: subject)
    monkeypatch.setattr(training_dynamics, "treebank", lambda _data: [])
    monkeypatch.setattr(training_dynamics.LanguageMeasure, "prediction_1", prediction_1)
    places = ["language", str(tmp_path / "td"), "--name", "tiny-relu", "--checkpoints", str(tmp_path)]
    training_dynamics.main(places)
    before = (tmp_path / "td" / "tiny-relu" / "rows.jsonl").read_bytes()
    assert asked == []
    for _ in range(2):
        training_dynamics.main([*places, "--data", str(tmp_path)])
    assert asked == [0, 4]
    assert (tmp_path / "td" / "tiny-relu" / "rows.jsonl").read_bytes() == before
    training_dynamics.main(["page", str(tmp_path / "td")])
    capsys.readouterr()
    kept = json.loads((tmp_path / "td" / "training-dynamics.json").read_text())["tiny-relu"]["steps"]
    assert [(row["step"], row["values"]["code, AMI"]) for row in kept] == [(0, 0.5), (4, 0.5)]
    assert all("loss, held out" in row["values"] for row in kept)


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
