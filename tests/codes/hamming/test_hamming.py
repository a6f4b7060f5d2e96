"""Packed codes against unpacked booleans, brute force and faiss."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytope_lm.codes.hamming import hamming, kernels
from polytope_lm.codes.hamming.searching import StoredRows
from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import tie_order


def _bits(rng: np.random.Generator, rows: int, width: int, distinct: int | None = None) -> np.ndarray:
    """Random codes; few distinct ones where ties are wanted."""
    bits = rng.random((rows if distinct is None else distinct, width)) < rng.random(width)
    return bits if distinct is None else bits[rng.integers(0, distinct, rows)]


def _brute_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([(row != b).sum(axis=1) for row in a]) if len(a) else np.zeros((0, len(b)), int)


def _brute_nearest(a: np.ndarray, b: np.ndarray, k: int, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort every row's allowed pairs by (distance, place in the drawn order), in plain Python."""
    indices, found = np.full((len(a), k), -1), np.full((len(a), k), -1)
    matrix, order = _brute_distances(a, b), tie_order(len(b)).tolist()
    for i in range(len(a)):
        allowed = sorted((int(matrix[i, j]), order.index(j), j) for j in range(len(b)) if not excluded[i, j])[:k]
        for rank, (distance, _, j) in enumerate(allowed):
            indices[i, rank], found[i, rank] = j, distance
    return indices, found


@st.composite
def _cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m, width = draw(st.integers(0, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 300))
    pool = _bits(rng, n + m, width, draw(st.none() | st.integers(1, 5)))
    return pool[:n], pool[n:], rng


@given(_cases())
@settings(deadline=None)
def test_pack_unpack_and_popcount_are_those_of_the_booleans(case) -> None:
    a, b, _ = case
    packed = hamming.pack(b)
    assert packed.shape == (len(b), -(-b.shape[1] // 8))
    assert all(bool(packed[0, i // 8] >> (i % 8) & 1) == b[0, i] for i in range(b.shape[1]))
    np.testing.assert_array_equal(hamming.unpack(packed, b.shape[1]), b)
    np.testing.assert_array_equal(hamming.popcount(packed), b.sum(axis=1))
    np.testing.assert_allclose(hamming.rates(packed, b.shape[1]), b.mean(axis=0))
    if len(a):
        np.testing.assert_array_equal(hamming.unpack(hamming.xor(hamming.pack(a[0]), packed), b.shape[1]), a[0] ^ b)


@given(_cases())
@settings(deadline=None)
def test_distances_equal_those_of_the_booleans(case) -> None:
    a, b, _ = case
    result = hamming.distances(hamming.pack(a), hamming.pack(b))
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, _brute_distances(a, b))


@given(_cases(), st.integers(1, 40), st.integers(0, 3), st.integers(1, 3))
@settings(deadline=None)
def test_nearest_equals_sorting_all_allowed_pairs(case, k: int, groupings: int, threads: int) -> None:
    a, b, rng = case
    k = min(k, len(b))
    of_a, of_b = (rng.integers(-1, 4, (len(codes), groupings)) for codes in (a, b))
    excluded = ((of_a[:, None] == of_b[None]) & (of_a[:, None] >= 0)).any(axis=2)
    result = hamming.nearest(
        hamming.pack(a), hamming.pack(b), k, groups_queries=of_a, groups_base=of_b, threads=threads
    )
    indices, found = _brute_nearest(a, b, k, excluded)
    np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(result.distances, found)
    assert result.indices.dtype == result.distances.dtype == np.int32


@given(_cases(), st.integers(1, 40))
@settings(deadline=None)
def test_a_row_is_not_its_own_neighbour_when_self_is_excluded(case, k: int) -> None:
    _, b, _ = case
    if len(b) < 2:
        return
    k = min(k, len(b) - 1)
    result = hamming.nearest(hamming.pack(b), hamming.pack(b), k, exclude_self=True)
    indices, found = _brute_nearest(b, b, k, np.eye(len(b), dtype=bool))
    np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(result.distances, found)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_chunks_and_tasks_give_the_same_for_every_number_of_threads(threads: int) -> None:
    """More rows than a chunk of the base and a task hold, few distinct codes: the ties cross every border."""
    rng = np.random.default_rng(1)
    bits = _bits(rng, 9001, 77, distinct=60)
    packed = hamming.pack(bits)
    queries = packed[:2500]
    groups = rng.integers(-1, 50, 9001)
    result = hamming.nearest(queries, packed, 200, groups_queries=groups[:2500], groups_base=groups, threads=threads)
    matrix = hamming.distances(queries, packed, threads=threads).astype(np.int64)
    sample = rng.integers(0, 2500, 40)
    np.testing.assert_array_equal(matrix[sample], _brute_distances(bits[sample], bits))
    same = (groups[:2500, None] == groups[None]) & (groups[:2500, None] >= 0)
    matrix[same] = 10**6
    drawn = tie_order(9001)
    order = drawn[np.argsort(matrix[:, drawn], axis=1, kind="stable")[:, :200]]
    np.testing.assert_array_equal(result.indices, order)
    np.testing.assert_array_equal(result.distances, np.take_along_axis(matrix, order, axis=1))


@pytest.mark.parametrize("width", [768, 3072, 14336])
def test_distances_are_those_of_faiss(width: int) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is the independent reference")
    rng = np.random.default_rng(2)
    base = hamming.pack(_bits(rng, 700, width))
    index = faiss.IndexBinaryFlat(width)
    index.add(base)
    expected, _ = index.search(base[:50], 16)
    result = hamming.nearest(base[:50], base, 16)
    np.testing.assert_array_equal(result.distances, expected)
    np.testing.assert_array_equal(
        np.take_along_axis(hamming.distances(base[:50], base), result.indices.astype(int), axis=1), expected
    )


def test_inputs_may_be_read_only_maps_and_views(tmp_path) -> None:
    rng = np.random.default_rng(3)
    packed = hamming.pack(_bits(rng, 60, 100))
    np.save(tmp_path / "codes.npy", packed)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    expected = hamming.nearest(packed[::2], packed, 3)
    np.testing.assert_array_equal(hamming.nearest(mapped[::2], mapped, 3).indices, expected.indices)
    np.testing.assert_array_equal(hamming.rates(mapped, 100), hamming.rates(packed, 100))


def test_no_queries_give_an_empty_result_of_the_right_shape() -> None:
    base = np.zeros((3, 2), np.uint8)
    result = hamming.nearest(base[:0], base, 2)
    assert result.indices.shape == result.distances.shape == (0, 2)
    assert len(result.to_frame()) == 0
    assert hamming.distances(base[:0], base).shape == (0, 3)
    assert hamming.distances(base, base[:0]).shape == (3, 0)


def test_missing_neighbours_are_minus_one_and_not_in_the_frame() -> None:
    base = np.array([[0], [1], [3]], np.uint8)
    groups = np.array([0, 0, 1])
    result = hamming.nearest(base, base, 2, groups_queries=groups, groups_base=groups)
    np.testing.assert_array_equal(result.indices, [[2, -1], [2, -1], [1, 0]])
    np.testing.assert_array_equal(result.distances, [[2, -1], [1, -1], [1, 2]])
    frame = result.to_frame()
    assert list(frame.columns) == ["query", "rank", "index", "distance"]
    assert frame.to_numpy().tolist() == [[0, 1, 2, 2], [1, 1, 2, 1], [2, 1, 1, 1], [2, 2, 0, 2]]


def test_any_negative_id_is_no_group() -> None:
    base = np.array([[0], [1], [7]], np.uint8)
    groups = np.array([-(2**32), -(2**40), -(2**32)])  # as int32 these would be 0
    result = hamming.nearest(base, base, 3, groups_queries=groups, groups_base=groups)
    np.testing.assert_array_equal(result.indices, [[0, 1, 2], [1, 0, 2], [2, 1, 0]])


def test_torch_and_ours_work_side_by_side() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    packed = hamming.pack(_bits(rng, 300, 128))
    expected = hamming.nearest(packed, packed, 4, threads=1).indices
    for _ in range(3):
        torch.ones(200, 200) @ torch.ones(200, 200)
        np.testing.assert_array_equal(hamming.nearest(packed, packed, 4, threads=2).indices, expected)


CODES = np.zeros((5, 4), np.uint8)


@pytest.mark.usefixtures("users_arrays")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hamming.nearest(CODES, CODES, 6), ["k is 6", "5 rows"]),
        (lambda: hamming.nearest(CODES, CODES, 0), ["k is 0", "1 to 5"]),
        (lambda: hamming.nearest(CODES, CODES, 5, exclude_self=True), ["k is 5", "4 other rows"]),
        (lambda: hamming.nearest(CODES, CODES[:0], 1), ["k is 1", "0 rows"]),
        (lambda: hamming.nearest(CODES[:2], CODES, 1, exclude_self=True), ["2 queries", "5 base rows"]),
        (lambda: hamming.nearest(CODES, CODES[:, :3], 1), ["queries has 4 bytes", "base has 3"]),
        (lambda: hamming.nearest(CODES[0], CODES, 1), ["queries", "(4,)", "code[None]"]),
        (lambda: hamming.nearest(CODES[:, :0], CODES[:, :0], 1), ["(5, 0)"]),
        (lambda: hamming.distances(CODES, CODES.astype(bool)), ["b has type bool", "hamming.pack"]),
        (lambda: hamming.distances(CODES, CODES[:, :2]), ["a has 4 bytes", "b has 2"]),
        (lambda: hamming.nearest(CODES, CODES, 1, threads=0), ["threads is 0"]),
        (lambda: hamming.nearest(CODES, CODES, 1, groups_base=np.zeros(5, int)), ["groups_queries is missing"]),
        (
            lambda: hamming.nearest(CODES, CODES, 1, groups_queries=np.zeros(4, int), groups_base=np.zeros(5, int)),
            ["(4, 1)", "[5, G]"],
        ),
        (
            lambda: hamming.nearest(CODES, CODES, 1, groups_queries=np.zeros(5), groups_base=np.zeros(5)),
            ["float64", "factorize"],
        ),
        (
            lambda: hamming.nearest(CODES, CODES, 1, groups_queries=np.full(5, 2**31), groups_base=np.zeros(5, int)),
            ["below 2^31"],
        ),
        (lambda: hamming.xor(CODES, CODES[:, :1]), ["a has 4 bytes"]),
        (lambda: hamming.unpack(CODES, 33), ["4 bytes", "33 bits"]),
        (lambda: hamming.unpack(CODES, 24), ["4 bytes", "24 bits"]),
        (lambda: hamming.rates(CODES[:0], 32), ["at least one token", "(0, 4)"]),
        (lambda: hamming.pack(CODES), ["uint8", "h > 0"]),
        (lambda: hamming.popcount(CODES.astype(np.int64)), ["int64"]),
    ],
)
def test_mistakes_are_named_in_one_line(call, words: list[str]) -> None:
    with pytest.raises(PolytopeError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@given(_cases(), st.integers(1, 6), st.integers(1, 3))
@settings(deadline=None)
def test_one_set_against_itself_counts_each_pair_once_and_keeps_the_ties(case, k, threads) -> None:
    _, b, rng = case
    packed, n = hamming.pack(b), len(b)
    if n < 2:
        return
    k, groups = min(k, n - 1), rng.integers(-1, 3, (n, 2))
    far = (b[:, None] ^ b[None]).sum(axis=2)
    np.fill_diagonal(far, 10**6)
    shared = ((groups[:, None] == groups[None]) & (groups[:, None] >= 0)).any(axis=2)
    for given_groups, distance in ((None, far), (groups, np.where(shared, 10**6, far))):
        found = hamming.nearest(
            packed, packed, k, exclude_self=True, threads=threads,
            groups_queries=given_groups, groups_base=given_groups,
        )  # fmt: skip
        drawn = tie_order(n)
        order = drawn[np.argsort(distance[:, drawn], axis=1, kind="stable")[:, :k]]
        expected = np.take_along_axis(distance, order, 1)
        np.testing.assert_array_equal(found.distances, np.where(expected >= 10**6, -1, expected))
        np.testing.assert_array_equal(found.indices, np.where(expected >= 10**6, -1, order))


def test_one_set_of_many_blocks_is_the_same_as_queries_apart() -> None:
    rng = np.random.default_rng(1)
    packed = hamming.pack(rng.random((2500, 70)) < 0.3)
    apart = hamming.nearest(packed, packed, 9)
    for threads in (1, 3):
        found = hamming.nearest(packed, packed, 8, exclude_self=True, threads=threads)
        for row in range(2500):
            rest = apart.indices[row][apart.indices[row] != row]
            np.testing.assert_array_equal(found.indices[row], rest[:8])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts, the last one shorter, at a size that brute force can check."""
    monkeypatch.setattr(hamming, "PART", 64)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_set_of_several_parts_with_many_ties_is_sorted_right(threads) -> None:
    rng = np.random.default_rng(5)
    bits, groups = _bits(rng, 301, 9), rng.integers(-1, 30, 301)
    packed, same = hamming.pack(bits), (groups[:, None] == groups) & (groups[:, None] >= 0)
    indices, found = _brute_nearest(bits, bits, 7, np.eye(301, dtype=bool) | same)
    told = []
    one_set = hamming.nearest_in_set(
        packed, 7, groups[:, None].astype(np.int32), threads=threads, progress=lambda *at: told.append(at)
    )
    own = {"groups_queries": groups, "groups_base": groups, "exclude_self": True, "threads": threads}
    for result in (
        one_set,
        hamming.nearest(packed, packed, 7, **own),
        hamming.nearest(packed[:], packed.copy(), 7, **own),
    ):
        np.testing.assert_array_equal(result.indices, indices)
        np.testing.assert_array_equal(result.distances, found)
    assert told == sorted(set(told))
    assert told[-1] == (301**2, 301**2)
    indices, found = _brute_nearest(bits[:130], bits, 9, np.zeros((130, 301), bool))
    apart = hamming.nearest(packed[:130], packed, 9, threads=threads)
    np.testing.assert_array_equal(apart.indices, indices)
    np.testing.assert_array_equal(apart.distances, found)


@pytest.mark.parametrize("one_set", [False, True])
def test_two_parts_are_held_and_a_third_is_read(one_set: bool, monkeypatch) -> None:
    rows = np.zeros((4096, 4096), np.uint8)
    rows[:, :8] = np.random.default_rng(0).integers(0, 256, (4096, 8), np.uint8)
    monkeypatch.setattr(hamming, "PART", 512)  # 2 MB
    source = StoredRows(lambda some: rows[some], rows.shape)

    def search(n: int) -> None:
        if one_set:
            hamming.nearest_in_set(StoredRows(lambda some: rows[some], (n, 4096)), 2, threads=1)
        else:
            hamming.nearest(rows[:n], source, 2, threads=1)

    search(512)  # what is compiled, is
    tracemalloc.start()
    try:
        search(1536)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 1.9 < most / 2**21 < 3.3


def test_equal_codes_are_neighbours_in_the_order_that_the_seed_draws() -> None:
    packed = np.zeros((50, 3), np.uint8)
    found = {seed: hamming.nearest(packed, packed, 4, exclude_self=True, seed=seed).indices for seed in (0, 1)}
    for seed, indices in found.items():
        order = tie_order(50, seed)
        for row in range(50):
            assert indices[row].tolist() == order[order != row][:4].tolist()
    assert not np.array_equal(found[0], found[1])


@pytest.mark.usefixtures("small_parts")
def test_rows_that_are_read_are_searched_as_an_array_is_some_at_a_time() -> None:
    packed = hamming.pack(_bits(np.random.default_rng(6), 500, 20))
    asked = []

    def take(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return packed[rows]

    stored = StoredRows(take, packed.shape)
    for some, more in ((stored, {"exclude_self": True}), (StoredRows(take, packed.shape), {}), (packed[:70], {})):
        expected = hamming.nearest(packed[: len(some)], packed, 5, **more)
        found = hamming.nearest(some, stored, 5, **more)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.distances, expected.distances)
    assert max(asked) == 64


@given(st.integers(1, 40), st.data())
def test_a_key_takes_the_place_of_the_greatest_and_no_other_row_changes(k: int, data) -> None:
    keys = st.lists(st.integers(0, 2**63), min_size=k, max_size=k)
    heaps = np.array([sorted(data.draw(keys), reverse=True) for _ in range(3)], np.uint64)
    key = data.draw(st.integers(0, 2**63))
    expected = heaps.copy()
    expected[1] = sorted([*heaps[1].tolist(), key], reverse=True)[1:]
    assert kernels.replace_greatest(heaps, 1, np.uint64(key)) == expected[1, 0]
    assert (heaps == expected).all()


@given(st.integers(1, 70), st.integers(1, 20), st.sampled_from([1, 2]))
def test_panels_hold_the_rows_filled_up_with_zeros_each_vector_in_one_cache_line(n: int, width: int, threads) -> None:
    codes = np.random.default_rng(n).integers(0, 256, (n, width), np.uint8)
    panels = hamming.in_panels(hamming.words_of(codes), threads)
    assert panels.ctypes.data % 64 == 0
    assert len(panels) % 2 == 0
    rows = panels.transpose(0, 2, 1).reshape(-1, panels.shape[1]).view(np.uint8)
    assert (rows[:n, :width] == codes).all()
    assert not rows[n:].any()
    assert not rows[:, width:].any()
