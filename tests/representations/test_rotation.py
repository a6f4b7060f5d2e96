from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.stats import kstest

from polytope_lm.representations import controls as rotation
from polytope_lm.representations.controls import rotated, rotation_rate_matched, rotation_zero
from polytope_lm.representations.directions import cosine_centred
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get

N = 61
H = (np.random.default_rng(0).normal(size=(80, N)) + 0.4).astype(np.float32)


def _unpack(rows) -> np.ndarray:
    return np.unpackbits(rows.values, axis=1, count=N, bitorder="little").astype(bool)


def test_distances_and_angles_of_h_stay_and_neurons_do_not() -> None:
    turned = rotated(H, seed=0)
    np.testing.assert_allclose(pdist(turned), pdist(H), rtol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(H, axis=1), rtol=2e-5)
    np.testing.assert_allclose(pairwise(cosine_centred(turned)), pairwise(cosine_centred(H)), atol=1e-5)
    assert np.abs(turned - H).mean() > 0.5


def test_the_rotation_is_haar() -> None:
    """Any fixed unit vector lands uniformly on the sphere: in R^3 its coordinates are uniform on [-1, 1]."""
    axis = np.array([[1, 0, 0]], dtype=np.float32)
    landed = np.concatenate([rotated(axis, seed=i) for i in range(1500)])
    for coordinate in landed.T:
        assert kstest(coordinate, "uniform", args=(-1, 2)).pvalue > 0.001
    # Both kinds of orthogonal matrices occur.
    signs = [np.linalg.det(rotated(np.eye(3, dtype=np.float32), seed=i)) for i in range(40)]
    assert 5 < sum(d > 0 for d in signs) < 35


def test_bits_are_signs_of_one_rotation_of_all_tokens() -> None:
    np.testing.assert_array_equal(_unpack(rotation_zero(H, seed=2)), rotated(H, seed=2) > 0)
    assert (rotation_zero(H, seed=2).values != rotation_zero(H, seed=3).values).any()


def test_rates_are_those_of_the_neurons_and_bits_are_half_spaces() -> None:
    bits = H > 0.9
    bits[:, 0], bits[:, 1] = True, False
    made = _unpack(rotation_rate_matched(H, bits, seed=1))
    np.testing.assert_array_equal(made.sum(axis=0), bits.sum(axis=0))
    turned = rotated(H, seed=1)
    for i in range(2, N):
        assert turned[made[:, i], i].min() > turned[~made[:, i], i].max()


def test_without_a_mean_rotated_bits_obey_the_angle_law() -> None:
    """In a random basis the signs are those of random hyperplanes: P[differs] = angle / pi."""
    h = np.random.default_rng(1).normal(size=(6, 900)).astype(np.float32)
    h[3:] = h[:3] + 0.5 * h[3:]
    made = np.unpackbits(rotation_zero(h, seed=0).values, axis=1, count=900)
    angle = np.arccos(1 - cdist(h, h, "cosine")) / np.pi
    np.testing.assert_allclose(cdist(made, made, "hamming"), np.nan_to_num(angle), atol=0.06)


def test_both_are_controls_of_the_basis() -> None:
    both = [get(name) for name in (rotation.ZERO, rotation.RATE_MATCHED)]
    assert all(each.role == "control" for each in both)
    assert all(each.isolates.startswith("basis against spectrum") for each in both)
