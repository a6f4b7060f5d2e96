"""Loss recovered with few maps: identities, limits, and a loss taken by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.reduction import reduction
from polytope_lm.result import load_result


@pytest.fixture(scope="module")
def documents():
    return list(plm.documents("sample"))[:12]


@pytest.fixture(scope="module")
def found(documents):
    return reduction(plm.load("tiny-relu"), documents, 1, ks=[1, 8, 40], tested=5, max_tokens=48, seed=3, resamples=50)


def test_each_token_its_own_map_loses_nothing(found):
    assert abs(found.arm("own map").lost.value) < 1e-5
    assert found.arm("own map").recovered.value == pytest.approx(1, abs=1e-4)


def test_one_centre_is_the_mean_map_whatever_chose_it(found):
    mean = found.arm("mean map", 1).lost.value
    for name in ("k maps", "random groups", "by code", "by cosine", "by vector"):
        assert found.arm(name, 1).lost.value == pytest.approx(mean, abs=1e-5)


def test_without_the_mlp_everything_is_lost(found):
    assert found.arm("mean-ablated").recovered.value == pytest.approx(0, abs=1e-9)
    assert found.removed.value == pytest.approx(found.arm("mean-ablated").lost.value)


def test_random_groups_are_worse_than_clusters_and_near_the_mean_map(found):
    clusters, random = found.arm("k maps", 40).lost.value, found.arm("random groups", 40).lost.value
    mean = found.arm("mean map", 1).lost.value
    assert abs(random - mean) < (random - clusters) / 2


def test_the_clean_loss_is_the_models(found, documents):
    model = plm.load("tiny-relu")
    whole = reduction(model, documents[:4], 0, ks=[1], tested=2, max_tokens=32, resamples=10)
    losses = []
    for document in documents[:4]:
        ids = torch.tensor([model.tokenizer(document.text)["input_ids"][:32]])
        logits = model.hf(ids).logits[0, 1:-1].log_softmax(-1)
        losses.append(-logits[torch.arange(30), ids[0, 2:]].mean().item())
    pairs = [(losses[i] + losses[j]) / 2 for i in range(4) for j in range(i)]
    assert min(abs(whole.clean - each) for each in pairs) < 1e-4


def test_a_layer_that_is_linear_is_one_map(gpt2, tokenizer, documents):
    """With act = identity every token has the same map: one linear fit, one map, a quadratic all lose nothing."""
    hf = gpt2(activation_function="linear")
    model = plm.wrap(hf, tokenizer, name="linear")
    linear = reduction(model, documents[:6], 1, ks=[1, 2], tested=2, max_tokens=48, resamples=10)
    for name, k in (("mean map", 1), ("k maps", 2), ("quadratic", 0)):
        assert abs(linear.arm(name, k).lost.value) < 1e-4
    assert abs(linear.arm("linear").lost.value) < 0.1 * linear.removed.value


def test_a_gated_model_runs(gated, documents):
    small = reduction(gated, documents[:4], 0, ks=[2], kind="secant", tested=2, max_tokens=24, resamples=10)
    assert abs(small.arm("own map").lost.value) < 1e-5


def test_it_is_saved_and_shown(found, tmp_path):
    found.save(tmp_path)
    again = load_result(tmp_path)
    assert again.arms == found.arms
    frame = again.to_frame()
    assert set(frame["arm"]) >= {"k maps", "random groups", "by code", "by cosine", "linear", "quadratic"}
    np.testing.assert_allclose(frame["nats lost"], [arm.lost.value for arm in found.arms])
    assert "random groups" in found.headline
    assert found.command.startswith("plm.geometry.reduction.reduction(")
    (figure,) = found.figures().values()
    traces = {trace.name: trace for trace in figure.data}
    for name in ("k maps", "random groups", "by code", "by cosine", "by vector"):
        drawn, arms = traces[name], [arm for arm in found.arms if arm.name == name]
        assert list(drawn.x) == [arm.k for arm in arms]
        np.testing.assert_allclose(drawn.y, [arm.recovered.value for arm in arms])
        ends = np.array(drawn.y) + drawn.error_y.array, np.array(drawn.y) - drawn.error_y.arrayminus
        np.testing.assert_allclose(ends, [[a.recovered.high for a in arms], [a.recovered.low for a in arms]])
    np.testing.assert_allclose(traces["linear"].y, found.arm("linear").recovered.value)
    assert figure.layout.yaxis.range == (-1.05, 1.05)


def test_loss_recovered_is_the_share_of_what_the_mlp_does(found):
    for arm in found.arms:
        assert arm.recovered.value == pytest.approx(1 - arm.lost.value / found.removed.value)


def test_where_the_mlp_does_nothing_nats_are_drawn(found):
    from dataclasses import replace

    bare = replace(found, arms=tuple(replace(arm, recovered=None) for arm in found.arms))
    traces = {trace.name: trace for trace in bare.plot().data}
    np.testing.assert_allclose(traces["k maps"].y, [a.lost.value for a in found.arms if a.name == "k maps"])
    assert bare.plot().layout.yaxis.range is None


def test_what_cannot_be_reduced_is_refused(documents):
    model = plm.load("tiny-relu")
    with pytest.raises(PolytopeError, match=r"ks=\[100000\]"):
        reduction(model, documents[:4], 1, ks=[100_000], tested=2, max_tokens=24)
    with pytest.raises(PolytopeError, match=r"ks=\[24\]: give numbers from 1 to 15, at least 3 for each map of the 46"):
        reduction(model, documents[:4], 1, ks=[24], tested=2, max_tokens=24, fit_tokens=40)
    with pytest.raises(PolytopeError, match=r"ks=\[\]"):
        reduction(model, documents[:4], 1, ks=[], tested=2, max_tokens=24)
    with pytest.raises(PolytopeError, match="2 documents of at least 8 tokens"):
        reduction(model, documents[:2], 1)
