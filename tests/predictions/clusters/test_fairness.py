"""How the comparison is right: what may not matter does not, and what must be at chance is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI
from polytope_lm.representations import registered
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.controls import fire
from polytope_lm.representations.directions import CENTRED, RAW
from polytope_lm.representations.distances import pairwise

if TYPE_CHECKING:
    from collections.abc import Callable

    from polytope_lm.codes.codes import Codes

D, N, T = 24, 256, 300
FAST = {"k": 12, "resamples": 20, "comparators": False, "per_document": None}


def _haar(size: int, seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return q * np.sign(np.diag(r))


def _codes(world: Callable[..., Codes], u: np.ndarray, h: np.ndarray) -> Codes:
    """Codes of given arrays, in the world's table."""
    codes = world("direction", n=T)
    assert codes.site(4).width == h.shape[1]
    codes.arrays["L04.pre"] = np.packbits(h > 0, axis=1, bitorder="little")
    codes.kept_arrays["L04.pre.u"] = u.astype(np.float32)
    codes.kept_arrays["L04.pre.h"] = h.astype(np.float32)
    return codes


@pytest.fixture
def network() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, weights and biases, in float64."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(T, D)), rng.normal(size=(N, D)) / np.sqrt(D), 0.3 * rng.normal(size=N)


def test_rotating_u_and_w_together_changes_nothing_that_is_not_drawn(world, network) -> None:
    u, w, b = network
    q = _haar(D, 1)
    h = u @ w.T + b
    turned_u, turned_h = u @ q.T, (u @ q.T) @ (w @ q.T).T + b
    before = LayerArrays(_codes(world, u, h), 4, np.arange(T))
    after = LayerArrays(_codes(world, turned_u, turned_h), 4, np.arange(T))
    differs = before.get("bits") != after.get("bits")
    assert (np.abs(before.get("pre"))[differs] < 1e-4).all()
    compared = 0
    for each in registered():
        if "seed" in each.needs or {"up", "post", "x", "through"} & set(each.needs) or "router" in each.name:
            continue
        one, other = (pairwise(each.rows(arrays), each.name) for arrays in (before, after))
        np.testing.assert_allclose(one, other, atol=2e-3, err_msg=each.name)
        compared += 1
    assert compared >= 11


def test_rotating_the_neurons_alone_moves_the_code_and_not_the_cosine_of_u(world, network) -> None:
    u, w, b = network
    h = u @ w.T + b
    turned = h @ _haar(N, 2).T
    before = LayerArrays(_codes(world, u, h), 4, np.arange(T))
    after = LayerArrays(_codes(world, u, turned), 4, np.arange(T))
    by_name = {each.name: each for each in registered()}
    for name in ("cosine of u, raw", "cosine of u, centred"):
        one, other = (pairwise(by_name[name].rows(arrays)) for arrays in (before, after))
        np.testing.assert_array_equal(one, other)
    for name in (RAW, CENTRED):  # angles of h stay, too
        one, other = (pairwise(by_name[name].rows(arrays)) for arrays in (before, after))
        np.testing.assert_allclose(one, other, atol=1e-4)
    one, other = (pairwise(by_name["code"].rows(arrays)) for arrays in (before, after))
    assert np.abs(one - other).mean() > 3


def test_a_row_of_simhash_has_the_neurons_rates_and_zero_bias_obeys_the_angle(world, network) -> None:
    u, w, b = network
    arrays = LayerArrays(_codes(world, u, u @ w.T + b), 4, np.arange(T))
    by_name = {each.name: each for each in registered()}
    packed = by_name["SimHash, rate-matched"].rows(arrays, seed=3).values
    rates = np.unpackbits(packed, axis=1, count=N, bitorder="little").mean(axis=0)
    np.testing.assert_allclose(rates, arrays.get("rates"), atol=1e-9)
    distance = pairwise(by_name["SimHash, zero bias"].rows(arrays, seed=3)) / N
    unit = u / np.linalg.norm(u, axis=1, keepdims=True)
    angle = np.arccos(np.clip(unit @ unit.T, -1, 1)) / np.pi
    assert np.abs(distance - angle).mean() < 3 * np.sqrt(0.25 / N)
    assert fire(np.array([[3.0, 1.0, 2.0]]), np.array([2])).tolist() == [[True, False, True]]


def _with_a_common_mean(world: Callable[..., Codes]) -> Codes:
    """Classes are directions from a mean that all tokens share; how far a token goes out is of no class.

    Raw cosine sees the angle at the far origin, which is the distance: tokens near the mean are alike. A sign
    does not see how far, nor does the cosine once the mean is taken off.
    """
    codes = world("direction")
    n = len(codes)
    rng = np.random.default_rng(5)
    labels = codes.tokens["upos"].str.removeprefix("class ").astype(int).to_numpy()
    centre = rng.normal(size=(8, D))
    way = centre[labels] + rng.normal(size=(n, D))
    u = np.exp(0.6 * np.clip(rng.normal(size=(n, 1)), -2, 2)) * way
    w = rng.normal(size=(N, D)) / np.sqrt(D)
    h = u @ w.T
    h[:, :8] += 20
    codes.arrays["L04.pre"][:] = np.packbits(h > 0, axis=1, bitorder="little")
    codes.kept_arrays["L04.pre.u"] = u.astype(np.float32)
    codes.kept_arrays["L04.pre.h"] = h.astype(np.float32)
    return codes


def test_a_lead_over_the_uncentred_cosine_is_a_false_positive_that_centring_ends(world) -> None:
    codes = _with_a_common_mean(world)
    layer = clusters(codes, 4, **FAST).layers[0]
    raw, centred = layer.representation(RAW), layer.representation(CENTRED)
    assert centred.score(AMI).estimate.value > raw.score(AMI).estimate.value + 0.1
    assert layer.best_cosine[AMI] == layer.best_cosine[AGREEMENT] == CENTRED
    for score in (AMI, AGREEMENT):
        assert layer.difference("code", CENTRED, score).estimate.low < 0.01
        # As published comparisons did it: the cosine of h as it is.
        assert layer.difference("code", RAW, score).estimate.low > 0
    assert layer.verdict.outcome != "supported"
    assert layer.verdict.deciding_reference != RAW


def test_shuffled_bits_are_at_chance_in_both_scores(world) -> None:
    """In AMI chance is 0; in agreement it is what neighbours drawn at random reach."""
    for seed in range(2):
        codes = world("direction", seed=seed)
        layer = clusters(codes, 4, extra=("shuffled bits", "token identity"), **FAST).layers[0]
        shuffled = layer.representation("shuffled bits")
        ami, agreement = (shuffled.score(score).estimate for score in (AMI, AGREEMENT))
        assert ami.low < 0 < ami.high
        assert agreement.low < 0 < agreement.high
        assert layer.representation("code").score(AGREEMENT).estimate.low > agreement.high
