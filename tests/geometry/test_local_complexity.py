"""Local complexity against brute force on 2-D networks: neuron by neuron, and by a dense grid in the frame's hull."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from polytope_lm import PolytopeError
from polytope_lm.geometry.local_complexity import RADIUS, frames, local_complexity
from polytope_lm.geometry.relu_network import ReluNetwork


def a_network(seed: int, *widths: int) -> tuple[ReluNetwork, list[torch.nn.Linear]]:
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(i, o).double() for i, o in itertools.pairwise(widths)]
    arrays = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]
    return ReluNetwork([weight for weight, _ in arrays], [bias for _, bias in arrays]), layers


def test_counts_equal_those_of_every_neuron_at_every_vertex():
    network, layers = a_network(0, 2, 16, 16, 16)
    points = np.random.default_rng(0).uniform(-2, 2, (40, 2))
    found = local_complexity(network.pre, points, radius=0.4, directions=2, seed=3)
    vertices = frames(points, 0.4, directions=2, seed=3)
    for i in range(len(points)):
        for depth in range(3):
            changing = 0
            for neuron in range(16):
                signs = set()
                for vertex in vertices[i]:
                    x = torch.from_numpy(vertex)
                    for layer in layers[:depth]:
                        x = torch.relu(layer(x))
                    signs.add(bool(layers[depth](x)[neuron] > 0))
                changing += len(signs) == 2
            assert found[i, depth] == changing
    assert found.sum() > 40


def test_in_the_first_layer_they_are_the_lines_that_cut_the_frames_hull():
    network, (layer,) = a_network(1, 2, 64)
    points = np.random.default_rng(1).uniform(-1, 1, (20, 2))
    found = local_complexity(network.pre, points, radius=0.3, directions=2)
    share = np.linspace(0, 1, 101)
    s, t = (grid.ravel()[:, None] for grid in np.meshgrid(share, share))
    for point, vertices, count in zip(points, frames(points, 0.3, directions=2), found[:, 0], strict=True):
        a, b = vertices[:2] - point  # the hull is the square with the corners +-a and +-b
        dense = point + (s + t - 1) * a + (s - t) * b
        on = layer(torch.from_numpy(dense)).detach().numpy() > 0
        assert count == (on.any(0) & ~on.all(0)).sum()


def test_a_frame_is_orthonormal_times_the_radius_around_the_point():
    points = np.random.default_rng(2).standard_normal((3, 10))
    radius = np.array([0.5, 1.0, 2.0])
    vertices = frames(points, radius, directions=4, seed=1)
    assert vertices.shape == (3, 8, 10)
    arms = vertices[:, :4] - points[:, None]
    np.testing.assert_allclose(vertices[:, 4:] - points[:, None], -arms, atol=1e-12)
    for one, r in zip(arms, radius, strict=True):
        np.testing.assert_allclose(one @ one.T, r**2 * np.eye(4), atol=1e-12)
    assert not np.allclose(arms[0] / 0.5, arms[1])


def test_the_default_radius_is_a_share_of_the_norm():
    network, _ = a_network(3, 6, 300)
    points = np.random.default_rng(3).standard_normal((30, 6))
    found = local_complexity(network.pre, points, directions=6)
    by_hand = RADIUS * np.linalg.norm(points, axis=1)
    np.testing.assert_array_equal(found, local_complexity(network.pre, points, radius=by_hand, directions=6))
    assert found.sum() > 0
    more = local_complexity(network.pre, points, radius=10 * by_hand, directions=6)
    assert (more >= found).all()  # in one layer a larger frame of the same directions meets every plane again


@pytest.mark.parametrize(
    ("points", "options", "place"),
    [
        (np.zeros((3, 2)), {}, r"radius is 0\.0 at point 0"),
        (np.ones((3, 2)), {"radius": -1.0}, r"radius is -1\.0"),
        (np.ones((3, 2)), {"directions": 3}, r"directions=3.*1 to 2"),
        (np.ones(2), {}, r"shape \(2,\)"),
        (np.array([[np.nan, 1.0]]), {}, r"\(1, 2\)"),
        (np.empty((0, 2)), {}, r"shape \(0, 2\).*one point or more"),
        (np.ones((3, 2)), {"radius": np.ones(4)}, r"radius has shape \(4,\) for 3 points"),
        (np.ones((3, 2)), {"directions": 0}, r"directions=0: give 1 to 2"),
        (np.ones((3, 4)), {}, r"shape \(12, 4\): the network reads 2 numbers"),
    ],
)
def test_what_has_no_frame_is_refused(points, options, place):
    network, _ = a_network(4, 2, 4)
    with pytest.raises(PolytopeError, match=place):
        local_complexity(network.pre, points, **{"directions": 2, **options})
