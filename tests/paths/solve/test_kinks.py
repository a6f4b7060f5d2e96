"""Crossings behind ReLUs: exact marching without norm and attention, dense grids with them."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paths.test_path import CAUSAL
from small import randomised
from torch import nn

import polytope_lm as plm
from benchmarks.downstream import NEAR, Comparison, compare, random_pairs
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.relu_network import ReluNetwork
from polytope_lm.models.piecewise import RELU, piecewise_affine
from polytope_lm.models.sites import Geometry
from polytope_lm.paths.solve.kinks import Layer, follow_pieces
from polytope_lm.paths.trace import Trace

FAR = 1e3


def residual_network(seed, width, depth, neurons, act=RELU):
    """`x_(l+1) = x_l + D_l act(W_l x_l + b_l)`: as layers, and as a ReLU network whose other neurons carry x along.

    Of the ReLU network's neurons the first of each layer are these; those that bend them elsewhere come next.
    """
    rng = np.random.default_rng(seed)
    ones, zeros = np.ones(width), np.zeros(width)
    layers, weights, biases = [], [], []
    carried, shift = np.eye(width), zeros
    for _ in range(depth):
        w, b = rng.standard_normal((neurons, width)), rng.standard_normal(neurons)
        down = rng.standard_normal((width, neurons)) / neurons**0.5
        layers.append(Layer(Geometry(w, b, ones, zeros, 0.0, "none"), down, act))
        # act(h) = act(0) + s h + sum_c (change of slope at c) max(h - c, 0), and h = max(h, 0) - max(-h, 0)
        sign, at = np.array([1, -1, *np.ones(len(act.at))]), np.array([0, 0, *act.at])
        bends = np.concatenate([act.slopes[:1], -act.slopes[:1], np.diff(act.slopes, axis=0)])
        h, start = b + w @ shift, act.value - act.slopes[0] * act.at[0]
        weights.append(np.concatenate([*(s * w @ carried for s in sign), carried]))
        biases.append(np.concatenate([*(s * h - c for s, c in zip(sign, at, strict=True)), shift + FAR]))
        carried = np.concatenate([*(down * bend for bend in bends), np.eye(width)], axis=1)
        shift = down @ (start * np.ones(neurons)) - FAR * ones
    return layers, ReluNetwork(weights, biases)


def marched(network, a, b, layer, neurons):
    """The layer's crossings of its code, by marching: neuron, direction and place."""
    found = network.crossings(a, b)
    theirs = (found.layer == layer) & (found.neuron < neurons)
    order = np.lexsort((found.t[theirs], found.neuron[theirs]))
    return tuple(column[theirs][order] for column in (found.neuron, found.on, found.t))


ACTIVATIONS = {
    "relu": RELU,
    "leaky": piecewise_affine(nn.LeakyReLU(0.2)),
    "steeper below": piecewise_affine(nn.LeakyReLU(1.5)),
    "relu6": piecewise_affine(nn.ReLU6()),
    "hardtanh": piecewise_affine(nn.Hardtanh(-0.5, 1.0)),
    "softshrink": piecewise_affine(nn.Softshrink(0.4)),
    "threshold": piecewise_affine(nn.Threshold(0.5, 0.5)),
}


@given(
    st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 4), st.integers(3, 24), st.sampled_from(list(ACTIVATIONS))
)
@example(9, 64, 2, 2, "relu")  # in these three nothing is left to learn after the first points
@example(16, 2, 4, 1, "relu")
@example(90, 1, 2, 40, "relu")
@example(3, 4, 3, 20, "leaky")
@example(4, 4, 3, 20, "steeper below")
@example(11, 4, 4, 20, "relu6")
@example(0, 4, 4, 20, "hardtanh")
@example(1, 4, 4, 20, "softshrink")
@example(4, 4, 4, 20, "threshold")
@settings(max_examples=25, deadline=None)
def test_without_norm_and_attention_they_equal_exact_marching(seed, width, depth, neurons, name):
    act = ACTIVATIONS[name]
    layers, network = residual_network(seed, width, depth, neurons, act)
    a, b = np.random.default_rng(seed + 1).standard_normal((2, width)) * 2

    def points(t):
        return (a + t[:, None] * (b - a))[:, None]

    def run(t):
        x, reads = points(t), []
        for layer in layers:
            reads.append(x)
            x = layer.behind(x).y
        pres = [layer.pre(x)[:, 0] for layer, x in zip(layers, reads, strict=True)]
        return [*pres[1:], *(x[:, 0] for x in reads[1:])]

    h = np.stack([layers[0].pre(end)[0] for end in points(np.array([0.0, 1.0]))[:, None]])[:, 0]
    own = np.concatenate([at_level(*h - level) for level in act.at])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        found = follow_pieces(run, lambda t: layers[0].behind(points(t)), layers[1:], own)
    assert found.agreed
    assert len(found.t) <= 40
    for number, part in enumerate(found.layers, 1):
        neuron, on, t = marched(network, a, b, number, neurons)
        order = np.lexsort((part.t, part.neuron))
        np.testing.assert_array_equal(part.neuron[order], neuron)
        np.testing.assert_array_equal(part.on[order], on)
        np.testing.assert_allclose(part.t[order], t, atol=1e-7)


def at_level(first, last):
    """Where straight lines from `first` to `last` are zero."""
    crossed = (first > 0) != (last > 0)
    return (first / np.where(crossed, first - last, 1.0))[crossed]


@pytest.fixture(scope="module")
def relu():
    return plm.load("tiny-relu")


def evaluated(ours):
    """How often the model was run."""
    return sum(map(int, re.findall(r"(\d+) (?:nodes|held out)", ours.layers[-1].method)))


def turned(path, ours):
    """How many later crossings the model's own signs bear out, 1e-4 before and after each; and of how many."""
    later = ours.layer > path.site.layer
    t, layer, neuron, on = (column[later] for column in (ours.t, ours.layer, ours.neuron, ours.on))
    values = Trace(path).at(np.concatenate([t - NEAR, t + NEAR]).clip(0, 1))
    before, after = (
        np.array(
            [
                values[n - path.site.layer - 1][half + i, unit] > 0
                for i, (n, unit) in enumerate(zip(layer, neuron, strict=True))
            ]
        )
        for half in (0, len(t))
    )
    return int(((before != on) & (after == on)).sum()), len(t)


@pytest.mark.parametrize(("layer", "pairs"), [(0, 4), (1, 10), (2, 16)])
def test_against_a_dense_grid_and_the_models_signs_about_each_crossing(relu, layer, pairs):
    """A grid of 512 steps says whether any is missing; the signs, to 1e-4, where each is."""
    total, steps, good, every, counts = Comparison(), 512, 0, 0, []
    for prompts in random_pairs(pairs, seed=layer):
        path = plm.path(relu, *prompts, layer=layer)
        ours = path.crossings(downstream=True)
        counts.append(evaluated(ours))
        compare(path, ours, path.crossings(downstream=True, steps=steps), steps, total)
        borne_out, count = turned(path, ours)
        good, every = good + borne_out, every + count
    assert np.median(counts) <= 120
    assert every > 500
    assert total.found == 1
    assert good >= 0.999 * every
    assert total.confirmed == total.extra
    assert total.uncovered == 0


@pytest.mark.parametrize(
    "options",
    [{"at": "mlp_in"}, {"shape": "arc"}, {"context": "both"}, {"positions": "all"}],
    ids=["mlp_in", "arc", "both", "all"],
)
def test_every_kind_of_path_agrees_with_a_dense_grid(relu, options):
    total, steps = Comparison(), 128
    path = plm.path(relu, "the cat sat", "the dog ran", layer=2, **options)
    compare(path, path.crossings(downstream=True), path.crossings(downstream=True, steps=steps), steps, total)
    assert total.crossings > 5
    assert total.found >= 0.99
    assert total.confirmed == total.extra


def learned(neurons):
    act = nn.PReLU(neurons)
    nn.init.uniform_(act.weight, -0.5, 0.8, generator=torch.Generator().manual_seed(0))
    return act


OWN = {
    "leaky_relu": lambda: nn.LeakyReLU(0.3),
    "prelu": lambda: learned(1),
    "rrelu": lambda: nn.RReLU(0.1, 0.5),
    "relu6": nn.ReLU6,
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.2),
    "softshrink": lambda: nn.Softshrink(0.1),
    "threshold": lambda: nn.Threshold(-0.2, -0.2),
}


@pytest.mark.parametrize("name", list(OWN))
def test_an_activations_own_slopes_and_bounds_are_read(relu, name):
    """In the model, against a dense grid of its forward. With other slopes or bounds it takes more evaluations."""
    hf = copy.deepcopy(relu.hf)
    for block in hf.transformer.h:
        block.mlp.act = OWN[name]()
    model, total, steps = plm.wrap(hf.eval(), relu.tokenizer, name=name), Comparison(), 512
    assert {site.premises.activation for site in model.sites} == {name}
    path = plm.path(model, *random_pairs(1, seed=3)[0], layer=0)
    ours = path.crossings(downstream=True)
    compare(path, ours, path.crossings(downstream=True, steps=steps), steps, total)
    assert ours.layers[-1].method.startswith("piecewise")
    assert evaluated(ours) <= (120 if name == "hardtanh" else 90)
    assert total.crossings > 100
    assert total.missing == 0
    borne_out, count = turned(path, ours)
    assert borne_out >= 0.99 * count


def test_each_neuron_may_have_learned_a_slope_of_its_own(tokenizer):
    """OPT's MLP sees tokens as rows, so that PReLU may have a slope a neuron."""
    hf = CAUSAL["opt"]()
    for layer in hf.model.decoder.layers:
        layer.activation_fn = learned(layer.fc1.out_features)
    model, total, steps = plm.wrap(randomised(hf), tokenizer, name="learned"), Comparison(), 2048
    path = plm.path(model, "He sat on the bank", "She owes a lot", layer=0)
    ours = path.crossings(downstream=True)
    compare(path, ours, path.crossings(downstream=True, steps=steps), steps, total)
    assert ours.layers[-1].method.startswith("piecewise")
    assert total.crossings > 10
    assert total.placed == 1


def test_what_jumps_is_not_searched_piece_by_piece(relu):
    hf = copy.deepcopy(relu.hf)
    hf.transformer.h[2].mlp.act = nn.Threshold(0.2, 0.0)
    path = plm.path(plm.wrap(hf.eval(), relu.tokenizer, name="jumps"), "the cat sat", "the dog ran", layer=1)
    assert not path.crossings(downstream=True).layers[-1].method.startswith("piecewise")


def test_too_few_evaluations_are_refused(relu):
    path = plm.path(relu, "the cat sat", "the dog ran", layer=1)
    with pytest.raises(PolytopeError, match="evaluations=24: at least 25"):
        path.crossings(downstream=True, evaluations=24)
