"""Local complexity of tokens against plain hooks on the plain model, vertex by vertex."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm import PolytopeError
from polytope_lm.geometry.local_complexity import frames, token_complexity

TEXT = "He sat on the bank of the river"


def by_hooks(hf, norm, maps, ids, position, x, vertices):
    """Push each vertex through the plain model, whole, and return the maps' outputs at the position."""
    found = [[] for _ in maps]
    for vertex in vertices:
        new = torch.as_tensor(vertex, dtype=torch.float32)

        def replace(_module, args, new=new):
            args[0][0, position] = new

        hooks = [norm.register_forward_pre_hook(replace)]
        for into, linear in zip(found, maps, strict=True):
            hooks.append(
                linear.register_forward_hook(lambda _m, _a, out, into=into: into.append(out[0, position].numpy()))
            )
        with torch.no_grad():
            hf(torch.as_tensor(ids)[None])
        for hook in hooks:
            hook.remove()
    return [np.stack(one) for one in found]


@pytest.mark.parametrize("family", ["model", "gated"])
def test_counts_are_those_of_plain_hooks(family, request):
    model = request.getfixturevalue(family)
    ids, places, layer = np.array(model.tokenizer(TEXT)["input_ids"]), np.array([4, 1]), 0
    blocks = model.hf.transformer.h if family == "model" else model.hf.model.layers
    norm = blocks[layer].ln_2 if family == "model" else blocks[layer].post_attention_layernorm
    maps = [b.mlp.c_fc if family == "model" else b.mlp.gate_proj for b in blocks[layer : layer + 2]]
    found = token_complexity(model, ids, places, layer, share=0.3, directions=6, seed=3)
    streams = []
    hook = norm.register_forward_pre_hook(lambda _m, args: streams.append(args[0][0].clone().numpy()))
    with torch.no_grad():
        model.hf(torch.as_tensor(ids)[None])
    hook.remove()
    x = streams[0][places].astype(np.float64)
    np.testing.assert_allclose(found.radius, 0.3 * np.linalg.norm(x, axis=1), rtol=1e-5)
    vertices = frames(x, 0.3 * np.linalg.norm(x, axis=1), directions=6, seed=3)
    for row, place in enumerate(places):
        for depth, h in enumerate(by_hooks(model.hf, norm, maps, ids, int(place), x[row], vertices[row])):
            on = h > 0
            assert found.counts[row, depth] == (on.any(0) & ~on.all(0)).sum()
            square = ((h[:6] - h[6:]) ** 2).sum() / (2 * found.radius[row]) ** 2
            assert found.jacobian[row, depth] == pytest.approx(np.sqrt(24 / 6 * square), rel=1e-3)
    assert found.counts.sum() > 10


def test_all_directions_of_a_small_frame_give_the_jacobians_norm(model):
    ids = np.array(model.tokenizer(TEXT)["input_ids"])
    found = token_complexity(model, ids, np.array([3]), 1, share=1e-3, directions=24, onward=0)
    block = model.hf.transformer.h[1]
    seen = []
    hook = block.ln_2.register_forward_pre_hook(lambda _m, args: seen.append(args[0][0, 3].clone()))
    with torch.no_grad():
        model.hf(torch.as_tensor(ids)[None])
    hook.remove()
    exact = torch.autograd.functional.jacobian(lambda x: block.mlp.c_fc(block.ln_2(x[None, None]))[0, 0], seen[0])
    assert found.jacobian[0, 0] == pytest.approx(float(exact.norm()), rel=1e-2)
    assert found.counts.shape == (1, 1)


def test_the_last_layer_has_none_after_it(model):
    ids = np.array(model.tokenizer(TEXT)["input_ids"])
    assert token_complexity(model, ids, np.array([2]), 2, directions=3).counts.shape == (1, 1)


def test_a_model_whose_context_cannot_be_shared_is_run_token_by_token(gpt2, tokenizer):
    pytest.importorskip("transformer_lens")
    model = plm.load("tiny-gpt2")
    ids, places = np.array(model.tokenizer(TEXT)["input_ids"]), np.array([2, 5])
    together = token_complexity(model, ids, places, 1, share=0.1, directions=5)
    lens = plm.wrap(model.bridge, model.tokenizer, name="bridge")
    alone = token_complexity(lens, ids, places, 1, share=0.1, directions=5)
    np.testing.assert_allclose(together.jacobian, alone.jacobian, rtol=1e-3)
    assert np.abs(together.counts - alone.counts).max() <= 1  # another attention kernel


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"positions": np.array([99])}, r"\[99\]"),
        ({"layer": 7}, "no layer 7"),
        ({"directions": 25}, "directions=25.*1 to 24"),
        ({"kind": "up"}, "kind 'up'"),
    ],
)
def test_what_cannot_be_measured_is_refused(model, options, place):
    ids = np.array(model.tokenizer(TEXT)["input_ids"])
    given = {"positions": np.array([1]), "layer": 0, **options}
    with pytest.raises(PolytopeError, match=place):
        token_complexity(model, ids, **given)


def test_a_mixtures_router_has_no_signs():
    model = plm.load("tiny-moe")
    ids = np.array(model.tokenizer(TEXT)["input_ids"])
    with pytest.raises(PolytopeError, match=r"layer 1.*'router'"):
        token_complexity(model, ids, np.array([1]), 1)
