"""Label entropy and purity of groups of tokens, per group and overall, against random groups of their sizes.

With `n_cl` tokens of label l in group c, `n_c` in the group, n in all groups:

    entropy of c = - sum_l (n_cl / n_c) log2 (n_cl / n_c)   in bits;     overall: sum_c (n_c / n) entropy of c
    purity of c  = max_l n_cl / n_c;                                     overall: sum_c (n_c / n) purity of c

Small groups are pure by themselves (a group of one always is), so neither number means anything without its
size-matched null (see `nulls`): Manning, Raghavan & Schuetze, "Introduction to Information Retrieval" (2008),
16.3. Noise (-1) is in no group: it is left out, and counted beside every number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import entr
from scipy.stats import false_discovery_control
from sklearn.metrics import homogeneity_completeness_v_measure

from polytope_lm.compiled import compiled
from polytope_lm.statistics.nulls import AgainstNull, against, counted, random_groups

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class GroupPurity:
    """One group's labels.

    Attributes:
        group: its id.
        size: its tokens.
        majority: the label id that most of them have (the lowest one of a tie).
        entropy: in bits, against random groups of this size.
        purity: the majority's share, against the same.

    """

    group: int
    size: int
    majority: int
    entropy: AgainstNull
    purity: AgainstNull


@dataclass(frozen=True)
class LabelPurity:
    """How mixed the labels inside groups are.

    Attributes:
        entropy: overall, bits; lower is more monosemantic.
        purity: overall share of tokens that have their group's majority label.
        label_entropy: bits of the label over all counted tokens: the entropy of one group of everything.
        majority: share of the most frequent label: the purity of one group of everything.
        homogeneity: `1 - H(label | group) / H(label)` (scikit-learn).
        completeness: `1 - H(group | label) / H(group)` (scikit-learn).
        v_measure: their harmonic mean (scikit-learn; not adjusted for chance).
        groups: one record a group, by id.
        tokens: tokens counted.
        noise: tokens in no group, left out.

    """

    entropy: AgainstNull
    purity: AgainstNull
    label_entropy: float
    majority: float
    homogeneity: float
    completeness: float
    v_measure: float
    groups: tuple[GroupPurity, ...]
    tokens: int
    noise: int

    def to_frame(self) -> pd.DataFrame:
        """Return one row a group; `fdr` is p after Benjamini-Hochberg over the groups."""
        rows = [
            {"group": g.group, "size": g.size, "majority": g.majority}
            | {f"entropy{k}": v for k, v in _columns(g.entropy).items()}
            | {f"purity{k}": v for k, v in _columns(g.purity).items()}
            for g in self.groups
        ]
        frame = pd.DataFrame(rows)
        return frame.assign(fdr=false_discovery_control(frame["entropy p"].to_numpy()))


def _columns(score: AgainstNull) -> dict[str, float | None]:
    return {"": score.value, " by chance": score.mean, " z": score.z, " p": score.p}


def label_purity(
    groups: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    *,
    within: Int[np.ndarray, " n"] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> LabelPurity:
    """Score the labels inside groups (-1: none) against random groups of the same sizes.

    `within`: permute groups only within these strata, such as documents; None: among all counted tokens.
    """
    inside = counted(groups, labels, *(() if within is None else (within,)))
    ids, group = np.unique(groups[inside], return_inverse=True)
    label_ids, label = np.unique(labels[inside], return_inverse=True)
    sizes = np.bincount(group)
    table = _table(group, label)
    each = _scores(table)
    stratum = None if within is None else within[inside]
    shuffled = random_groups(group, draws=draws, seed=seed, within=stratum)
    null = np.stack([_scores(_table(other, label)) for other in shuffled])
    weight = sizes / sizes.sum()
    overall, chance = each @ weight, null @ weight
    found = homogeneity_completeness_v_measure(label, group)
    share = table.sum(axis=0) / sizes.sum()
    return LabelPurity(
        entropy=against(float(overall[0]), chance[:, 0], "lower"),
        purity=against(float(overall[1]), chance[:, 1], "higher"),
        label_entropy=float(entr(share).sum() / np.log(2)),
        majority=float(share.max()),
        homogeneity=float(found[0]),
        completeness=float(found[1]),
        v_measure=float(found[2]),
        groups=_records(ids, label_ids, table, each, null),
        tokens=int(inside.sum()),
        noise=int((~inside).sum()),
    )


def _records(
    ids: Int[np.ndarray, " C"],
    label_ids: Int[np.ndarray, " L"],
    table: Int[np.ndarray, "C L"],
    each: Float[np.ndarray, "2 C"],
    null: Float[np.ndarray, "draws 2 C"],
) -> tuple[GroupPurity, ...]:
    return tuple(
        GroupPurity(
            int(ids[c]),
            int(table[c].sum()),
            int(label_ids[table[c].argmax()]),
            against(float(each[0, c]), null[:, 0, c], "lower"),
            against(float(each[1, c]), null[:, 1, c], "higher"),
        )
        for c in range(len(ids))
    )


def resampled_purity(
    groups: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], inside: Bool[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws 2"]:
    """Return overall entropy (bits) and purity of fixed groups on each of many subsets of the tokens."""
    found = counted(groups, labels)
    label = np.unique(labels, return_inverse=True)[1]
    out = np.empty((len(inside), 2))
    for draw, kept in enumerate(inside & found):
        table = _table(np.unique(groups[kept], return_inverse=True)[1], label[kept])
        sizes = table.sum(axis=1)
        out[draw] = _scores(table) @ (sizes / sizes.sum()) if len(sizes) else np.nan
    return out


def _table(group: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"]) -> Int[np.ndarray, "C L"]:
    """Count tokens by group and label; every group up to the last has a token."""
    columns = int(label.max(initial=0)) + 1
    rows = int(group.max(initial=-1)) + 1
    return np.bincount(group * columns + label, minlength=rows * columns).reshape(rows, columns)


def _scores(table: Int[np.ndarray, "C L"]) -> Float[np.ndarray, "2 C"]:
    """Return each group's entropy in bits and its purity."""
    share = table / table.sum(axis=1, keepdims=True)
    return np.stack([entr(share).sum(axis=1) / np.log(2), share.max(axis=1)])


def purity_against_chance(
    groups: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    strata: Int[np.ndarray, " n"],
    keys: Float[np.ndarray, "draws n"],
) -> tuple[float, Float[np.ndarray, " draws"]]:
    """Return the purity inside the groups, and inside groups permuted within strata (all 0: freely).

    Ids count from 0; `keys` are uniform in [0, 1), a row for each random grouping.
    """
    base = np.argsort(strata, kind="stable")
    order = np.argsort(strata[None] + keys, axis=1)
    ids = np.unique(groups, return_inverse=True)[1]
    kinds = np.unique(labels, return_inverse=True)[1]
    found = _purities(ids[base], ids[np.concatenate([base[None], order])], kinds[base])
    return float(found[0]), found[1:]


@compiled
def _purities(
    ids: Int[np.ndarray, " n"], drawn: Int[np.ndarray, "draws n"], kinds: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " draws"]:
    counts = np.zeros((ids.max() + 1, kinds.max() + 1), np.int64)
    most = np.zeros(ids.max() + 1, np.int64)
    out = np.empty(len(drawn))
    for draw in range(len(drawn)):
        total = 0
        for i in range(len(kinds)):
            group = drawn[draw, i]
            counts[group, kinds[i]] += 1
            if counts[group, kinds[i]] > most[group]:
                most[group] += 1
                total += 1
        out[draw] = total / len(kinds)
        counts[:] = 0
        most[:] = 0
    return out
