"""The compared tokens in context, with their clusters and neighbours, to browse beside the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from polytope_lm.predictions.names import AGREEMENT
from polytope_lm.predictions.sampling import label_names
from polytope_lm.representations import code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.results import LayerComparison
    from polytope_lm.predictions.sampling import Sample
    from polytope_lm.predictions.scoring import Measured

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


def add_layer(
    table: pd.DataFrame, comparison: LayerComparison, measured: Mapping[str, Measured]
) -> pd.DataFrame:
    """Return the table with one layer's cluster ids, and neighbours by code and by cosine."""
    key = comparison.site.key
    columns: dict[str, object] = {f"{key}/cluster/{name}": each.clusters for name, each in measured.items()}
    best = comparison.best_cosine[AGREEMENT]
    for short, name in (("code", code.NAME), ("cosine", best)):
        found = [row >= 0 for row in measured[name].neighbours]
        near = zip(measured[name].neighbours, measured[name].distances, found, strict=True)
        pairs = [(indices[keep], away[keep]) for indices, away, keep in near]
        columns[f"{key}/neighbours/{short}"] = [pair[0] for pair in pairs]
        columns[f"{key}/distances/{short}"] = [pair[1] for pair in pairs]
    return pd.concat([table, pd.DataFrame(columns)], axis=1)
