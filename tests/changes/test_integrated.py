"""Integrated gradients: polynomials, closed forms of ReLU networks, and an error estimate that covers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polytope_lm.changes.integrated import clenshaw_curtis, integrate, integrated_exactly
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.relu_network import ReluNetwork


@pytest.mark.parametrize("intervals", [2, 4, 8, 16, 32])
def test_the_rule_is_exact_for_polynomials_of_its_degree(intervals: int) -> None:
    nodes, weights = clenshaw_curtis(intervals)
    for power in range(intervals + 1):
        assert weights @ nodes**power == pytest.approx(1 / (power + 1), abs=1e-13)
    finer, _ = clenshaw_curtis(2 * intervals)
    np.testing.assert_allclose(finer[::2], nodes, atol=1e-15)
    with pytest.raises(PolytopeError, match="intervals = 3"):
        clenshaw_curtis(3)


def test_an_integral_says_how_far_it_may_be_off_and_reuses_its_nodes() -> None:
    asked: list[float] = []

    def values(t: np.ndarray) -> np.ndarray:
        asked.extend(t.tolist())
        return np.stack([np.exp(3 * t), np.sin(20 * t)], axis=1)

    found = integrate(values, tolerance=1e-6)
    true = np.array([(np.exp(3) - 1) / 3, (1 - np.cos(20)) / 20])
    assert (np.abs(found.value - true) <= found.error).all()
    assert len(asked) == found.nodes == len(set(asked))
    with pytest.raises(PolytopeError, match="most = 20"):
        integrate(values, most=20)


@given(seed=st.integers(0, 10**6), layers=st.integers(2, 4))
@settings(max_examples=25)
def test_relu_networks_piece_by_piece(seed: int, layers: int) -> None:
    rng = np.random.default_rng(seed)
    widths = [4, *rng.integers(5, 12, layers)]
    weights = [rng.standard_normal((n, m)) / np.sqrt(m) for m, n in pairwise(widths)]
    network = ReluNetwork(weights, [rng.standard_normal(len(w)) * 0.3 for w in weights])
    out, a, b = rng.standard_normal(widths[-1]), rng.standard_normal(4), rng.standard_normal(4)
    found = integrated_exactly(network, out, a, b)
    ends = network.pre(np.stack([a, b]))[-1]
    change = np.maximum(ends, 0) @ out
    assert found.value.sum() == pytest.approx(change[1] - change[0], abs=1e-9)

    # Another way: autograd's gradient in the middle of each stretch between boundaries, found by bisection of codes.
    def m(x: torch.Tensor) -> torch.Tensor:
        for w, bias in zip(network.weights, network.biases, strict=True):
            x = torch.relu(torch.as_tensor(w) @ x + torch.as_tensor(bias))
        return torch.as_tensor(out) @ x

    def code(t: float) -> bytes:
        return b"".join((h > 0).tobytes() for h in network.pre((a + t * (b - a))[None]))

    def stretches(low: float, high: float) -> list[tuple[float, float]]:
        if high - low < 1e-13:
            return []
        middle = (low + high) / 2
        if code(low + 1e-15) == code(high - 1e-15) == code(middle) and high - low < 0.02:
            return [(low, high)]
        return stretches(low, middle) + stretches(middle, high)

    total = np.zeros(4)
    for low, high in stretches(0.0, 1.0):
        x = torch.tensor(a + (low + high) / 2 * (b - a), requires_grad=True)
        (g,) = torch.autograd.grad(m(x), x)
        total += (high - low) * g.numpy() * (b - a)
    np.testing.assert_allclose(found.value, total, atol=1e-9)
    assert set(found.rules) == {20, 50}
    assert found.pieces >= 1


def test_equal_steps_err_where_the_pieces_do_not() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((40, 3)), rng.standard_normal((40, 40)) / 5]
    network = ReluNetwork(weights, [rng.standard_normal(40), rng.standard_normal(40)])
    found = integrated_exactly(network, rng.standard_normal(40), rng.standard_normal(3), rng.standard_normal(3) * 2)
    assert found.rules[20] > 1e-3
    assert found.pieces > 20
    with pytest.raises(PolytopeError, match=r"output has shape \(3,\)"):
        integrated_exactly(network, np.ones(3), np.zeros(3), np.ones(3))
