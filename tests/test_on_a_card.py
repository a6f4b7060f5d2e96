"""What runs where the model is gives on a card what it gives on the processor, and nothing stays behind on either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from card import card, on_card
from made import PAIRS, documents
from small import SENTENCES, randomised
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import BertConfig, BertModel

import polytope_lm as plm
from analyses import affine_maps
from polytope_lm.controls.weights import norms_of_change, nudged, permuted, rounded, untrained
from polytope_lm.geometry.affine import maps, reduce, substituting
from polytope_lm.geometry.jacobian import MlpJacobian
from polytope_lm.geometry.linear_mapping import linearity_matrix, run_of
from polytope_lm.geometry.local_complexity import token_complexity
from polytope_lm.geometry.matching import match
from polytope_lm.geometry.reduction import reduction
from polytope_lm.geometry.token_measures import Settings
from polytope_lm.models.derivatives import Onward
from polytope_lm.models.logits import logits_at, mean_pooled, next_token_logits
from polytope_lm.paths.many import crossings_of_pairs
from polytope_lm.paths.solve.line import in_layer_crossings
from polytope_lm.predictions.boundaries.measure import measure_pair, planes_of
from polytope_lm.predictions.directions.measuring import effects, measure, read_prompts

A, B, C = SENTENCES[0], SENTENCES[1], "A river bank is wet; a money"
_TOLD = {"provenance", "command", "versions", "text", "revision", "seconds"}


def numbers(value: Any, where: str = "") -> dict[str, Any]:
    """Return every number and word of a result, by where it stands."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, pd.DataFrame):
        value = {column: value[column].to_numpy() for column in value}
    if is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in fields(value) if each.name not in _TOLD}
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        parts = enumerate(value)
    else:
        return {where: value}
    return {place: one for key, part in parts for place, one in numbers(part, f"{where}/{key}").items()}


def same(on_a_card: Any, plain: Any, *, rtol: float = 1e-3, atol: float = 1e-4) -> None:
    """Hold two results against each other, number by number."""
    ours, theirs = numbers(on_a_card), numbers(plain)
    assert list(ours) == list(theirs)
    assert ours
    for place, value in theirs.items():
        if isinstance(value, (float, np.ndarray, np.generic)) and np.asarray(value).dtype.kind in "fiub":
            np.testing.assert_allclose(ours[place], value, rtol=rtol, atol=atol, err_msg=place)
        elif isinstance(value, np.ndarray) and getattr(value[0], "dtype", None) == np.float32:
            np.testing.assert_allclose(np.stack(ours[place]), np.stack(value), rtol=rtol, atol=atol, err_msg=place)
        elif isinstance(value, np.ndarray):
            assert list(map(str, ours[place])) == list(map(str, value)), place
        elif isinstance(value, (str, int, type(None))):
            assert ours[place] == value, place


@pytest.fixture(scope="module")
def both(model, gated):
    """Return a small model, plain and on a card."""
    own = {"plain": rounded(model, "float64"), "gated": rounded(gated, "float64")}

    @cache
    def get(name: str) -> tuple[Any, Any]:
        if name in own:
            return own[name], on_card(own[name])
        return plm.load(name), plm.load(name, device=card())

    return get


def _ids(model: Any, text: str = A) -> torch.Tensor:
    return torch.tensor([model.tokenizer(text)["input_ids"]])


def _hf_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(_ids(model).to(model.device)).logits


def encode(model: Any) -> Any:
    codes = plm.encode(model, SENTENCES, keep=("u", "h", "x", "post"))
    kept = {name: codes.activations(name, 1) for name in ("u", "h", "x", "post")}
    return codes.bits(1), kept, codes.knn(2, layer=1)


def soft(model: Any) -> Any:
    return plm.SplineCode(model).fit_transform(SENTENCES), plm.SplineFeatures(model).fit_transform(SENTENCES)


def neighbours(model: Any) -> Any:
    codes = plm.encode(model, SENTENCES, keep=("h",))
    return codes.nearest(3, 4, layer=1), codes.neighbourhoods(3, layer=1).to_frame(), codes.neuron(1, 5, k=3).to_frame()


def paths(model: Any) -> Any:
    path = plm.path(model, A, B, layer=0)
    return path.crossings(downstream=True), plm.path(model, A, B, layer=0, shape="arc").crossings(downstream=False)


def embedded(model: Any) -> Any:
    return plm.path(model, A, C, at="embed").crossings(downstream=True)


def a_slice(model: Any) -> Any:
    return plm.paths.slice(model, A, B, C, layer=1, zoom=0.05, grid=3)


def many(model: Any) -> Any:
    return crossings_of_pairs(model, [(A, B), (B, C)], 0, lens=True, steps=6, evaluations=24)


def pair(model: Any) -> Any:
    planes = planes_of(model, PAIRS[:2], range(model.n_layers), None, draws=1, seed=0)
    return measure_pair(model, PAIRS[0], 0, planes=planes)


def radius(model: Any) -> Any:
    return [plm.trust_radius(model, C, [3, A], 1, measure=True), plm.trust_radius(model, C, 3, 1, readout="mlp_out")]


def of_kl(model: Any) -> Any:
    return plm.trust_radius(model, C, 3, 1, readout="kl", measure=True)


def change(model: Any) -> Any:
    return [plm.change(model, A, B, [0, 1], most=4), plm.change(model, A, 3, at="mlp_in", most=4)]


def steering(model: Any) -> Any:
    vector = plm.changes.contrast(model, [A, C], [B, SENTENCES[3]], layer=1)
    words = [(" bank", " river")]
    return (
        vector,
        plm.changes.steer(model, C, vector, 1, tokens=2),
        plm.changes.linear_accessibility(model, [A], words, 1),
    )


def drawn(model: Any) -> Any:
    return plm.trust_radius(model, C, plm.changes.random_direction(plm.encode(model, SENTENCES, keep=("x",))), 1)


def gates(model: Any) -> Any:
    codes, found = plm.encode(model, A), []
    other = {layer: ~codes.bits(layer) for layer in range(model.n_layers)}
    kept = {1: torch.rand(len(codes.tokens), codes.site(1).width, generator=torch.Generator().manual_seed(0))}
    for context in (
        model.imposing(codes), model.imposing(other), model.freezing(codes), model.freezing(kept),
        model.flipping({1: [5]}), model.flipping({0: [2, 3]}, positions=[1, 2]),
    ):  # fmt: skip
        with context:
            found.append(_hf_logits(model))
    return found


def lens(model: Any) -> Any:
    residual = np.random.default_rng(0).normal(size=(3, model.d_model)).astype(np.float32)
    chosen = logits_at(model, _ids(model), torch.tensor([0, 0]), torch.tensor([2, 4]))
    return next_token_logits(model, residual), chosen


def affine(model: Any) -> Any:
    found = {}
    for kind in ("tangent", "secant"):
        mine = maps(model, A, 1, kind=kind)
        centres = reduce(mine, 3)
        with substituting(model, centres):
            found[kind] = mine.matrices(), mine.intercepts(), mine.features(), centres.labels, _hf_logits(model)
    return found, match(maps(model, A, 0), maps(model, A, 1))(maps(model, A, 0)).matrices()


def mapping(model: Any) -> Any:
    u = plm.encode(model, A, layers=[1], keep=("u",)).activations("u")
    jacobian = MlpJacobian(model, 1)
    d = jacobian.diagonal(torch.as_tensor(u))
    onward = Onward(model, _ids(model)[0], 0, 3, "resid_mid", 4)
    norms = jacobian.norm(d), jacobian.variation(d[None])
    return linearity_matrix(run_of(model.block(1)), u[:4]), norms, linearity_matrix(run_of(onward), u[:3], points=3)


def complexity(model: Any) -> Any:
    ids = _ids(model)[0].numpy()
    return token_complexity(model, ids, np.array([2, 4]), 0, directions=5)


def measures(model: Any) -> Any:
    few = {"layers": [1], "settings": Settings(directions=4, nodes=3)}
    return plm.measure(model, C, most=3, **few), plm.measure(model, [C], per="prompt", **few)


def fewer_maps(model: Any) -> Any:
    return reduction(model, [d.text for d in documents(6)], 1, ks=[1, 3], tested=2, max_tokens=16, resamples=5)


def other_weights(model: Any) -> Any:
    twins = [permuted(model), untrained(model)]
    twins.append(nudged(model, norms_of_change(model, twins[0])))
    fewer = rounded(model, "bfloat16")
    return [plm.encode(twin, A).bits(1) for twin in twins], [each.float() for each in fewer.hf.parameters()]


def diff(model: Any) -> Any:
    return plm.diff(model, permuted(model), plm.encode(model, documents(6), layers=[1]), [1], resamples=5)


def determination(model: Any) -> Any:
    # No two begin alike: a token seen twice would lie on a control's threshold, where rounding decides.
    texts = [f"{number} {one.text}" for number, one in enumerate(documents(10))]
    codes = plm.encode(model, texts, layers=[1], tokens="all")
    few = {
        "max_tokens": 10,
        "fit_tokens": 60,
        "neurons": 5,
        "draws": 1,
        "resamples": 5,
        "documents": 2,
        "together": False,
    }
    return plm.predictions.determination(codes, 1, model=model, **few)


def selective(model: Any) -> Any:
    codes = plm.encode(model, documents(12), layers=[1], tokens="all")
    return codes.selective("upos", 1, ablate=True, most=4, draws=1, resamples=5)


def directions(model: Any) -> Any:
    ids = [np.asarray(model.tokenizer(text)["input_ids"][:8]) for text in SENTENCES]
    read = read_prompts(model, ids, [0, 1], draws=1, seed=0)
    return measure(model, read, 0, 1, 0.1, 0), effects(model, ids[0], 1, [2, 3], np.ones(model.d_model))


# Both a LayerNorm with biases and gates behind an RMSNorm, or one of the two where a test takes long.
CASES = [
    *((what, which) for which in ("plain", "gated") for what in (encode, paths, radius, gates, affine, mapping)),
    *((what, "plain") for what in (soft, embedded, many, of_kl, steering, lens, measures, diff, directions)),
    *((what, "gated") for what in (neighbours, a_slice, pair, change, drawn, complexity, fewer_maps, other_weights)),
    (determination, "gated"), (selective, "plain"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "which"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_a_card_gives_what_the_processor_gives(what, which, both):
    plain, there = both(which)
    assert there.device == card()
    with sdpa_kernel(SDPBackend.MATH):  # as the card computes attention
        of_the_processor = what(plain)
    same(what(there), of_the_processor)


def test_routers(both):
    def routers(model: Any) -> Any:
        codes = plm.encode(model, SENTENCES, kind="router", keep=("u", "h"))
        return codes.bits(1), codes.activations("h", 1), codes.nearest(3, 4, layer=1)

    with sdpa_kernel(SDPBackend.MATH):
        expected = routers(both("tiny-moe")[0])
    same(routers(both("tiny-moe")[1]), expected)


def test_sites_that_a_user_declares(both):
    weight, bias = np.random.default_rng(0).normal(size=(7, 24)), np.linspace(-1, 1, 7)

    def declared(model: Any) -> Any:
        found = []
        for hook in ("blocks.1.hook_resid_mid", "blocks.1.attn.hook_z"):
            mine = model.with_site(hook, weight, bias)
            found.append(plm.encode(mine, SENTENCES, kind=hook, keep=("h",)).activations("h"))
        return found

    plain, there = both("plain")
    same(declared(there), declared(plain))


def test_models_that_read_both_ways(tokenizer):
    config = BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=400,
        max_position_embeddings=64,
    )  # fmt: skip
    plain = rounded(plm.wrap(randomised(BertModel(config)), tokenizer, name="small-bert"), "float64")

    def encoder(model: Any) -> Any:
        radii = plm.trust_radius(model, C, 3, 1, measure=True)
        return (
            plm.encode(model, SENTENCES).bits(1),
            mean_pooled(model, SENTENCES),
            plm.path(model, A, B, layer=0).crossings(downstream=False),
            radii,
        )

    with sdpa_kernel(SDPBackend.MATH):
        expected = encoder(plain)
    same(encoder(on_card(plain)), expected)


def test_a_store_is_the_same_whatever_made_it(both, tmp_path):
    plain, there = both("tiny-gpt2")
    for name, model in (("plain", plain), ("card", there)):
        plm.capture(model, documents(6), to=tmp_path / name, keep=("u", "h"), shard_documents=4, progress=False)
    ours, theirs = plm.open_store(tmp_path / "card"), plm.open_store(tmp_path / "plain")
    assert there.revision == plain.revision
    same([ours.activations("h", 1), ours.activations("u", 2)], [theirs.activations("h", 1), theirs.activations("u", 2)])
    assert ours.verify() == []


def test_lines_and_neighbours_are_searched_on_a_card(both):
    plain, _ = both("plain")
    codes = plm.encode(plain, SENTENCES, keep=("x",))
    geometry, x = plain.geometry(plain.site(1)), codes.activations("x", 1)
    same(in_layer_crossings(geometry, x[:5], x[5:10], device=card()), in_layer_crossings(geometry, x[:5], x[5:10]))
    same(codes.knn(3, layer=1, device=card()).distances, codes.knn(3, layer=1).distances)


def test_maps_of_one_layer_tell_those_of_another(both, monkeypatch):
    monkeypatch.setitem(vars(affine_maps.plm), "documents", lambda _name: documents(6))
    monkeypatch.setattr(affine_maps, "LENGTH", 16)
    monkeypatch.setattr(affine_maps, "TESTED", 2)

    def matched(model: Any) -> Any:
        first, second = (affine_maps.Place("small", model, layer) for layer in (0, 1))
        return affine_maps.matched(first, second, "tangent")

    plain, there = both("gated")
    same(matched(there), matched(plain), atol=1e-2)
