"""Toy networks: XOR's three regions, closed regions on the whole plane, seeds that do not meet."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch

from polytope_lm import toys
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.relu_network import ReluNetwork
from polytope_lm.toys.networks import Task


def test_xor_has_three_regions_and_its_fourth_code_is_infeasible():
    network = toys.exact_xor()
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=2)))
    np.testing.assert_array_equal(network.output(corners)[:, 0], [0, 1, 1, 0])
    found = toys.regions(network, (-1.0, 2.0, -1.0, 2.0))
    margins = toys.existing(network)
    assert {code for code, by in margins.items() if by > 0} == set(map(tuple, found.codes.tolist()))
    assert len(found) == 3
    assert margins[False, True] < 0


def closed_by_rays(network: ReluNetwork, radius: float) -> bool:
    """Whether nothing on a far circle is above 0: an independent look, without regions."""
    angles = np.linspace(0, 2 * np.pi, 20_000)
    return bool((network.output(radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)) <= 0).all())


def test_three_neurons_close_a_region():
    network = toys.exact_circle()
    found = toys.pieces(network)
    assert found.closed.tolist() == [True]
    assert found.of((0, 0)) == 0
    assert found.of((5, 5)) == -1
    assert closed_by_rays(network, 1e4)


def test_some_trained_networks_of_three_neurons_close_it_and_none_of_two():
    goal = toys.task("circle", 200)
    for width, expected in ((2, {False}), (3, {False, True})):
        seen = set()
        for trained in toys.fit(goal, (width,), range(12), steps=800):
            found = toys.pieces(trained.network)
            seen |= set(found.closed.tolist())
            if found.closed.all():
                assert closed_by_rays(trained.network, 10 * found.regions.window[1])
        assert seen == expected


def test_a_part_that_leaves_a_small_window_is_open_there():
    assert toys.pieces(toys.exact_circle(), (-0.1, 0.1, -0.1, 0.1)).closed.tolist() == [False]


def test_seeds_of_one_stack_do_not_meet():
    goal = toys.task("xor", 100)
    together = toys.fit(goal, (5, 4), [3, 8], steps=50)
    (alone,) = toys.fit(goal, (5, 4), [8], steps=50)
    for a, b in zip(together[1].network.weights, alone.network.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    assert together[1].accuracy == alone.accuracy
    assert not np.allclose(together[0].network.weights[0], alone.network.weights[0])


def test_training_learns_and_tells_how_well():
    goal = toys.task("xor", 200)
    (trained,) = toys.fit(goal, (16,), [0], steps=400)
    out = trained.network.output(goal.x)[:, 0]
    assert trained.accuracy == np.mean((out > 0) == (goal.y > 0))
    assert trained.accuracy > 0.95
    assert trained.loss == pytest.approx(np.log1p(np.exp(-goal.y * out)).mean())
    (curve,) = toys.fit(toys.task("sine", 200), (32,), [0], steps=600)
    assert curve.accuracy > 0.9


def test_every_task_has_points_in_its_window():
    for name in ("bits", "xor", "circle", "annuli", "sine", "sine of 1/x"):
        goal = toys.task(name, 101)
        x0, x1 = goal.window[:2]
        assert (goal.x[:, 0] >= x0).all()
        assert (goal.x[:, 0] <= x1).all()
        assert len(goal.x) == len(goal.y)
        assert len(np.unique(goal.y)) == 2 or not goal.classes


def test_a_relu_on_each_coordinate_has_as_many_regions_as_there_are_signs():
    assert [toys.orthants(d) for d in (1, 2, 3, 10)] == [2, 4, 8, 1024]


def test_what_cannot_be_trained_or_counted_is_refused():
    with pytest.raises(PolytopeError, match="choose among bits, xor"):
        toys.task("spiral")
    with pytest.raises(PolytopeError, match="points=1"):
        toys.task("xor", 1)
    goal = toys.task("xor", 50)
    with pytest.raises(PolytopeError, match=r"hidden=\(\)"):
        toys.fit(goal, ())
    with pytest.raises(PolytopeError, match="hidden=5: give each layer's width"):
        toys.fit(goal, 5)
    for seeds in ([-1], [], 0, [0.5]):
        with pytest.raises(PolytopeError, match=re.escape(f"seeds={seeds}: give one or more, whole numbers from 0")):
            toys.fit(goal, (4,), seeds)
    one = Task("mine", goal.x, np.ones(50), goal.window)
    with pytest.raises(PolytopeError, match="mine: all 50 points are of class 1"):
        toys.fit(one, (4,))
    with pytest.raises(PolytopeError, match="give a window"):
        toys.pieces(toys.fit(goal, (4, 4), steps=1)[0].network)
    with pytest.raises(PolytopeError, match="no single output"):
        toys.pieces(ReluNetwork([np.eye(2)], [np.zeros(2)]))
    with pytest.raises(PolytopeError, match="13 neurons"):
        toys.existing(ReluNetwork([np.ones((13, 2))], [np.zeros(13)]))
    with pytest.raises(PolytopeError, match="d=21"):
        toys.orthants(21)


def test_the_stack_is_the_networks_that_it_gives():
    goal = toys.task("annuli", 40)
    kept = []
    toys.fit(goal, (6, 5), [1], steps=3, after=lambda step, stack: kept.append((step, stack.networks()[0])))
    assert [step for step, _ in kept] == [0, 1, 2, 3]
    network = kept[0][1]
    x = torch.from_numpy(goal.x)
    for w, b in zip(network.weights, network.biases, strict=True):
        x = torch.relu(x @ torch.from_numpy(w).T + torch.from_numpy(b))
    np.testing.assert_allclose(network.output(goal.x), x.numpy() @ network.out[0].T + network.out[1], atol=1e-12)
