"""All tokens' neighbours against scikit-learn, in memory and from a store in small blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances

import polytope_lm as plm
from polytope_lm.codes import neighbourhoods
from polytope_lm.codes.neighbourhoods import nearest_directions
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path

    from polytope_lm.models.model import Model

TEXTS = [
    Document(f"d{i}", f"The {w} of the river was wide and number {i} ran by", {"topic": "ab"[i % 2]})
    for i, w in enumerate(["bank", "pond", "boat", "water", "money", "duck"])
]


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 1000), st.integers(1, 9))
def test_directions_are_scikit_learns_in_blocks_of_any_size(rows: int, k: int, seed: int, size: int) -> None:
    k = min(k, rows - 1)
    h = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    blocks = [h[i : i + size] for i in range(0, rows, size)]
    indices, values = nearest_directions(lambda: iter(blocks), k)
    cosine = 1 - pairwise_distances((h - h.mean(axis=0)).astype(np.float64), metric="cosine")
    np.fill_diagonal(cosine, -np.inf)
    np.testing.assert_allclose(values, -np.sort(-cosine, axis=1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosine, indices.astype(int), axis=1), values, atol=1e-5)


def test_the_frame_is_what_nearest_says_of_each_token(model: Model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(neighbourhoods, "_QUERIES", 7)
    store = plm.capture(model, TEXTS, to=tmp_path / "store", layers=[1], keep=("h",), shard_documents=2, progress=False)
    found = store.neighbourhoods(k=4)
    frame = found.to_frame()
    assert len(frame) == len(store) == len(found)
    for row in (0, 11, len(store) - 1):
        one = store.nearest(row, k=4, layer=1)
        assert frame["hamming"][row].tolist() == one.by_code["hamming"].tolist()
        np.testing.assert_allclose(frame["cosine"][row], one.by_direction["cosine"], atol=2e-4)
        assert frame["tokens_by_code"][row].tolist() == [store.context(i)[1] for i in frame["by_code"][row]]
        shared = set(frame["by_code"][row]) & set(frame["by_direction"][row])
        assert frame["overlap"][row] == len(shared)
        topics = store.tokens["topic"].to_numpy()
        assert frame["topic_by_code"][row] == pytest.approx((topics[frame["by_code"][row]] == topics[row]).mean())
    parts = list(found.frames(rows=10))
    assert [len(part) for part in parts[:-1]] == [10] * (len(parts) - 1)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), frame)
    written = pd.read_parquet(found.to_parquet(tmp_path / "table.parquet"))
    assert written["by_code"][3].tolist() == frame["by_code"][3].tolist()
    page = found._repr_html_()
    assert "nearest by direction" in page
    assert "topic" in page


def test_without_activations_there_are_codes_only(model: Model) -> None:
    codes = plm.encode(model, TEXTS[:2], layers=[0, 1], keep=())
    found = codes.neighbourhoods(k=2, layer=1)
    assert found.by_direction is None
    assert "overlap" not in found.to_frame()
    with pytest.raises(PolytopeError, match="--keep h"):
        _ = found.overlap
    for k in (0, len(codes), True, "3"):
        with pytest.raises(PolytopeError, match="k = "):
            codes.neighbourhoods(k=k, layer=1)
    with pytest.raises(PolytopeError, match="several sites"):
        codes.neighbourhoods(k=2)
    with pytest.raises(PolytopeError, match="cannot be written"):
        found.to_parquet("/nowhere/at/all.parquet")
