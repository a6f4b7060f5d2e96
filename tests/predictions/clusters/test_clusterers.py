from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters import clusterers
from polytope_lm.predictions.clusters.clusterers import EXACT, Space, clusterer, get_clusterer, partition
from polytope_lm.representations.registry import Rows
from polytope_lm.statistics.agreement import Partition

NAMES = ("k-medoids", "average linkage", "hdbscan")


@pytest.fixture(autouse=True)
def _leave_no_clusterer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusterers, "_REGISTRY", dict(clusterers._REGISTRY))


def _planted(metric: str) -> tuple[Space, np.ndarray]:
    """Five tight groups under any metric."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(5), 40)
    if metric == "cosine":
        values = 3 * rng.normal(size=(5, 30))[label] + 0.3 * rng.normal(size=(200, 30))
        return Space(Rows(values.astype(np.float32))), label
    bits = (rng.random((5, 128)) < 0.5)[label] ^ (rng.random((200, 128)) < 0.05)
    if metric == "Hamming":
        return Space(Rows(np.packbits(bits, axis=1, bitorder="little"), "Hamming")), label
    return Space(Rows(np.where(bits, 0.95, 0.05).astype(np.float32), "expected Hamming")), label


@pytest.mark.parametrize("metric", ["Hamming", "cosine", "expected Hamming"])
@pytest.mark.parametrize("name", NAMES)
def test_every_clusterer_finds_what_is_planted_under_every_metric(name: str, metric: str) -> None:
    space, label = _planted(metric)
    found = get_clusterer(name)(space, 5, seed=1)
    assert adjusted_mutual_info_score(found.labels[found.labels >= 0], label[found.labels >= 0]) > 0.99
    assert found.noise_share < 0.1
    assert (found.clusters, found.clusterer) == (5, name)
    assert (get_clusterer(name)(_planted(metric)[0], 5, seed=1).labels == found.labels).all()


@pytest.mark.parametrize("metric", ["Hamming", "cosine", "expected Hamming"])
@pytest.mark.parametrize("name", ["k-medoids", "hdbscan"])
def test_beyond_what_fits_nothing_asks_for_all_distances(
    name: str, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = get_clusterer(name)(_planted(metric)[0], 5, seed=1)
    monkeypatch.setattr(clusterers, "EXACT", 150)
    monkeypatch.setattr(clusterers, "pairwise", lambda *_: pytest.fail("all distances at once"))
    space, label = _planted(metric)
    found = get_clusterer(name)(space, 5, seed=1)
    inside = found.labels >= 0
    assert adjusted_mutual_info_score(found.labels[inside], label[inside]) > 0.99
    if name == "k-medoids":
        assert found.settings["batch"] == 200  # all of them
    else:
        np.testing.assert_array_equal(found.labels, exact.labels)
    with pytest.raises(PolytopeError, match="all distances of 200 tokens need 0 GB; compare at most 150"):
        get_clusterer("average linkage")(space, 5, seed=1)


def test_noise_is_reported_and_stays_noise() -> None:
    rng = np.random.default_rng(0)
    bits = np.concatenate([np.tile(rng.random(128) < 0.5, (30, 1)), rng.random((90, 128)) < 0.5])
    bits[:30] ^= rng.random((30, 128)) < 0.03
    space = Space(Rows(np.packbits(bits, axis=1, bitorder="little"), "Hamming"))
    other = np.packbits(~bits, axis=1, bitorder="little")
    both = Space(Rows(np.concatenate([space.rows.values, other]), "Hamming"))
    found = get_clusterer("hdbscan")(both)
    assert found.clusters == 2
    background = np.r_[30:120, 150:240]
    assert (found.labels[background] == -1).mean() > 0.7
    assert found.noise == (found.labels == -1).sum() == len(both) - sum(found.sizes)


def test_a_user_adds_a_clusterer_in_a_few_lines() -> None:
    @clusterer("halves", warns="a test", takes_k=False)
    def halves(space: Space, k: int, seed: int) -> np.ndarray:
        return (space.distance[0] > np.median(space.distance[0])).astype(int)

    found = get_clusterer("halves")(_planted("cosine")[0])
    assert isinstance(found, Partition)
    assert found.sizes == (100, 100)
    with pytest.raises(PolytopeError, match="a clusterer 'halves' is already registered"):
        clusterer("halves")(lambda *_: np.zeros(200, int))
    clusterer("halves", replace=True)(lambda *_: np.zeros(3, int))
    with pytest.raises(PolytopeError, match="clusterer 'halves' gave 3 labels for 200 tokens"):
        get_clusterer("halves")(_planted("cosine")[0], 2)


def test_codes_are_clustered_by_name(world) -> None:
    codes = world("code")
    found = partition(codes, clusterer="hdbscan", representation="cosine of h, centred")
    assert found.settings == {"min_cluster_size": 10, "min_samples": 10, "neighbours": 20}
    assert len(found) == len(codes)
    some = plm.predictions.partition(codes, k=9, rows=np.arange(100, 400), seed=2)
    assert (len(some), some.clusters, some.noise) == (300, 9, 0)
    assert EXACT == 20_000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clusterer": "dbscan"}, r"no clusterer 'dbscan'; registered are 'k-medoids', 'average linkage', 'hdbscan'"),
        ({"k": 900}, "k = 900 clusters of 900 tokens"),
        ({"representation": "codes"}, "no representation 'codes'"),
        ({"layer": 3}, "no codes of layer 3 here"),
        ({"clusterer": "hdbscan", "rows": np.arange(9)}, "9 tokens for hdbscan with min_cluster_size = 10"),
        ({"representation": "cosine of x, raw"}, "'x' of layer 4 was not kept"),
    ],
)
def test_mistakes_are_one_line(world, options: dict, says: str) -> None:
    with pytest.raises(PolytopeError, match=says) as caught:
        partition(world("code"), **options)
    assert "\n" not in str(caught.value)
