from __future__ import annotations

import inspect

import numpy as np
from scipy.spatial.distance import cdist

from polytope_lm.models.sites import Premises, Site
from polytope_lm.representations import controls as simhash_zero
from polytope_lm.representations.controls import simhash_zero_bias

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


def test_line_one_says_what_it_isolates() -> None:
    assert inspect.getdoc(simhash_zero).startswith("Isolates what any code of `u`'s angles gives")
