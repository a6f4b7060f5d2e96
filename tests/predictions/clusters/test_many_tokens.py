"""More tokens than all distances of which memory holds: distances in blocks, clusters from a batch, some asked."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters import scoring
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI
from polytope_lm.predictions.clusters.sampling import choose
from polytope_lm.predictions.clusters.scoring import laid_out, make_task
from polytope_lm.representations import registry
from polytope_lm.representations.arrays import LayerArrays

FAST = {"k": 12, "resamples": 10, "comparators": False, "per_document": None}


def few_at_once(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(scoring, "EXACT", most)
    monkeypatch.setattr(scoring, "_ASKED_AT_ONCE", 64)


@pytest.mark.parametrize("name", ["code", "cosine of h, centred"])
def test_neighbours_of_the_asked_are_those_of_all_distances(world, monkeypatch, name: str) -> None:
    few_at_once(monkeypatch, 150)
    codes = world("code")
    sample = choose(codes, "upos", tokens=400, seed=0, per_document=None)
    task = make_task(sample, 12, 0, 10)
    assert len(np.unique(task.asked)) == 150
    arrays, representation = LayerArrays(codes, 4, sample.rows), registry.get(name)
    (found,) = laid_out(representation, arrays, task, lambda *_: None)[:1]
    bits = np.unpackbits(representation.rows(arrays, seed=0).values, axis=1) if name == "code" else None
    values = representation.rows(arrays, seed=0).values if bits is None else bits.astype(float)
    distance = pairwise_distances(values, metric="cosine" if bits is None else "cityblock")
    place = np.argsort(task.order)
    for token in range(400):
        if token not in task.asked:
            assert (found.neighbours[token] == -1).all()
            assert np.isnan(found.distances[token]).all()
            continue
        groups = sample.groups
        shared = ((groups[token] == groups) & (groups >= 0)).any(axis=1) | (np.arange(400) == token)
        mine = found.distances[token][found.neighbours[token] >= 0]
        expected = np.sort(np.where(shared, np.inf, distance[token]))[: len(mine)]
        np.testing.assert_allclose(mine, expected, atol=1e-5)
        assert not shared[found.neighbours[token][: len(mine)]].any()
        if bits is not None:  # ties by the drawn order
            keys = sorted((distance[token, j], place[j], j) for j in np.flatnonzero(~shared))
            assert [j for _, _, j in keys[: len(mine)]] == found.neighbours[token][: len(mine)].tolist()
    for half, inside in zip(found.halves, task.inside, strict=True):
        assert ((half >= 0) == inside).all()


def test_the_verdict_of_a_planted_world_stands(world, monkeypatch) -> None:
    whole = clusters(world("code"), 4, **FAST).layers[0]
    few_at_once(monkeypatch, 300)
    layer = clusters(world("code"), 4, **FAST).layers[0]
    assert layer.verdict.outcome == whole.verdict.outcome == "supported"
    for score in (AMI, AGREEMENT):
        one, other = (each.representation("code").score(score).estimate for each in (layer, whole))
        assert one.value == pytest.approx(other.value, abs=0.05)
    assert layer.representation("code").score(AGREEMENT).n == 300
    assert layer.representation("code").few_neighbours == whole.representation("code").few_neighbours == 0
