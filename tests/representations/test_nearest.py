from __future__ import annotations

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.representations.distances import in_blocks, nearest_rows, pairwise
from polytope_lm.representations.registry import Rows
from polytope_lm.seeds import tie_order


def _rows(metric: str, n: int = 700, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    if metric == "Hamming":
        return Rows(rng.integers(0, 256, (n, 9), dtype=np.uint8), "Hamming")
    if metric == "expected Hamming":
        return Rows(rng.random((n, 40)).astype(np.float32), "expected Hamming")
    return Rows(rng.normal(size=(n, 40)).astype(np.float32))


METRICS = ("Hamming", "cosine", "expected Hamming")


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_are_parts_of_all_distances(metric: str) -> None:
    rows = _rows(metric, 90)
    whole, blocks = pairwise(rows), in_blocks(rows)
    a, b = np.array([3, 80, 7]), np.array([7, 3, 50, 51])
    np.testing.assert_allclose(blocks(a, b), whole[np.ix_(a, b)], rtol=1e-5, atol=1e-6)
    if metric != "expected Hamming":
        assert blocks(a, b)[0, 1] == blocks(a, b)[2, 0] == 0


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_the_nearest_of_all_others(metric: str) -> None:
    rows = _rows(metric)
    distance = pairwise(rows)
    np.fill_diagonal(distance, np.inf)
    indices, distances = nearest_rows(rows, 12)
    expected = np.sort(distance, axis=1)[:, :12]
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(distance, indices, axis=1), expected, rtol=1e-5, atol=1e-6)
    assert (indices != np.arange(700)[:, None]).all()


@pytest.mark.parametrize("metric", ["Hamming", "cosine"])
def test_ties_go_in_the_drawn_order(metric: str) -> None:
    values = np.ones((8, 4), np.uint8 if metric == "Hamming" else np.float32)
    for seed in (0, 7):
        indices, distances = nearest_rows(Rows(values, metric), 3, seed=seed)
        assert (distances == 0).all()
        expected = [[j for j in tie_order(8, seed) if j != i][:3] for i in range(8)]
        np.testing.assert_array_equal(indices, expected)


def test_distances_at_hand_are_used() -> None:
    rows = _rows("cosine", 60)
    other = np.random.default_rng(1).random((60, 60)).astype(np.float32)
    indices, _ = nearest_rows(rows, 1, between=lambda a, _all: other[a])
    np.fill_diagonal(other, np.inf)
    np.testing.assert_array_equal(indices[:, 0], other.argmin(axis=1))


def test_bad_input_is_one_line() -> None:
    with pytest.raises(PolytopeError, match="60 neighbours of each of 60 tokens; give a number from 1 to 59"):
        nearest_rows(_rows("cosine", 60), 60)
    rows = _rows("cosine", 60)
    rows.values[17] = 0
    with pytest.raises(PolytopeError, match="row 17 of some rows is the zero vector"):
        nearest_rows(rows, 5, "some rows")
