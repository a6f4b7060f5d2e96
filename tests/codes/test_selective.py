"""Selective neurons: LAPE against its formula, planted neurons, exchanged documents, and the loss without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.codes.ablating import of_same_rates
from polytope_lm.codes.codes import Codes
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.selecting import lape_entropy
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site
from polytope_lm.result import load_result

if TYPE_CHECKING:
    from pathlib import Path

    from polytope_lm.models.model import Model


def made(bits: np.ndarray, labels: np.ndarray, documents: np.ndarray) -> Codes:
    """Codes in memory with one label."""
    site = Site(1, "pre", "blocks.1.mlp.hook_pre", bits.shape[1], 8, Premises("smooth", "gelu", True, "LayerNorm"))
    count = len(bits)
    table = pd.DataFrame(
        {
            "document": documents, "position": np.arange(count), "start": 0, "end": 1, "token_id": 0, "token": "a",
            "topic": labels,
        }
    )  # fmt: skip
    names = [f"d{i}" for i in range(int(documents.max()) + 1)]
    return Codes((site,), table, {site.key: hamming.pack(bits)}, names, ["abc"] * len(names))


def planted(rng: np.random.Generator, neurons: int, planted: int, documents: int, tokens: int = 20) -> Codes:
    """Two values, `documents` each; rates .05 to .5, beta-distributed over documents (correlation .1)."""
    base = rng.uniform(0.05, 0.5, neurons)
    mine = np.repeat([False, True], documents)
    logit = np.log(base / (1 - base)) + mine[:, None] * (np.arange(neurons) < planted)
    means = 1 / (1 + np.exp(-logit))
    rates = rng.beta(9 * means, 9 * (1 - means))  # a + b = 9: intra-document correlation 1 / 10
    where = np.repeat(np.arange(2 * documents), tokens)
    bits = rng.random((len(where), neurons)) < rates[where]
    return made(bits, np.where(mine[where], "b", "a"), where)


def test_lapes_entropy_is_its_formula_on_a_small_table() -> None:
    rates = np.array([[0.2, 0.5, 0.0, 0.3], [0.2, 0.0, 0.0, 0.1], [0.4, 0.0, 0.0, 0.0]])
    expected = [
        -(0.25 * np.log(0.25) + 0.25 * np.log(0.25) + 0.5 * np.log(0.5)),
        0.0,
        np.nan,
        -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)),
    ]
    np.testing.assert_allclose(lape_entropy(rates), expected, atol=1e-12)
    bits = np.zeros((40, 4), bool)
    labels, documents = np.repeat(["x", "y", "z", "z"], 10), np.repeat(np.arange(20), 2)
    for neuron in range(4):
        for value, mine in enumerate((labels == "x", labels == "y", labels == "z")):
            bits[np.flatnonzero(mine)[: round(rates[value, neuron] * mine.sum())], neuron] = True
    frame = made(bits, labels, documents).selective("topic").to_frame().drop_duplicates("neuron").set_index("neuron")
    np.testing.assert_allclose(frame["entropy"].sort_index(), expected, atol=1e-12)


def test_planted_neurons_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    found, false = [], []
    for _ in range(3):
        result = planted(rng, 600, 20, 60).selective("topic")
        mine = result.of("b")["neuron"].to_numpy()
        frame = result.to_frame()
        called = frame[frame["significant"]]["neuron"].unique()
        found.append((mine < 20).sum() / 20)
        false.append((called >= 20).sum() / max(len(called), 1))
    assert np.mean(found) >= 0.9
    assert np.mean(false) <= 0.1
    first = result.of("b").iloc[0]
    assert first["low"] > 0
    assert "b 1" in result.headline or "b 2" in result.headline


def test_labels_exchanged_between_documents_find_nothing() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(40):
        hits += bool(planted(rng, 60, 0, 12).selective("topic", least=4).to_frame()["significant"].any())
    assert hits <= 5


def test_a_spike_in_one_document_of_a_small_group_is_no_discovery() -> None:
    """A normal approximation would call it at p = 1e-20."""
    documents = np.repeat(np.arange(205), 4)
    bits = np.zeros((820, 3), bool)
    bits[documents == 2, 0] = True
    result = made(bits, np.where(documents < 5, "few", "many"), documents).selective("topic")
    spike = result.to_frame().set_index(["neuron", "value"]).loc[(0, "few")]
    assert spike["p"] == pytest.approx(5 / 205, rel=0.4)
    assert not spike["significant"]


def test_values_in_few_documents_are_left_out_and_said(model: Model) -> None:
    texts = [Document(f"d{i}", SENTENCES[i % 4], {"topic": "ab"[i % 2] if i < 8 else "c"}) for i in range(9)]
    codes = plm.encode(model, texts, layers=[1], keep=())
    result = codes.selective("topic")
    assert [one.value for one in result.values] == ["a", "b"]
    assert result.settings.left_out == ("c",)
    assert "left out: c" in " ".join(result.notes())
    for arguments, options, words in [
        (("mood",), {}, "no label 'mood' here; there are .*topic"),
        (("topic",), {"least": 6}, "0 of its 3 values are in 6 documents"),
        (("topic",), {"alpha": 2}, "alpha is 2"),
        (("topic",), {"most": 0}, "most = 0"),
        (("topic", 7), {}, "no codes of layer 7"),
    ]:
        with pytest.raises(PolytopeError, match=words):
            codes.selective(*arguments, **options)


def test_the_loss_without_the_neurons_is_that_of_plain_hooks(model: Model, tmp_path: Path) -> None:
    texts = [Document(f"d{i}", SENTENCES[i % 4] + f" {i}", {"topic": "ab"[i % 2]}) for i in range(12)]
    codes = plm.encode(model, texts, layers=[1], keep=())
    # Every neuron counts as found, so that there is something to ablate.
    result = codes.selective("topic", alpha=0.999999, ablate=True, draws=1, most=6, resamples=50)
    assert {(one.neurons_of, one.texts_of) for one in result.ablations} == {(v, w) for v in "ab" for w in "ab"}
    found = next(one for one in result.ablations if (one.neurons_of, one.texts_of) == ("a", "b"))
    neurons = torch.tensor(result.of("a")["neuron"].to_numpy()[:6].copy())
    down = dict(model.hf.named_modules())["transformer.h.1.mlp.c_proj"]
    posts: list[torch.Tensor] = []
    ids = [torch.tensor([model.tokenizer(text.text)["input_ids"]]) for text in texts]
    handle = down.register_forward_pre_hook(lambda _module, inputs: posts.append(inputs[0].detach()[0]))
    with torch.no_grad():
        clean = [model.hf(one).logits for one in ids]
    handle.remove()
    change, tokens = 0.0, 0
    for number, one in enumerate(ids):
        if texts[number].labels["topic"] != "b":
            continue
        others = torch.cat([post for i, post in enumerate(posts) if i != number])[:, neurons].mean(dim=0)

        def ablate(_module: Any, inputs: Any, others: torch.Tensor = others) -> Any:
            post = inputs[0].clone()
            post[:, 1:, neurons] = others
            return (post,)

        handle = down.register_forward_pre_hook(ablate)
        with torch.no_grad():
            logits = model.hf(one).logits
        handle.remove()
        for sign, out in ((1, logits), (-1, clean[number])):
            change += sign * float(torch.nn.functional.cross_entropy(out[0, :-1], one[0, 1:], reduction="sum"))
        tokens += one.shape[1] - 1
    assert found.tokens == tokens
    assert found.change.value == pytest.approx(change / tokens, abs=1e-4)
    assert found.beyond.value == pytest.approx(found.change.value - found.random.value)
    result.save(tmp_path)
    again = load_result(tmp_path)
    assert again.ablations == result.ablations
    assert again.contexts == result.contexts
    pd.testing.assert_frame_equal(again.to_frame(), result.to_frame())


def test_random_neurons_have_the_same_rates_and_are_none_of_those_found() -> None:
    rng = np.random.default_rng(0)
    rates = rng.random(500)
    neurons = np.arange(0, 40, 2)
    drawn = of_same_rates(rates, neurons, np.arange(0, 60), rng)
    assert len(set(drawn)) == len(neurons)
    assert drawn.min() >= 60
    assert np.abs(rates[drawn] - rates[neurons]).max() < 0.05
    with pytest.raises(PolytopeError, match="20 selective neurons and 5 others"):
        of_same_rates(rates[:25], neurons[:20] // 2, np.arange(20), rng)
