"""The approximate graph against brute force, its filter against the law that it rests on."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import hypergeom

import polytope_lm as plm
from polytope_lm.codes import codes as module
from polytope_lm.codes.hamming import approximate, hamming
from polytope_lm.codes.hamming.approximate import approximate_neighbours, drawn_limits
from polytope_lm.codes.hamming.searching import StoredRows
from polytope_lm.codes.store import layout, tables
from polytope_lm.codes.store.reader import CodeStore
from polytope_lm.codes.store.writer import StoreWriter
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path


def _planted(rows: int, clusters: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    prototypes = (rng.random(width) < 0.3) ^ (rng.random((clusters, width)) < 0.2)
    bits = prototypes[rng.integers(0, clusters, rows)] ^ (rng.random((rows, width)) < 0.2)
    return hamming.pack(bits)


def _brute(packed: np.ndarray, k: int) -> np.ndarray:
    """The k smallest distances of each row to the others, from counted bytes."""
    matrix = np.stack([np.bitwise_count(row ^ packed).sum(axis=1, dtype=int) for row in packed])
    np.fill_diagonal(matrix, 10**6)
    return np.sort(matrix, axis=1)[:, :k]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks and parts of the rows at a size that brute force can check."""
    monkeypatch.setattr(approximate, "CHUNK", 256)
    monkeypatch.setattr(hamming, "PART", 512)


def test_found_neighbours_are_true_rows_at_exact_distances_and_the_recall_is_the_real_one() -> None:
    packed = _planted(3001, 20, 1536)
    found = approximate_neighbours(packed, 8, seed=3, recall_queries=3001)
    truth = _brute(packed, 8)
    assert found.bits < 1536
    assert 0 < found.counted < 0.6
    rows = np.arange(len(packed))
    for place in range(8):
        other = found.indices[:, place]
        assert (other != rows).all()
        distance = np.bitwise_count(packed ^ packed[other]).sum(axis=1)
        np.testing.assert_array_equal(found.distances[:, place], distance)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert all(len(set(row)) == 8 for row in found.indices.tolist())
    recall = (found.distances <= truth[:, -1:]).mean()
    assert found.recall.value == pytest.approx(recall)
    assert recall > 0.97
    assert found.recall.low < found.recall.value <= found.recall.high <= 1
    assert f"{recall:.4f}" in repr(found)


def test_a_low_expected_recall_is_kept_counts_less_and_is_measured_as_low() -> None:
    packed = _planted(2500, 5, 1024)
    results = {r: approximate_neighbours(packed, 10, seed=1, expected_recall=r) for r in (0.3, 0.9)}
    assert results[0.3].recall.value < results[0.9].recall.value
    for expected, found in results.items():
        assert found.recall.value > expected
    assert results[0.3].recall.value < 0.95


def test_expected_recall_of_one_is_the_exact_search() -> None:
    packed = _planted(600, 4, 512)
    found = approximate_neighbours(packed, 5, seed=0, expected_recall=1)
    exact = hamming.nearest(packed, packed, 5, exclude_self=True)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_array_equal(found.distances, exact.distances)
    assert (found.recall.value, found.counted, found.bits) == (1.0, 1.0, 512)


@pytest.mark.parametrize("width", [100, 264, 1000])
def test_widths_that_fill_no_word_and_duplicated_rows(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "_bits_to_draw", lambda *_: 64)
    packed = _planted(700, 3, width)
    packed[300:] = packed[:400]
    found = approximate_neighbours(packed, 4, seed=2, expected_recall=0.99, recall_queries=700)
    assert found.bits == 64
    assert (found.distances[:100, 0] == 0).all()
    recall = (found.distances <= _brute(packed, 4)[:, -1:]).mean()
    assert found.recall.value == pytest.approx(recall)
    assert recall > 0.98


def test_limits_follow_the_hypergeometric_law() -> None:
    width, bits = 192, 64
    limits = drawn_limits(width, bits, 0.9)
    assert limits.shape == (width + 2,)
    for distance in (0, 1, 50, 120, 192):
        kept = int(limits[distance]) - 1  # the most that may differ
        assert hypergeom.cdf(kept, width, distance, bits) >= 0.9
        assert kept == 0 or hypergeom.cdf(kept - 1, width, distance, bits) < 0.9
    assert limits[-1] == bits + 1
    rng = np.random.default_rng(0)
    code = np.arange(width) < 50
    drawn = np.array([code[rng.choice(width, bits, replace=False)].sum() for _ in range(2000)])
    assert (drawn < limits[50]).mean() + 0.02 >= 0.9


def test_same_seed_same_graph_whatever_the_threads_and_a_memory_map(tmp_path: Path) -> None:
    packed = _planted(1500, 10, 1024)
    np.save(tmp_path / "codes.npy", packed)
    one = approximate_neighbours(packed, 6, seed=5, threads=1)
    two = approximate_neighbours(np.load(tmp_path / "codes.npy", mmap_mode="r"), 6, seed=5, threads=2)
    np.testing.assert_array_equal(one.indices, two.indices)
    assert one.recall == two.recall
    assert one.counted == two.counted


@pytest.mark.parametrize("expected", [0.9, 1.0])
def test_progress_ends_at_all_pairs_and_can_stop_the_search(expected) -> None:
    packed = _planted(1500, 10, 2048)
    told: list[tuple[int, int]] = []
    approximate_neighbours(packed, 6, seed=5, expected_recall=expected, progress=lambda *at: told.append(at))
    assert told == sorted(told)
    assert told[-1] == (1500**2, 1500**2)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        approximate_neighbours(packed, 6, seed=5, expected_recall=expected, progress=stop)


def test_codes_that_no_filter_can_tell_apart_are_searched_exactly() -> None:
    packed = np.random.default_rng(0).integers(0, 256, (1000, 16), dtype=np.uint8)
    found = approximate_neighbours(packed, 300, seed=0)
    assert found.bits == 128
    assert found.recall.value == 1


@pytest.mark.usefixtures("users_arrays")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": 0}, "k is 0, but a row has 49 others"),
        ({"k": 50}, "from 1 to 49"),
        ({"expected_recall": 0.0}, "expected_recall is 0.0"),
        ({"expected_recall": 1.5}, "at most 1"),
        ({"recall_queries": 0}, "recall_queries is 0"),
        ({"packed": np.zeros((5, 3), bool)}, "uint8"),
        ({"packed": np.zeros(5, np.uint8)}, "give [rows, bytes]"),
    ],
)
def test_mistakes_are_told_in_one_line(change, says) -> None:
    arguments = {"packed": _planted(50, 2, 64), "k": 3, "seed": 0, **change}
    with pytest.raises(PolytopeError) as error:
        approximate_neighbours(**arguments)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def _store(place: Path, packed: np.ndarray, width: int, shards: int) -> CodeStore:
    """Write codes through the store's own writer, in shards of different sizes."""
    codes = plm.encode(plm.load("tiny-gpt2"), ["one text"], layers=1, keep=())
    key, site = codes.sites[0].key, {**codes.sites[0].to_dict(), "width": width}
    about = {**codes.provenance, "sites": [site], "keep": [], "keep_dtype": "float32", "format": layout.FORMAT}
    cuts = np.linspace(0, len(packed), shards + 1).astype(int) + np.r_[0, np.arange(shards - 1) % 7, 0]
    with StoreWriter(place, {**about, "documents": "made", "shard_documents": 1}) as writer:
        for number, (first, last) in enumerate(pairwise(cuts.tolist())):
            documents, places = [Document(str(number), "a b")], np.arange(last - first)
            with writer.shard(number, last - first, {key: (packed.shape[1], "uint8")}, documents) as shard:
                shard.arrays[key][:] = packed[first:last]
            columns = dict.fromkeys(tables.NUMBERS, places * 0) | {"document": places * 0 + number, "position": places}
            writer.commit(number, last - first, tables.token_table(columns, {}), documents, number)
        writer.finish(shards)
    return CodeStore(place)


def test_a_store_of_many_shards_gives_the_graph_of_one_array(tmp_path: Path, monkeypatch, capsys) -> None:
    packed = _planted(1200, 10, 1024)
    store = _store(tmp_path / "store", packed, 1024, 40)
    exact = store.knn(5, seed=3)
    np.testing.assert_array_equal(exact.distances, _brute(packed, 5))
    same = hamming.nearest(packed, packed, 5, exclude_self=True, seed=3)
    np.testing.assert_array_equal(exact.indices, same.indices)
    monkeypatch.setattr(module, "EXACT_TOKENS", 1201)
    assert not isinstance(store.knn(5), approximate.ApproximateNeighbours)
    monkeypatch.setattr(module, "EXACT_TOKENS", 1200)  # from so many on
    found = store.knn(5, seed=3)
    assert isinstance(found, approximate.ApproximateNeighbours)
    assert str(found.recall) in capsys.readouterr().err
    one = approximate_neighbours(packed, 5, seed=3)
    assert one.bits < 1024
    np.testing.assert_array_equal(found.indices, one.indices)
    np.testing.assert_array_equal(found.distances, one.distances)
    assert (found.recall, found.counted) == (one.recall, one.counted)


def test_of_a_store_two_parts_are_in_memory_at_a_time(tmp_path: Path, monkeypatch) -> None:
    """All codes take 25 MB, a part 2 MB; traced are numpy's own arrays, not shards while they are mapped."""
    monkeypatch.setattr(approximate, "_PILOT_ROWS", 256)
    packed = np.random.default_rng(0).integers(0, 256, (6144, 4096), dtype=np.uint8)
    packed[:, 300:] = packed[np.arange(6144) % 12, 300:]  # near enough to be told apart by few bits
    store = _store(tmp_path / "store", packed, 8 * 4096, 7)
    asked: list[int] = []
    rows = store.rows
    monkeypatch.setattr(store, "rows", lambda site, some, name=None: asked.append(len(some)) or rows(site, some, name))
    source = store.searchable(store.sites[0])
    assert isinstance(source, StoredRows)
    approximate_neighbours(packed[:2000], 3, seed=0, recall_queries=20)  # what is compiled, is
    tracemalloc.start()
    try:
        found = approximate_neighbours(source, 3, seed=0, recall_queries=20)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.bits < 8 * 4096
    assert max(asked) <= 512
    assert most < 3.6 * 2**21  # two parts that are held, one that is read, 32 bytes a row, and the table of limits
