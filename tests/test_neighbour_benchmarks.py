"""The benchmarks of neighbours on a few codes: what they count is right, and peers are compared."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import graph, neighbours
from polytope_lm.codes.store.reader import CodeStore

OPTIONS = Namespace(width=256, k=5, apart=0.2, seed=0, threads=1, reach=0.95)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store of planted codes in several shards."""
    pytest.importorskip("faiss")
    from benchmarks import growth

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth, "SHARD", 512)
        return graph.plant(tmp_path_factory.mktemp("planted"), 1800, OPTIONS)


def test_planted_codes_are_a_store_of_several_shards(place):
    store = CodeStore(place)
    assert len(store.shards) == 4
    assert store.counts()[0] == 1800
    assert not store.verify()
    packed = store.packed()
    assert packed.shape == (1800, 32)
    assert len(np.unique(packed, axis=0)) > 1700


def test_the_peers_recall_is_that_of_brute_force(place, monkeypatch):
    import faiss

    packed, k = CodeStore(place).packed(), OPTIONS.k
    monkeypatch.setattr(graph, "QUERIES", 1800)
    monkeypatch.setattr(graph, "MOST", 4 * (k + 1))
    found = graph.run_peer(place, OPTIONS)
    assert found.ef in {9, 13, 19, 24}  # from k + 1 by half
    assert found.recall >= OPTIONS.reach or found.ef == 4 * (k + 1)
    distance = np.stack([np.bitwise_count(row ^ packed).sum(axis=1, dtype=int) for row in packed])
    index = faiss.IndexBinaryHNSW(256, graph.LINKS)
    for block in CodeStore(place).blocks(CodeStore(place).sites[0]):
        index.add(np.ascontiguousarray(block))
    index.hnsw.efSearch = found.ef
    _, near = index.search(packed, k + 1)
    np.fill_diagonal(distance, 10**6)
    worst = np.sort(distance, axis=1)[:, k - 1]
    rows = np.arange(1800)
    hits = [min(k, sum(distance[i, j] <= worst[i] for j in near[i] if j not in {i, -1})) for i in rows]
    assert found.recall == pytest.approx(np.mean(hits) / k, abs=0.02)  # threads insert in another order


def test_figures_say_whether_the_recall_is_equal_or_the_highest_reached(place):
    ours = graph.run(place, OPTIONS)
    assert ours.rows == 1800
    peer = graph.Peer(2.0, 4.0, 100.0, ours.recall, 64)
    beside = graph.figures([(ours, peer)], OPTIONS)[3]
    assert "equal recall" in beside.name
    assert (beside.peer, beside.ratio) == (6.0, pytest.approx(6 / ours.seconds))
    lower = graph.figures([(ours, replace(peer, recall=ours.recall - 0.01))], OPTIONS)[3]
    assert "highest recall that it reached" in lower.name
    assert len(graph.figures([(ours, None)], OPTIONS)) == 3


def test_all_distances_are_checked_against_both_peers(monkeypatch):
    pytest.importorskip("numkong")
    monkeypatch.setattr(neighbours, "_PASSES", 10)
    work = neighbours.Work.draw(700, 256, 4, 2)
    figures = neighbours.measure(work, 1)
    assert [figure.peer_name for figure in figures[2:4]] == ["NumKong hammings_packed"] * 2
    real = neighbours.numkong.hammings_packed
    monkeypatch.setattr(neighbours.numkong, "hammings_packed", lambda a, b: np.asarray(real(a, b)) + 1)
    with pytest.raises(AssertionError, match="differ from NumKong's"):
        neighbours.measure(work, 1)
