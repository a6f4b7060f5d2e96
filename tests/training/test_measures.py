"""Measures of training against their formulas written out, and on cases that are known."""

from __future__ import annotations

import numpy as np
import pytest

from polytope_lm import PolytopeError
from polytope_lm.training.measures import bits_changed, relative_change, settled, within_over_between


def test_the_weights_relative_change_is_that_of_all_in_one_vector():
    rng = np.random.default_rng(0)
    before = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}
    after = {name: value + rng.standard_normal(value.shape) for name, value in before.items()}
    flat = [np.concatenate([x["a"].ravel(), x["b"]]) for x in (before, after)]
    expected = np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0])
    assert relative_change(before, after) == pytest.approx(expected, rel=1e-12)
    assert relative_change(before, {name: 3 * value for name, value in before.items()}) == pytest.approx(2)


def test_bits_changed_is_a_share():
    before = np.array([[True, False], [True, True]])
    assert bits_changed(before, ~before) == 1
    assert bits_changed(before, np.array([[True, False], [False, True]])) == 0.25


def test_settled_is_the_last_time_the_distance_falls_below_the_share():
    assert settled([0, 1, 2, 4, 8], [1.0, 0.05, 0.5, 0.1, 0.0]) == 4
    assert settled([0, 1, 2], [1.0, 0.9, 0.0]) == 2
    assert settled([0, 1], [0.0, 0.0]) == 0


def test_within_over_between_equals_the_traces_of_the_covariances():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    features = rng.standard_normal((200, 4)) + 2 * labels[:, None]
    within, between, mean = np.zeros((4, 4)), np.zeros((4, 4)), features.mean(0)
    for i in range(200):
        own = features[labels == labels[i]].mean(0)
        within += np.outer(features[i] - own, features[i] - own)
        between += np.outer(own - mean, own - mean)
    assert within_over_between(features, labels) == pytest.approx(np.trace(within) / np.trace(between))
    collapsed = np.eye(3)[labels]
    assert within_over_between(collapsed, labels) == 0


def test_what_has_no_answer_is_refused():
    with pytest.raises(PolytopeError, match=r"one class, 4"):
        within_over_between(np.ones((3, 2)), np.array([4, 4, 4]))
    with pytest.raises(PolytopeError, match=r"2 classes"):
        within_over_between(np.ones((4, 2)), np.array([0, 0, 1, 1]))
    with pytest.raises(PolytopeError, match=r"\['a'\].*\['b'\]"):
        relative_change({"a": np.ones(2)}, {"b": np.ones(2)})
    with pytest.raises(PolytopeError, match=r"\['a'\].*zero"):
        relative_change({"a": np.zeros(2)}, {"a": np.ones(2)})
