"""How far two partitions of the same tokens agree: AMI, AMI given the token's identity, and who was left out.

*AMI.* `AMI(U, V) = (MI - E[MI]) / ((H(U) + H(V)) / 2 - E[MI])` in nats: 0 in expectation when two partitions
with these sizes are unrelated (the fixed-size permutation model), 1 when they are equal. With sizes `a_i` and
`b_j` of n tokens,

    E[MI] = sum_ij sum_m (m / n) log(n m / (a_i b_j)) P(m),   m ~ Hypergeometric(n, a_i, b_j).

The sum depends on the sizes alone, so each *distinct* pair of sizes is summed once: with token identity as
one of the partitions (thousands of classes, a few dozen sizes) this is what makes it fast enough for
thousands of resamples. Zero in expectation is not zero bias under resampling with replacement, where repeated
rows raise MI: resample without (see `estimate`). Source: Vinh, Epps & Bailey, "Information theoretic measures
for clusterings comparison" (JMLR 2010).

*Given identity.* Lexical clusters are not semantic ones. With C the group, L the label and T the token
identity (or the lemma) of the same tokens, in bits,

    I(C; L | T) = sum_t (n_t / n) I_t(C; L) = H(C, T) + H(L, T) - H(C, L, T) - H(T).

Its null permutes groups within each token identity. The null's mean is E[MI] within each token, so it can be
adjusted as AMI is, and with one token identity it is AMI:

    conditional AMI = (I(C; L | T) - E) / ((H(C | T) + H(L | T)) / 2 - E).

Agreement is plainer: of all pairs of tokens with one identity in one group (and of two documents, where these
are given), the share with the same label.

*Noise.* A clusterer may leave tokens out: they have label -1, are counted, and never assigned afterwards. AMI
is then a score among the clustered tokens alone, and means nothing without the share that was thrown away:
the few tokens that are easiest to cluster agree with most labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import entr, gammaln

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.nulls import NOISE, AgainstNull, against, counted, random_groups, strata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float, Int


def adjusted_mutual_information(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Return the AMI of two partitions of the same n tokens (any integers), arithmetic averaging."""
    return float(resampled_ami(a, b, np.ones((1, len(a)), dtype=bool))[0])


def expected_information(a: Int[np.ndarray, " r"], b: Int[np.ndarray, " c"]) -> float:
    """Return E[MI] in nats of two partitions with these class sizes, over all ways to lay one on the other."""
    n = int(a.sum())
    return float(_expected(a, b, n, gammaln(np.arange(n + 1) + 1.0), np.full(n + 1, np.nan)))


def resampled_ami(
    a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], inside: Bool[np.ndarray, "draws n"]
) -> Float[np.ndarray, " draws"]:
    """Return the AMI of two fixed partitions on each of many subsets of the tokens."""
    if len(a) != len(b) or len(a) == 0:
        msg = f"partitions of {len(a)} and {len(b)} tokens can not be compared; give both the same, non-empty tokens"
        raise PolytopeError(msg)
    rows, row = np.unique(a, return_inverse=True)
    columns, column = np.unique(b, return_inverse=True)
    log_factorial = gammaln(np.arange(len(a) + 1) + 1.0)
    return np.asarray(
        _resampled(
            row.astype(np.int32),
            column.astype(np.int32),
            len(rows),
            len(columns),
            np.ascontiguousarray(inside),
            log_factorial,
        )
    )


def amis(clusters: Int[np.ndarray, " n"], labelings: Int[np.ndarray, "m n"]) -> Float[np.ndarray, " m"]:
    """Return the AMI of one partition with each of several labelings; tokens of cluster -1 are left out."""
    inside = clusters >= 0
    ids = np.unique(clusters[inside], return_inverse=True)[1].astype(np.int32)
    kept = labelings[:, inside]
    if kept.max(initial=0) >= len(ids):  # a vocabulary's numbers: its columns would nearly all be empty
        kept = np.unique(kept, return_inverse=True)[1].reshape(kept.shape)
    kept = np.ascontiguousarray(kept, dtype=np.int32)
    log_factorial = gammaln(np.arange(len(ids) + 1) + 1.0)
    return np.asarray(_amis(ids, kept, log_factorial))


@compiled
def _amis(
    ids: Int[np.ndarray, " n"], labelings: Int[np.ndarray, "m n"], log_factorial: Float[np.ndarray, " f"]
) -> Float[np.ndarray, " m"]:
    n = len(ids)
    sizes = np.bincount(ids)
    # What one class of a labeling adds to E[MI] depends on its size alone, and labelings share their sizes.
    known = np.full(n + 1, np.nan)
    out = np.empty(len(labelings))
    for which in range(len(labelings)):
        labels = labelings[which]
        table = np.zeros((len(sizes), labels.max() + 1), dtype=np.int64)
        for i in range(n):
            table[ids[i], labels[i]] += 1
        out[which] = _ami(table, log_factorial, known)
    return out


@compiled
def _resampled(
    row: Int[np.ndarray, " n"],
    column: Int[np.ndarray, " n"],
    n_rows: int,
    n_columns: int,
    inside: Bool[np.ndarray, "draws n"],
    log_factorial: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " draws"]:
    out = np.empty(inside.shape[0])
    for draw in range(inside.shape[0]):
        table = np.zeros((n_rows, n_columns), dtype=np.int64)
        for i in range(len(row)):
            if inside[draw, i]:
                table[row[i], column[i]] += 1
        out[draw] = _ami(table, log_factorial, np.full(len(row) + 1, np.nan))
    return out


@compiled
def _ami(
    table: Int[np.ndarray, "r c"], log_factorial: Float[np.ndarray, " m"], known: Float[np.ndarray, " m"]
) -> float:
    """Return the AMI; `known` keeps the parts of E[MI] by the size of a column, for the same rows."""
    a = table.sum(axis=1)
    b = table.sum(axis=0)
    n = a.sum()
    # One class on both sides is perfect agreement by convention, as in scikit-learn.
    if (a > 0).sum() <= 1 and (b > 0).sum() <= 1:
        return 1.0
    mi = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            m = table[i, j]
            if m > 0:
                mi += m / n * (math.log(m) + math.log(n) - math.log(a[i]) - math.log(b[j]))
    expected = _expected(a, b, n, log_factorial, known)
    room = (_entropy(a, n) + _entropy(b, n)) / 2 - expected
    eps = 2.220446049250313e-16
    room = min(room, -eps) if room < 0 else max(room, eps)
    return float((mi - expected) / room)


@compiled
def _entropy(sizes: Int[np.ndarray, " k"], n: int) -> float:
    total = 0.0
    for size in sizes:
        if size > 0:
            total -= size / n * (math.log(size) - math.log(n))
    return total


@compiled
def _expected(
    a: Int[np.ndarray, " r"],
    b: Int[np.ndarray, " c"],
    n: int,
    lf: Float[np.ndarray, " m"],
    known: Float[np.ndarray, " m"],
) -> float:
    """Sum over distinct pairs of sizes, each weighted by how often it occurs."""
    often_a = np.bincount(a, minlength=n + 1)
    sizes_a = np.nonzero(often_a[1:])[0] + 1
    total = 0.0
    for t in b:
        if t == 0:
            continue
        if np.isnan(known[t]):
            part = 0.0
            for s in sizes_a:
                part += often_a[s] * _overlap(int(s), int(t), n, lf)
            known[t] = part
        total += known[t]
    return total


@compiled
def _overlap(s: int, t: int, n: int, lf: Float[np.ndarray, " m"]) -> float:
    """Sum `(m / n) log(n m / (s t)) P(m)` over the overlaps m of classes of s and t tokens.

    From the likeliest overlap on both ways, by the ratio of neighbouring probabilities, until they are nothing.
    """
    low, high = max(1, s + t - n), min(s, t)
    base = math.log(n) - math.log(s) - math.log(t)
    mode = min(max(((s + 1) * (t + 1)) // (n + 2), low), high)
    start = math.exp(
        lf[s] + lf[t] + lf[n - s] + lf[n - t] - lf[n] - lf[mode] - lf[s - mode] - lf[t - mode] - lf[n - s - t + mode]
    )
    total = mode * (base + math.log(mode)) * start
    p = start
    for m in range(mode + 1, high + 1):
        p *= (s - m + 1) * (t - m + 1) / (m * (n - s - t + m))
        total += m * (base + math.log(m)) * p
        if p < 1e-20:
            break
    p = start
    for m in range(mode - 1, low - 1, -1):
        p *= (m + 1) * (n - s - t + m + 1) / ((s - m) * (t - m))
        total += m * (base + math.log(m)) * p
        if p < 1e-20:
            break
    return total / n


@dataclass(frozen=True)
class Agreement:
    """AMI among the clustered tokens, beside the share that was thrown away.

    Attributes:
        ami: adjusted mutual information of clusters and labels over the clustered tokens; None where there
            are none.
        clustered: tokens that it is a score of.
        noise_share: share of the tokens that were called noise, 0 to 1.

    """

    ami: float | None
    clustered: int
    noise_share: float

    def __str__(self) -> str:
        if self.ami is None:
            return "no AMI: every token is noise"
        thrown = f"; {self.noise_share:.0%} noise left out" if self.noise_share else ""
        return f"AMI {self.ami:.3f} among {self.clustered:,} clustered tokens{thrown}"


@dataclass(frozen=True, eq=False)
class Partition:
    """Which cluster each of n tokens is in.

    Attributes:
        labels: cluster id of each token, 0 to `clusters - 1`; -1 is noise (int32).
        clusterer: who made it.
        settings: every choice that it depends on.

    """

    labels: Int[np.ndarray, " n"]
    clusterer: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
            raise PolytopeError(
                f"clusterer {self.clusterer!r} gave {labels.dtype} of shape {labels.shape}; it must give one "
                "integer a token, -1 for noise"
            )
        kept = np.unique(labels[labels >= 0])
        ids = np.where(labels < 0, NOISE, np.searchsorted(kept, labels))
        object.__setattr__(self, "labels", ids.astype(np.int32))

    def __len__(self) -> int:
        """Return n, noise included."""
        return len(self.labels)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens in each cluster, by its id; noise is none."""
        return tuple(int(size) for size in np.bincount(self.labels[self.labels >= 0]))

    @property
    def clusters(self) -> int:
        """How many clusters there are; noise is none."""
        return len(self.sizes)

    @property
    def noise(self) -> int:
        """How many tokens are in no cluster."""
        return int((self.labels < 0).sum())

    @property
    def noise_share(self) -> float:
        """Share of the tokens that are in no cluster, 0 to 1."""
        return self.noise / len(self)

    @property
    def largest_share(self) -> float:
        """Share of all tokens that are in the largest cluster, 0 to 1."""
        return max(self.sizes, default=0) / len(self)

    def ami(self, gold: Int[np.ndarray, " n"]) -> Agreement:
        """Return the agreement with gold labels among clustered tokens, and the share thrown away.

        Args:
            gold: label id of each token.

        Raises:
            PolytopeError: another number of labels.

        """
        if len(gold) != len(self):
            raise PolytopeError(f"{len(gold)} labels for a partition of {len(self)} tokens; give one a token")
        inside = self.labels >= 0
        if not inside.any():
            return Agreement(None, 0, 1.0)
        value = adjusted_mutual_information(self.labels[inside], np.asarray(gold)[inside])
        return Agreement(value, int(inside.sum()), self.noise_share)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a cluster, noise (-1) last: `cluster`, `tokens`, `share` of all tokens."""
        tokens = [*self.sizes, self.noise] if self.noise else [*self.sizes]
        ids = [*range(self.clusters), NOISE] if self.noise else [*range(self.clusters)]
        return pd.DataFrame({"cluster": ids, "tokens": tokens, "share": np.array(tokens) / len(self)})

    def __repr__(self) -> str:
        return (
            f"<Partition by {self.clusterer}: {self.clusters} clusters of {len(self):,} tokens, largest "
            f"{max(self.sizes, default=0):,} ({self.largest_share:.0%}), noise {self.noise:,} "
            f"({self.noise_share:.0%}); {self.settings}>"
        )


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
    """Score groups (-1: none) against labels among tokens of the same identity: vocabulary id, form or lemma.

    Pairs of one document (`apart`) do not count in the agreement. Each z and p has `draws` groupings permuted
    within token identity behind it.
    """
    inside = counted(groups, labels, token, *(() if apart is None else (apart,)))
    c, l, t = (strata(column[inside]) for column in (groups, labels, token))  # noqa: E741
    documents = None if apart is None else apart[inside]
    found = _information(c, l, t)
    null, both = np.empty((2, draws)), strata(l, t)
    # Permuted within the token, groups keep all entropies but this one.
    fixed = _joint_entropy(c, t) + _joint_entropy(l, t) - _joint_entropy(t)
    for draw, other in enumerate(random_groups(c, draws=draws, seed=seed, within=t)):
        null[:, draw] = max(0.0, fixed - _joint_entropy(other, both)), _pair_agreement(other, l, t, documents)
    agreement = _pair_agreement(c, l, t, documents)
    # A permutation may have no pair at all, where pairs are rare.
    there = null[1][np.isfinite(null[1])]
    open_label = _joint_entropy(l, t) - _joint_entropy(t)
    return ConditionalInformation(
        information=against(found, null[0], "higher"),
        adjusted=_adjusted(c, l, t, found),
        agreement=against(agreement, there, "higher") if np.isfinite(agreement) and len(there) else None,
        label_entropy=open_label,
        remaining=_joint_entropy(c, l, t) - _joint_entropy(c, t),
        tokens=int(inside.sum()),
        movable=_movable(c, l, t),
        noise=int((~inside).sum()),
    )


def resampled_conditional(
    groups: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    token: Int[np.ndarray, " n"],
    inside: Bool[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws"]:
    """Return conditional AMI on each of many subsets of the tokens; NaN where nothing is left to score."""
    found = counted(groups, labels, token)
    out = np.full(len(inside), np.nan)
    for draw, kept in enumerate(inside & found):
        c, l, t = (strata(column[kept]) for column in (groups, labels, token))  # noqa: E741
        value = _adjusted(c, l, t, _information(c, l, t)) if len(c) else None
        out[draw] = np.nan if value is None else value
    return out


def _joint_entropy(*columns: Int[np.ndarray, " n"]) -> float:
    """Return the joint entropy of the columns in bits."""
    counts = np.bincount(strata(*columns))
    return float(entr(counts / counts.sum()).sum() / np.log(2))


def _information(c: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], t: Int[np.ndarray, " n"]) -> float:
    return max(0.0, _joint_entropy(c, t) + _joint_entropy(label, t) - _joint_entropy(c, label, t) - _joint_entropy(t))


def _adjusted(
    c: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], t: Int[np.ndarray, " n"], found: float
) -> float | None:
    open_c, open_l = _joint_entropy(c, t) - _joint_entropy(t), _joint_entropy(label, t) - _joint_entropy(t)
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


def _pair_agreement(
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
