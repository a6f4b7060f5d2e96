"""Every score of groups of tokens, side by side: is a cluster about anything, beyond its words.

AMI and strict neighbour agreement decide the verdict of `predictions.clusters`. What stands here is shown
beside it, never a verdict: label entropy and purity against random groups of the same sizes; what groups say
about the label among tokens of one identity; 1-NN accuracy; agreement of the model's next tokens; coherence
of contexts and intruders as an external encoder sees them; stability between thirds of the documents; and
whether the groups follow nothing but position.

What can run, runs. What can not (next tokens of an encoder, contexts without an encoder, a representation
whose activations were not kept) is listed with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.result import ClustersResult
from polytope_lm.predictions.clusters.sampling import affordable, choose, label_names, rows_of_table
from polytope_lm.predictions.groups import coherence, group_scoring
from polytope_lm.predictions.groups import result as names
from polytope_lm.predictions.groups.coherence import next_token_divergences
from polytope_lm.predictions.groups.group_scoring import Scored, Shared
from polytope_lm.predictions.groups.intruders import judge_name
from polytope_lm.predictions.groups.result import GroupScores, GroupSettings, Lead, RepresentationScores
from polytope_lm.progress import stepwise
from polytope_lm.representations import binary as code
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.directions import COSINES
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get
from polytope_lm.result import reproducible, versions
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.estimate import Resampled, half_samples
from polytope_lm.statistics.nulls import NOISE, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.groups.coherence import Embed

DEFAULT = (code.CODE, *COSINES)
SAMPLE = 6000
_INTERVALS = "intervals"

T = TypeVar("T")


@dataclass(frozen=True)
class _Readers:
    """Who reads the tokens again: the model for next tokens, an encoder for contexts; `tell` shows progress."""

    model: Model | None
    encoder: Model | Embed | str | None
    tell: Callable[[str], None]


@dataclass(frozen=True)
class _Made:
    """How groups were made: k (None: by the user), the seed, and what can't be scored for any of them."""

    k: int | None
    seed: int
    left_out: Mapping[str, str]


@reproducible("plm.predictions.groups")
@asked
def groups(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    result: ClustersResult | Mapping[str, Int[np.ndarray, " T"]],
    layer: int | None = None,
    *,
    representations: Sequence[str] | None = None,
    label: str | None = None,
    identity: str = "token_id",
    model: Model | None = None,
    encoder: Model | Embed | str | None = None,
    tokens: int = 1000,
    items: int = 100,
    draws: int = 200,
    resamples: int = 200,
    repeats: int = 5,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> GroupScores:
    """Score groups of tokens in every way that can be had.

    Args:
        codes: codes in memory or a store.
        result: what `predictions.clusters` found on these codes; or any groupings, a name to one group id a
            token of the codes (-1 for noise, which no score counts). A name that is a registered
            representation is scored by its distances as well.
        layer: the layer, where the result or the codes have several.
        representations: whose groups; by default the code and both cosines, or all groupings given.
        label: what groups are scored against; by default the result's own. Needed for other groupings.
        identity: what makes two tokens the same word: `token_id`, or a label such as `lemma`.
        model: the model that made the codes, where they do not have it at hand.
        encoder: who reads contexts; by default `minilm-l6`. Never the model under test.
        tokens: most tokens whose pairs are compared (next tokens, contexts), drawn by seed.
        items: most intruder items of each kind.
        draws: random groupings behind each z and p.
        resamples: halves of the documents behind each interval.
        repeats: cuts into thirds behind stability.
        seed: of every random choice.
        progress: told `(done, total, what)` before each step.

    Raises:
        PolytopeError: a result of other codes, no such label, layer or representation, fewer ids than tokens.

    """
    if not isinstance(result, ClustersResult) and not hasattr(result, "get"):
        raise PolytopeError(f"result = {brief(result)}; give what predictions.clusters found, or groupings")
    if isinstance(representations, str):
        representations = (representations,)
    label, layer = _asked(codes, result, layer, label)
    rows, clusterings = _clusterings(codes, result, layer, representations, label, seed)
    settings = GroupSettings(label, identity, tokens, items, draws, resamples, repeats, seed, "", coherence.RULE)
    tell = stepwise(progress, 2 + len(clusterings))
    shared, left_out = _shared(codes, rows, clusterings, settings, _Readers(model, encoder, tell))
    own = result.settings if isinstance(result, ClustersResult) else None
    made = _Made(None, seed, left_out) if own is None else _Made(own.k, own.seed, left_out)
    arrays, found = LayerArrays(codes, layer, rows), {}
    for name, ids in clusterings.items():
        tell(name)
        found[name] = _one(shared, arrays, name, ids, made)
    return _result(shared, arrays.site, found, left_out)


def _result(
    shared: Shared,
    site: Site,
    found: Mapping[str, tuple[RepresentationScores, dict[str, Scored]]],
    left_out: Mapping[str, str],
) -> GroupScores:
    return GroupScores(
        settings=shared.settings,
        site=site.key,
        tokens=len(shared.rows),
        documents=int(shared.documents.max()) + 1,
        representations=tuple(scores for scores, _ in found.values()),
        leads=_leads({name: scored for name, (_, scored) in found.items()}),
        left_out=left_out,
        provenance=dict(shared.codes.provenance),
        versions=versions("numpy", "scipy", "scikit-learn", "numba", "kmedoids", "torch", "transformers"),
        command="",
    )


def _asked(
    codes: TokenCodes, result: ClustersResult | Mapping[str, Any], layer: int | None, label: str | None
) -> tuple[str, int]:
    """Return the label and the layer, the result's own where none are named."""
    own = isinstance(result, ClustersResult)
    if label is None:
        if not isinstance(result, ClustersResult):
            raise PolytopeError("label=None: name the label that these groupings are scored against")
        label = result.settings.label
    layers = tuple(each.layer for each in result.layers) if isinstance(result, ClustersResult) else codes.layers
    if layer is None and len(layers) == 1:
        return label, layers[0]
    if layer not in layers:
        what = f"layer {layer} is not" if layer is not None else "which of several layers is not said; they are"
        there = ", ".join(str(each) for each in layers)
        raise PolytopeError(f"{what} in {'this result' if own else 'these codes'}: {there}; name one, layer=")
    return label, int(layer)


def _clusterings(
    codes: TokenCodes,
    result: ClustersResult | Mapping[str, Any],
    layer: int,
    representations: Sequence[str] | None,
    label: str,
    seed: int,
) -> tuple[Int[np.ndarray, " n"], dict[str, Int[np.ndarray, " n"]]]:
    """Return the sample's rows, and each grouping's ids for them."""
    if isinstance(result, ClustersResult):
        table, key = _table(codes, result), result.layer(layer).site.key
        wanted = DEFAULT if representations is None else tuple(representations)
        there = [each.name for each in result.layer(layer).representations]
        columns = {name: table.get(f"{key}/cluster/{name}") for name in wanted}
        missing = [name for name, column in columns.items() if column is None]
        if missing:
            raise PolytopeError(
                f"no clusters by {missing[0]!r} in layer {layer} of this result; there are "
                f"{', '.join(repr(name) for name in there)}"
            )
        found = {name: np.asarray(column, dtype=np.int64) for name, column in columns.items()}
        return table["row"].to_numpy().astype(np.int64), found
    wanted = tuple(result) if representations is None else tuple(representations)
    for name in wanted:
        ids = result.get(name)
        if ids is None or len(ids) != len(codes):
            has = "is not among these groupings" if ids is None else f"has {len(ids)} ids"
            raise PolytopeError(
                f"grouping {name!r} {has}; give one id for each of {len(codes)} tokens of the codes, -1 for noise"
            )
    rows = choose(codes, label, tokens=SAMPLE, seed=seed, per_document=None).rows
    for name in wanted:
        counted(np.asarray(result[name]))
    return rows, {name: np.asarray(result[name], dtype=np.int64)[rows] for name in wanted}


def _table(codes: TokenCodes, result: ClustersResult) -> pd.DataFrame:
    """Return the result's tokens, checked to be those of the codes."""
    if result.tokens is None:
        raise PolytopeError("this result was loaded without tokens.parquet; put the file back beside result.json")
    rows_of_table(codes, result.tokens)
    return result.tokens


def _shared(
    codes: TokenCodes,
    rows: Int[np.ndarray, " n"],
    clusterings: Mapping[str, Int[np.ndarray, " n"]],
    settings: GroupSettings,
    readers: _Readers,
) -> tuple[Shared, dict[str, str]]:
    """Prepare what all groupings share: labels, halves, next tokens and contexts; and what can not be had."""
    table = codes.tokens.iloc[rows]
    labels, token = _ids(codes, table, settings.label), _ids(codes, table, settings.identity)
    left_out: dict[str, str] = {}
    documents = pd.factorize(table["document"])[0].astype(np.int64)
    pairs = affordable(_grouped(clusterings), settings.pair_tokens, settings.seed)

    def contexts() -> tuple[Embed, Float[np.ndarray, "m m"]]:
        embed = coherence.encoder_of(codes, readers.encoder)
        return embed, coherence.context_similarity(codes, rows[pairs], embed)

    count, start = int(documents.max()) + 1, derived(settings.seed, Purpose.HALVES)
    halves = _tried(lambda: half_samples(count, settings.resamples, seed=start), (_INTERVALS,), left_out)
    readers.tell("next tokens")
    next_tokens = (names.NEXT_TOKEN,)
    divergences = _tried(lambda: next_token_divergences(codes, rows[pairs], readers.model), next_tokens, left_out)
    readers.tell("contexts")
    by_context = (names.COHERENCE, names.INTRUDER, names.INTRUDER_TOKEN)
    embed, similarity = _tried(contexts, by_context, left_out) or (None, None)
    return Shared(
        codes=codes, rows=rows, labels=labels, token=token, documents=documents,
        positions=table["position"].to_numpy().astype(np.int64),
        inside=None if halves is None else halves[:, documents],
        settings=replace(settings, encoder=judge_name(readers.encoder) if embed is not None else ""),
        pairs=pairs, divergences=divergences, similarity=similarity, embed=embed,
    ), left_out  # fmt: skip


def _tried(run: Callable[[], T], promised: Sequence[str], left_out: dict[str, str]) -> T | None:
    """Return what a step gives; None, and the reason beside all that it promised, where it can not."""
    try:
        return run()
    except PolytopeError as error:
        left_out |= dict.fromkeys(promised, str(error))
        return None


def _grouped(clusterings: Mapping[str, Int[np.ndarray, " n"]]) -> Int[np.ndarray, " n"]:
    """Return 0 for tokens that some grouping has in a group, and -1 for the others."""
    if not clusterings:
        raise PolytopeError("no grouping to score; name at least one representation")
    some = np.any([ids != NOISE for ids in clusterings.values()], axis=0)
    return np.where(some, 0, NOISE)


def _ids(codes: TokenCodes, table: pd.DataFrame, name: str) -> Int[np.ndarray, " n"]:
    if name != "token_id" and name not in label_names(codes):
        there = ", ".join(repr(each) for each in label_names(codes)) or "none"
        raise PolytopeError(f"no label {name!r}; these codes have {there}")
    ids = pd.factorize(table[name], sort=True)[0].astype(np.int64)
    if (ids < 0).any():
        raise PolytopeError(
            f"{int((ids < 0).sum())} of {len(ids)} tokens have no label {name!r}; choose one that all "
            "compared tokens have"
        )
    return ids


def _one(
    shared: Shared, arrays: LayerArrays, name: str, ids: Int[np.ndarray, " n"], made: _Made
) -> tuple[RepresentationScores, dict[str, Scored]]:
    """Score one grouping in every way that can be had; list the others with their reasons."""
    there = counted(ids)
    sizes = np.unique(ids[there], return_counts=True)[1]
    by_distance = (names.NEAREST, names.NEAREST_WITHIN, names.STABILITY, names.SAME_POSITION)
    left_out: dict[str, str] = {}
    distance = _tried(lambda: _distance(arrays, name, made.seed), by_distance, left_out)
    found: dict[str, Scored] = {}
    for promised, run in _steps(shared, ids, distance, made.k or len(sizes)):
        found |= {each.score.name: each for each in _tried(run, promised, left_out) or ()}
        absent = "nothing to compare: token identity decides it, or no two tokens share one"
        left_out |= {s: absent for s in promised if s not in found and s not in made.left_out and s not in left_out}
    scores = tuple(found[each].score for each in names.ORDER if each in found)
    largest, noise = int(sizes.max()), int((~there).sum())
    return RepresentationScores(name, len(sizes), largest, noise, scores, left_out), found


def _steps(
    shared: Shared, ids: Int[np.ndarray, " n"], distance: Float[np.ndarray, "n n"] | None, k: int
) -> list[tuple[tuple[str, ...], Callable[[], list[Scored]]]]:
    """Return the steps of scoring one grouping, and the scores that each promises."""
    scoring = group_scoring
    positions = (names.POSITION, names.POSITION_RATIO)
    steps: list[tuple[tuple[str, ...], Callable[[], list[Scored]]]] = [
        ((names.AMI, names.ENTROPY, names.PURITY, names.V_MEASURE), lambda: scoring.label_scores(shared, ids)),
        ((names.CONDITIONAL, names.INFORMATION, names.WITHIN), lambda: scoring.scores_within_token(shared, ids)),
        ((names.NEXT_TOKEN,), lambda: scoring.next_token_scores(shared, ids)),
        ((names.COHERENCE,), lambda: scoring.coherence_scores(shared, ids)),
        ((names.INTRUDER,), lambda: scoring.intruder_scores(shared, ids, names.INTRUDER)),
        ((names.INTRUDER_TOKEN,), lambda: scoring.intruder_scores(shared, ids, names.INTRUDER_TOKEN)),
        (positions, lambda: scoring.position_scores(shared, ids, distance)),
    ]
    if distance is not None:
        near = distance
        steps += [
            ((names.NEAREST, names.NEAREST_WITHIN), lambda: scoring.nearest_scores(shared, near)),
            ((names.STABILITY,), lambda: scoring.stability_scores(shared, near, k)),
        ]
    return steps


def _distance(arrays: LayerArrays, name: str, seed: int) -> Float[np.ndarray, "n n"]:
    """Return the distances that the representation's clusters were made by (a random one's first draw)."""
    return pairwise(get(name).rows(arrays, seed=derived(seed, Purpose.REPRESENTATION)), name)


def _leads(found: Mapping[str, Mapping[str, Scored]]) -> tuple[Lead, ...]:
    """Return how far each grouping is ahead of each cosine, on its own, in every score that has halves."""
    out = []
    for name, scores in found.items():
        for score, mine in scores.items():
            sign = -1 if mine.score.better == "lower" else 1
            # A difference of entropies given groups is one of mutual informations: H(label) cancels.
            mutual = score in (*group_scoring.INFORMATION, names.ENTROPY)
            for other in COSINES:
                theirs = found.get(other, {}).get(score)
                if name in COSINES or theirs is None or mine.halves is None or theirs.halves is None:
                    continue
                own, reference = (Resampled(sign * e.score.value, sign * np.asarray(e.halves)) for e in (mine, theirs))
                out.append(Lead(name, score, other, (own - reference).by_halves(second_order=mutual)))
    return tuple(out)
