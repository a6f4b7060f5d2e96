"""Neighbours by int8 products: every index is that of the popcount kernel and of a plain sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.gpu import Lists, Tiles, append_below, nearest_on, place_bits
from polytope_lm.codes.hamming.searching import StoredRows
from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import tie_order

SMALL = Tiles(queries=32, base=64, first=32)


def by_sorting(queries: np.ndarray, base: np.ndarray, k: int, forbidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort all distances of unpacked bits, ties in the drawn order; -1 behind the last allowed row."""
    a, b = (np.unpackbits(x, axis=1).astype(np.int64) for x in (queries, base))
    distance = (a[:, None] != b[None]).sum(axis=2)
    distance[forbidden] = 10**9
    drawn = tie_order(len(base))
    order = drawn[np.argsort(distance[:, drawn], axis=1, kind="stable")[:, :k]]
    near = np.take_along_axis(distance, order, axis=1)
    return np.where(near < 10**9, order, -1), np.where(near < 10**9, near, -1)


def check(found: hamming.Neighbours, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found.indices, expected[0])
    np.testing.assert_array_equal(found.distances, expected[1])


def codes(rows: int, width: int, seed: int, rate: float = 0.5) -> np.ndarray:
    return hamming.pack(np.random.default_rng(seed).random((rows, width)) < rate)


@given(
    st.integers(1, 70), st.integers(1, 260), st.sampled_from([1, 7, 64, 65]), st.integers(1, 5), st.integers(0, 99),
    st.sampled_from([None, 1]),
)  # fmt: skip
def test_every_index_is_that_of_a_plain_sort(n, m, width, k, seed, room):
    """Few bits: nearly all distances are tied. A list with room for one key overflows, and is searched anew."""
    queries, base = codes(n, width, seed, 0.3), codes(m, width, seed + 1, 0.3)
    k = min(k, m)
    found = nearest_on("cpu", queries, base, k, tiles=Tiles(32, 64, 32, room))
    check(found, by_sorting(queries, base, k, np.zeros((n, m), bool)))


@pytest.mark.parametrize("width", [1, 7, 64, 3073])
@pytest.mark.parametrize("kind", ["zeros", "ones", "both", "drawn"])
def test_adversarial_codes_equal_popcount(width, kind):
    rows = 150
    drawn = np.random.default_rng(width).random((rows, width)) < 0.5
    bits = {"zeros": drawn & False, "ones": drawn | True, "drawn": drawn}
    bits["both"] = np.where(np.arange(rows)[:, None] % 2 == 0, bits["zeros"], bits["ones"])
    packed = hamming.pack(bits[kind])
    expected = hamming.nearest(packed, packed, 6, exclude_self=True)
    found = nearest_on("cpu", packed, packed, 6, exclude_self=True, tiles=SMALL)
    check(found, (expected.indices, expected.distances))


@given(st.integers(2, 40), st.integers(30, 200), st.integers(1, 6), st.integers(0, 99), st.sampled_from([None, 1]))
def test_groups_are_left_out(n, m, k, seed, room):
    rng = np.random.default_rng(seed)
    queries, base = codes(n, 20, seed), codes(m, 20, seed + 1)
    mine, theirs = rng.integers(-1, 4, (n, 2)), rng.integers(-1, 4, (m, 2))
    shared = ((mine[:, None] == theirs[None]) & (mine[:, None] >= 0)).any(axis=2)
    found = nearest_on("cpu", queries, base, k, groups_queries=mine, groups_base=theirs, tiles=Tiles(32, 64, 32, room))
    check(found, by_sorting(queries, base, k, shared))


def test_a_cluster_that_comes_last_is_found_whole():
    """The rows nearest to the query stand together at the end: the drawn order keeps lists short."""
    base = np.concatenate([codes(900, 64, 0), codes(100, 64, 1, 0.01)])
    queries = codes(3, 64, 2, 0.01)
    check(nearest_on("cpu", queries, base, 40, tiles=SMALL), by_sorting(queries, base, 40, np.zeros((3, 1000), bool)))


def test_a_base_of_several_parts():
    """Where the places of all rows have no room in a key beside a distance, the base is searched part by part."""
    assert 10**6 <= 2 ** place_bits(3072) == 2**20
    assert 2 ** place_bits(4096) == 2**19
    base, queries = codes(300, 12, 0), codes(5, 12, 1)
    found = nearest_on("cpu", queries, base, 9, tiles=Tiles(32, 64, 32, part=70))
    check(found, by_sorting(queries, base, 9, np.zeros((5, 300), bool)))
    stored = StoredRows(lambda rows: base[rows], base.shape)
    check(hamming.nearest(queries, stored, 9), (found.indices, found.distances))
    check(nearest_on("cpu", queries, stored, 9, tiles=Tiles(32, 64, 32, part=70)), (found.indices, found.distances))


def test_another_seed_breaks_ties_in_another_order_and_both_sides_follow():
    packed = codes(90, 3, 0)
    for seed in (0, 5):
        expected = hamming.nearest(packed, packed, 8, exclude_self=True, seed=seed)
        found = nearest_on("cpu", packed, packed, 8, exclude_self=True, seed=seed, tiles=SMALL)
        check(found, (expected.indices, expected.distances))


def test_codes_too_wide_for_keys_are_refused():
    with pytest.raises(PolytopeError, match="1,048,576 bits are too wide"):
        place_bits(2**20)


def test_a_device_that_is_not_here_is_one_line():
    packed = codes(10, 8, 0)
    with pytest.raises(PolytopeError, match="device 'cuda:7' can't be used here"):
        hamming.nearest(packed, packed, 2, device="cuda:7")
    expected = hamming.nearest(packed, packed, 2)
    check(hamming.nearest(packed, packed, 2, device="cpu"), (expected.indices, expected.distances))


def test_wrong_k_is_refused_as_on_the_processor():
    packed = codes(10, 8, 0)
    with pytest.raises(PolytopeError, match="k is 10, but the base has 9 other rows"):
        nearest_on("cpu", packed, packed, 10, exclude_self=True)


def test_a_full_list_counts_what_had_no_room():
    lists = Lists.empty(1, 1, 2, torch.device("cpu"))
    products = torch.tensor([[8, 6, 8, -8]], dtype=torch.int32)
    groups = torch.empty(1, 0, dtype=torch.int32), torch.empty(4, 0, dtype=torch.int32)
    append_below(products, torch.arange(4, dtype=torch.int32), *groups, lists, 28, 8)
    assert lists.count.tolist() == [4]
    lists.settle()
    assert lists.overflowed.tolist() == [True]
    assert lists.best[0, 0] + 2**31 == 0  # distance 0, place 0
