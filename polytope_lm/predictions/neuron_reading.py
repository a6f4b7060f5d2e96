"""What neurons beside polytopes read: tokens with a cluster and a label, and an activation on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.partitions import k_medoids
from polytope_lm.predictions.browser import CONTEXT_CHARACTERS
from polytope_lm.predictions.chosen import rows_of_table
from polytope_lm.predictions.neuron_results import NeuronSettings
from polytope_lm.predictions.sampling import choose, clusters_for, label_names
from polytope_lm.predictions.seeds import MEDOIDS, REPRESENTATION, derived
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.results import ClustersResult

SPACES = ("u", "h", "post", "x")


@dataclass(frozen=True)
class Clusters:
    """Which clusters take lists apart.

    Attributes:
        result: a result that has them; None to make them by k-medoids.
        by: the representation that they are clusters of.
        k: how many to make; None for 100, or n/60 below 6,000 tokens.
        tokens: how many tokens to cluster at most.
        seed: of the tokens and the medoids.

    """

    result: ClustersResult | None
    by: str
    k: int | None
    tokens: int
    seed: int

    def __str__(self) -> str:
        if self.result is not None:
            return f"clusters=result, by={self.by!r}"
        return f"by={self.by!r}, k={self.k}, tokens={self.tokens}"


@dataclass(frozen=True)
class Compared:
    """Tokens that have a cluster and the label."""

    arrays: LayerArrays
    rows: Int[np.ndarray, " n"]
    clusters: Int[np.ndarray, " n"]
    label: str
    labels: Int[np.ndarray, " n"]
    names: tuple[str, ...]

    def settings(self, top: int, by: str, draws: int, seed: int) -> NeuronSettings:
        """Return every choice that moves a number."""
        site = self.arrays.site
        return NeuronSettings(
            layer=site.layer,
            site=site.key,
            label=self.label,
            top=top,
            by=by,
            clusters=len(np.unique(self.clusters)),
            draws=draws,
            seed=seed,
            compared=len(self.rows),
            premises=str(site.premises),
        )


def check_numbers(top: int, draws: int) -> None:
    """Refuse lists that can't be taken apart and a chance that nobody draws."""
    if top < 2:
        raise PolytopeError(f"top = {top} tokens can't be taken apart; give 2 or more, 100 is the default")
    if draws < 1:
        raise PolytopeError(f"draws = {draws} random groupings say nothing; give 1 or more, as 1000")


def compared(
    codes: TokenCodes,
    layer: int,
    label: str | None,
    clusters: Clusters,
) -> Compared:
    """Take the clusters of a result, or make them; keep the tokens that have the label."""
    label = label or (clusters.result.settings.label if clusters.result is not None else "upos")
    if label not in label_names(codes):
        there = ", ".join(repr(name) for name in label_names(codes)) or "none"
        raise PolytopeError(f"no label {label!r}; these codes have {there}")
    if clusters.result is None:
        rows = choose(codes, label, tokens=clusters.tokens, seed=clusters.seed).rows
        ids = _made(LayerArrays(codes, layer, rows), clusters)
    else:
        rows, ids = _taken(codes, clusters.result, layer, clusters.by)
    values = codes.tokens[label].iloc[rows]
    kept = values.notna().to_numpy()
    labels, names = pd.factorize(values[kept].astype(str), sort=True)
    if len(names) < 2:
        raise PolytopeError(
            f"label {label!r} has {len(names)} values among {int(kept.sum())} clustered tokens; purity needs "
            "two, choose another label"
        )
    arrays = LayerArrays(codes, layer, rows[kept])
    return Compared(arrays, rows[kept], ids[kept], label, labels.astype(np.int64), tuple(names))


def _made(arrays: LayerArrays, wanted: Clusters) -> Int[np.ndarray, " n"]:
    rows = get(wanted.by).rows(arrays, seed=derived(wanted.seed, REPRESENTATION))
    k = clusters_for(len(arrays)) if wanted.k is None else wanted.k
    return k_medoids(pairwise(rows, wanted.by), k, seed=derived(wanted.seed, MEDOIDS))


def _taken(
    codes: TokenCodes, clusters: ClustersResult, layer: int, by: str
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return a result's rows and their clusters, checked to be of these codes."""
    if clusters.tokens is None:
        raise PolytopeError(
            "this result was loaded without tokens.parquet; put the file back beside result.json"
        )
    table, column = clusters.tokens, f"{codes.site(layer).key}/cluster/{by}"
    if column not in table.columns:
        there = [name for name in table.columns if "/cluster/" in name]
        raise PolytopeError(f"this result has no {column!r}; it has {', '.join(there)}")
    return rows_of_table(codes, table), table[column].to_numpy()


def neurons_read_at(codes: TokenCodes) -> str:
    """Return what neurons are read at: `post` where it was kept, else the pre-activations."""
    return "post" if "post" in codes.kept else "pre"


def read(
    codes: TokenCodes,
    arrays: LayerArrays,
    neuron: int | None,
    direction: Float[np.ndarray, " W"] | None,
    space: str,
) -> tuple[str, Float[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Return what is read, its value on every token, and the tokens where it counts as active."""
    if (neuron is None) == (direction is None):
        given = "neither was given" if neuron is None else "both were given"
        raise PolytopeError(f"{given}; name a neuron, or give a direction and its space")
    if neuron is not None:
        if not 0 <= neuron < arrays.site.width:
            raise PolytopeError(
                f"neuron {neuron} is not in {arrays.site.key}, whose neurons are 0 to {arrays.site.width - 1}"
            )
        name = neurons_read_at(codes)
        values = arrays.get(name)[:, neuron]
        return f"neuron {neuron} of {'h' if name == 'pre' else name}", values, np.flatnonzero(values > 0)
    if space not in SPACES:
        raise PolytopeError(f"space = {space!r}; choose one of {', '.join(repr(each) for each in SPACES)}")
    activations = arrays.get("pre" if space == "h" else space)
    vector = np.asarray(direction, dtype=np.float64)
    if vector.shape != activations.shape[1:] or not np.isfinite(vector).all() or not vector.any():
        raise PolytopeError(
            f"a direction of shape {vector.shape}; {space!r} needs {activations.shape[1]} finite numbers, "
            "not all 0"
        )
    return f"direction in {space}", activations @ vector, np.arange(len(activations))


def top_of(values: Float[np.ndarray, " n"], active: Int[np.ndarray, " m"], top: int) -> Int[np.ndarray, " t"]:
    """Return the active tokens with the greatest values, greatest first, ties by the earlier token."""
    return active[np.argsort(-values[active], kind="stable")[:top]]


def ids_of(codes: TokenCodes, rows: Int[np.ndarray, " n"], column: str) -> Int[np.ndarray, " n"]:
    """Return ids, from 0, of the values of one column on some rows."""
    return pd.factorize(codes.tokens[column].iloc[rows])[0].astype(np.int64)


def shown(
    codes: TokenCodes,
    found: Compared,
    chosen: Int[np.ndarray, " t"],
    values: Float[np.ndarray, " n"],
    order: list[int],
) -> pd.DataFrame:
    """Return the list in context, regions in their order, greatest activation first."""
    place = {cluster: number for number, cluster in enumerate(order)}
    chosen = np.array(sorted(chosen, key=lambda i: (place[int(found.clusters[i])], -values[i], i)))
    contexts = [codes.context(int(row), CONTEXT_CHARACTERS) for row in found.rows[chosen]]
    return pd.DataFrame(
        {
            "cluster": found.clusters[chosen],
            "activation": values[chosen],
            "row": found.rows[chosen],
            "left": [context[0] for context in contexts],
            "token": [context[1] for context in contexts],
            "right": [context[2] for context in contexts],
            "label": [found.names[label] for label in found.labels[chosen]],
        }
    )
