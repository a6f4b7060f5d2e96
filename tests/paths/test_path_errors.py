"""What can't be a path is refused in one clear line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers.normalizers import Replace

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models.interventions import run_patched

A, B = "He sat on the bank", "She owes a lot of money"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"layer": 3}, "no layer 3; it has 3, from 0 to 2"),
        ({"layer": 0, "kind": "gate"}, "no code kind 'gate'"),
        ({}, "at='resid_mid' needs a layer: layer=0 to layer=2"),
        ({"layer": 0, "at": "post"}, "at='post'.*available: resid_mid, mlp_in, embed"),
        ({"layer": 1, "at": "embed"}, "layer=1: embeddings enter before block 0"),
        ({"at": "embed", "shape": "arc"}, "shape='arc' with at='embed'"),
        ({"layer": 0, "shape": "curve"}, "shape='curve'.*available: line, arc"),
        ({"layer": 0, "context": "b"}, "context='b' is not a context of a path; available: a, both"),
        ({"layer": 0, "context": "both"}, r"context='both' needs.* A has \d+ tokens and B has \d+"),
        ({"layer": 0, "positions": "all"}, r"positions='all' needs.* A has \d+ tokens and B has \d+"),
        ({"layer": 0, "positions": "some"}, "positions='some' is not a choice of a path; available: all"),
        ({"layer": 0, "position": 40}, "position=40 is outside prompt A"),
        ({"layer": 0, "prompt_b": ""}, "prompt B is empty"),
        ({"layer": 0, "prompt_a": "a \udcff"}, "prompt A has a lone surrogate"),
        ({"layer": 0, "prompt_b": "bank " * 70}, "prompt B has .* tokens, the context 64"),
    ],
)
def test_bad_input_is_one_clear_line(model, arguments, match):
    given = {"prompt_a": A, "prompt_b": B} | arguments
    with pytest.raises(PolytopeError, match=match) as error:
        plm.path(model, given.pop("prompt_a"), given.pop("prompt_b"), **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"steps": 0}, "steps=0.*at least 1"),
        ({"steps": 10**8}, "steps=100000000.*at most 100,000"),
        ({"evaluations": 23}, "evaluations=23: at least 24"),
        ({"evaluations": 10**8}, "evaluations=100000000: at most 1,032"),
    ],
)
def test_steps_and_evaluations_have_bounds(model, arguments, match):
    with pytest.raises(PolytopeError, match=match) as error:
        plm.path(model, A, B, layer=0).crossings(downstream=True, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: plm.path(m, A, B, layer="x"), "no layer 'x'"),
        (lambda m: plm.path(m, A, B, layer=1, position="last"), "position='last' is no whole number"),
        (lambda m: plm.path(m, A, B, layer=1, position=1.5), "position=1.5"),
        (lambda m: plm.path(m, A, B, layr=1), r"'layr': did you mean 'layer'\?"),
        (lambda m: plm.path(m, A, B, layer=1).crossings(down=True), "'down'"),
        (lambda m: plm.path(m, A, B, layer=1).crossings(downstream=True, steps=2.5), "steps=2.5"),
        (lambda m: plm.path(m, A, B, layer=1).crossings(downstream=True, evaluations="x"), "evaluations='x'"),
        (lambda m: plm.paths.crossings_of_pairs(m, [(A, B)], layr=1), r"'layr': did you mean 'layer'\?"),
        (lambda m: plm.paths.crossings_of_pairs(m, 3, 1), "pairs=3"),
        (lambda m: plm.paths.crossings_of_pairs(m, [(A, B)], 1, workers="x"), "workers='x'"),
        (lambda m: plm.paths.crossings_of_pairs(m, [(A, B)], 1, steps=2.5), "steps=2.5"),
        (lambda m: plm.paths.direction_path(m, A, "up", length=1, layer=0), "direction = 'up' is no array"),
        (lambda m: plm.paths.direction_path(m, A, np.ones(24), length="x", layer=0), "length='x'"),
        (lambda m: plm.paths.random_path(m, A, "x", layer=0), "sample = 'x' is no array"),
        (lambda m: plm.paths.random_path(m, A, np.ones((3, 24)), layer=0, seed="x"), "seed='x'"),
        (lambda m: plm.paths.slice(m, A, B, "c", layr=1), r"'layr': did you mean 'layer'\?"),
        (lambda m: plm.paths.slice(m, A, B, "A boat", layer=1, zoom="x"), "zoom='x' is no number"),
        (lambda m: plm.paths.slice(m, A, B, "A boat", layer=9), "no layer 9"),
    ],
)
@pytest.mark.usefixtures("users_arrays")
def test_wrong_types_and_keywords_are_one_clear_line(model, call, match):
    with pytest.raises(PolytopeError, match=match) as error:
        call(model)
    assert "\n" not in str(error.value)


def test_a_prompt_that_becomes_no_token_is_one_clear_line(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer.backend_tokenizer, "normalizer", Replace("~", ""))
    with pytest.raises(PolytopeError, match=r"prompt A \('~'\) has no token"):
        plm.path(model, "~", B, layer=0)


def test_nan_names_its_place(gpt2, tokenizer):
    hf = gpt2()
    broken = plm.wrap(hf, tokenizer, name="broken")
    path = plm.path(broken, A, B, layer=0)
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
    with pytest.raises(PolytopeError, match=r"broken, layer 1: NaN or infinite values at t = 0\.000"):
        path.crossings(downstream=True)
    with torch.no_grad():
        hf.transformer.wte.weight.fill_(float("inf"))
    with pytest.raises(PolytopeError, match="resid_mid of layer 0 has NaN"):
        plm.path(broken, A, B, layer=0)


@pytest.mark.parametrize(
    ("vectors", "position", "match"),
    [(np.zeros((2, 23)), 0, r"shape \(2, 23\), expected"), (np.zeros((2, 24)), 9, "position 9")],
)
def test_interventions_refuse_what_does_not_fit(model, vectors, position, match):
    with pytest.raises(PolytopeError, match=match):
        run_patched(model, np.array([1, 2, 3]), vectors, layer=0, position=position)
