"""Whole sequences, embeddings and arcs in models: clean runs at the ends, dense grids between."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf
from paths.test_path import CAUSAL, SMALL
from small import randomised

import polytope_lm as plm
from benchmarks.downstream import Comparison, compare
from polytope_lm.errors import PolytopeError
from polytope_lm.models.interventions import run_replaced

A, B = "He sat on the bank of the river", "She owes a lot of money, and the bank knows"
SPACES = ("resid_mid", "mlp_in", "embed")


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request, tokenizer):
    return plm.wrap(randomised(CAUSAL[request.param]()), tokenizer, name=request.param)


@pytest.fixture(scope="module")
def bert(tokenizer):
    return plm.wrap(randomised(tf.BertModel(tf.BertConfig(**SMALL))), tokenizer, name="small-bert")


@pytest.fixture(scope="module")
def pair(tokenizer):
    a, b = (tokenizer(text)["input_ids"] for text in (A, B))
    n = min(len(a), len(b))
    pair = tokenizer.decode(a[:n]), tokenizer.decode(b[:n])
    assert len({len(tokenizer(text)["input_ids"]) for text in pair}) == 1
    return pair


def space(at):
    return {"at": at} if at == "embed" else {"at": at, "layer": 1}


def clean(model, ids):
    with torch.no_grad():
        return model.hf(torch.as_tensor(ids)[None]).logits[0].numpy()


@pytest.mark.parametrize("at", ["resid_mid", "embed"])
def test_the_ends_are_both_clean_runs(causal, pair, at):
    path = plm.path(causal, *pair, **space(at), context="both")
    run = run_replaced(
        causal, path.input_ids, path.versions(np.array([0.0, 1.0])), layer=path.site.layer,
        positions=range(len(path.input_ids)), at=at, taps=[(2, "x")],
    )  # fmt: skip
    assert run.activations[2, "x"].shape == (2, len(path.input_ids) * causal.d_model)
    for logits, prompt in zip(run.logits, pair, strict=True):
        np.testing.assert_allclose(logits, clean(causal, causal.tokenizer(prompt)["input_ids"])[-1], atol=1e-4)
    assert path.context == "both"
    assert path.length == pytest.approx(np.linalg.norm(path.b - path.a))


def test_between_embeddings_the_end_is_the_other_token_in_the_same_context(causal, pair):
    path = plm.path(causal, *pair, at="embed")
    change = path.crossings(downstream=True, steps=4).output_change
    ids = np.array(path.input_ids)
    for place, token in ((0, ids[-1]), (-1, causal.tokenizer(pair[1])["input_ids"][-1])):
        logits = clean(causal, [*ids[:-1], token])[-1]
        assert change.top[place] == causal.tokenizer.decode([int(logits.argmax())])
        np.testing.assert_allclose(
            change.top_probability[place], np.exp(logits - np.logaddexp.reduce(logits)).max(), atol=1e-4
        )
    found = path.crossings(downstream=True)
    assert [part.layer for part in found.layers] == [0, 1, 2]
    assert all("held out" in part.method for part in found.layers)
    alone = path.crossings()
    assert [part.layer for part in alone.layers] == [0]
    assert alone.output_change is None
    here = found.layer == 0
    assert abs(int(here.sum()) - len(alone)) <= (found.missed_estimate or 0) + (alone.missed_estimate or 0)


@pytest.mark.parametrize("at", SPACES)
@pytest.mark.parametrize("how", [{"context": "both"}, {"positions": "all"}])
def test_whole_sequences_against_a_dense_grid(model, gated, pair, at, how):
    total = Comparison()
    for one in (model, gated):
        path = plm.path(one, *pair, at=at, layer=None if at == "embed" else 0, **how)
        ours, dense = path.crossings(downstream=True), path.crossings(downstream=True, steps=800)
        compare(path, ours, dense, 800, total)
        assert "whole sequences" in ours.layers[-1].method
        assert [part.hamming for part in ours.layers] == [part.hamming for part in dense.layers]
    assert total.crossings >= 10
    assert total.found > 0.995
    assert total.placed > 0.99
    assert total.uncovered == 0


@pytest.mark.parametrize("shape", ["line", "arc"])
@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
def test_all_positions_are_one_path_each(causal, pair, at, shape):
    path = plm.path(causal, *pair, at=at, layer=1, positions="all", shape=shape)
    found = path.crossings()
    assert path.counted == tuple(range(len(path.input_ids)))
    assert found.position is not None
    lengths = []
    for token in path.counted:
        alone = plm.path(causal, *pair, at=at, layer=1, position=token, shape=shape)
        here = found.position == token
        np.testing.assert_array_equal(found.neuron[here], alone.crossings().neuron)
        np.testing.assert_allclose(found.t[here], alone.crossings().t, atol=1e-9)
        lengths.append(alone.length)
    assert (np.diff(found.t) >= 0).all()
    assert found.length >= np.linalg.norm(lengths) * (1 - 1e-9)
    assert found.length == pytest.approx(np.linalg.norm(lengths), rel=1e-2 if shape == "arc" else 1e-9)
    if at == "mlp_in" and shape == "line":
        assert len(found) == found.method(1).hamming
        assert found.flip_backs() == 0
    else:
        assert len(found) == found.method(1).hamming + found.flip_backs()
    again = type(found).from_dict(found.to_dict())
    np.testing.assert_array_equal(again.position, found.position)
    assert "position" in found.to_frame()


def test_the_way_back_between_both_contexts_is_mirrored(model, pair):
    there, back = (plm.path(model, *p, layer=1, context="both").crossings(downstream=True) for p in (pair, pair[::-1]))
    one, other = (np.lexsort((t, c.neuron, c.layer)) for t, c in ((there.t, there), (1 - back.t, back)))
    np.testing.assert_array_equal(there.neuron[one], back.neuron[other])
    np.testing.assert_array_equal(there.on[one], ~back.on[other])
    np.testing.assert_allclose(there.t[one], (1 - back.t)[other], atol=1e-3)


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
def test_an_arc_in_a_model_against_a_dense_grid_of_its_forward(causal, at):
    path = plm.path(causal, A, "She owes a lot of money", at=at, layer=1, shape="arc")
    found, t = path.crossings(), np.linspace(0, 1, 2001)
    np.testing.assert_array_equal(path.points(np.array([0.0, 1.0])), np.stack([path.a, path.b]))
    from polytope_lm.models.interventions import run_patched

    point = "gate" if "gate" in causal.block(1).pre else "h"
    h = run_patched(
        causal, path.input_ids, path.points(t), layer=1, position=path.position, at=at, taps=[(1, point)],
        logits=False,
    ).activations[1, point]  # fmt: skip
    step, neuron = np.nonzero((h[1:] > 0) != (h[:-1] > 0))
    ours, theirs = np.lexsort((found.t, found.neuron)), np.lexsort((step, neuron))
    np.testing.assert_array_equal(found.neuron[ours], neuron[theirs])
    assert np.abs(found.t[ours] - (t[step] + t[step + 1])[theirs] / 2).max(initial=0) < 5e-4
    assert (found.shape, found.method(1).method) == ("arc", "closed form")
    assert found.length > np.linalg.norm(path.b - path.a)


def test_an_arc_is_followed_downstream(model):
    path = plm.path(model, A, "She owes a lot of money", layer=0, shape="arc")
    total = Comparison()
    compare(path, path.crossings(downstream=True), path.crossings(downstream=True, steps=2048), 2048, total)
    assert total.crossings >= 10
    assert total.found == 1
    assert total.placed > 0.99


def test_a_model_that_reads_both_ways_is_followed_where_no_context_is_kept(bert, pair):
    path = plm.path(bert, *pair, layer=0, context="both")
    found = path.crossings(downstream=True, steps=300)
    assert [part.layer for part in found.layers] == [0, 1, 2]
    assert found.output_change is None
    for prompt, end in zip(pair, (0.0, 1.0), strict=True):
        run = run_replaced(
            bert, path.input_ids, path.versions(np.array([end])), layer=0, positions=path.counted, taps=[(2, "h")]
        )
        ids = torch.tensor(bert.tokenizer(prompt)["input_ids"])[None]
        seen: list[torch.Tensor] = []
        handle = next(iter(bert.block(2).pre.values())).register_forward_hook(
            lambda *args, seen=seen: seen.append(args[2])
        )
        with torch.no_grad():
            bert.hf(ids)
        handle.remove()
        np.testing.assert_allclose(run.activations[2, "h"][0], seen[0][0, path.position], atol=1e-4)
    with pytest.raises(PolytopeError, match="reads both ways"):
        plm.path(bert, *pair, layer=0).crossings(downstream=True)


@pytest.mark.parametrize("how", [{"context": "both"}, {"positions": "all"}, {"shape": "arc"}])
@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
def test_equal_prompts_make_a_path_of_length_zero(model, at, how):
    with np.errstate(all="raise", under="ignore"):
        path = plm.path(model, A, A, at=at, layer=0, **how)
        assert path.length == 0
        assert len(path.crossings()) == 0
    assert len(path.crossings(downstream=True)) == 0
    assert len(plm.path(model, A, A, at="embed").crossings(downstream=True)) == 0


def test_one_position_moves_where_a_context_is_kept(model, pair):
    with pytest.raises(PolytopeError, match="context='a': only one position moves"):
        plm.path(model, *pair, layer=0).versions(np.zeros(1))


@pytest.mark.usefixtures("users_arrays")
@pytest.mark.parametrize(
    ("shape", "positions", "match"),
    [((2, 3, 24), [0], r"shape \(2, 3, 24\), expected \[n, 4, 24\]"), ((2, 4, 24), [4], "not all inside")],
)
def test_sequences_that_do_not_fit_are_refused(model, shape, positions, match):
    with pytest.raises(PolytopeError, match=match):
        run_replaced(model, np.arange(4), np.zeros(shape), layer=0, positions=positions)
