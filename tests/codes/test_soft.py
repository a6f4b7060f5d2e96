"""Soft codes against the activations of torch and numerical integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from polytope_lm.codes import soft
from polytope_lm.errors import PolytopeError

H = np.linspace(-6, 6, 2001)


@pytest.mark.parametrize("name", sorted(soft.ACTIVATIONS))
def test_h_times_probability_is_the_activation(name: str) -> None:
    """`act(h) = h P(on)` with the model's own activation; leaky ones have ReLU's decision."""
    torch = pytest.importorskip("torch")
    activations = pytest.importorskip("transformers.activations")
    act = torch.relu if name in {"leaky_relu", "prelu", "rrelu"} else activations.ACT2FN[name]
    for kind, tolerance in ((np.float64, 1e-12), (np.float32, 2e-6)):
        h = H.astype(kind)
        p = soft.probability(h, name)
        assert p.dtype == kind
        assert p.min() >= 0
        assert p.max() <= 1
        np.testing.assert_allclose(h * p, act(torch.from_numpy(h)).numpy(), atol=tolerance)


def test_erf_gelu_is_the_normal_distribution_function() -> None:
    for h in (-2.5, -0.3, 0.0, 1.1):
        area, _ = integrate.quad(lambda t: np.exp(-t * t / 2) / np.sqrt(2 * np.pi), -np.inf, h)
        assert soft.probability(np.array([h]), "gelu")[0] == pytest.approx(area, abs=1e-9)


def test_tanh_gelu_is_within_its_stated_distance_of_phi() -> None:
    difference = np.abs(soft.probability(H, "gelu_new") - soft.probability(H, "gelu")).max()
    assert 1.7e-4 < difference < 1.8e-4


def test_relu_is_the_hard_code_and_zero_is_off() -> None:
    np.testing.assert_array_equal(soft.probability(np.array([-1.0, 0.0, 1e-30]), "relu"), [0, 0, 1])


def test_the_beta_family_has_silu_and_relu() -> None:
    np.testing.assert_allclose(soft.beta_vq(H, 0.5), soft.probability(H, "silu"))
    np.testing.assert_array_equal(soft.beta_vq(H, 1.0), soft.probability(H, "relu"))
    np.testing.assert_array_equal(soft.beta_vq(H, 0.0), 0.5)
    away = H[np.abs(H) > 0.01]
    np.testing.assert_allclose(soft.beta_vq(away, 0.9999), soft.probability(away, "relu"), atol=1e-12)


def test_ambiguity_is_the_entropy_in_bits() -> None:
    p = np.array([[0, 1, 0.5, 0.25], [1, 1, 0, 0]])
    quarter = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    np.testing.assert_allclose(soft.ambiguity(p), [1 + quarter, 0])
    assert soft.ambiguity(soft.probability(np.array([1.0, -2.0]), "relu")) == 0


def test_the_share_of_ambiguous_bits() -> None:
    assert soft.ambiguous_share(np.array([[0.4, -0.4], [0.5, -3.0]])) == 0.5
    assert soft.ambiguous_share(np.array([0.4, -0.4, 2.0, 1.0]), below=1.5) == 0.75


def test_large_values_do_not_overflow() -> None:
    h = np.array([-1e30, 1e30], np.float32)
    for name in soft.ACTIVATIONS:
        np.testing.assert_array_equal(soft.probability(h, name), [0, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: soft.probability(H, "mish"), ["'mish'", "gelu_new"]),
        (lambda: soft.probability(np.array([[0.0, np.nan]]), "gelu"), ["nan", "(0, 1)"]),
        (lambda: soft.beta_vq(H, 1.5), ["1.5"]),
        (lambda: soft.beta_vq(np.array([np.inf]), 0.5), ["inf", "(0,)"]),
        (lambda: soft.ambiguity(np.array([0.5, -0.1])), ["-0.1"]),
        (lambda: soft.ambiguity(np.array([np.nan])), ["nan"]),
        (lambda: soft.ambiguous_share(np.zeros((0, 4))), ["(0, 4)"]),
    ],
)
def test_mistakes_are_named_in_one_line(call, words: list[str]) -> None:
    with pytest.raises(PolytopeError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)
