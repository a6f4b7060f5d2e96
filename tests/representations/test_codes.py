"""Other codes of the same pre-activations: other thresholds, branches, softness, margins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import expit
from scipy.stats import norm

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site
from polytope_lm.representations.binary import (
    gate_and_up_code,
    large_margin_code,
    margin_weighted_code,
    median_threshold_code,
    up_code,
)
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.softened import expected_hamming, soft_code

RNG = np.random.default_rng(0)
N = 37
H = (RNG.normal(size=(50, N)) * RNG.lognormal(size=N) + RNG.normal(size=N)).astype(np.float32)
UP = RNG.normal(size=(50, N)).astype(np.float32)
GELU = Site(4, "pre", "blocks.4.mlp.hook_pre", N, 6, Premises("smooth", "gelu", True, "LayerNorm"))
GATE = replace(GELU, kind="gate", premises=Premises("gated", "silu", False, "RMSNorm"))
RELU = replace(GELU, premises=Premises("piecewise affine", "relu", True, "LayerNorm"))


def _hamming(bits: np.ndarray) -> np.ndarray:
    return cdist(bits, bits, "cityblock")


def test_bits_above_the_median_fire_on_half_of_the_tokens_whatever_the_bias() -> None:
    rows = median_threshold_code(H)
    bits = np.unpackbits(rows.values, axis=1, count=N, bitorder="little")
    np.testing.assert_array_equal(bits.sum(axis=0), 25)
    np.testing.assert_array_equal(median_threshold_code(H + 3 * np.arange(N, dtype=np.float32)).values, rows.values)
    np.testing.assert_array_equal(pairwise(rows), _hamming(np.argsort(np.argsort(H, axis=0), axis=0) >= 25))


def test_the_second_bit_alone_and_beside_the_first() -> None:
    np.testing.assert_array_equal(pairwise(up_code(UP, GATE)), _hamming(UP > 0))
    both = pairwise(gate_and_up_code(H > 0, UP, GATE))
    np.testing.assert_array_equal(both, _hamming(H > 0) + _hamming(UP > 0))


@pytest.mark.parametrize("kind", ["pre", "up", "gate+up"])
def test_other_kinds_than_gate_are_told_what_to_capture(kind: str) -> None:
    site = replace(GATE, kind=kind)
    with pytest.raises(PolytopeError, match=r"'up code' needs codes of kind 'gate'.*keep=\(\"u\", \"h\", \"up\"\)"):
        up_code(UP, site)
    with pytest.raises(PolytopeError, match=r"'gate\+up code' needs codes of kind 'gate'"):
        gate_and_up_code(H > 0, UP, site)


@pytest.mark.parametrize(("site", "on"), [(GELU, norm.cdf), (GATE, expit)])
def test_soft_codes_take_the_sites_own_activation(site: Site, on) -> None:
    p = on(H.astype(np.float64))
    np.testing.assert_allclose(pairwise(soft_code(H, site)), cdist(2 * p - 1, 2 * p - 1, "cosine"), atol=2e-6)
    expected = p @ (1 - p).T + (1 - p) @ p.T
    np.testing.assert_allclose(pairwise(expected_hamming(H, site)), expected, atol=1e-4)


def test_expected_hamming_is_the_mean_of_drawn_codes_and_of_a_token_with_itself_not_0() -> None:
    p = norm.cdf(H[:5].astype(np.float64))
    first, second = (np.random.default_rng(i).random((4000, 5, N)) < p for i in (1, 2))
    drawn = (first[:, :, None] != second[:, None]).sum(axis=-1).mean(axis=0)
    found = pairwise(expected_hamming(H[:5], GELU))
    np.testing.assert_allclose(found, drawn, atol=0.25)
    assert (np.diag(found) > 0.5).all()


def test_for_a_relu_the_soft_codes_are_the_hard_code() -> None:
    np.testing.assert_allclose(pairwise(expected_hamming(H, RELU)), _hamming(H > 0), atol=1e-4)
    np.testing.assert_allclose(pairwise(soft_code(H, RELU)), 2 * _hamming(H > 0) / N, atol=1e-5)


def test_unknown_activations_and_the_up_branch_have_no_soft_code() -> None:
    odd = replace(GELU, premises=Premises("smooth", "mish", True, "LayerNorm"))
    with pytest.raises(PolytopeError, match="no P\\(on\\) is known for the activation 'mish'"):
        soft_code(H, odd)
    for kind in ("up", "gate+up"):
        with pytest.raises(PolytopeError, match=r"'expected Hamming' of L04.*no activation, so no P\(on\)"):
            expected_hamming(H, replace(GATE, kind=kind))


def test_margins_are_in_units_of_the_neuron_so_that_scaling_it_moves_nothing() -> None:
    scaled = H * np.geomspace(0.01, 100, N).astype(np.float32)
    for make in (margin_weighted_code, large_margin_code):
        np.testing.assert_allclose(pairwise(make(scaled)), pairwise(make(H)), atol=1e-5)


def test_the_nearer_half_of_each_neurons_bits_counts_less_or_nothing() -> None:
    far = np.abs(H) >= np.median(np.abs(H), axis=0)
    weighted, large = margin_weighted_code(H).values, large_margin_code(H).values
    np.testing.assert_array_equal(large, np.where(far, np.sign(H), 0))
    np.testing.assert_array_equal(weighted[far], np.sign(H)[far])
    assert (np.sign(weighted) == np.sign(H)).all()
    assert (np.abs(weighted[~far]) < 1).all()
    assert (far.sum(axis=0) == 25).all()


def test_neurons_without_a_margin_are_dropped_and_counted() -> None:
    h = H.copy()
    h[:30, 5] = 0
    rows = margin_weighted_code(h)
    assert (rows.dropped_bits, rows.values.shape) == (1, (50, N - 1))
    with pytest.raises(PolytopeError, match="no margin has a unit"):
        large_margin_code(0 * H)
