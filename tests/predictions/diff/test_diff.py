"""Flips of two models against two plain hooks, the controls, and what is refused."""

from __future__ import annotations

import copy
import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from small import SENTENCES
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import polytope_lm as plm
from polytope_lm.controls.weights import norms_of_change, nudged, rounded
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.diff import sides

if TYPE_CHECKING:
    from pathlib import Path

    from polytope_lm.models.model import Model

TEXTS = [Document(f"d{i}", text, {"topic": "bank" if "bank" in text else "pond"}) for i, text in enumerate(SENTENCES)]


def changed(model: Model, size: float = 0.05, seed: int = 3) -> Model:
    """A copy with every weight moved a little."""
    hf = copy.deepcopy(model.hf)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return plm.wrap(hf, model.tokenizer, name="changed")


def hooked(model: Model, module: str, texts: list[Document]) -> np.ndarray:
    """Pre-activations of all tokens of one module, by a plain forward hook, text by text."""
    found: list[np.ndarray] = []
    handle = dict(model.hf.named_modules())[module].register_forward_hook(
        lambda _module, _inputs, out: found.append(out.detach().float().reshape(-1, out.shape[-1]).numpy())
    )
    for text in texts:
        with torch.no_grad():
            model.hf(torch.tensor([model.tokenizer(text.text)["input_ids"]]))
    handle.remove()
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("which", "module", "kind"),
    [("model", "transformer.h.1.mlp.c_fc", None), ("gated", "model.layers.1.mlp.up_proj", "up")],
)
def test_flips_are_those_of_two_plain_hooks(which: str, module: str, kind: str | None, request: Any) -> None:
    a = request.getfixturevalue(which)
    b = changed(a)
    result = plm.diff(a, b, TEXTS, [1], kind=kind, nulls=(), resamples=50)
    h, other = hooked(a, module, TEXTS), hooked(b, module, TEXTS)
    flips = (h > 0) != (other > 0)
    assert 0 < flips.mean() < 0.5
    (layer,) = result.layers
    assert layer.flips == flips.sum()
    assert layer.share.value == pytest.approx(flips.mean())
    assert layer.near == pytest.approx((np.abs(h) < 0.5)[flips].mean())
    assert layer.nearest == pytest.approx((np.abs(h) < 0.05)[flips].mean())
    assert layer.ambiguous == pytest.approx((np.abs(h) < 0.5).mean())
    tokens = result.token_table
    np.testing.assert_array_equal(tokens[layer.site.key], flips.sum(axis=1))
    table = result.neuron_table
    np.testing.assert_array_equal(table["flips"], flips.sum(axis=0))
    np.testing.assert_array_equal(table["turned_on"], (flips & (other > 0)).sum(axis=0))
    most = result.neurons(k=3)
    assert most["flips"].tolist() == sorted(flips.sum(axis=0), reverse=True)[:3]
    first = result.tokens(1, k=1).iloc[0]
    row = int(flips.sum(axis=1).argmax())
    assert (first["flips"], first["token"]) == (flips.sum(axis=1).max(), tokens["token"][row])
    assert TEXTS[first["document"]].text.startswith(first["left"] + first["token"])


def test_a_model_and_itself_have_the_same_codes(model: Model) -> None:
    result = plm.diff(model, model, TEXTS, nulls=("rounding",), resamples=10)
    assert [layer.flips for layer in result.layers] == [0, 0, 0]
    assert [layer.near for layer in result.layers] == [None] * 3
    assert result.layers[0].nulls[0].share.value > 0
    assert "same codes" in result.headline


def test_a_copy_in_half_precision_flips_only_what_lies_on_a_boundary() -> None:
    model = plm.load("tiny-gpt2")
    result = plm.diff(model, plm.load("tiny-gpt2", dtype="float16"), TEXTS, nulls=(), resamples=10)
    flips = [layer.flips for layer in result.layers]
    assert sum(flips) > 0
    for layer in result.layers:
        assert layer.share.value <= 0.005
        assert layer.nearest is None or layer.nearest >= 0.99


def test_shares_by_label_and_their_place_among_the_most_flipped(model: Model) -> None:
    result = plm.diff(model, changed(model), TEXTS, nulls=(), resamples=50)
    by = result.by("topic", top=10).set_index("topic")
    tokens = result.token_table
    keys = [layer.site.key for layer in result.layers]
    bits = sum(layer.site.width for layer in result.layers)
    for topic, part in tokens.groupby("topic"):
        assert by.loc[topic, "tokens"] == len(part)
        assert by.loc[topic, "share"] == pytest.approx(part[keys].to_numpy().sum() / (len(part) * bits))
    most = tokens[keys].sum(axis=1).to_numpy().argsort(kind="stable")[::-1][:10]
    assert by["among_top"].sum() == pytest.approx(1)
    assert by.loc["bank", "among_top"] == pytest.approx((tokens["topic"][most] == "bank").mean(), abs=0.11)
    with pytest.raises(PolytopeError, match=r"'mood'.*topic"):
        result.by("mood")
    with pytest.raises(PolytopeError, match="layer 7"):
        result.neurons(7)


def test_the_random_change_has_the_same_norm_in_every_parameter(model: Model) -> None:
    b = changed(model)
    norms = norms_of_change(model, b)
    made = dict(nudged(model, norms, 1).hf.named_parameters())
    real = dict(model.hf.named_parameters())
    theirs = dict(b.hf.named_parameters())
    for name, parameter in real.items():
        moved, wanted = (made[name] - parameter).detach(), (theirs[name] - parameter).detach()
        assert float(moved.norm()) == pytest.approx(float(wanted.norm()), rel=1e-4)
        if parameter.numel() > 500:
            cosine = torch.nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0)
            assert abs(float(cosine)) < 0.2
    result = plm.diff(model, b, TEXTS, [1], draws=2, seed=5, resamples=20)
    own = sum(float((p.detach() ** 2).sum()) for p in real.values())
    assert result.relative_change == pytest.approx((sum(n**2 for n in norms.values()) / own) ** 0.5, rel=1e-5)
    weights, rounding = result.layers[0].nulls
    direct = plm.diff(model, rounded(model, "bfloat16"), TEXTS, [1], nulls=(), resamples=20)
    assert rounding.share.value == direct.layers[0].share.value
    beyond = result.layers[0].share.value - weights.share.value
    assert weights.beyond.value == pytest.approx(beyond)
    # A change at random of the size of another change at random: nothing lies beyond it.
    assert abs(beyond) < 0.3 * weights.share.value


def test_a_store_gives_its_tokens_and_a_directory_its_store(model: Model, tmp_path: Path) -> None:
    b = changed(model)
    store = plm.capture(model, TEXTS, to=tmp_path / "store", layers=[0, 2], tokens="random:5", progress=False)
    from_store = plm.diff(model, b, store, nulls=(), resamples=10)
    assert from_store.settings.tokens == len(store)
    again = plm.diff(model, b, tmp_path / "store", [2], nulls=(), resamples=10)
    assert again.layers == from_store.layers[1:]
    read = plm.encode(b, TEXTS, layers=[2], tokens="all", keep=())
    place = read.tokens.set_index(["document", "position"]).index.get_indexer(
        list(zip(store.tokens["document"], store.tokens["position"], strict=True))
    )
    np.testing.assert_array_equal(from_store.token_table["L02.pre"], (store.bits(2) != read.bits(2)[place]).sum(axis=1))


def test_models_are_loaded_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def watched(*args: Any, **options: Any) -> Model:
        alive.append(sum(each() is not None for each in there))
        made = plm.load(*args, **options)
        there.append(weakref.ref(made.hf))
        return made

    monkeypatch.setattr(sides, "load", watched)
    result = plm.diff("tiny-gpt2", "tiny-gpt2", TEXTS[:2], [0], nulls=(), resamples=10)
    assert alive == [0, 0]
    assert result.layers[0].flips == 0
    gc.collect()
    assert result.command == "plm.diff('tiny-gpt2', 'tiny-gpt2', source=source, layers=[0], nulls=[], resamples=10)"


def test_other_architectures_are_refused_naming_the_difference(model: Model, gated: Model, gpt2: Any) -> None:
    with pytest.raises(
        PolytopeError, match="architecture is 'GPT2Config' in small-gpt2 and 'LlamaConfig' in small-llama"
    ):
        plm.diff(model, gated, TEXTS)
    deeper = plm.wrap(gpt2(n_layer=4), model.tokenizer, name="deeper")
    with pytest.raises(PolytopeError, match="num_hidden_layers is 3 in small-gpt2 and 4 in deeper"):
        plm.diff(model, deeper, TEXTS)
    relu = plm.wrap(gpt2(activation_function="relu"), model.tokenizer, name="relu")
    with pytest.raises(PolytopeError, match="activation_function is 'gelu_new' in small-gpt2 and 'relu' in relu"):
        plm.diff(model, relu, TEXTS)
    kinds = [sides.Kind.of(each) for each in (model, gated)]
    with pytest.raises(
        PolytopeError, match="architecture is GPT2LMHeadModel in small-gpt2 and LlamaForCausalLM in small"
    ):
        sides.check_kinds(*kinds)


def test_other_tokenizers_are_refused_naming_the_token(model: Model, gpt2: Any, tokenizer: Any) -> None:
    vocabulary = {index: token for token, index in tokenizer.get_vocab().items()}
    text = tokenizer.backend_tokenizer.to_str()
    first, second = (f'"{vocabulary[i]}":{i}' for i in (300, 301))
    assert first in text
    text = text.replace(first, f'"{vocabulary[300]}":9999').replace(second, f'"{vocabulary[301]}":300')
    text = text.replace('":9999', '":301')
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text), eos_token="<|endoftext|>")
    with pytest.raises(PolytopeError, match=r"token 300 is .* in small-gpt2's tokenizer and .* in swapped's"):
        plm.diff(model, plm.wrap(gpt2(), other, name="swapped"), TEXTS)


def test_a_text_that_is_cut_otherwise_is_named_with_its_place(model: Model, gpt2: Any, tokenizer: Any) -> None:
    merges = tokenizer.backend_tokenizer.to_str()
    start = merges.index('"merges":[') + len('"merges":[')
    end = merges.index("]", start) + 1
    fewer = Tokenizer.from_str(
        merges[:start] + merges[end + 1 :]
    )  # the first merge is gone, the vocabulary is the same
    other = PreTrainedTokenizerFast(tokenizer_object=fewer, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    b = plm.wrap(gpt2(seed=1), other, name="recut")
    with pytest.raises(PolytopeError, match=r"document 'd\d', token \d+: small-gpt2's tokenizer reads .*recut's"):
        plm.diff(model, b, TEXTS)
    # What both cut alike is compared.
    found = plm.diff(model, b, ["zz"], [0], nulls=(), resamples=10)
    assert found.settings.documents == 1
    assert found.layers[0].share.low is None


def test_mistakes_are_named_in_one_line(model: Model, tmp_path: Path) -> None:
    store = plm.capture(model, TEXTS, to=tmp_path / "store", layers=[0], progress=False)
    b = changed(model)
    for arguments, options, words in [
        ((3, model, TEXTS), {}, "model_a = 3"),
        ((model, model, TEXTS), {"nulls": "wheights"}, r"\['wheights'\].*weights, rounding"),
        ((model, model, TEXTS, [9]), {}, "no layer 9"),
        ((model, model, store, [9]), {}, "no codes of layer 9"),
        ((model, model, store), {"tokens": "random:5"}, "tokens = 'random:5'"),
        ((b, model, store), {}, "revision.*changed has another weights"),
        ((model, model, TEXTS), {"resamples": -1}, "resamples = -1"),
        ((model, "nowhere/", TEXTS), {}, "nowhere/: no such directory"),
    ]:
        with pytest.raises(PolytopeError, match=words) as raised:
            plm.diff(*arguments, **{"layers": None, **options} if len(arguments) < 4 else options)
        assert "\n" not in str(raised.value)


def test_a_run_that_was_stopped_goes_on_and_finds_the_same(model, tmp_path):
    b, to = changed(model), tmp_path / "passes"
    store = plm.capture(model, TEXTS, to=tmp_path / "store", layers=[0, 2], shard_documents=1, progress=False)
    whole = plm.diff(model, b, store, resamples=20, draws=2)
    seen: list[int] = []

    def stopping(share: float, done: int, total: int, _what: str) -> None:
        seen.append(done)
        if done >= share * total:
            raise InterruptedError

    for share in (0.1, 0.3, 0.6, 0.95):
        with pytest.raises(InterruptedError):
            plm.diff(model, b, store, resamples=20, draws=2, to=to, progress=partial(stopping, share))
    seen.clear()
    again = plm.diff(model, b, store, resamples=20, draws=2, to=to, progress=partial(stopping, 2))
    assert len(seen) <= 5 + len(TEXTS) / 2  # each of the five passes tells where it was; little is left of one
    assert seen[-1] == 5 * len(store)
    assert again.layers == whole.layers
    assert again.neuron_table.equals(whole.neuron_table)
    assert again.token_table.equals(whole.token_table)
    with pytest.raises(PolytopeError, match=r"model-b.*model_b"):
        plm.diff(model, changed(model, seed=4), store, resamples=20, nulls=(), to=to)
    (to / "model-b.jsonl").unlink()
    (to / "model-a.bits").write_bytes(bytes(100))
    with pytest.raises(PolytopeError, match=r"model-a\.bits.*name another directory"):
        plm.diff(model, b, store, resamples=20, nulls=(), to=to)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "model-a.bits").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PolytopeError, match=r"model-a\.bits.*no regular file"):
        plm.diff(model, b, store, nulls=(), to=tmp_path / "link")
