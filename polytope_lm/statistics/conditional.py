"""What groups say about a label beyond the token's identity: lexical clusters are not semantic ones.

With C the group, L the label and T the token identity (or the lemma) of the same tokens, in bits,

    I(C; L | T) = sum_t (n_t / n) I_t(C; L) = H(C, T) + H(L, T) - H(C, L, T) - H(T).

Its null permutes groups within each token identity. The null's mean has a closed form, the expectation of MI
in the fixed-size permutation model within each token (Vinh, Epps & Bailey, JMLR 2010), so it can be adjusted
as AMI is: 0 in expectation where group and label are unrelated given the token, 1 where they say the same,

    conditional AMI = (I(C; L | T) - E) / ((H(C | T) + H(L | T)) / 2 - E);

with one token identity it is AMI. Agreement is plainer: of all pairs of tokens with one identity in one
group (and of two documents, where these are given), the share with the same label.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import entr

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.agreement import expected_information
from polytope_lm.statistics.nulls import AgainstNull, against, counted, random_groups, strata

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_FLAT = 1e-12


@dataclass(frozen=True)
class ConditionalInformation:
    """What groups say about labels among tokens of one identity.

    Attributes:
        information: I(C; L | T) in bits, against groups permuted within each token identity.
        adjusted: conditional AMI; None where identity leaves neither group nor label open.
        agreement: share of equal labels among pairs of one identity in one group; None without such a pair.
        label_entropy: H(L | T) in bits, what the token's identity leaves open.
        remaining: H(L | C, T) in bits, what identity and group together leave open.
        tokens: tokens counted.
        movable: tokens whose identity occurs in several groups and with several labels; on all others there
            is nothing to find.
        noise: tokens in no group, left out.

    """

    information: AgainstNull
    adjusted: float | None
    agreement: AgainstNull | None
    label_entropy: float
    remaining: float
    tokens: int
    movable: int
    noise: int


def conditional_information(
    groups: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    token: Int[np.ndarray, " n"],
    *,
    apart: Int[np.ndarray, " n"] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> ConditionalInformation:
    """Score groups against labels among tokens of the same identity.

    Args:
        groups: id of each token's group, -1 for none.
        labels: id of each token's label.
        token: id of each token's identity: its vocabulary id, form or lemma.
        apart: document of each token; pairs of one document do not count in the agreement.
        draws: groupings permuted within token identity, behind each z and p.
        seed: of these.

    Raises:
        PolytopeError: lengths that differ, an id below -1, no token in a group, fewer than 1 draw.

    """
    inside = counted(groups, labels, token, *(() if apart is None else (apart,)))
    c, l, t = (strata(column[inside]) for column in (groups, labels, token))  # noqa: E741
    documents = None if apart is None else apart[inside]
    found = _information(c, l, t)
    null, both = np.empty((2, draws)), strata(l, t)
    # Permuted within the token, groups keep all entropies but this one.
    fixed = _entropy(c, t) + _entropy(l, t) - _entropy(t)
    for draw, other in enumerate(random_groups(c, draws=draws, seed=seed, within=t)):
        null[:, draw] = max(0.0, fixed - _entropy(other, both)), _agreement(other, l, t, documents)
    agreement = _agreement(c, l, t, documents)
    # A permutation may have no pair at all, where pairs are rare.
    there = null[1][np.isfinite(null[1])]
    open_label = _entropy(l, t) - _entropy(t)
    return ConditionalInformation(
        information=against(found, null[0], "higher"),
        adjusted=_adjusted(c, l, t, found),
        agreement=against(agreement, there, "higher") if np.isfinite(agreement) and len(there) else None,
        label_entropy=open_label,
        remaining=_entropy(c, l, t) - _entropy(c, t),
        tokens=int(inside.sum()),
        movable=_movable(c, l, t),
        noise=int((~inside).sum()),
    )


def conditional_ami(
    groups: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], token: Int[np.ndarray, " n"]
) -> float:
    """Return conditional AMI of groups and labels given token identity; noise (-1) is left out.

    Raises:
        PolytopeError: lengths that differ, an id below -1, no token in a group, or token identity decides
            both group and label, so that nothing is left to score.

    """
    value = float(resampled_conditional(groups, labels, token, np.ones((1, len(groups)), dtype=bool))[0])
    if not np.isfinite(value):
        raise PolytopeError(
            f"token identity decides group and label of all {len(groups)} tokens, so nothing is left to "
            "score; choose tokens whose identity has several labels"
        )
    return value


def resampled_conditional(
    groups: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    token: Int[np.ndarray, " n"],
    inside: Bool[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws"]:
    """Return conditional AMI on each of many subsets of the tokens; NaN where nothing is left to score.

    Args:
        groups: id of each token's group, -1 for none.
        labels: id of each token's label.
        token: id of each token's identity.
        inside: which tokens each draw keeps.

    """
    found = counted(groups, labels, token)
    out = np.full(len(inside), np.nan)
    for draw, kept in enumerate(inside & found):
        c, l, t = (strata(column[kept]) for column in (groups, labels, token))  # noqa: E741
        value = _adjusted(c, l, t, _information(c, l, t)) if len(c) else None
        out[draw] = np.nan if value is None else value
    return out


def _entropy(*columns: Int[np.ndarray, " n"]) -> float:
    """Return the joint entropy of the columns in bits."""
    counts = np.bincount(strata(*columns))
    return float(entr(counts / counts.sum()).sum() / np.log(2))


def _information(c: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], t: Int[np.ndarray, " n"]) -> float:
    return max(0.0, _entropy(c, t) + _entropy(label, t) - _entropy(c, label, t) - _entropy(t))


def _adjusted(
    c: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], t: Int[np.ndarray, " n"], found: float
) -> float | None:
    open_c, open_l = _entropy(c, t) - _entropy(t), _entropy(label, t) - _entropy(t)
    if open_c < _FLAT and open_l < _FLAT:
        return None
    expected = 0.0
    for n, a, b in zip(np.bincount(t), _sizes(c, t), _sizes(label, t), strict=True):
        if len(a) > 1 and len(b) > 1:
            expected += n / len(t) * expected_information(a, b) / np.log(2)
    room = (open_c + open_l) / 2 - expected
    # No room: wherever both vary, every way to lay them on each other says as much.
    return float((found - expected) / room) if abs(room) > _FLAT else 0.0


def _sizes(column: Int[np.ndarray, " n"], t: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " k"]]:
    """Return the sizes of the column's classes within each token identity."""
    cells, sizes = np.unique(t * (int(column.max()) + 1) + column, return_counts=True)
    starts = np.searchsorted(cells // (int(column.max()) + 1), np.arange(int(t.max()) + 2))
    return [sizes[a:b] for a, b in pairwise(starts)]


def _agreement(
    c: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    t: Int[np.ndarray, " n"],
    documents: Int[np.ndarray, " n"] | None,
) -> float:
    """Count pairs by the sizes of the cells that they share, those of one document taken off."""
    same, every = _pairs(c, t, label), _pairs(c, t)
    if documents is not None:
        same -= _pairs(c, t, label, documents)
        every -= _pairs(c, t, documents)
    return same / every if every else np.nan


def _pairs(*columns: Int[np.ndarray, " n"]) -> int:
    sizes = np.bincount(strata(*columns))
    return int((sizes * (sizes - 1) // 2).sum())


def _movable(c: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], t: Int[np.ndarray, " n"]) -> int:
    def several(column: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " tokens"]:
        pairs = np.unique(np.stack([t, column]), axis=1)
        return np.bincount(pairs[0], minlength=int(t.max()) + 1) > 1

    return int((several(c) & several(label))[t].sum())
