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

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.entropy import label_purity
from polytope_lm.inference.nulls import against
from polytope_lm.inference.splitting import purity_against_chance
from polytope_lm.predictions.neuron_reading import (
    Clusters,
    check_numbers,
    compared,
    ids_of,
    neurons_read_at,
    read,
    shown,
    top_of,
)
from polytope_lm.predictions.neuron_results import NeuronRanking, NeuronRegions, Region
from polytope_lm.predictions.seeds import derived
from polytope_lm.representations import code

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.neuron_reading import Compared
    from polytope_lm.predictions.neuron_results import NeuronSettings
    from polytope_lm.predictions.results import ClustersResult

LEAST = 10
"""Fewest top tokens that the ranking takes apart: of fewer, chance and clusters say nearly the same."""
_SPLITS = 110  # what a seed is for: random groups of top tokens


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
    by: str = code.NAME,
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
    check_numbers(top, draws)
    wanted = Clusters(clusters, by, k, tokens, seed)
    found = compared(codes, layer, label, wanted)
    of, values, active = read(codes, found.arrays, neuron, direction, space)
    chosen = top_of(values, active, top)
    if len(chosen) < 2:
        msg = (
            f"{of} of layer {layer} is above 0 on {len(chosen)} of {len(values)} tokens; at least 2 are "
            "needed, choose another neuron or add documents"
        )
        raise PolytopeError(msg)
    what = f"neuron={neuron}" if direction is None else f"direction=direction, space={space!r}"
    settings = found.settings(top, by, draws, seed)
    apart = _taken_apart(codes, found, chosen, values, settings)
    command = _command("neuron", settings, f"{what}, {wanted}")
    return NeuronRegions(settings=settings, of=of, active=len(active), command=command, **apart)


def _taken_apart(
    codes: TokenCodes,
    found: Compared,
    chosen: Int[np.ndarray, " t"],
    values: Float[np.ndarray, " n"],
    settings: NeuronSettings,
) -> dict[str, Any]:
    """Return the scores of a list of tokens, and the list, region by region."""
    group, labels = found.clusters[chosen], found.labels[chosen]
    words = ids_of(codes, found.rows[chosen], "token_id")
    seed = derived(settings.seed, _SPLITS)
    scores = label_purity(group, labels, draws=settings.draws, seed=seed)
    same = label_purity(group, labels, within=words, draws=settings.draws, seed=seed)
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


def rank_neurons(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    layer: int,
    *,
    label: str | None = None,
    top: int = 100,
    clusters: ClustersResult | None = None,
    by: str = code.NAME,
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
    check_numbers(top, draws)
    if within not in {None, "token", "document"}:
        raise PolytopeError(f"within = {within!r}; choose None, 'token' or 'document'")
    wanted = Clusters(clusters, by, k, tokens, seed)
    found = compared(codes, layer, label, wanted)
    name = neurons_read_at(codes)
    settings = found.settings(top, by, draws, seed)
    table = _leads(codes, found, found.arrays.get(name), settings, within, progress)
    return NeuronRanking(
        settings=settings,
        read="h" if name == "pre" else name,
        within=within,
        neurons=table,
        left_out=found.arrays.site.width - len(table),
        least=LEAST,
        command=_command("rank_neurons", settings, f"within={within!r}, {wanted}"),
    )


def _leads(
    codes: TokenCodes,
    found: Compared,
    values: Float[np.ndarray, "n N"],
    settings: NeuronSettings,
    within: str | None,
    progress: Callable[[int, int], None] | None,
) -> pd.DataFrame:
    """Return one row a neuron, greatest lead first."""
    column = "token_id" if within == "token" else "document"
    strata = np.zeros(len(values), np.int64) if within is None else ids_of(codes, found.rows, column)
    keys = np.random.default_rng(derived(settings.seed, _SPLITS)).random((settings.draws, settings.top))
    rows = []
    for index in range(values.shape[1]):
        chosen = top_of(values[:, index], np.flatnonzero(values[:, index] > 0), settings.top)
        if len(chosen) >= LEAST:
            rows.append({"neuron": index, **_lead(found, chosen, strata, keys)})
        if progress is not None:
            progress(index + 1, values.shape[1])
    if not rows:
        msg = f"no neuron of {settings.site} is above 0 on {LEAST} of {len(values)} tokens; add documents"
        raise PolytopeError(msg)
    table = pd.DataFrame(rows)
    table["fdr"] = false_discovery_control(table["p"].to_numpy())
    return table.sort_values(["lead", "neuron"], ascending=[False, True], ignore_index=True)


def _lead(
    found: Compared,
    chosen: Int[np.ndarray, " t"],
    strata: Int[np.ndarray, " n"],
    keys: Float[np.ndarray, "draws top"],
) -> dict[str, Any]:
    group, labels = found.clusters[chosen], found.labels[chosen]
    inside, chance = purity_against_chance(group, labels, strata[chosen], keys[:, : len(chosen)])
    about = against(inside, chance, "higher")
    return {
        "tokens": len(chosen),
        "regions": len(np.unique(group)),
        "purity": float(np.bincount(labels).max() / len(chosen)),
        "inside": inside,
        "by chance": about.mean,
        "lead": inside - about.mean,
        "z": about.z,
        "p": about.p,
    }


def _command(function: str, settings: NeuronSettings, what: str) -> str:
    return (
        f"plm.predictions.{function}(codes, {settings.layer}, {what}, label={settings.label!r}, "
        f"top={settings.top}, draws={settings.draws}, seed={settings.seed})"
    )
