"""Maps of the compared tokens, by code and by the better cosine, side by side: for looking, never a score."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.planar import planar
from polytope_lm.predictions.chosen import rows_of_table
from polytope_lm.predictions.names import AGREEMENT
from polytope_lm.predictions.seeds import MAP, derived
from polytope_lm.representations import code
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.results import ClustersResult


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
    if result.tokens is None:
        raise PolytopeError("this result has lost its table of tokens (tokens.parquet), so there is no map")
    wanted = [each.layer for each in result.layers] if layers is None else layers
    compared = [result.layer(each) for each in ([wanted] if isinstance(wanted, int) else wanted)]
    rows, seed = rows_of_table(codes, result.tokens), result.settings.seed
    columns: dict[str, object] = {}
    for number, layer in enumerate(compared):
        arrays = LayerArrays(codes, layer.layer, rows)
        names = {"code": code.NAME, "cosine": layer.best_cosine[AGREEMENT]}
        for side, (short, name) in enumerate(names.items()):
            if progress is not None:
                progress(2 * number + side, 2 * len(compared), f"layer {layer.layer}: map by {name}")
            distance = pairwise(get(name).rows(arrays, seed=seed), name)
            columns[f"{layer.site.key}/map/{short}"] = list(planar(distance, seed=derived(seed, MAP)))
    fresh = result.tokens.drop(columns=[name for name in columns if name in result.tokens])
    return replace(result, tokens=pd.concat([fresh, pd.DataFrame(columns)], axis=1))
