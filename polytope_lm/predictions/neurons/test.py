"""Neurons beside polytopes: a neuron's top tokens, taken apart by the polytope cluster that they fall into.

The paper's picture (Black et al., "Interpreting Neural Networks through the Polytope Lens", 2022): a neuron
is on in several meanings, and the polytopes that its tokens lie in tell the meanings apart. For any model,
layer and label: the tokens on which a neuron (or the projection on a direction) is greatest, grouped by the
cluster of their codes, with the label's purity of the list and inside the groups.

Smaller groups are purer by themselves, so the purity inside stands beside that of random groups of the same
sizes out of the same list, and of groups permuted only among tokens of the same word: what is above the
second is not explained by clusters being lexical. Clusters of any other representation can be put in the
code's place (`by`), which is the comparison that a claim about polytopes needs. Shown, never a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.browsing import CONTEXT_CHARACTERS
from polytope_lm.predictions.clusters.sampling import check_label, choose, clusters_for, rows_of_table
from polytope_lm.predictions.neurons.result import COLUMNS, NeuronRanking, NeuronRegions, NeuronSettings, Region
from polytope_lm.representations import binary as code
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get
from polytope_lm.result import reproducible
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.clustering import k_medoids
from polytope_lm.statistics.nulls import against
from polytope_lm.statistics.purity import label_purity, purity_against_chance

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.clusters.result import ClustersResult

SPACES = ("u", "h", "post", "x")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user chose, apart from codes, layer and what is read: see `rank_neurons`."""

    label: str | None
    top: int
    clusters: ClustersResult | None
    by: str
    within: str | None = None
    k: int | None
    tokens: int
    draws: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse lists that can't be taken apart and a chance that nobody draws."""
        if self.top < 2:
            raise PolytopeError(f"top = {self.top} tokens can't be taken apart; give 2 or more, 100 is the default")
        if self.draws < 1:
            raise PolytopeError(f"draws = {self.draws} random groupings say nothing; give 1 or more, as 1000")
        if self.within not in {None, "token", "document"}:
            raise PolytopeError(f"within = {self.within!r}; choose None, 'token' or 'document'")

    def compared(self, codes: TokenCodes, layer: int) -> Compared:
        """Take the clusters of a result, or make them; keep the tokens that have the label."""
        label = self.label or (self.clusters.settings.label if self.clusters is not None else "upos")
        check_label(codes, label)
        if self.clusters is None:
            rows = choose(codes, label, tokens=self.tokens, seed=self.seed).rows
            arrays = LayerArrays(codes, layer, rows)
            made = get(self.by).rows(arrays, seed=derived(self.seed, Purpose.REPRESENTATION))
            k = clusters_for(len(arrays)) if self.k is None else self.k
            ids = k_medoids(pairwise(made, self.by), k, seed=derived(self.seed, Purpose.MEDOIDS))
        else:
            rows, ids = _taken(codes, self.clusters, layer, self.by)
        values = codes.tokens[label].iloc[rows]
        kept = values.notna().to_numpy()
        labels, names = pd.factorize(values[kept].astype(str), sort=True)
        if len(names) < 2:
            raise PolytopeError(
                f"label {label!r} has {len(names)} values among {int(kept.sum())} clustered tokens; purity needs "
                "two, choose another label"
            )
        arrays = LayerArrays(codes, layer, rows[kept])
        settings = NeuronSettings(
            layer=arrays.site.layer, site=arrays.site.key, label=label, top=self.top, by=self.by,
            clusters=len(np.unique(ids[kept])), draws=self.draws, seed=self.seed, compared=int(kept.sum()),
            premises=str(arrays.site.premises),
        )  # fmt: skip
        return Compared(settings, arrays, rows[kept], ids[kept], labels.astype(np.int64), tuple(names))


@dataclass(frozen=True)
class Compared:
    """Tokens that have a cluster and the label."""

    settings: NeuronSettings
    arrays: LayerArrays
    rows: Int[np.ndarray, " n"]
    clusters: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    names: tuple[str, ...]


def _taken(
    codes: TokenCodes, clusters: ClustersResult, layer: int, by: str
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return a result's rows and their clusters, checked to be of these codes."""
    if clusters.tokens is None:
        raise PolytopeError("this result was loaded without tokens.parquet; put the file back beside result.json")
    table, column = clusters.tokens, f"{codes.site(layer).key}/cluster/{by}"
    if column not in table.columns:
        there = [name for name in table.columns if "/cluster/" in name]
        raise PolytopeError(f"this result has no {column!r}; it has {', '.join(there)}")
    return rows_of_table(codes, table), table[column].to_numpy()


def neurons_read_at(codes: TokenCodes) -> str:
    """Return what neurons are read at: `post` where it was kept, else the pre-activations."""
    return "post" if "post" in codes.kept else "pre"


def read(
    codes: TokenCodes, arrays: LayerArrays, neuron: int | None, direction: Float[np.ndarray, " W"] | None, space: str
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
            f"a direction of shape {vector.shape}; {space!r} needs {activations.shape[1]} finite numbers, not all 0"
        )
    return f"direction in {space}", activations @ vector, np.arange(len(activations))


def top_of(values: Float[np.ndarray, " n"], active: Int[np.ndarray, " m"], top: int) -> Int[np.ndarray, " t"]:
    """Return the active tokens with the greatest values, greatest first, ties by the earlier token."""
    return active[np.argsort(-values[active], kind="stable")[:top]]


def ids_of(codes: TokenCodes, rows: Int[np.ndarray, " n"], column: str) -> Int[np.ndarray, " n"]:
    """Return ids, from 0, of the values of one column on some rows."""
    return pd.factorize(codes.tokens[column].iloc[rows])[0].astype(np.int64)


def shown(
    codes: TokenCodes, found: Compared, chosen: Int[np.ndarray, " t"], values: Float[np.ndarray, " n"], order: list[int]
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


LEAST = 10
"""Fewest top tokens that the ranking takes apart: of fewer, chance and clusters say nearly the same."""


@reproducible("plm.predictions.neuron")
def neuron(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    layer: int,
    neuron: int | None = None,
    *,
    direction: Float[np.ndarray, " W"] | None = None,
    space: str = "u",
    label: str | None = None,
    top: int = 100,
    clusters: ClustersResult | None = None,
    by: str = code.CODE,
    k: int | None = None,
    tokens: int = 6000,
    draws: int = 1000,
    seed: int = 0,
) -> NeuronRegions:
    """Group the tokens on which a neuron, or the projection on a direction, is greatest by their clusters.

    A neuron is read at `post` where that was kept, else at the pre-activation `h`, and only where it is above
    0. A direction `v` is read as `v . a` of the activation `a` that `space` names, whatever its sign.

    Args:
        codes: codes in memory or a store, with `h` or `post` kept (for a direction: what `space` names).
        layer: the block's index, from 0.
        neuron: the neuron's index, from 0; or give `direction`.
        direction: a vector as wide as `space`.
        space: `u` (the MLP's input), `h`, `post` or `x`.
        label: what purity is of; by default the label of `clusters`, or `upos`.
        top: most tokens to look at.
        clusters: a result whose clusters are used; by default k-medoids clusters are made here.
        by: the representation whose clusters are used; `code` is the claim, others are comparisons.
        k: clusters, where they are made here; by default 100, or n/60 below 6,000 tokens.
        tokens: cluster at most this many, where they are made here.
        draws: random groupings behind each chance value.
        seed: of every random choice.

    Raises:
        PolytopeError: neither or both of neuron and direction, one that does not fit, activations that were
            not kept, an absent label, a result of other codes, fewer than 2 tokens above 0.

    """
    asked = Choices(label=label, top=top, clusters=clusters, by=by, k=k, tokens=tokens, draws=draws, seed=seed)
    found = asked.compared(codes, layer)
    of, values, active = read(codes, found.arrays, neuron, direction, space)
    chosen = top_of(values, active, top)
    if len(chosen) < 2:
        raise PolytopeError(
            f"{of} of layer {layer} is above 0 on {len(chosen)} of {len(values)} tokens; at least 2 are "
            "needed, choose another neuron or add documents"
        )
    apart = _taken_apart(codes, found, chosen, values)
    return NeuronRegions(settings=found.settings, of=of, active=len(active), command="", **apart)


def _taken_apart(
    codes: TokenCodes, found: Compared, chosen: Int[np.ndarray, " t"], values: Float[np.ndarray, " n"]
) -> dict[str, Any]:
    """Return the scores of a list of tokens, and the list, region by region."""
    group, labels = found.clusters[chosen], found.labels[chosen]
    words = ids_of(codes, found.rows[chosen], "token_id")
    draws, seed = found.settings.draws, derived(found.settings.seed, Purpose.TOP_TOKENS)
    scores = label_purity(group, labels, draws=draws, seed=seed)
    same = label_purity(group, labels, within=words, draws=draws, seed=seed)
    regions = tuple(
        Region(
            cluster=each.group,
            size=each.size,
            activation=float(values[chosen][group == each.group].mean()),
            majority=found.names[each.majority],
            purity=each.purity,
            entropy=each.entropy,
        )
        for each in sorted(scores.groups, key=lambda each: (-each.size, each.group))
    )
    return {
        "whole_purity": scores.majority,
        "whole_entropy": scores.label_entropy,
        "purity": scores.purity,
        "entropy": scores.entropy,
        "same_words": same.purity,
        "regions": regions,
        "tokens": shown(codes, found, chosen, values, [region.cluster for region in regions]),
    }


@reproducible("plm.predictions.rank_neurons")
def rank_neurons(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    layer: int,
    *,
    label: str | None = None,
    top: int = 100,
    clusters: ClustersResult | None = None,
    by: str = code.CODE,
    within: str | None = "token",
    k: int | None = None,
    tokens: int = 6000,
    draws: int = 500,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NeuronRanking:
    """Rank a layer's neurons by how far clusters raise the purity of their top tokens beyond chance.

    Lead = purity inside the clusters - mean purity of random groups of the same sizes out of the same tokens.
    The greatest of thousands of leads is great by luck too: `fdr` is p corrected over all of them.

    Args:
        codes: as for `neuron`.
        layer: the block's index, from 0.
        label: what purity is of; by default the label of `clusters`, or `upos`.
        top: most tokens of each neuron to look at; those above 0.
        clusters: a result whose clusters are used; by default k-medoids clusters are made here.
        by: the representation whose clusters are used.
        within: random groups keep sizes alone (None), or are permuted only within `token` (the same word: a
            lead is not lexical) or `document`.
        k: clusters, where they are made here.
        tokens: cluster at most this many, where they are made here.
        draws: random groupings of each neuron.
        seed: of every random choice.
        progress: told `(done, total)` neurons.

    Raises:
        PolytopeError: as for `neuron`; no neuron above 0 on at least 10 tokens.

    """
    asked = Choices(
        label=label, top=top, clusters=clusters, by=by, within=within, k=k, tokens=tokens, draws=draws, seed=seed
    )
    found = asked.compared(codes, layer)
    table = _leads(codes, found, within, progress)
    return NeuronRanking(
        settings=found.settings,
        read="h" if (name := neurons_read_at(codes)) == "pre" else name,
        within=within,
        neurons=table,
        left_out=found.arrays.site.width - len(table),
        least=LEAST,
        command="",
    )


def _leads(
    codes: TokenCodes, found: Compared, within: str | None, progress: Callable[[int, int], None] | None
) -> pd.DataFrame:
    """Return one row a neuron, greatest lead first."""
    settings, values = found.settings, found.arrays.get(neurons_read_at(codes))
    column = "token_id" if within == "token" else "document"
    strata = np.zeros(len(values), np.int64) if within is None else ids_of(codes, found.rows, column)
    keys = np.random.default_rng(derived(settings.seed, Purpose.TOP_TOKENS)).random((settings.draws, settings.top))
    rows = []
    for index in range(values.shape[1]):
        chosen = top_of(values[:, index], np.flatnonzero(values[:, index] > 0), settings.top)
        if len(chosen) >= LEAST:
            group, labels = found.clusters[chosen], found.labels[chosen]
            inside, chance = purity_against_chance(group, labels, strata[chosen], keys[:, : len(chosen)])
            about = against(inside, chance, "higher")
            whole = float(np.bincount(labels).max() / len(chosen))
            numbers = (whole, inside, about.mean, inside - about.mean, about.z, about.p)
            rows.append((index, len(chosen), len(np.unique(group)), *numbers))
        if progress is not None:
            progress(index + 1, values.shape[1])
    if not rows:
        raise PolytopeError(
            f"no neuron of {settings.site} is above 0 on {LEAST} of {len(values)} tokens; add documents"
        )
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    table["fdr"] = false_discovery_control(table["p"].to_numpy())
    return table.sort_values(["lead", "neuron"], ascending=[False, True], ignore_index=True)
