"""A layer's exact partition in a plane: against Euler's count, codes at random places, and plain forwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf
from small import randomised

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.slices import Slice

PROMPTS = ("He sat on the bank", "She owes a lot of money", "A river bank is wet")


@pytest.fixture(scope="module", params=["model", "gated"])
def cut(request):
    model = request.getfixturevalue(request.param)
    return model, plm.paths.slice(model, *PROMPTS, layer=1, grid=5)


def inputs(model, piece):
    """The plane's origin and axes, made again from the clean runs' own inputs."""
    u = [plm.path(model, PROMPTS[0], prompt, layer=1, at="mlp_in").b for prompt in PROMPTS]
    first = (u[1] - u[0]) / np.linalg.norm(u[1] - u[0])
    rest = u[2] - u[0]
    rest = rest - (rest @ first) * first
    return u, u[0], np.stack([first, rest / np.linalg.norm(rest)])


def codes(model, piece, places):
    geometry = model.geometry(piece.site)
    _, origin, axes = inputs(model, piece)
    u = origin + places @ axes
    return u @ geometry.weight.T.astype(float) + geometry.bias > 0


def test_the_plane_goes_through_the_three_activations(cut):
    model, piece = cut
    u, origin, axes = inputs(model, piece)
    np.testing.assert_allclose(origin + piece.points @ axes, u, atol=1e-4)
    x0, x1, y0, y1 = piece.corners
    assert x1 - x0 == pytest.approx(y1 - y0)
    assert (piece.points > [x0, y0]).all()
    assert (piece.points < [x1, y1]).all()


def test_there_are_as_many_regions_as_eulers_formula_says(cut):
    """1 + lines + meetings inside the window, in general position; meetings solved pair by pair."""
    _, piece = cut
    inside = 0
    starts, ends = piece.lines[:, 0], piece.lines[:, 1]
    for i in range(len(starts)):
        for j in range(i):
            matrix = np.stack([ends[i] - starts[i], starts[j] - ends[j]], axis=1)
            share = np.linalg.solve(matrix, starts[j] - starts[i])
            inside += bool(((share > 0) & (share < 1)).all())
    assert len(piece) == 1 + len(piece.neurons) + inside
    x0, x1, y0, y1 = piece.corners
    assert piece.areas.sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=1e-5)
    assert len(piece.to_frame()) == len(piece)


def test_each_region_has_one_code_of_its_own(cut):
    model, piece = cut
    at_centres = codes(model, piece, piece.centres)
    assert len(np.unique(at_centres, axis=0)) == len(piece)
    x0, x1, y0, y1 = piece.corners
    places = np.random.default_rng(0).uniform([x0, y0], [x1, y1], size=(4000, 2))
    known = {row.tobytes() for row in at_centres}
    assert {row.tobytes() for row in codes(model, piece, places)} <= known
    rng = np.random.default_rng(1)
    for number in np.argsort(-piece.areas)[:20]:  # big ones: float32 corners don't matter
        corners = piece.vertices[list(piece.regions[number])]
        within = 0.98 * (rng.dirichlet(np.ones(len(corners)), 10) @ corners) + 0.02 * piece.centres[number]
        assert (codes(model, piece, within) == at_centres[number]).all()


def test_lines_are_where_the_neurons_are_zero_and_the_others_never_are(cut):
    model, piece = cut
    geometry = model.geometry(piece.site)
    _, origin, axes = inputs(model, piece)
    for end in (0, 1):
        u = origin + piece.lines[:, end] @ axes
        h = np.einsum("nd,nd->n", u, geometry.weight[piece.neurons].astype(float)) + geometry.bias[piece.neurons]
        np.testing.assert_allclose(h, 0, atol=1e-3)
    others = np.setdiff1d(np.arange(piece.site.width), piece.neurons)
    x0, x1, y0, y1 = piece.corners
    places = np.random.default_rng(0).uniform([x0, y0], [x1, y1], size=(2000, 2))
    found = codes(model, piece, places)[:, others]
    assert (found == found[0]).all()


def test_colours_are_what_the_model_says_there(cut):
    model, piece = cut
    _, origin, axes = inputs(model, piece)
    ids = torch.tensor(model.tokenizer(PROMPTS[0])["input_ids"])[None]
    module = next(iter(model.block(1).pre.values()))
    modules = model.block(1).pre.values()
    for i, y in enumerate(piece.grid[:, 1]):
        for j, x in enumerate(piece.grid[:, 0]):
            row = torch.as_tensor(origin + np.array([x, y]) @ axes, dtype=torch.float32)

            def put(_module, args, row=row):
                changed = args[0].clone()
                changed[0, -1] = row
                return (changed, *args[1:])

            handles = [module.register_forward_pre_hook(put) for module in modules]
            top = int(model.hf(ids).logits[0, -1].argmax())
            for handle in handles:
                handle.remove()
            assert piece.top[i, j] == top
            assert piece.words[top] == model.tokenizer.decode([top])
    assert module is not None


def test_a_window_is_drawn_closer(model):
    whole = plm.paths.slice(model, *PROMPTS, layer=0, grid=0)
    close = plm.paths.slice(model, *PROMPTS, layer=0, zoom=0.5, grid=0)
    assert close.corners[1] - close.corners[0] == pytest.approx((whole.corners[1] - whole.corners[0]) / 2)
    assert set(close.neurons) <= set(whole.neurons)
    assert len(close) < len(whole)
    assert whole.top.size == 0


def test_an_encoder_has_regions_without_colours(tokenizer):
    config = tf.BertConfig(
        hidden_size=24, intermediate_size=44, num_hidden_layers=2, num_attention_heads=2, vocab_size=400
    )
    bert = plm.wrap(randomised(tf.BertModel(config)), tokenizer, name="small-bert")
    piece = plm.paths.slice(bert, *PROMPTS, layer=0)
    assert len(piece) > 1
    assert piece.top.size == 0
    assert len(piece.plot().data) == 2


def test_a_slice_comes_back_from_its_data(cut):
    _, piece = cut
    again = Slice.from_dict(piece.to_dict())
    assert again.to_dict() == piece.to_dict()
    assert again.areas.sum() == pytest.approx(piece.areas.sum())
    assert f"{len(piece):,} regions by {len(piece.neurons):,} boundaries of" in repr(piece)


def test_pictures_show_text_as_text(model):
    piece = plm.paths.slice(model, "<b>bank</b>", PROMPTS[1], PROMPTS[2], layer=0, grid=3)
    shown = piece.plot().to_json()
    assert "<b>" not in shown
    assert "\\u003cb" not in shown
    assert "&lt;b&gt;" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": "resid_mid"}, "before the norm boundaries are curved"),
        ({"at": "embed", "layer": 0}, "at='embed' has no boundaries of its own"),
        ({"at": "nowhere"}, "at='nowhere' is not a space"),
        ({"layer": 9}, "no layer 9"),
        ({"zoom": 0.0}, "zoom=0.0"),
        ({"grid": 1}, "grid=1"),
        ({"most": 3}, "and at most 3 are drawn: give zoom=0."),
        ({"position": 40}, "position=40 is outside prompt A"),
        ({"prompt_c": PROMPTS[0]}, "lie on a line"),
        ({"prompt_b": PROMPTS[0]}, "lie on a line"),
        ({"prompt_b": ""}, "prompt B is empty"),
    ],
)
def test_mistakes_are_told_in_one_line(model, change, message):
    asked = dict(zip(("prompt_a", "prompt_b", "prompt_c"), PROMPTS, strict=True)) | {"layer": 1}
    with pytest.raises(PolytopeError, match=message) as error:
        plm.paths.slice(model, **(asked | change))
    assert "\n" not in str(error.value)
