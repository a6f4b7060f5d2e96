from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from polytope_lm.representations.controls import simhash_rate_matched
from polytope_lm.representations.registry import get


def _scene(width: int = 700) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    u = rng.normal(size=(200, 12)).astype(np.float32)
    return u, rng.random((200, width)) < rng.random(width)


def _unpack(rows, width: int) -> np.ndarray:
    return np.unpackbits(rows.values, axis=1, count=width, bitorder="little").astype(bool)


def test_every_bit_fires_exactly_as_often_as_its_neuron() -> None:
    u, bits = _scene()
    bits[:, 0], bits[:, 1] = True, False
    made = _unpack(simhash_rate_matched(u, bits, seed=0), 700)
    np.testing.assert_array_equal(made.sum(axis=0), bits.sum(axis=0))


def test_nothing_of_the_real_code_but_its_counts_is_used() -> None:
    u, bits = _scene()
    shuffled = np.random.default_rng(1).permuted(bits, axis=0)
    first, second = simhash_rate_matched(u, bits, seed=3), simhash_rate_matched(u, shuffled, seed=3)
    np.testing.assert_array_equal(first.values, second.values)
    assert (first.values != simhash_rate_matched(u, bits, seed=4).values).any()


def test_each_bit_is_a_half_space_of_u() -> None:
    u, bits = _scene(8)
    made = _unpack(simhash_rate_matched(u, bits, seed=0), 8)
    planes = np.random.default_rng(0).standard_normal((8, 12), dtype=np.float32)
    projection = u @ planes.T
    for i in range(8):
        assert projection[made[:, i], i].min() > projection[~made[:, i], i].max()


def test_at_half_rates_the_angle_law_holds() -> None:
    """With each token's opposite there, half of them on is a threshold at 0: P[differs] = angle / pi."""
    half = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    u = np.concatenate([half, -half])
    bits = np.zeros((1000, 4000), dtype=bool)
    bits[:500] = True
    made = _unpack(simhash_rate_matched(u, bits, seed=0), 4000)[:40]
    angle = np.arccos(1 - cdist(u[:40], u[:40], "cosine")) / np.pi
    np.testing.assert_allclose(cdist(made, made, "hamming"), np.nan_to_num(angle), atol=0.04)


def test_registered_as_a_control_of_the_placement_in_five_draws() -> None:
    assert get("SimHash, rate-matched").isolates == "the learned placement of the hyperplanes"
    assert (get("SimHash, rate-matched").role, get("SimHash, rate-matched").draws) == ("control", 5)
