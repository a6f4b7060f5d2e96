from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm import worlds


@pytest.fixture(scope="module")
def world():
    return worlds.direction_world(tokens=300, documents=20, seed=1)


@pytest.fixture(scope="module")
def result(world):
    return plm.predictions.clusters(world, label="label", k=6, resamples=10)


def test_neighbours_of_a_representation_are_near_on_its_map(world, result):
    told = []
    mapped = plm.predictions.with_maps(world, result, progress=lambda *step: told.append(step))
    key = result.layers[0].site.key
    assert [step[:2] for step in told] == [(0, 2), (1, 2)]
    for side in ("code", "cosine"):
        places = np.stack(mapped.tokens[f"{key}/map/{side}"].tolist())
        assert places.shape == (len(result.tokens), 2)
        assert np.abs(places).max() == pytest.approx(1)
        near = mapped.tokens[f"{key}/neighbours/{side}"]
        away = np.linalg.norm(places[:, None] - places, axis=2)
        to_neighbours = np.mean([away[row, list(rows)].mean() for row, rows in enumerate(near) if len(rows)])
        assert to_neighbours < 0.6 * away.mean()
    again = plm.predictions.with_maps(world, mapped, 0)
    assert list(again.tokens.columns) == list(mapped.tokens.columns)
    np.testing.assert_array_equal(np.stack(again.tokens[f"{key}/map/code"]), np.stack(mapped.tokens[f"{key}/map/code"]))
    assert result.to_dict() == mapped.to_dict()


def test_maps_need_the_tokens(world, result):
    with pytest.raises(plm.PolytopeError, match=r"lost its table of tokens \(tokens.parquet\)"):
        plm.predictions.with_maps(world, replace(result, tokens=None))
    with pytest.raises(plm.PolytopeError, match="layer 3 is not in this result"):
        plm.predictions.with_maps(world, result, 3)
    with pytest.raises(plm.PolytopeError, match="tokens are not in these codes; give the codes that"):
        plm.predictions.with_maps(world.select(np.arange(100)), result)
