"""The page's data says what the result says."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polytope_lm.report import browser

if TYPE_CHECKING:
    from collections.abc import Callable

    from polytope_lm.predictions.clusters.result import ClustersResult


def unpack(packed: dict[str, Any]) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(packed["data"]), dtype="<" + packed["type"])
    return data.reshape(packed["shape"])


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=2), elements=st.integers(-(2**31), 2**31 - 1)))
def test_packed_whole_numbers_come_back(array: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack(browser.pack(array)), array)


@pytest.mark.parametrize(("top", "kind"), [(127, "i1"), (128, "i2"), (32_767, "i2"), (32_768, "i4")])
def test_whole_numbers_take_the_narrowest_kind(top: int, kind: str) -> None:
    assert browser.pack(np.array([-1, top]))["type"] == kind


def test_columns_are_those_of_the_table(clusters_result: Callable[..., ClustersResult]) -> None:
    result = clusters_result((0, 4), tokens=120)
    table = result.tokens
    data = browser.tokens_data(result)
    assert table is not None
    assert data is not None
    names = np.array(data["label_values"])
    assert names[unpack(data["label"])].tolist() == list(table["upos"])
    assert data["token"][0] == "<script>window.hurt = 1</script>"
    assert data["token"][3] == r"a\u0000b"
    for layer, packed in zip(result.layers, browser.layers_data(result), strict=True):
        key = layer.site.key
        for one in packed["clusterings"]:
            np.testing.assert_array_equal(unpack(one["cluster"]), table[f"{key}/cluster/{one['name']}"])
        assert packed["clusterings"][packed["direction"]]["name"] == layer.best_cosine["AMI"]
        for side in packed["neighbours"]:
            found = np.stack(list(table[f"{key}/neighbours/{side['key']}"]))
            np.testing.assert_array_equal(unpack(side["index"]), found)
            distance = np.stack(list(table[f"{key}/distances/{side['key']}"]))
            shown = 1 - distance if side["key"] == "cosine" else distance
            np.testing.assert_allclose(unpack(side["shown"]) * side["unit"], shown, atol=side["unit"] / 2)


def test_short_lists_of_neighbours_are_filled_up(clusters_result: Callable[..., ClustersResult]) -> None:
    result = clusters_result((0,), tokens=60)
    table = result.tokens
    assert table is not None
    key = result.layers[0].site.key
    table.at[5, f"{key}/neighbours/code"] = np.array([7, 8])
    rows = browser.neighbour_table(table, f"{key}/neighbours/code", -1)
    assert rows.shape == (60, 10)
    assert rows[5].tolist() == [7, 8] + [-1] * 8


def test_missing_labels_and_contexts_are_words(clusters_result: Callable[..., ClustersResult]) -> None:
    result = clusters_result((0,), tokens=60)
    assert result.tokens is not None
    result.tokens.loc[20, ["upos", "left"]] = None
    data = browser.tokens_data(result)
    assert data is not None
    assert data["label_values"][unpack(data["label"])[20]] == "none"
    assert data["left"][20] == ""


def test_the_example_has_the_median_overlap(clusters_result: Callable[..., ClustersResult]) -> None:
    result = clusters_result((0,), tokens=300)
    shared = browser.shared_neighbours(result, result.layers[0])
    row = browser.typical_token(result)
    assert shared is not None
    assert result.tokens is not None
    assert shared[row] == int(np.median(shared))
    assert result.tokens["token"][row].isalpha()
