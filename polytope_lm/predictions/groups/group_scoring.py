"""The scores of one grouping, each with its null, its n, and itself on half-samples of the documents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.groups import result as names
from polytope_lm.predictions.groups.intruders import intruder_items, judge_name, judged_by_encoder, score_answers
from polytope_lm.predictions.groups.result import GroupScore
from polytope_lm.predictions.groups.stability import position_check, stability
from polytope_lm.seeds import Purpose, derived, tie_order
from polytope_lm.statistics.agreement import conditional_information, resampled_ami, resampled_conditional
from polytope_lm.statistics.estimate import Estimate, Resampled
from polytope_lm.statistics.neighbours import nearest_label, strict_neighbours
from polytope_lm.statistics.purity import label_purity, resampled_purity
from polytope_lm.statistics.similarity import inside_groups, resampled_pairs

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.groups.coherence import Embed
    from polytope_lm.predictions.groups.intruders import Match
    from polytope_lm.predictions.groups.result import GroupSettings
    from polytope_lm.statistics.nulls import Better
    from polytope_lm.statistics.similarity import PairScore

NEIGHBOURS = 10
INFORMATION = (names.AMI, names.CONDITIONAL)
"""Mutual informations, adjusted: their halves are read as such (see `statistics.estimate`)."""


@dataclass(frozen=True, eq=False)
class Shared:
    """What all groupings of one run share."""

    codes: TokenCodes
    rows: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    token: Int[np.ndarray, " n"]
    documents: Int[np.ndarray, " n"]
    positions: Int[np.ndarray, " n"]
    inside: Bool[np.ndarray, "draws n"] | None
    settings: GroupSettings
    pairs: Int[np.ndarray, " m"]
    divergences: Float[np.ndarray, "m m"] | None = None
    similarity: Float[np.ndarray, "m m"] | None = None
    embed: Embed | None = None

    @property
    def order(self) -> Int[np.ndarray, " n"]:
        """The random order of tokens that breaks ties in distance."""
        return tie_order(len(self.rows), self.settings.seed)

    @property
    def seed(self) -> int:
        """The seed of random groupings."""
        return derived(self.settings.seed, Purpose.NULLS)


@dataclass(frozen=True, eq=False)
class Scored:
    """A score and itself on each half; None where it has none."""

    score: GroupScore
    halves: Float[np.ndarray, " draws"] | None = None


def interval(score: GroupScore, halves: Float[np.ndarray, " draws"] | None) -> tuple[Estimate | None, str]:
    """Return the interval from halves; where a half has no score, none and why."""
    if halves is None:
        return None, ""
    try:
        return Resampled(score.value, halves).by_halves(second_order=score.name in INFORMATION), ""
    except PolytopeError as error:
        return None, f"no interval: {error}"


def label_scores(shared: Shared, groups: Int[np.ndarray, " n"]) -> list[Scored]:
    """Score entropy, purity, AMI and V-measure against the label."""
    draws = shared.settings.draws
    found = label_purity(groups, shared.labels, draws=draws, seed=shared.seed)
    there = groups >= 0
    whole = np.ones((1, int(there.sum())), dtype=bool)
    ami = float(resampled_ami(shared.labels[there], groups[there], whole)[0])
    pure = chance = None
    if shared.inside is not None:
        chance = resampled_ami(shared.labels[there], groups[there], shared.inside[:, there])
        pure = resampled_purity(groups, shared.labels, shared.inside)
    base = f"all tokens as one group: {found.label_entropy:.3f} bits"
    most = f"most frequent label: {found.majority:.3f}"
    measure = f"not adjusted for chance; homogeneity {found.homogeneity:.3f}, "
    measure += f"completeness {found.completeness:.3f}"
    n, noise = found.tokens, found.noise
    return [
        _scored(GroupScore(names.AMI, ami, "higher", "", n, noise), chance),
        _scored(
            GroupScore(names.ENTROPY, found.entropy.value, "lower", "bits", n, noise, None, found.entropy, None, base),
            None if pure is None else pure[:, 0],
        ),
        _scored(
            GroupScore(names.PURITY, found.purity.value, "higher", "share", n, noise, None, found.purity, None, most),
            None if pure is None else pure[:, 1],
        ),
        Scored(GroupScore(names.V_MEASURE, found.v_measure, "higher", "", n, noise, note=measure)),
    ]


def scores_within_token(shared: Shared, groups: Int[np.ndarray, " n"]) -> list[Scored]:
    """Score what groups say about the label beyond the token's identity."""
    found = conditional_information(
        groups, shared.labels, shared.token, apart=shared.documents, draws=shared.settings.draws, seed=shared.seed
    )
    n, noise = found.tokens, found.noise
    open_label = f"{found.movable} of {n} tokens have an identity with several groups and labels; "
    open_label += f"identity alone leaves {found.label_entropy:.3f} bits of the label open"
    out = []
    if found.adjusted is not None:
        halves = (
            None if shared.inside is None else resampled_conditional(groups, shared.labels, shared.token, shared.inside)
        )
        score = GroupScore(names.CONDITIONAL, found.adjusted, "higher", "", n, noise, note=open_label)
        out.append(_scored(score, halves))
    bits = found.information
    out.append(Scored(GroupScore(names.INFORMATION, bits.value, "higher", "bits", n, noise, matched=bits)))
    if found.agreement is not None:
        pairs, note = found.agreement, "pairs of one identity in one group and of two documents"
        out.append(Scored(GroupScore(names.WITHIN, pairs.value, "higher", "share", n, noise, matched=pairs, note=note)))
    return out


def nearest_scores(shared: Shared, distance: Float[np.ndarray, "n n"]) -> list[Scored]:
    """Score 1-NN accuracy among other documents: of all tokens, and of the same identity."""
    out = []
    for name, within in ((names.NEAREST, None), (names.NEAREST_WITHIN, shared.token)):
        blocked = shared.documents[:, None].astype(np.int32)
        found = nearest_label(distance, shared.labels, excluded=blocked, within=within, order=shared.order)
        if found.accuracy is None or found.majority is None:
            continue
        halves = None
        if shared.inside is not None:
            # A mean over tokens: the neighbours stay, documents come and go.
            kept = (shared.inside & found.found).sum(axis=1)
            right = (shared.inside & found.correct).sum(axis=1)
            halves = np.where(kept > 0, right / np.maximum(kept, 1), np.nan)
        note = f"most frequent label of the others: {found.majority:.3f}; neighbours of other documents"
        score = GroupScore(name, found.accuracy, "higher", "share", found.tokens, found.without, note=note)
        out.append(_scored(score, halves))
    return out


def next_token_scores(shared: Shared, groups: Int[np.ndarray, " n"]) -> list[Scored]:
    """Score the divergence of next tokens inside groups."""
    return _pair_scores(shared, groups, names.NEXT_TOKEN, shared.divergences, ("lower", "bits"))


def coherence_scores(shared: Shared, groups: Int[np.ndarray, " n"]) -> list[Scored]:
    """Score the similarity of contexts inside groups."""
    return _pair_scores(shared, groups, names.COHERENCE, shared.similarity, ("higher", "cosine"))


def _pair_scores(
    shared: Shared,
    groups: Int[np.ndarray, " n"],
    name: str,
    similarity: Float[np.ndarray, "m m"] | None,
    kind: tuple[Better, str],
) -> list[Scored]:
    if similarity is None:
        return []
    at = shared.pairs
    ids, documents = groups[at], shared.documents[at]
    found: PairScore = inside_groups(
        similarity, ids, better=kind[0], apart=documents, token=shared.token[at], draws=shared.settings.draws,
        seed=shared.seed,
    )  # fmt: skip
    inside = None if shared.inside is None else shared.inside[:, at]
    halves = None if inside is None else resampled_pairs(similarity, ids, inside, documents)
    note = f"pairs of two documents among {len(at)} tokens; {found.movable} of an identity in several groups"
    score = GroupScore(
        name, found.value, *kind, found.tokens, len(groups) - found.tokens, None, found.random, found.matched, note
    )
    return [_scored(score, halves)]


def intruder_scores(shared: Shared, groups: Int[np.ndarray, " n"], name: str) -> list[Scored]:
    """Have the encoder find outsiders, matched by frequency or by token."""
    if shared.embed is None:
        return []
    match: Match = "token" if name == names.INTRUDER_TOKEN else "frequency"
    options = shared.settings
    items = intruder_items(shared.codes, groups, rows=shared.rows, items=options.items, match=match, seed=options.seed)
    answers = judged_by_encoder(shared.codes, items, shared.embed)
    found = score_answers(items.key, answers, judge_name(options.encoder))
    sd = float(np.sqrt(found.accuracy * (1 - found.accuracy) / found.answered))
    spread = Estimate(found.accuracy, sd, found.low, found.high)
    note = f"chance 0.2, p = {found.p:.2g}; {items.groups} groups gave items, {items.unfit} could not; n: items"
    return [Scored(GroupScore(name, found.accuracy, "higher", "share", found.answered, 0, spread, note=note))]


def stability_scores(shared: Shared, distance: Float[np.ndarray, "n n"], k: int) -> list[Scored]:
    """Score how far clusterings of two thirds of the documents agree on the last one."""
    options = shared.settings
    found = stability(distance, shared.documents, k, repeats=options.repeats, seed=options.seed)
    spread = "" if found.sd is None else f", sd between cuts {found.sd:.3f}"
    note = f"k-medoids, k = {k} in each third; {len(found.each)} cuts of the documents{spread}"
    n = round(found.tokens)
    return [Scored(GroupScore(names.STABILITY, found.ami, "higher", "", n, len(shared.rows) - n, note=note))]


def position_scores(
    shared: Shared, groups: Int[np.ndarray, " n"], distance: Float[np.ndarray, "n n"] | None
) -> list[Scored]:
    """Check groups, and neighbours where there are distances, against position."""
    near = None
    if distance is not None:
        near = strict_neighbours(distance, shared.documents[:, None].astype(np.int32), NEIGHBOURS, shared.order)
    found = position_check(
        groups, shared.positions, shared.documents, neighbours=near, draws=shared.settings.draws,
        seed=shared.settings.seed,
    )  # fmt: skip
    note = "null: permuted within documents"
    checks = ((names.POSITION, found.ami, ""), (names.POSITION_RATIO, found.correlation_ratio, "share"))
    out = [
        GroupScore(name, null.value, "neither", unit, found.tokens, found.noise, random=null, note=note)
        for name, null, unit in checks
    ]
    if found.same_position is not None:
        same, n = found.same_position, len(groups)
        out.append(GroupScore(names.SAME_POSITION, same.value, "neither", "share", n, 0, random=same, note=note))
    return [Scored(score) for score in out]


def _scored(score: GroupScore, halves: Float[np.ndarray, " draws"] | None) -> Scored:
    """Give a score its interval, or say why it has none."""
    found, why = interval(score, halves)
    note = "; ".join(part for part in (score.note, why) if part)
    return Scored(replace(score, interval=found, note=note), halves if found is not None else None)
