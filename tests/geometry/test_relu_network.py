"""Exact crossings of ReLU networks against regioncam's 1-D regions, dense grids, and identities."""

from __future__ import annotations

import numpy as np
import pytest
import regioncam
from hypothesis import given, settings
from hypothesis import strategies as st

from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.relu_network import ReluNetwork


def network(seed, widths=(3, 8, 7, 6), scale=1.0):
    rng = np.random.default_rng(seed)
    pairs = list(zip(widths[1:], widths[:-1], strict=True))
    weights = [rng.normal(size=pair) * scale for pair in pairs]
    return ReluNetwork(weights, [rng.normal(size=n) * 0.5 for n, _ in pairs]), rng.normal(size=(2, widths[0])) * 2


@pytest.mark.parametrize("seed", range(12))
def test_against_regioncams_regions(seed):
    net, (a, b) = network(seed, widths=(3, 16, 12, 10))
    found = net.crossings(a, b)
    # Its line is measured from the middle of both points; size 2 reaches from the one to the other.
    line = regioncam.Regioncam1D.through_points(np.stack([a, b]).astype(np.float32), size=2.0)
    for weight, bias in zip(net.weights, net.biases, strict=True):
        line.add(regioncam.Linear(weight.T.astype(np.float32).copy(), bias.astype(np.float32)))
        line.add(regioncam.ReLU())
    theirs = np.sort(np.asarray(line.inputs).reshape(-1)) / np.linalg.norm(b - a) + 0.5
    np.testing.assert_allclose(theirs[[0, -1]], [0, 1], atol=1e-5)
    assert len(found) == len(theirs) - 2 > 0
    np.testing.assert_allclose(found.t, theirs[1:-1], atol=2e-5)


@pytest.mark.parametrize("seed", range(4))
def test_against_a_dense_grid(seed):
    net, (a, b) = network(seed)
    found, t = net.crossings(a, b), np.linspace(0, 1, 100_001)
    for layer, h in enumerate(net.pre(a + t[:, None] * (b - a))):
        step, neuron = np.nonzero((h[1:] > 0) != (h[:-1] > 0))
        here = found.layer == layer
        np.testing.assert_array_equal(found.neuron[here], neuron)
        np.testing.assert_array_equal(found.on[here], h[step + 1, neuron] > 0)
        assert np.abs(found.t[here] - t[step]).max(initial=0) < 1.1e-5


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_splitting_gives_the_sum_and_the_way_back_is_mirrored(seed, cut):
    net, (a, b) = network(seed)
    middle = a + cut * (b - a)
    whole, back = net.crossings(a, b), net.crossings(b, a)
    parts = net.crossings(a, middle), net.crossings(middle, b)
    both = np.concatenate([parts[0].t * cut, cut + parts[1].t * (1 - cut)])
    np.testing.assert_allclose(whole.t, both, atol=1e-7)
    np.testing.assert_allclose(whole.t, np.sort(1 - back.t), atol=1e-7)
    np.testing.assert_array_equal(np.sort(whole.layer * 100 + whole.neuron), np.sort(back.layer * 100 + back.neuron))


@given(st.integers(0, 2**32 - 1))
def test_the_ends_codes_tell_all_but_flip_backs(seed):
    net, (a, b) = network(seed)
    found = net.crossings(a, b)
    for layer in range(3):
        times = np.bincount(found.neuron[found.layer == layer], minlength=1)
        assert found.flip_backs(layer) == (times - times % 2).sum()
    assert found.flip_backs(0) == 0  # linear: each boundary once
    assert found.flip_backs() == sum(found.flip_backs(layer) for layer in range(3))


def test_folds_that_are_known_by_hand():
    """A hat: up to 1 at the middle and back; the second layer flips at a height of one half and back."""
    hat = ReluNetwork([np.array([[1.0], [1.0]]), np.array([[1.0, -2.0]])], [np.array([0.0, -1.0]), np.array([-0.5])])
    found = hat.crossings(np.array([-1.0]), np.array([3.0]))
    np.testing.assert_allclose(found.t, [0.25, 0.375, 0.5, 0.625])
    assert found.layer.tolist() == [0, 1, 0, 1]
    assert found.neuron.tolist() == [0, 0, 1, 0]
    assert found.on.tolist() == [True, True, True, False]
    assert (found.flip_backs(), found.hamming.tolist()) == (2, [2, 0])
    assert repr(found) == "Marched: 4 crossings in 2 layers"


def test_touching_a_boundary_is_no_crossing_and_zero_is_off():
    touch = ReluNetwork(
        [np.array([[1.0], [-1.0]]), np.array([[1.0, 1.0]])], [np.zeros(2), np.zeros(1)]
    )  # |x|: zero at the middle only
    found = touch.crossings(np.array([-1.0]), np.array([1.0]))
    assert found.layer.tolist() == [0, 0]
    start = ReluNetwork([np.array([[1.0]])], [np.zeros(1)])
    assert start.crossings(np.array([0.0]), np.array([1.0])).t.tolist() == [0.0]
    assert len(start.crossings(np.array([0.0]), np.array([-1.0]))) == 0


def test_equal_ends_cross_nothing():
    net, (a, _) = network(0)
    assert len(net.crossings(a, a)) == 0


@pytest.mark.usefixtures("users_arrays")
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ReluNetwork([], []), "0 weights and 0 biases"),
        (lambda: ReluNetwork([np.ones((2, 3)), np.ones((2, 3))], [np.ones(2)] * 2), r"layer 1: .*\[N, 2\]"),
        (lambda: ReluNetwork([np.full((2, 3), np.nan)], [np.ones(2)]), "layer 0 has NaN"),
        (lambda: network(0)[0].crossings(np.ones(2), np.ones(3)), r"a has shape \(2,\): give \[3\] numbers"),
        (lambda: network(0)[0].crossings(np.ones(3), np.full(3, np.inf)), "b has NaN or infinite"),
    ],
)
def test_bad_input_is_one_clear_line(make, match):
    with pytest.raises(PolytopeError, match=match) as error:
        make()
    assert "\n" not in str(error.value)
