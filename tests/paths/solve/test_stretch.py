"""The stretched variable and the chebyshev_points that are added in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytope_lm.paths.solve.chebyshev import Stretch, chebyshev_points, coefficients, evaluate, follow, leja


@given(st.floats(-1, 1), st.floats(0.05, 3))
def test_the_map_is_onto_increasing_and_inverted(centre, width):
    stretch, s = Stretch(centre, width), np.linspace(0, 1, 101)
    t = stretch.t(s)
    np.testing.assert_allclose(t[[0, -1]], [0, 1], atol=1e-12)
    assert (np.diff(t) > 0).all()
    np.testing.assert_allclose(stretch.s(t), s, atol=1e-9)
    np.testing.assert_allclose(stretch.rate(s), np.gradient(t, s, edge_order=2), rtol=0.05, atol=1e-3)


def test_without_a_width_every_place_stays():
    t = np.linspace(0, 1, 7)
    for mapped in (Stretch().s(t), Stretch().t(t)):
        np.testing.assert_array_equal(mapped, t)
    assert (Stretch().rate(t) == 1).all()


@pytest.mark.parametrize("centre", [-0.9, -0.02, 0.5])
@pytest.mark.parametrize("width", [0.3, 1.0, np.inf])
def test_interpolation_through_old_and_new_places_is_well_conditioned(centre, width):
    stretch = Stretch(centre, width)
    s = stretch.s(chebyshev_points(np.arange(17) / 16))
    s = np.sort(np.concatenate([s, leja(s, 23)]))
    assert np.diff(s).min() > 1e-4
    basis = evaluate(coefficients(s, np.eye(40)), np.linspace(0, 1, 3001))
    assert np.abs(basis).sum(axis=1).max() < 40


@pytest.mark.parametrize("centre", [0.2, 0.5, 0.8])
def test_later_places_are_denser_where_functions_turn_fast(centre):
    slopes = np.linspace(20, 30, 50)

    def run(t):
        return [np.tanh(slopes * (t[:, None] - centre) + np.linspace(-1, 1, 50))]

    found = follow(run, signs=1)
    assert len(found.t) == 40
    assert abs((found.stretch.centre + 1) / 2 - centre) < 0.1
    np.testing.assert_allclose(found.layers[0].t, np.sort(centre - np.linspace(-1, 1, 50) / slopes), atol=1e-4)
    dense = np.linspace(0, 1, 301)
    np.testing.assert_allclose(found.interpolated(found.values[0], dense), run(dense)[0], atol=1e-3)
    np.testing.assert_allclose(found.guessed(found.values[0]), found.values[0][~found.node], atol=1e-2)
