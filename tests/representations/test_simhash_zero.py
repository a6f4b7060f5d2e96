from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from polytope_lm.models.sites import Premises, Site
from polytope_lm.representations.controls import simhash_zero_bias
from polytope_lm.representations.registry import get

WIDTH = 20_000
SITE = Site(0, "pre", "blocks.0.mlp.hook_pre", WIDTH, 12, Premises("smooth", "gelu", True, "LayerNorm"))
U = (np.random.default_rng(0).normal(size=(40, 12)) + 0.5).astype(np.float32)


def _bits(u: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.unpackbits(simhash_zero_bias(u, SITE, seed=seed).values, axis=1, count=WIDTH, bitorder="little")


def test_the_share_of_bits_that_differ_is_the_angle_over_pi() -> None:
    made = _bits(U)
    angle = np.nan_to_num(np.arccos(np.clip(1 - cdist(U, U, "cosine"), -1, 1))) / np.pi
    error = cdist(made, made, "hamming") - angle
    # Binomial: five standard deviations of the widest case.
    assert np.abs(error).max() < 5 * 0.5 / np.sqrt(WIDTH)
    assert abs(error.mean()) < 0.003


def test_length_is_nothing_and_the_opposite_differs_in_every_bit() -> None:
    np.testing.assert_array_equal(_bits(16 * U), _bits(U))
    np.testing.assert_array_equal(_bits(-U), 1 - _bits(U))
    assert (_bits(U, seed=1) != _bits(U)).any()


def test_registered_as_a_control_of_the_cosine_of_u() -> None:
    assert get("SimHash, zero bias").role == "control"
    assert get("SimHash, zero bias").isolates.startswith("a noisy cosine of u")
