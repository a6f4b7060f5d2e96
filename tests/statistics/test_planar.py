from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.planar import planar


@pytest.fixture(scope="module")
def clumps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    of = rng.integers(0, 6, 400)
    points = rng.normal(size=(6, 20))[of] * 3 + rng.normal(size=(400, 20))
    return pairwise_distances(points).astype(np.float32), of


@pytest.mark.parametrize("landmarks", [400, 120])
def test_what_is_near_is_near_on_the_map(clumps, landmarks):
    distance, of = clumps
    places = planar(distance, seed=1, landmarks=landmarks)
    assert places.shape == (400, 2)
    assert places.dtype == np.float32
    assert np.abs(places).max() == pytest.approx(1)
    near = KNeighborsClassifier(5).fit(places[::2], of[::2])
    assert near.score(places[1::2], of[1::2]) > 0.9
    shuffled = np.random.default_rng(2).permutation(of)
    assert KNeighborsClassifier(5).fit(places[::2], shuffled[::2]).score(places[1::2], shuffled[1::2]) < 0.4


def test_a_duplicate_lies_where_its_landmark_lies(clumps):
    distance = clumps[0]
    twice = np.tile(distance, (2, 2))
    places = planar(twice, seed=3, landmarks=799)
    assert np.abs(places[:400] - places[400:]).max(axis=1).min() < 1e-5


def test_the_same_seed_gives_the_same_map(clumps):
    distance = clumps[0][:100, :100]
    np.testing.assert_array_equal(planar(distance, seed=5), planar(distance, seed=5))
    assert not np.array_equal(planar(distance, seed=5), planar(distance, seed=6))


def test_too_few_tokens_make_no_map():
    with pytest.raises(PolytopeError, match="3 tokens make no map"):
        planar(np.zeros((3, 3), np.float32), seed=0)
