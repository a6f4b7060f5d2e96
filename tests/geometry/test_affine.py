"""Local maps against autograd, distances against whole matrices, k-means' centres against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made import documents

import polytope_lm as plm
from polytope_lm.controls.weights import rounded
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.affine import Maps, Weights, inputs_of, k_means, maps, maps_at, reduce, substituting
from polytope_lm.geometry.matching import match
from polytope_lm.geometry.reduction import reduction
from polytope_lm.models.gates import mlp_of


def mlp_function(model, layer):
    """The MLP as a function of one u, by the model's own modules."""
    block = model.block(layer)
    return lambda u: block.down.forward(mlp_of(block, u[None]).post)[0]


@pytest.fixture(params=["model", "gated", "relu"])
def any_model(request, gpt2, tokenizer):
    if request.param == "relu":
        return plm.wrap(gpt2(activation_function="relu"), tokenizer, name="small-relu")
    return request.getfixturevalue(request.param)


@pytest.fixture
def u(any_model, sentences):
    ids = np.array(any_model.tokenizer(sentences[0])["input_ids"])
    return inputs_of(any_model, [ids], 1)


def test_inputs_are_the_norms_outputs(any_model, sentences, u):
    ids = torch.tensor([any_model.tokenizer(sentences[0])["input_ids"]])
    seen = []
    norm = any_model.block(1).norm
    hook = norm.register_forward_hook(lambda _m, _a, out: seen.append(out))
    any_model.hf(ids)
    hook.remove()
    np.testing.assert_allclose(u, seen[0][0, 1:].detach(), atol=1e-6)


def test_the_tangent_is_autograds_jacobian(any_model, u):
    found = maps_at(any_model, 1, u)
    run = mlp_function(any_model, 1)
    jacobians = torch.stack([torch.autograd.functional.jacobian(run, each) for each in u])
    np.testing.assert_allclose(found.matrices(), jacobians, atol=1e-5)
    outputs = torch.stack([run(each) for each in u]).detach()
    offsets = outputs - torch.einsum("nkd,nd->nk", jacobians, u)
    np.testing.assert_allclose(found.intercepts(), offsets, atol=1e-5)


@pytest.mark.parametrize("kind", ["tangent", "secant"])
def test_a_map_is_exact_at_its_token(any_model, u, kind):
    found = maps_at(any_model, 1, u, kind)
    outputs = torch.stack([mlp_function(any_model, 1)(each) for each in u]).detach()
    np.testing.assert_allclose(found(u), outputs, atol=1e-5)
    whole = torch.einsum("nkd,nd->nk", found.matrices(), u) + found.intercepts()
    np.testing.assert_allclose(whole, outputs, atol=1e-5)


def test_behind_relus_both_maps_are_the_code(gpt2, tokenizer, sentences):
    model = plm.wrap(gpt2(activation_function="relu"), tokenizer, name="small-relu")
    tangent, secant = (maps(model, sentences[0], 1, kind=kind) for kind in ("tangent", "secant"))
    bits = plm.encode(model, sentences[0], layers=[1]).bits(1)[1:]
    np.testing.assert_array_equal(tangent.slope > 0.5, bits)
    np.testing.assert_allclose(secant.slope, tangent.slope)
    np.testing.assert_allclose(tangent.shift, 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["tangent", "secant"])
def test_distances_are_those_of_whole_matrices(any_model, u, kind):
    found = maps_at(any_model, 1, u, kind)
    whole = torch.cat([found.matrices().flatten(1), found.intercepts()], dim=1).double()
    ours = torch.from_numpy(found.features()).double()
    np.testing.assert_allclose(torch.cdist(ours, ours), torch.cdist(whole, whole), atol=2e-4)
    turned = found[torch.arange(len(found)).flip(0)]
    np.testing.assert_allclose(found.distances(turned), (whole - whole.flip(0)).norm(dim=1), atol=2e-4)


def test_centres_are_means_and_the_nearest_is_the_nearest(any_model, u):
    found = maps_at(any_model, 1, u)
    centres = reduce(found, 3)
    assert centres.sizes.sum() == len(found)
    whole = found.matrices()
    for k in range(3):
        np.testing.assert_allclose(centres.maps.matrices()[k], whole[centres.labels == k].mean(0), atol=1e-5)
    flat = torch.cat([whole.flatten(1), found.intercepts()], dim=1)
    means = torch.stack([flat[centres.labels == k].mean(0) for k in range(3)])
    np.testing.assert_array_equal(centres.nearest(found), torch.cdist(flat, means).argmin(1))


def test_each_token_its_own_map_is_the_model():
    model, text = plm.load("tiny-relu"), "The river bank was steep, and the bank lent money to the boat's owner."
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    clean = model.hf(ids, labels=ids)
    found = maps(model, text, 1)
    with substituting(model, reduce(found, len(found))):
        own = model.hf(ids, labels=ids)
    assert own.loss.item() == pytest.approx(clean.loss.item(), abs=1e-5)
    with substituting(model, reduce(found, 1)):
        assert model.hf(ids, labels=ids).loss.item() > clean.loss.item() + 1e-3
    assert torch.equal(model.hf(ids).logits, clean.logits)


def test_k_means_finds_what_is_apart():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(centre, 0.01, (30, 4)) for centre in (0, 5)]).astype(np.float32)
    labels = k_means(points, 2, seed=1)
    assert len(set(labels[:30])) == len(set(labels[30:])) == 1
    assert labels[0] != labels[30]


def test_a_matching_recovers_a_linear_relation():
    rng = np.random.default_rng(0)
    shared = Weights(torch.randn(6, 3), torch.randn(6), torch.randn(3, 6), torch.randn(3))
    source = Maps(shared, torch.randn(4000, 6), torch.randn(4000, 6), "tangent", 0)
    numbers = torch.cat([source.slope, source.shift], dim=1) @ torch.from_numpy(rng.standard_normal((12, 12))).float()
    target = Maps(shared, numbers[:, :6] + 1, numbers[:, 6:], "tangent", 1)
    matching = match(source[:3000], target[:3000])
    got = matching(source[3000:])
    np.testing.assert_allclose(got.slope, target.slope[3000:], atol=0.02)
    np.testing.assert_allclose(got.shift, target.shift[3000:], atol=0.02)
    assert got.layer == 1
    shuffled = match(source[torch.randperm(3000)], target[:3000])(source[3000:])
    assert (shuffled.slope - target.slope.mean(0)).abs().mean() < 0.2 * (
        target.slope - target.slope.mean(0)
    ).abs().mean()


def test_numbers_that_never_change_are_kept_and_tell_nothing():
    shared = Weights(torch.randn(4, 3), torch.randn(4), torch.randn(3, 4), torch.randn(3))
    still = torch.full((300, 4), 0.7)
    source = Maps(shared, torch.randn(300, 4), still, "secant", 0)
    target = Maps(shared, torch.cat([2 * source.slope[:, :2], still[:, :2]], dim=1), still, "secant", 1)
    matching = match(source, target)
    elsewhere = Maps(shared, source.slope, still + 5, "secant", 0)
    for given in (source, elsewhere):
        np.testing.assert_allclose(matching(given).slope, target.slope, atol=0.1)  # a ridge's fit
        np.testing.assert_array_equal(matching(given).slope[:, 2:], still[:, :2])
        np.testing.assert_array_equal(matching(given).shift, still)


@pytest.mark.parametrize("which", ["model", "gated"])
def test_a_model_in_bfloat16_has_the_maps_of_its_numbers(which, request):
    half = rounded(request.getfixturevalue(which), "bfloat16")
    same, text = rounded(half, "float32"), "A river bank is wet"
    for kind in ("tangent", "secant"):
        ours, theirs = (maps(each, text, 1, kind=kind) for each in (half, same))
        torch.testing.assert_close(ours.intercepts(), theirs.intercepts(), rtol=0.1, atol=0.2)
    ids = torch.tensor([half.tokenizer(text)["input_ids"]])
    clean = half.hf(ids).logits
    with substituting(half, reduce(ours, len(ours))):
        torch.testing.assert_close(half.hf(ids).logits, clean, rtol=0.1, atol=0.1)
    norm = "norm of the Jacobian"
    found, expected = (plm.measure(each, text, layers=1, which="jacobian")[norm] for each in (half, same))
    np.testing.assert_allclose(found, expected, rtol=0.1)
    texts = [one.text for one in documents(4)]
    lost = reduction(half, texts, 1, ks=[1], tested=2, max_tokens=16, resamples=5)
    assert abs(lost.arm("own map").lost.value) < 0.05


def test_what_has_no_map_is_refused(model):
    found = maps(model, "The river bank was steep", 1)
    with pytest.raises(PolytopeError, match=f"k={len(found) + 1}: there are {len(found)}"):
        reduce(found, len(found) + 1)
    with pytest.raises(PolytopeError, match="k=0"):
        reduce(found, 0)
    with pytest.raises(PolytopeError, match="no layer 9"):
        maps(model, "The river bank", 9)
    with pytest.raises(PolytopeError, match="kind='chord'"):
        maps(model, "The river bank", 1, kind="chord")
    with pytest.raises(PolytopeError, match="1 tokens"):
        maps(model, "a", 1)
    with pytest.raises(PolytopeError, match="the same tokens"):
        match(found, found[1:])
    with pytest.raises(PolytopeError, match="3 tokens: give at least 10"):
        match(found[:3], found[:3])
    with pytest.raises(PolytopeError, match="tiny-moe, layer 0: a mixture"):
        Weights.of(plm.load("tiny-moe"), 0)


def test_the_rooms_are_reached_from_the_package():
    import subprocess
    import sys

    code = (
        "import polytope_lm as plm; plm.geometry.affine.maps, plm.geometry.reduction.reduction, plm.toys.regions;"
        " print(hasattr(plm.geometry, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
