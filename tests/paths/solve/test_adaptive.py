"""Adaptive crossings: polynomials with known roots, dense grids of the model's own forward, stated misses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import polytope_lm as plm
from benchmarks.downstream import Comparison, compare, random_pairs
from polytope_lm.errors import PolytopeError
from polytope_lm.models import prefix as prefixes
from polytope_lm.models.interventions import run_patched
from polytope_lm.paths.solve import chebyshev as adaptive
from polytope_lm.paths.solve.chebyshev import (
    chebyshev_points,
    coefficients,
    denominator,
    evaluate,
    follow,
    sign_changes,
)

A, B = "He sat on the bank", "She owes a lot of money"
NODES = chebyshev_points(np.arange(33) / 32)
SEARCHED = chebyshev_points(np.arange(133) / 132)


@pytest.fixture(scope="module")
def tiny():
    return plm.load("tiny-gpt2")


def changes(f, error=0.0, t=NODES):
    values = np.stack([f(t)], axis=1)
    return sign_changes(coefficients(t, values), values[0] > 0, values[-1] > 0, np.array([error]))


@st.composite
def root_sets(draw):
    """Up to eight roots: anywhere, at fractions where the search evaluates, or close to one another."""
    fractions = st.sampled_from([k / 2**j for j in range(1, 8) for k in range(1, 2**j)])
    dense = st.sampled_from(SEARCHED[1:-1].tolist())
    roots = draw(st.lists(st.one_of(st.floats(0.01, 0.99), fractions, dense), max_size=5))
    near = draw(st.lists(st.tuples(st.integers(0, 4), st.floats(1e-7, 1e-2)), max_size=3))
    return sorted({*roots, *(min(roots[i] + gap, 0.995) for i, gap in near if i < len(roots))})


def extremum(roots, a, b):
    """Where a polynomial with these roots has its one extremum between two neighbours: `sum 1 / (t - r) = 0`."""
    for _ in range(60):
        middle = (a + b) / 2
        if middle in {a, b}:
            break
        a, b = (middle, b) if sum(1 / (middle - r) for r in roots) > 0 else (a, middle)
    return a


def check_roots(roots, flipped):
    """Where rounding leaves the signs between roots, all are found, as exactly as their slopes allow."""
    sign = -1 if flipped else 1

    def f(t):
        return sign * np.prod([t - r for r in roots] or [np.ones_like(t)], axis=0)

    rounding = 2e-13 * np.abs(f(NODES)).max()
    # One extremum in one of the search's stretches is found; two, as three roots may have, are more than it promises.
    cells = np.searchsorted(SEARCHED, [extremum(roots, *pair) for pair in pairwise(roots)])
    crowded = len(set(cells)) < len(cells)
    middles = [(a + b) / 2 for a, b in pairwise(roots)]
    assume(not crowded and np.abs(f(np.array(middles))).min(initial=1) > rounding)
    found = changes(f)
    start = sign * (-1) ** len(roots) > 0
    assert found.on.tolist() == [start == bool(k % 2) for k in range(len(roots))]
    slopes = np.array([np.prod([r - q for q in roots if q != r]) for r in roots])
    assert (np.abs(found.t - roots) <= 1e-14 + rounding / np.abs(slopes)).all()


@settings(deadline=None, max_examples=300)
@given(root_sets(), st.booleans())
@example([0.3333333333333333, 0.5, 0.5060809025099993, 0.5191640980367769, 0.6919807008610862, 0.8], False)
@example([0.3333333333333333, 0.5, 0.5060809025099993, 0.5191640980367769, 0.6919807008610862, 0.8], True)
def test_roots_of_polynomials_with_known_roots(roots, flipped):
    check_roots(roots, flipped)


def test_roots_where_the_search_evaluates_are_found_once_whatever_rounding_says():
    """The value at t = 0.5 is rounding alone: of such polynomials 7 in 100 were given that root twice."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        near = 0.5 + np.array([0, rng.uniform(0.004, 0.011), rng.uniform(0.0125, 0.03)])
        roots = [rng.uniform(0.05, 0.4), *near, *np.sort(rng.uniform(0.6, 0.95, 2))]
        side = rng.choice([-1, 1])
        found = changes(lambda t, r=roots, side=side: side * np.prod([t - q for q in r], axis=0))
        np.testing.assert_allclose(found.t, roots, atol=1e-6)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_both_roots_at_one_turn_are_found_however_near(gap):
    found = changes(lambda t: (t - 0.4123) ** 2 - gap**2)
    np.testing.assert_allclose(found.t, [0.4123 - gap, 0.4123 + gap], atol=1e-8)
    assert found.on.tolist() == [False, True]
    np.testing.assert_allclose(found.speed, 2 * gap, rtol=1e-2)


@pytest.mark.parametrize(("height", "doubtful", "slight"), [(0.02, 0, 0), (0.005, 1, 0), (-0.005, 0, 1), (-0.02, 0, 0)])
def test_a_turn_within_the_error_is_in_doubt(height, doubtful, slight):
    found = changes(lambda t: (t - 0.3) ** 2 + height, error=0.01)
    assert (found.doubtful.tolist(), found.slight.tolist()) == ([doubtful], [slight])
    assert len(found.t) == (2 if height < 0 else 0)


def test_the_models_own_signs_hold_at_the_ends():
    """Zero is off: a path that starts on a boundary turns on there, whatever rounding says."""
    coefs = coefficients(NODES, NODES[:, None])
    found = sign_changes(coefs, np.array([False]), np.array([True]), np.zeros(1))
    np.testing.assert_allclose(found.t, [0], atol=1e-6)
    assert found.on.tolist() == [True]


def test_interpolation_goes_through_its_nodes_and_a_pole_costs_little():
    poles = NODES[:, None] - 0.5 + 0.05j * np.array([1, 1, 1])
    values = np.real(np.array([1, 2, 1j]) / poles) + NODES[:, None] * np.array([1, 0, 3])
    dense = np.linspace(0, 1, 500)
    truth = np.real(np.array([1, 2, 1j]) / (dense[:, None] - 0.5 + 0.05j)) + dense[:, None] * np.array([1, 0, 3])
    plain = evaluate(coefficients(NODES, values), dense)
    np.testing.assert_allclose(evaluate(coefficients(NODES, values), NODES), values, atol=1e-9)
    q = denominator(NODES, values)
    assert (q > 0).all()
    assert q.max() <= 1
    ours = adaptive.predicted(NODES, values, dense)
    assert np.abs(ours - truth).max() < 1e-3 * np.abs(plain - truth).max()


def test_where_nothing_is_left_to_gain_there_is_no_denominator():
    np.testing.assert_allclose(denominator(NODES, np.stack([NODES, 1 - NODES**2], axis=1)), 1, atol=1e-6)


@pytest.mark.parametrize("shares", [16, 32, 64])
def test_interpolation_through_all_places_is_well_conditioned(shares):
    t = chebyshev_points(np.sort(np.concatenate([np.arange(shares + 1) / shares, adaptive.halfway(shares)])))
    basis = evaluate(coefficients(t, np.eye(len(t))), np.linspace(0, 1, 5001))
    assert np.abs(basis).sum(axis=1).max() < 12


def test_easy_functions_take_one_round_and_hard_ones_all():
    asked = []

    def run(sharpness):
        def at(t):
            asked.append(len(t))
            return [np.stack([np.tanh(sharpness * (t - c)) for c in (0.3, 0.41, 0.77)], axis=1)]

        return at

    easy = follow(run(1), signs=1)
    assert (easy.agreed, asked, easy.missed_estimate(0)) == (True, [24], 0)
    np.testing.assert_allclose(easy.layers[0].t, [0.3, 0.41, 0.77], atol=1e-8)
    asked.clear()
    hard = follow(run(300), signs=1)
    assert (hard.agreed, asked, len(hard.t)) == (False, [24, 16], 40)
    assert (int(hard.node.sum()), len(np.unique(hard.t))) == (33, 40)
    asked.clear()
    follow(run(300), signs=1, evaluations=72)
    assert asked == [24, 16, 32]
    with pytest.raises(PolytopeError, match="evaluations=23: at least 24"):
        follow(run(1), signs=1, evaluations=23)


def test_bumps_that_may_reach_over_zero_are_counted_as_missed():
    """Narrow bumps between the nodes: what is not found is covered by what may be missed."""
    dense = np.linspace(0, 1, 20001)
    rng = np.random.default_rng(0)
    centre, height, width = (rng.uniform(0.1, 0.9, 400), rng.uniform(0.9, 1.1, 400), rng.uniform(0.02, 0.2, 400))

    def f(t):
        return 1 - height * np.exp(-(((t[:, None] - centre) / width) ** 2))

    found = follow(lambda t: [f(t)], signs=1)
    signs = f(dense) > 0
    truth = (signs[1:] != signs[:-1]).sum(axis=0)
    missing = np.maximum(truth - np.bincount(found.layers[0].neuron, minlength=400), 0).sum()
    assert truth.sum() > 300
    assert missing <= found.missed_estimate(0)


def test_against_a_dense_grid_of_the_models_forward(tiny):
    total, steps = Comparison(), 4096
    for number, prompts in enumerate(random_pairs(6, seed=1)):
        path = plm.path(tiny, *prompts, layer=number % 3)
        ours = path.crossings(downstream=True)
        compare(path, ours, path.crossings(downstream=True, steps=steps), steps, total)
        assert ours.missed_estimate is not None
    assert total.crossings > 1000
    assert total.found >= 0.9999
    assert total.placed >= 0.999
    assert total.confirmed == total.extra
    assert total.uncovered == 0


def test_a_reversed_path_has_the_same_crossings_mirrored(tiny):
    """Downstream the contexts differ, so the ends are exchanged in one context."""
    path = plm.path(tiny, A, B, layer=1)
    there = path.crossings(downstream=True)
    back = replace(path, a=path.b, b=path.a).crossings(downstream=True)
    one, other = (np.lexsort((t, c.neuron, c.layer)) for t, c in ((there.t, there), (1 - back.t, back)))
    np.testing.assert_array_equal(there.neuron[one], back.neuron[other])
    np.testing.assert_array_equal(there.on[one], ~back.on[other])
    assert (np.abs(there.t[one] - (1 - back.t)[other]) < 1e-4).mean() > 0.99


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in", "embed"])
def test_splitting_a_path_gives_the_sum(tiny, at):
    path = plm.path(tiny, A, B, at=at, layer=None if at == "embed" else 1)
    middle = path.points(np.array([0.37]))[0]
    whole, *parts = (
        part.crossings(downstream=True) for part in (path, replace(path, b=middle), replace(path, a=middle))
    )
    for layer in (part.layer for part in whole.layers):
        here, first, second = (c.layer == layer for c in (whole, *parts))
        t = np.concatenate([parts[0].t[first] * 0.37, 0.37 + 0.63 * parts[1].t[second]])
        neuron = np.concatenate([parts[0].neuron[first], parts[1].neuron[second]])
        order, theirs = np.lexsort((whole.t[here], whole.neuron[here])), np.lexsort((t, neuron))
        np.testing.assert_array_equal(whole.neuron[here][order], neuron[theirs])
        np.testing.assert_allclose(whole.t[here][order], t[theirs], atol=2e-4)
    assert len(whole) > 50


def test_at_most_forty_evaluations_and_no_full_forwards(tiny, monkeypatch):
    path, rows = plm.path(tiny, A, B, layer=0), []

    def counted(*args, **kwargs):
        rows.append((len(args[2]), kwargs["prefix"] is not None))
        return run_patched(*args, **kwargs)

    monkeypatch.setattr("polytope_lm.paths.trace.run_patched", counted)
    found = path.crossings(downstream=True)
    assert sum(n for n, _ in rows) <= 40
    assert all(shared for _, shared in rows)
    assert " nodes, 7 held out" in found.method(1).method
    assert "full" not in found.method(1).method


def test_full_forwards_are_named_and_agree(tiny, monkeypatch):
    path = plm.path(tiny, A, B, layer=0)
    shared = path.crossings(downstream=True)
    monkeypatch.setattr(prefixes, "share_prefix", lambda *_args, **_kwargs: None)
    whole = path.crossings(downstream=True)
    assert whole.method(1).method == shared.method(1).method + ", full forwards"
    np.testing.assert_array_equal(np.sort(shared.neuron), np.sort(whole.neuron))
    assert path.crossings(downstream=True, steps=5).method(1).method == "grid of 5 steps, full forwards"


def test_the_outputs_change_is_interpolated_within_its_stated_error(tiny):
    path = plm.path(tiny, A, B, layer=1)
    change = path.crossings(downstream=True).output_change
    true = path.crossings(downstream=True, steps=33).output_change
    np.testing.assert_array_equal(change.t, true.t)
    np.testing.assert_allclose(change.js, true.js, atol=1e-3)
    assert np.mean([x == y for x, y in zip(change.top, true.top, strict=True)]) > 0.95
    assert 0 < change.error < 1e-2
    assert true.error == 0
