"""Exact regions against regioncam, dense grids, autograd and an enumeration of feasible codes by linear programs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import regioncam
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.plane_regions import cut_faces, margin, regions
from polytope_lm.geometry.relu_network import ReluNetwork

WINDOW = (-2.0, 1.5, -1.0, 2.0)


def made(*widths: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = []
    for i, o in pairwise(widths):
        parts += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*parts[:-1]).double()


def grid(window, side):
    x, y = np.linspace(*window[:2], side), np.linspace(*window[2:], side)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def interior(sides, ends, window):
    """The centre of the largest ball in `sides . x <= ends` and the window, or None where there is none."""
    x0, x1, y0, y1 = window
    norms = np.linalg.norm(sides, axis=1)
    box = [(x0, x1), (y0, y1), (0, None)]
    ball = linprog([0, 0, -1], A_ub=np.column_stack([sides, norms]), b_ub=ends, bounds=box)
    return ball.x[:2] if ball.status == 0 and ball.x[2] > 1e-9 else None


def feasible(network: ReluNetwork, window) -> set[tuple[bool, ...]]:
    """Every code of the window, neuron by neuron, by linear programs: one for each side that no known point is on."""
    middle = np.array([np.mean(window[:2]), np.mean(window[2:])])
    found = [((), np.empty((0, 2)), np.empty(0), middle, np.eye(2), np.zeros(2))]
    for weight, bias in zip(network.weights, network.biases, strict=True):
        grown = [(*each, each[0]) for each in found]
        for w, b in zip(weight, bias, strict=True):
            following = []
            for code, sides, ends, point, matrix, offset, root in grown:
                row, shift = w @ matrix, w @ offset + b
                for on in (False, True):
                    sign = -1.0 if on else 1.0  # sign (row . x + shift) <= 0
                    more = np.vstack([sides, sign * row]), np.append(ends, -sign * shift)
                    inside = point if sign * (row @ point + shift) < -1e-7 else interior(*more, window)
                    if inside is not None:
                        following.append(((*code, on), *more, inside, matrix, offset, root))
            grown = following
        found = []
        for code, sides, ends, point, matrix, offset, root in grown:
            on = np.array(code[len(root) :])
            found.append((code, sides, ends, point, on[:, None] * (weight @ matrix), on * (weight @ offset + bias)))
    return {each[0] for each in found}


def test_a_network_of_64_and_64_neurons():
    module = made(2, 64, 64, 1)
    network = ReluNetwork.read(module)
    found = regions(network, WINDOW)
    assert found.areas.sum() == pytest.approx(3.5 * 3.0, abs=1e-9)
    assert (found.areas > 0).all()
    codes = {code.tobytes() for code in found.codes}
    assert len(codes) == len(found)
    seen = np.unique(network.codes(grid(WINDOW, 200)), axis=0)
    assert {code.tobytes() for code in seen} <= codes
    jacobians = torch.func.vmap(torch.func.jacrev(module))(torch.from_numpy(found.centres)).detach().numpy()
    np.testing.assert_allclose(found.maps.matrix, jacobians, atol=1e-9)
    values = np.einsum("rkd,rd->rk", found.maps.matrix, found.centres) + found.maps.offset
    np.testing.assert_allclose(values, module(torch.from_numpy(found.centres)).detach().numpy(), atol=1e-9)


def test_codes_are_those_that_linear_programs_find():
    network = ReluNetwork.read(made(2, 16, 16, 1, seed=3))
    found = regions(network, WINDOW)
    assert {tuple(code) for code in found.codes.tolist()} == feasible(network, WINDOW)


def test_the_margin_is_above_zero_exactly_where_the_region_exists():
    network = ReluNetwork.read(made(2, 4, 3, 1, seed=1))
    window = (-30.0, 30.0, -30.0, 30.0)
    there = {tuple(code) for code in regions(network, window).codes.tolist()}
    for number in range(2**7):
        code = tuple(bool(number >> i & 1) for i in range(7))
        assert (margin(network, np.array(code), window) > 0) == (code in there), code


@pytest.mark.parametrize("seed", range(3))
def test_against_regioncam(seed):
    network = ReluNetwork.read(made(2, 12, 8, 1, seed=seed))
    camera = regioncam.Regioncam(size=1.0)
    for weight, bias in zip(network.weights, network.biases, strict=True):
        camera.add(regioncam.Linear(weight.T.astype(np.float32).copy(), bias.astype(np.float32)))
        camera.add(regioncam.ReLU())
    theirs = np.sort([face.area for face in camera.faces])
    ours = np.sort(regions(network).areas)
    large = 1e-5  # float32 loses slivers
    np.testing.assert_allclose(ours[ours > large], theirs[theirs > large], atol=2e-6)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 6), st.booleans())
def test_faces_tile_the_window_also_where_lines_coincide(seed, first, second, repeated):
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-2, 3, (first, 2)).astype(float)] + (
        [rng.integers(-2, 3, (second, first))] if second else []
    )
    biases = [rng.integers(-1, 2, len(w)).astype(float) for w in weights]
    if repeated:
        weights[0][-1], biases[0][-1] = 3 * weights[0][0], 3 * biases[0][0]
    network = ReluNetwork(weights, biases)
    found = regions(network, (-1.0, 1.0, -1.0, 1.0))
    assert found.areas.sum() == pytest.approx(4.0, abs=1e-9)
    edges = found.neighbours
    assert len(found) == 1 or set(edges.ravel().tolist()) == set(range(len(found)))
    points = rng.uniform(-1, 1, (200, 2))
    assert {c.tobytes() for c in network.codes(points)} <= {c.tobytes() for c in found.codes}


def test_lines_in_general_position_make_the_regions_that_a_formula_counts():
    angles = np.linspace(0, np.pi, 9, endpoint=False)
    w = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    b = np.random.default_rng(0).uniform(-0.01, 0.01, 9)
    assert len(cut_faces((-9.0, 9.0, -9.0, 9.0), [(w, b)])) == 1 + 9 + 9 * 8 // 2


@pytest.mark.parametrize(
    ("window", "said"),
    [((0, 0, 0, 1), "no area"), ((1, 0, 0, 1), "no area"), ((0, 1, 0), "four numbers"), ("abcd", "four numbers"),
     ((0, np.inf, 0, 1), "four numbers")],
)  # fmt: skip
def test_a_window_without_area_is_refused(window, said):
    with pytest.raises(PolytopeError, match=said):
        regions(ReluNetwork([np.eye(2)], [np.zeros(2)]), window)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1)), "layer 0: GELU"),
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)), "layer 1: Tanh"),
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Conv2d(3, 3, 1)), "layer 1: Conv2d"),
        (nn.Linear(2, 3), "Linear is no Sequential"),
    ],
)
def test_a_network_that_is_not_piecewise_affine_is_refused(module, said):
    with pytest.raises(PolytopeError, match=said):
        ReluNetwork.read(module)
    with pytest.raises(PolytopeError, match=said):
        regions(module)


def test_a_module_is_read_and_a_language_model_refused(model):
    module = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    found, read = regions(module), regions(ReluNetwork.read(module))
    np.testing.assert_array_equal(found.vertices, read.vertices)
    assert found.faces == read.faces
    with pytest.raises(PolytopeError, match="Model is no Sequential of Linear and ReLU"):
        regions(model)


def test_other_shapes_are_refused(users_arrays):
    network = ReluNetwork.read(made(3, 4, 1))
    with pytest.raises(PolytopeError, match="reads 3 numbers"):
        regions(network)
    with pytest.raises(PolytopeError, match=r"\[n, 4\]"):
        network.affine(np.zeros((2, 5), bool))
    with pytest.raises(PolytopeError, match=r"expected \[4\]"):
        margin(network, np.zeros(3, bool))
    with pytest.raises(PolytopeError, match="output layer"):
        ReluNetwork([np.eye(2)], [np.zeros(2)], (np.ones((1, 3)), np.zeros(1)))
