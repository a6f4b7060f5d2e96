"""The identity behind ReLUs, in float64: all of the first-order error sits in flipped neurons, none inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polytope_lm as plm
from polytope_lm.changes.flips import LayerTangent, in_layer, masses, remainder
from polytope_lm.changes.radius import look
from polytope_lm.changes.readout import readout
from polytope_lm.models.derivatives import Onward


@given(seed=st.integers(0, 10**6), step=st.floats(0.01, 3))
@settings(max_examples=30)
def test_random_relu_mlps_err_by_their_flipped_margins(seed: int, step: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    w, b, out, u, v = (
        torch.randn(*shape, dtype=torch.float64, generator=rng) for shape in ((9, 5), (9,), (5, 9), (5,), (5,))
    )

    def mlp(at: torch.Tensor) -> torch.Tensor:
        return out @ torch.relu(w @ at + b)

    j = torch.autograd.functional.jacobian(mlp, u)
    error = mlp(u + step * v) - mlp(u) - step * j @ v
    h, moved = w @ u + b, w @ (u + step * v) + b
    flipped = (h > 0) != (moved > 0)
    torch.testing.assert_close(error, out @ (flipped * moved.abs()), rtol=0, atol=1e-9)
    mine = remainder(torch.relu, h, moved)
    torch.testing.assert_close(mine, flipped * moved.abs(), rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def relu() -> plm.models.model.Model:
    return plm.load("tiny-relu", dtype="float64")


def test_tiny_relu_errs_by_its_flipped_margins_alone(relu: plm.models.model.Model) -> None:
    ids = torch.tensor(relu.tokenizer("The cat sat on the old mat")["input_ids"])
    for layer in range(relu.n_layers):
        onward = Onward(relu, ids, layer, -1, "mlp_in", read="mlp_out")
        v = torch.randn(4, relu.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(layer))
        v /= v.norm(dim=1, keepdim=True)
        clean, moved = onward.jvp(v)
        for step in (0.05, 1.0, 7.0):
            u = onward.x.expand(4, -1)
            true = onward.run(u + step * v).out
            parts = in_layer(relu, layer, u, u + step * v)
            torch.testing.assert_close(true - clean.out - step * moved.out, parts.error, rtol=0, atol=1e-9)
            torch.testing.assert_close(parts.error, parts.of_flipped, rtol=0, atol=1e-9)
            there = parts.error.norm(dim=1) > 1e-6
            torch.testing.assert_close(parts.share[there], torch.ones(int(there.sum()), dtype=torch.float64))


def test_the_first_boundary_bounds_the_radius_and_inside_it_nothing_is_wrong(relu: plm.models.model.Model) -> None:
    ids = torch.tensor(relu.tokenizer("A dog lay by the river")["input_ids"])
    read = readout(relu, "mlp_out")
    for layer in range(relu.n_layers):
        onward = Onward(relu, ids, layer, -1, "mlp_in", read="mlp_out")
        seen = look(onward, read, np.random.default_rng(layer).standard_normal((6, relu.d_model)))
        first = np.array([seen.ticks(row, seen.largest)[0] for row in range(6)])
        clean, moved = onward.jvp(seen.v)
        for share in (0.3, 0.99):
            s = torch.as_tensor(first * share)[:, None]
            out = onward.run(onward.x + s * seen.v).out
            torch.testing.assert_close(out, clean.out + s * moved.out, rtol=0, atol=1e-9)
        for tau in (1e-3, 0.1):
            exact = type(seen)(**{**vars(seen), "z1": moved.out})
            assert (first <= exact.measured(tau).radius + 1e-9).all()


def test_masses_are_sums_over_a_loop() -> None:
    rng = torch.Generator().manual_seed(3)
    h, up, worth = (torch.randn(2, 7, dtype=torch.float64, generator=rng) for _ in range(3))
    dh, dup = (torch.randn(3, 2, 7, dtype=torch.float64, generator=rng) for _ in range(2))
    act = torch.nn.functional.silu
    steps = torch.tensor([[0.1, 2.0], [0.5, 1.0], [0.2, 4.0]], dtype=torch.float64)
    found = masses([LayerTangent(h, dh, worth, act, up, dup)], steps)
    for n in range(3):
        for m in range(2):
            s, flip, signed = steps[n, m], 0.0, 0.0
            for k in range(2):
                for i in range(7):
                    of = lambda t, k=k, i=i, n=n: act(h[k, i] + t * dh[n, k, i]) * (up[k, i] + t * dup[n, k, i])  # noqa: E731
                    t0 = torch.zeros((), dtype=torch.float64, requires_grad=True)
                    (slope,) = torch.autograd.grad(of(t0), t0)
                    rest = float(of(s) - of(torch.zeros(())) - s * slope) * float(worth[k, i])
                    signed += rest
                    flip += abs(rest) * float((h[k, i] > 0) != (h[k, i] + s * dh[n, k, i] > 0))
            assert float(found.flip[n, m]) == pytest.approx(flip)
            assert float(found.signed[n, m]) == pytest.approx(signed)
