"""The script that trains the models of this package, and the weights that it made."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pydoc_data.topics import topics as python_topics
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from analyses import train_tiny
from polytope_lm import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path

SMALL = train_tiny.Recipe(
    steps=3, vocabulary=300, layers=1, width=16, heads=2, context=32, batch=8, rate=0.02, experts=4, expert_width=8
)
FILES = ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
SHIPPED = sorted(train_tiny.NAMES.values())
TOPICS = {name: python_topics[name] for name in ("assert", "binary", "lambda", "power", "truth")}


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def activation_of(model) -> str:
    return model.config.hidden_act if model.config.model_type == "olmoe" else model.config.activation_function


@pytest.mark.parametrize("activation", sorted(train_tiny.NAMES))
def test_three_steps_give_a_model_that_loads_and_has_learned(tmp_path, activation):
    recipe = replace(SMALL, activation=activation)
    figures = train_tiny.run(recipe, TOPICS, tmp_path)
    assert sorted(digests(tmp_path)) == FILES
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.dtype == torch.float32
    assert activation_of(model) == activation
    held_out = [TOPICS["binary"], TOPICS["lambda"]]
    again = train_tiny.held_out_loss(model.eval(), tokenizer, held_out)
    assert again == pytest.approx(figures.held_out, abs=1e-5)  # the card's figures are of the stored weights
    untrained = train_tiny.held_out_loss(train_tiny.build(recipe).eval(), tokenizer, held_out)
    assert np.isfinite(again)
    assert again < untrained


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    before = torch.random.get_rng_state()
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        train_tiny.run(replace(SMALL, seed=seed), TOPICS, tmp_path / name)
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    weights = "model.safetensors"
    assert digests(tmp_path / "first")[weights] != digests(tmp_path / "other")[weights]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_of_a_held_out_topic_is_in_training():
    seen, held_out = train_tiny.split(python_topics)
    assert set(held_out) == set(train_tiny.HELD_OUT) & set(python_topics)
    assert not set(held_out) & set(seen)
    text = "\n".join(seen.values())
    for passage in held_out.values():
        lines = [line.strip() for line in passage.splitlines() if len(line) > 65]
        assert lines
        assert not [line for line in lines if line in text]


def test_an_excerpt_of_a_longer_topic_is_left_out():
    long = " ".join(f"word{i}" for i in range(200))
    seen, _ = train_tiny.split({"long": long, "excerpt": long[100:400], "own": "quite another text " * 20})
    assert set(seen) == {"long", "own"}


def test_copied_share_is_that_of_a_count_by_hand():
    held_out = "x" * 30 + "".join(map(str, range(60)))
    copied = train_tiny.copied_share({"a": held_out[:80]}, {"b": held_out})
    count = len(held_out) - train_tiny.RUN + 1
    assert copied == pytest.approx(21 / count)


def test_unigram_loss_by_hand():
    seen, held_out = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2])
    expected = -np.log(np.array([4, 2, 1]) / 7).mean()
    assert train_tiny.unigram_loss(seen, held_out, 3) == pytest.approx(expected)


def test_held_out_loss_predicts_every_token_once_with_the_context_that_fits(tmp_path):
    train_tiny.run(SMALL, TOPICS, tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    model.eval()
    text = TOPICS["assert"][:150]
    tokens = [0, *tokenizer(text).input_ids]
    assert len(tokens) > 2 * SMALL.context
    expected = []
    for i in range(1, len(tokens)):
        start = (i - 1) // (SMALL.context - 1) * (SMALL.context - 1)
        with torch.no_grad():
            logits = model(torch.tensor([tokens[start:i]])).logits[0, -1].double()
        expected.append(-torch.log_softmax(logits, -1)[tokens[i]].item())
    assert train_tiny.held_out_loss(model, tokenizer, [text]) == pytest.approx(np.mean(expected), abs=1e-5)


def test_the_command_line_writes_where_it_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_tiny, "python_topics", TOPICS)
    threads = torch.get_num_threads()
    try:
        train_tiny.main(["--activation", "relu", "--steps", "1", "--out", str(tmp_path / "new" / "place")])
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=False)
    assert "unigram" in capsys.readouterr().out
    assert sorted(digests(tmp_path / "new" / "place")) == FILES


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_a_run_that_was_cut_short_goes_on_to_the_same_bytes(tmp_path, activation):
    recipe = replace(SMALL, activation=activation, vocabulary=40, steps=6)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 40, 500))
    whole, losses = train_tiny.train(recipe, tokens)

    batches, file = list(train_tiny.draws(tokens, recipe)), tmp_path / "unfinished.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_tiny, "draws", lambda *_: iter([*batches[:5], None]))
        with pytest.raises(TypeError):  # in the sixth step
            train_tiny.train(recipe, tokens, report=2, unfinished=file)
    again, told = train_tiny.train(recipe, tokens, report=2, unfinished=file)
    assert told == losses
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(PolytopeError, match=r"unfinished\.pt.*rate=0\.02.*rate=0\.01"):
        train_tiny.train(replace(recipe, rate=0.01), tokens, unfinished=file)


def test_imbalance_and_loads_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3]]))
    chosen = torch.tensor([[0, 1], [0, 2]])
    shares, probabilities = np.array([2, 1, 1]) / 4, np.array([0.55, 0.2, 0.25])
    assert train_tiny.imbalance(logits, chosen).item() == pytest.approx(3 * (shares * probabilities).sum())
    even = train_tiny.imbalance(torch.zeros(3, 3), torch.tensor([[0, 1], [1, 2], [2, 0]]))
    assert even.item() == pytest.approx(1)


def test_the_mixtures_card_tells_the_loads_of_its_experts():
    directory = train_tiny.DATA / "tiny-moe"
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    _, held_out = train_tiny.split(python_topics)
    tokens = train_tiny.stream(tokenizer, list(held_out.values()))
    tokens = tokens[tokens != 0]
    counts = np.zeros((4, 8))
    for window in tokens.split(256):
        with torch.no_grad():
            routed = model(window[None], output_router_logits=True).router_logits
        for layer, logits in enumerate(routed):
            np.add.at(counts[layer], logits.numpy().argsort(1)[:, -2:], 1)
    assert (counts / len(tokens)).min() > 0.1  # no expert is dead
    card = (directory / "README.md").read_text(encoding="utf-8")
    text = "".join(f"{topic}\0{python_topics[topic]}\0" for topic in sorted(python_topics))
    if hashlib.sha256(text.encode()).hexdigest() in card:
        rows = [line.strip("| ").split(" | ")[1:] for line in card.splitlines() if re.match(r"\| \d \| \d+\.", line)]
        told = [[float(load.strip("%")) for load in row] for row in rows]
        np.testing.assert_allclose(told, 100 * counts / len(tokens), atol=0.15)  # a choice may hang on rounding


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_small_and_clean(name):
    directory = train_tiny.DATA / name
    assert sorted(path.name for path in directory.iterdir()) == FILES
    for path in directory.iterdir():
        raw = path.read_bytes()
        for trace in (b"/tmp/", b"/home/", b"/work/", b"/root/", b"_name_or_path"):
            assert trace not in raw, path.name
    with safe_open(directory / "model.safetensors", "np") as file:
        for key in file.keys():  # noqa: SIM118 - not a mapping
            assert np.isfinite(file.get_tensor(key)).all()


def test_the_dense_models_together_and_the_mixture_are_under_four_megabytes_each():
    size = {name: sum(path.stat().st_size for path in (train_tiny.DATA / name).iterdir()) for name in SHIPPED}
    assert size["tiny-gpt2"] + size["tiny-relu"] < 4e6
    assert size["tiny-moe"] < 4e6


@pytest.mark.parametrize(("activation", "name"), sorted(train_tiny.NAMES.items()))
def test_shipped_models_predict_unseen_text_far_better_than_token_frequencies(activation, name):
    directory = train_tiny.DATA / name
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert activation_of(model) == activation
    assert model.dtype == torch.float32
    seen, held_out = train_tiny.split(python_topics)
    unseen = train_tiny.stream(tokenizer, list(held_out.values()))
    unigram = train_tiny.unigram_loss(
        train_tiny.stream(tokenizer, list(seen.values())), unseen[unseen != 0], len(tokenizer)
    )
    loss = train_tiny.held_out_loss(model, tokenizer, list(held_out.values()))
    assert loss < unigram - 1
    card = (directory / "README.md").read_text(encoding="utf-8")
    assert f"# {name}\n" in card
    text = "".join(f"{topic}\0{python_topics[topic]}\0" for topic in sorted(python_topics))
    if hashlib.sha256(text.encode()).hexdigest() in card:  # the Python that the models were trained on
        assert f"| held-out topics | {loss:.3f} " in card


def test_shipped_twins_differ_in_weights_and_activation_only():
    first, second = (train_tiny.DATA / name for name in ("tiny-gpt2", "tiny-relu"))
    assert (first / "tokenizer.json").read_bytes() == (train_tiny.DATA / "tiny-moe" / "tokenizer.json").read_bytes()
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()
    assert (first / "model.safetensors").read_bytes() != (second / "model.safetensors").read_bytes()
    configs = [json.loads((path / "config.json").read_text(encoding="utf-8")) for path in (first, second)]
    assert {key for key in configs[0] if configs[0][key] != configs[1][key]} == {"activation_function"}


def test_shipped_tokenizer_gives_back_any_text_and_adds_nothing():
    tokenizer = AutoTokenizer.from_pretrained(train_tiny.DATA / "tiny-gpt2")
    for text in ("", " a  b\n\n\tc", "naïve Ω 🙂 \x00 <script>", "The <|endoftext|>", python_topics["lambda"]):
        encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
        assert tokenizer.decode(encoded.input_ids, clean_up_tokenization_spaces=False) == text
        assert encoded.input_ids[:1] != [tokenizer.bos_token_id]
    spans = tokenizer("in the", return_offsets_mapping=True).offset_mapping
    assert (2, 6) in spans  # the space is in the span of its token, as in GPT-2
