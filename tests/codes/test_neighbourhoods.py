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
from polytope_lm.codes import nearest_by_cosine as searched
from polytope_lm.codes.nearest_by_cosine import nearest_by_cosine
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import tie_order

if TYPE_CHECKING:
    from pathlib import Path

    from polytope_lm.models.model import Model

TEXTS = [
    Document(f"d{i}", f"The {w} of the river was wide and number {i} ran by", {"topic": "ab"[i % 2]})
    for i, w in enumerate(["bank", "pond", "boat", "water", "money", "duck"])
]


def by_brute_force(h: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort all cosines, of single precision, stably: ties go in the drawn order."""
    centred = (h - h.mean(axis=0, dtype=np.float64).astype(np.float32)).astype(np.float64)
    cosine = (1 - pairwise_distances(centred, metric="cosine")).astype(np.float32)
    np.fill_diagonal(cosine, -np.inf)
    drawn = tie_order(len(h))
    order = drawn[np.argsort(-cosine[:, drawn], axis=1, kind="stable")[:, :k]]
    return order, np.take_along_axis(cosine, order, axis=1)


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 1000), st.integers(1, 9))
def test_directions_are_scikit_learns_in_blocks_of_any_size(rows: int, k: int, seed: int, size: int) -> None:
    k = min(k, rows - 1)
    h = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    blocks = [h[i : i + size] for i in range(0, rows, size)]
    indices, values = nearest_by_cosine(lambda: iter(blocks), k)
    order, cosine = by_brute_force(h, k)
    np.testing.assert_allclose(values, cosine, atol=1e-6)
    assert (indices == order).mean() > 0.98  # two cosines may round to one number here and to two there


@pytest.mark.parametrize("rank", [3, 12, 64])
def test_rows_in_few_directions_and_in_all_have_the_same_neighbours_as_by_brute_force(rank: int, monkeypatch) -> None:
    monkeypatch.setattr(searched, "_QUERIES", 300)
    monkeypatch.setattr(searched, "_BASE", 96)
    monkeypatch.setattr(searched, "_TILE", 40)
    rng = np.random.default_rng(rank)
    sizes = 0.8 ** np.arange(rank)  # some directions hold most of the length, the others the rest that bounds it
    h = ((rng.normal(size=(700, rank)) * sizes) @ rng.normal(size=(rank, 64)) + 3).astype(np.float32)
    indices, values = nearest_by_cosine(lambda: iter([h[:210], h[210:211], h[211:]]), 9)
    order, cosine = by_brute_force(h, 9)
    np.testing.assert_allclose(values, cosine, atol=1e-6)
    assert (indices == order).mean() > 0.995


@pytest.mark.parametrize("seed", [0, 3])
def test_equal_rows_are_neighbours_in_the_drawn_order(seed) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 7, size=600)
    h = rng.normal(size=(7, 48)).astype(np.float32)[kinds]
    indices, values = nearest_by_cosine(lambda: iter([h[:77], h[77:]]), 5, seed)
    drawn = tie_order(600, seed)
    for row, found in enumerate(indices):
        same = drawn[kinds[drawn] == kinds[row]]
        assert found.tolist() == same[same != row][:5].tolist()
    np.testing.assert_allclose(values, 1, atol=1e-6)


def test_a_row_that_is_the_mean_is_like_no_other() -> None:
    h = np.array([[1, 0], [-1, 0], [0, 0], [0, 2], [0, -2]], np.float32)
    indices, values = nearest_by_cosine(lambda: iter([h]), 3)
    assert indices[2].tolist() == [row for row in tie_order(5) if row != 2][:3]
    assert values[2].tolist() == [0, 0, 0]
    constant, zeros = nearest_by_cosine(lambda: iter([np.ones((6, 2), np.float32)]), 2)
    assert constant[3].tolist() == [row for row in tie_order(6) if row != 3][:2]
    assert not zeros.any()


def test_the_frame_is_what_nearest_says_of_each_token(model: Model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(searched, "_QUERIES", 7)
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
