"""Distances to boundaries against quadratic programs, and decision points against a classifier that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from polytope_lm import PolytopeError
from polytope_lm.geometry.boundary import decision_points, nearest_boundary


def test_the_distance_is_that_of_the_nearest_point_of_every_hyperplane():
    rng = np.random.default_rng(0)
    weight, bias, points = rng.standard_normal((5, 3)), rng.standard_normal(5), rng.standard_normal((4, 3))
    found = nearest_boundary(points @ weight.T + bias, weight)
    for point, distance, owner in zip(points, found.distance, found.neuron, strict=True):
        expected = [
            minimize(
                lambda x, point=point: ((x - point) ** 2).sum(),
                point,
                constraints={"type": "eq", "fun": lambda x, i=i: weight[i] @ x + bias[i]},
            ).fun
            ** 0.5
            for i in range(5)
        ]
        assert distance == pytest.approx(min(expected), abs=1e-6)
        assert owner == int(np.argmin(expected))


@pytest.mark.property
@given(st.integers(0, 10**6))
def test_no_step_shorter_than_the_distance_changes_the_code_and_one_to_the_owner_does(seed):
    rng = np.random.default_rng(seed)
    weight, bias, point = rng.standard_normal((6, 4)), rng.standard_normal(6), rng.standard_normal(4)
    h = weight @ point + bias
    found = nearest_boundary(h[None], weight)
    step = rng.standard_normal(4)
    step *= 0.999 * found.distance[0] / np.linalg.norm(step)
    assert np.array_equal(weight @ (point + step) + bias > 0, h > 0)
    owner = found.neuron[0]
    across = -1.001 * h[owner] * weight[owner] / (weight[owner] @ weight[owner])
    assert np.linalg.norm(across) == pytest.approx(1.001 * found.distance[0])
    assert (weight[owner] @ (point + across) + bias[owner] > 0) != (h[owner] > 0)


def test_a_zero_row_has_no_boundary():
    found = nearest_boundary(np.array([[0.0, 2.0]]), np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert (found.distance[0], found.neuron[0]) == (2.0, 1)


@pytest.mark.parametrize(
    ("h", "weight", "place"),
    [
        (np.zeros((2, 3)), np.zeros((4, 2)), r"\(2, 3\).*\(4, 2\)"),
        (np.array([[1.0, np.nan]]), np.eye(2), r"neuron 1 is nan at point 0"),
        (np.ones((1, 2)), np.zeros((2, 3)), r"all 2 rows.*zeros"),
    ],
)
def test_a_layer_that_has_no_distances_is_refused(h, weight, place):
    with pytest.raises(PolytopeError, match=place):
        nearest_boundary(h, weight)


def circle(points: np.ndarray) -> np.ndarray:
    """Class 0 inside the unit circle, 1 outside above the axis, 2 below."""
    radius = np.linalg.norm(points, axis=1)
    return np.stack([1 - radius, (radius - 1) * (points[:, 1] > 0), (radius - 1) * (points[:, 1] <= 0)], axis=1)


def test_decision_points_lie_on_the_boundary_between_the_classes_that_they_name():
    rng = np.random.default_rng(1)
    inside, outside = rng.uniform(-0.6, 0.6, (50, 2)), rng.choice([-1, 1], (50, 2)) * rng.uniform(1.2, 3, (50, 2))
    found = decision_points(circle, inside, outside)
    np.testing.assert_allclose(np.linalg.norm(found.points, axis=1), 1, atol=1e-9)
    np.testing.assert_array_equal(found.points, inside + found.t[:, None] * (outside - inside))
    assert (found.classes[:, 0] == 0).all()
    np.testing.assert_array_equal(found.classes[:, 1], np.where(found.points[:, 1] > 0, 1, 2))
    for sign, column in ((-1e-6, 0), (1e-6, 1)):
        near = inside + (found.t + sign)[:, None] * (outside - inside)
        np.testing.assert_array_equal(circle(near).argmax(axis=1), found.classes[:, column])


def test_a_pair_of_one_class_is_refused():
    with pytest.raises(PolytopeError, match=r"pair 1 is of one class, 0"):
        decision_points(circle, np.zeros((2, 2)), np.array([[2.0, 1.0], [0.1, 0.1]]))
    with pytest.raises(PolytopeError, match=r"\(2, 2\).*\(3, 2\)"):
        decision_points(circle, np.zeros((2, 2)), np.zeros((3, 2)))
