"""For looking, never a score: the compared tokens in context, their neighbours, and maps of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.result import AGREEMENT
from polytope_lm.predictions.clusters.sampling import label_names, rows_of_table
from polytope_lm.representations import binary as code
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.planar import planar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.clusters.result import ClustersResult, LayerComparison
    from polytope_lm.predictions.clusters.sampling import Sample
    from polytope_lm.predictions.clusters.scoring import Measured

CONTEXT_CHARACTERS = 40


def tokens_table(codes: TokenCodes, sample: Sample) -> pd.DataFrame:
    """Return one row a compared token: where it is, its context, its labels."""
    chosen = codes.tokens.iloc[sample.rows]
    contexts = [codes.context(int(row), CONTEXT_CHARACTERS) for row in sample.rows]
    ids = codes.ids
    left, token, right = zip(*contexts, strict=True)
    columns = {
        "row": sample.rows,
        "document": [str(ids[int(index)]) for index in chosen["document"]],
        "position": chosen["position"].to_numpy(),
        "left": left,
        "token": token,
        "right": right,
    }
    labels = {name: chosen[name].to_numpy() for name in label_names(codes)}
    return pd.DataFrame({**columns, **labels})


def add_layer(table: pd.DataFrame, comparison: LayerComparison, measured: Mapping[str, Measured]) -> pd.DataFrame:
    """Return the table with one layer's cluster ids, and neighbours by code and by cosine."""
    key = comparison.site.key
    columns: dict[str, object] = {f"{key}/cluster/{name}": each.clusters for name, each in measured.items()}
    best = comparison.best_cosine[AGREEMENT]
    for short, name in (("code", code.CODE), ("cosine", best)):
        near, away = measured[name].neighbours, measured[name].distances
        columns[f"{key}/neighbours/{short}"] = [row[row >= 0] for row in near]
        columns[f"{key}/distances/{short}"] = [far[row >= 0] for row, far in zip(near, away, strict=True)]
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


@asked
def with_maps(
    codes: TokenCodes,
    result: ClustersResult,
    layers: int | Sequence[int] | None = None,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> ClustersResult:
    """Return a result whose tokens have places on a map: columns `S/map/code`, `S/map/cosine` of its table.

    Both maps start from the same places and the same landmarks (see `inference.planar`), so that what differs
    between them is the distances. Some seconds a layer.

    Args:
        codes: those that were compared.
        result: what `clusters` found, with its table of tokens.
        layers: of which layers; by default all of the result.
        progress: told `(done, total, what)` before each map.

    Raises:
        PolytopeError: a result of other codes, or without its table of tokens, a layer that was not compared,
            or fewer than 4 tokens.

    """
    if not hasattr(result, "layers"):
        raise PolytopeError(f"result = {brief(result)} has no map; give what predictions.clusters found")
    if result.tokens is None:
        raise PolytopeError("this result has lost its table of tokens (tokens.parquet), so there is no map")
    wanted = [each.layer for each in result.layers] if layers is None or isinstance(layers, str) else layers
    compared = [result.layer(each) for each in ([wanted] if isinstance(wanted, int) else wanted)]
    rows, seed = rows_of_table(codes, result.tokens), result.settings.seed
    columns: dict[str, object] = {}
    for number, layer in enumerate(compared):
        arrays = LayerArrays(codes, layer.layer, rows)
        names = {"code": code.CODE, "cosine": layer.best_cosine[AGREEMENT]}
        for side, (short, name) in enumerate(names.items()):
            if progress is not None:
                progress(2 * number + side, 2 * len(compared), f"layer {layer.layer}: map by {name}")
            distance = pairwise(get(name).rows(arrays, seed=seed), name)
            columns[f"{layer.site.key}/map/{short}"] = list(planar(distance, seed=derived(seed, Purpose.MAP)))
    fresh = result.tokens.drop(columns=[name for name in columns if name in result.tokens])
    return replace(result, tokens=pd.concat([fresh, pd.DataFrame(columns)], axis=1))
