"""The compared tokens as data for the page: columns, and arrays as base64, so that 6,000 tokens open at once.

Everything here ends in one `<script type="application/json">`; the page's scripts only set `textContent`.
"""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.errors import visible
from polytope_lm.predictions.clusters.result import AMI

if TYPE_CHECKING:
    from polytope_lm.predictions.clusters.result import ClustersResult, LayerComparison

CONTEXT = 48
"""Characters of context kept on each side of a token."""

SIDES = {"code": ("by code", "Hamming distance", 1.0, 0), "cosine": ("by direction", "cosine similarity", 1e-4, 3)}
"""Both neighbourhoods of the search: name, measure, its unit on the page, digits shown."""


def pack(array: np.ndarray) -> dict[str, Any]:
    """Return an array `[n]` or `[n, k]` as base64 of its little-endian bytes.

    `unpack` in `static/core.js` reads it. Whole numbers take the narrowest of `i1`, `i2`, `i4` that holds
    them all, others become `f4`.
    """
    kind = "f4"
    if array.dtype.kind in "iub":
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        kind = next(k for k in ("i1", "i2", "i4") if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    data = np.ascontiguousarray(array, dtype=np.dtype(f"<{kind}"))
    return {"type": kind, "shape": list(data.shape), "data": base64.b64encode(data.tobytes()).decode("ascii")}


def tokens_data(result: ClustersResult) -> dict[str, Any] | None:
    """Return the compared tokens in context with their label, as columns; None where the table is gone."""
    table = result.tokens
    if table is None or not len(table):
        return None
    labels, names = _labels(table, result), label_names(result)
    place = {name: index for index, name in enumerate(names)}
    return {
        "left": [visible(text[-CONTEXT:]) for text in _texts(table["left"])],
        "token": [visible(text) for text in _texts(table["token"])],
        "right": [visible(text[:CONTEXT]) for text in _texts(table["right"])],
        "label_name": visible(result.settings.label),
        "label_values": [visible(name) for name in names],
        "label": pack(np.array([place[name] for name in labels])),
        "example": typical_token(result),
    }


def _texts(column: pd.Series[Any], missing: str = "") -> list[str]:
    """Return a column as plain strings; pandas' own way fails where a lone surrogate fits no Arrow string."""
    return [missing if gone else str(text) for text, gone in zip(column, pd.isna(column), strict=True)]


def _labels(table: pd.DataFrame, result: ClustersResult) -> list[str]:
    return _texts(table[result.settings.label], missing="none")


def label_names(result: ClustersResult) -> list[str]:
    """Return the label's values among the compared tokens, most frequent first, ties by name."""
    if result.tokens is None:
        return []
    counts = Counter(_labels(result.tokens, result))
    return sorted(counts, key=lambda name: (-counts[name], name))


def layers_data(result: ClustersResult) -> list[dict[str, Any]]:
    """Return, for each layer, every clustering and the neighbours by code and by direction."""
    table = result.tokens
    if table is None or not len(table):
        return []
    return [_layer_data(table, layer) for layer in result.layers]


def _layer_data(table: pd.DataFrame, layer: LayerComparison) -> dict[str, Any]:
    key = layer.site.key
    present = [one.name for one in layer.representations if f"{key}/cluster/{one.name}" in table]
    clusterings = [
        {"name": visible(name), "cluster": pack(table[f"{key}/cluster/{name}"].to_numpy())} for name in present
    ]
    best = layer.best_cosine[AMI]
    return {
        "layer": layer.layer,
        "clusterings": clusterings,
        "direction": present.index(best) if best in present else 0,
        "neighbours": [_side_data(table, key, side) for side in SIDES if f"{key}/neighbours/{side}" in table],
        "maps": [_map_data(table, key, side) for side in SIDES if f"{key}/map/{side}" in table],
    }


def mapped(result: ClustersResult | None) -> list[int]:
    """Return the places, in the result's order, of the layers whose tokens have maps."""
    if result is None or result.tokens is None:
        return []
    there = result.tokens.columns
    keys = [layer.site.key for layer in result.layers]
    return [place for place, key in enumerate(keys) if all(f"{key}/map/{side}" in there for side in SIDES)]


def _map_data(table: pd.DataFrame, key: str, side: str) -> dict[str, Any]:
    """Return every token's place on one side's map, in thousandths of half the map's width."""
    places = neighbour_table(table, f"{key}/map/{side}", 0.0)
    return {"key": side, "name": SIDES[side][0], "places": pack(np.rint(1000 * places).astype(np.int64))}


def _side_data(table: pd.DataFrame, key: str, side: str) -> dict[str, Any]:
    """Return the neighbours on one side, nearest first.

    The table has distances, `1 - cosine` for directions; the page shows the cosine. Numbers are whole
    multiples of `unit`, half as large as floats.
    """
    name, measure, unit, digits = SIDES[side]
    distance = neighbour_table(table, f"{key}/distances/{side}", 0.0)
    shown = np.rint((1 - distance if side == "cosine" else distance) / unit)
    return {
        "key": side,
        "name": name,
        "measure": measure,
        "unit": unit,
        "digits": digits,
        "index": pack(neighbour_table(table, f"{key}/neighbours/{side}", -1).astype(np.int64)),
        "shown": pack(shown.astype(np.int64)),
    }


def neighbour_table(table: pd.DataFrame, column: str, missing: float) -> np.ndarray:
    """Return a column of lists as an array `[T, k]`, short lists filled up with `missing`."""
    rows = [np.asarray(row, dtype=np.float64) for row in table[column]]
    filled = np.full((len(rows), max((len(row) for row in rows), default=0)), missing)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = row
    return filled


def shared_neighbours(result: ClustersResult, layer: LayerComparison) -> np.ndarray | None:
    """Return for each token how many of its neighbours by code are also neighbours by cosine, `[T]`."""
    table, key = result.tokens, layer.site.key
    if table is None or f"{key}/neighbours/cosine" not in table or not len(table):
        return None
    pairs = zip(table[f"{key}/neighbours/code"], table[f"{key}/neighbours/cosine"], strict=True)
    return np.array([len(np.intersect1d(np.asarray(code), np.asarray(cosine))) for code, cosine in pairs])


def typical_token(result: ClustersResult) -> int:
    """Return the row that the page opens with, by the rule that `overview.html.j2` states.

    The first plain word whose two lists of neighbours in the first layer share as many tokens as the median
    token's do: an example that nobody chose because it looks good.
    """
    shared = shared_neighbours(result, result.layers[0])
    if shared is None or result.tokens is None:
        return 0
    words = [text.strip() for text in _texts(result.tokens["token"])]
    plain = np.array([word.isalpha() and word.islower() and len(word) >= 4 for word in words])
    typical = np.flatnonzero(plain & (shared == int(np.median(shared))))
    return int(typical[0]) if len(typical) else 0
