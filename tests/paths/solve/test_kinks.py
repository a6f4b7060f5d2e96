"""Crossings behind ReLUs: exact marching without norm and attention, dense grids with them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import polytope_lm as plm
from benchmarks.downstream import Comparison, compare, random_pairs
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.relu_network import ReluNetwork
from polytope_lm.models.sites import Geometry
from polytope_lm.paths.solve.kinks import Layer, follow_pieces

FAR = 1e3


def residual_network(seed, width, depth, neurons):
    """`x_(l+1) = x_l + D_l max(W_l x_l + b_l, 0)`: as layers, and as a network whose other neurons carry x along."""
    rng = np.random.default_rng(seed)
    ones, zeros = np.ones(width), np.zeros(width)
    layers, weights, biases = [], [], []
    carried, shift = np.eye(width), zeros
    for _ in range(depth):
        w, b = rng.standard_normal((neurons, width)), rng.standard_normal(neurons)
        down = rng.standard_normal((width, neurons)) / neurons**0.5
        layers.append(Layer(Geometry(w, b, ones, zeros, 0.0, "none"), down))
        weights.append(np.concatenate([w @ carried, carried]))
        biases.append(np.concatenate([b + w @ shift, shift + FAR]))
        carried = np.concatenate([down, np.eye(width)], axis=1)
        shift = -FAR * ones
    return layers, ReluNetwork(weights, biases)


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 4), st.integers(3, 24))
@example(9, 64, 2, 2)  # in these three nothing is left to learn after the first points
@example(16, 2, 4, 1)
@example(90, 1, 2, 40)
@settings(max_examples=25, deadline=None)
def test_without_norm_and_attention_they_equal_exact_marching(seed, width, depth, neurons):
    layers, network = residual_network(seed, width, depth, neurons)
    a, b = np.random.default_rng(seed + 1).standard_normal((2, width)) * 2
    marched = network.crossings(a, b)

    def points(t):
        return (a + t[:, None] * (b - a))[:, None]

    def run(t):
        x, reads = points(t), []
        for layer in layers:
            reads.append(x)
            x = layer.behind(x).y
        pres = [layer.pre(x)[:, 0] for layer, x in zip(layers, reads, strict=True)]
        return [*pres[1:], *(x[:, 0] for x in reads[1:])]

    own = marched.t[marched.layer == 0]
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        found = follow_pieces(run, lambda t: layers[0].behind(points(t)), layers[1:], own)
    assert found.agreed
    assert len(found.t) <= 40
    for number, part in enumerate(found.layers, 1):
        theirs = marched.layer == number
        order = np.lexsort((part.t, part.neuron))
        exact = np.lexsort((marched.t[theirs], marched.neuron[theirs]))
        np.testing.assert_array_equal(part.neuron[order], marched.neuron[theirs][exact])
        np.testing.assert_array_equal(part.on[order], marched.on[theirs][exact])
        np.testing.assert_allclose(part.t[order], marched.t[theirs][exact], atol=1e-7)


@pytest.fixture(scope="module")
def relu():
    return plm.load("tiny-relu")


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_against_a_dense_grid_of_the_models_forward(relu, layer):
    total, steps = Comparison(), 4096
    for prompts in random_pairs(2, seed=layer):
        path = plm.path(relu, *prompts, layer=layer)
        ours = path.crossings(downstream=True)
        assert sum(map(int, re.findall(r"(\d+) (?:nodes|held out)", ours.layers[-1].method))) <= 120
        compare(path, ours, path.crossings(downstream=True, steps=steps), steps, total)
    assert total.crossings > 100
    assert total.found == 1
    assert total.placed >= 0.999
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


def test_too_few_evaluations_are_refused(relu):
    path = plm.path(relu, "the cat sat", "the dog ran", layer=1)
    with pytest.raises(PolytopeError, match="evaluations=24: at least 25"):
        path.crossings(downstream=True, evaluations=24)
