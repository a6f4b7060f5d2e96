"""Mean similarity of pairs of tokens inside groups, against random groups; divergences between all pairs.

For a symmetric `s_ij` (a divergence, a cosine) the score of a grouping is the mean over tokens of the mean
`s_ij` to the other tokens of the token's group, so that a group counts by its tokens and not by their square.
Pairs of one document do not count where documents are given: they share a context, which any grouping by
position would find. A token without another one to pair with is left out, and counted. Two nulls: groups
permuted among all tokens (what sizes alone give), and among tokens of one identity (what the word gives).

Jensen-Shannon divergences of many distributions, over the whole vocabulary:

    JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2   in bits, 0 to 1      (Lin, IEEE Trans. Inf. Theory 1991).

No tail is cut off and none is merged: with 50,000 tokens the small probabilities hold a good part of the
mass. What makes it affordable is the logarithm. A pair needs one a vocabulary entry, `x log2 x` of the sum,
here as exponent plus `2 atanh((f - 1) / (f + 1)) / ln 2`, its series cut after the ninth power (below 3e-9
for f between sqrt(1/2) and sqrt(2)), in float32 and without a branch, so that the compiler takes many entries
at once. JS is within 1e-5 of float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from scipy.special import entr

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.nulls import AgainstNull, Better, against, counted, random_groups

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class PairScore:
    """The mean similarity inside groups.

    Attributes:
        random: the score against random groups of the same sizes.
        matched: the same score against groups permuted within token identity; None without identities.
        better: whether more alike is `higher` or `lower`.
        tokens: tokens counted.
        alone: tokens in a group without another one of another document, left out.
        noise: tokens in no group, left out.
        movable: tokens whose identity several groups have: only these move in `matched`.
        beyond: tokens in a group that were not looked at, because pairs of so many cost too much.

    """

    random: AgainstNull
    matched: AgainstNull | None
    better: Better
    tokens: int
    alone: int
    noise: int
    movable: int
    beyond: int = 0

    @property
    def value(self) -> float:
        """The score itself."""
        return self.random.value


def inside_groups(
    similarity: Float[np.ndarray, "n n"],
    groups: Int[np.ndarray, " n"],
    *,
    better: Better,
    apart: Int[np.ndarray, " n"] | None = None,
    token: Int[np.ndarray, " n"] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> PairScore:
    """Score the pairs inside groups (-1: none) against random groups; the diagonal is not read.

    Pairs of one document (`apart`) do not count. `token`, each token's identity, is for the second null.
    """
    inside = counted(groups, *(column for column in (apart, token) if column is not None))
    _check(similarity, groups)
    ids = np.unique(groups[inside], return_inverse=True)[1].astype(np.int32)
    near = np.ascontiguousarray(similarity[np.ix_(inside, inside)], dtype=np.float32)
    documents = _documents(groups, apart)[inside]
    value, tokens = _mean(near, ids, documents)
    if not tokens:
        raise PolytopeError(
            f"no two of {len(ids)} tokens share a group and differ in document; ask for fewer groups or more tokens"
        )
    matched, movable = None, 0
    if token is not None:
        word = np.unique(token[inside], return_inverse=True)[1]
        matched = against(value, _null(near, ids, documents, word, draws, seed), better)
        cells = np.unique(np.stack([word, ids]), axis=1)[0]
        movable = int((np.bincount(cells) > 1)[word].sum())
    random = against(value, _null(near, ids, documents, None, draws, seed), better)
    noise = int((~inside).sum())
    return PairScore(random, matched, better, tokens, len(ids) - tokens, noise, movable)


def resampled_pairs(
    similarity: Float[np.ndarray, "n n"],
    groups: Int[np.ndarray, " n"],
    inside: Bool[np.ndarray, "draws n"],
    apart: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " draws"]:
    """Return the score of fixed groups on each of many subsets of the tokens; NaN where there is no pair."""
    found = counted(groups)
    _check(similarity, groups)
    near, documents = np.ascontiguousarray(similarity, dtype=np.float32), _documents(groups, apart)
    kept = (np.where(mask & found, groups, -1).astype(np.int32) for mask in inside)
    return np.array([_mean(near, ids, documents)[0] for ids in kept])


def _check(similarity: Float[np.ndarray, "n m"], groups: Int[np.ndarray, " k"]) -> None:
    if similarity.shape != (len(groups), len(groups)):
        raise PolytopeError(
            f"similarity of shape {similarity.shape} does not fit {len(groups)} tokens; give one row and column a token"
        )


def _documents(groups: Int[np.ndarray, " n"], apart: Int[np.ndarray, " n"] | None) -> Int[np.ndarray, " n"]:
    """Return documents as the kernel takes them; each token its own where none are given."""
    return np.arange(len(groups), dtype=np.int32) if apart is None else apart.astype(np.int32)


def _null(
    near: Float[np.ndarray, "n n"],
    ids: Int[np.ndarray, " n"],
    documents: Int[np.ndarray, " n"],
    within: Int[np.ndarray, " n"] | None,
    draws: int,
    seed: int,
) -> Float[np.ndarray, " found"]:
    shuffled = random_groups(ids, draws=draws, seed=seed, within=within)
    scores = np.array([_mean(near, other, documents)[0] for other in shuffled])
    out: Float[np.ndarray, " found"] = scores[np.isfinite(scores)]
    return out


@compiled
def _mean(
    near: Float[np.ndarray, "n n"], ids: Int[np.ndarray, " n"], documents: Int[np.ndarray, " n"]
) -> tuple[float, int]:
    """Return the mean over tokens of their mean similarity to their group, and how many tokens have one."""
    order = np.argsort(ids, kind="mergesort")
    total, tokens = 0.0, 0
    first = 0
    while first < len(order):
        last = first
        while last < len(order) and ids[order[last]] == ids[order[first]]:
            last += 1
        if ids[order[first]] >= 0:
            for p in range(first, last):
                i = order[p]
                s, count = 0.0, 0
                for q in range(first, last):
                    j = order[q]
                    if documents[i] != documents[j]:
                        s += near[i, j]
                        count += 1
                if count > 0:
                    total += s / count
                    tokens += 1
        first = last
    return (total / tokens if tokens > 0 else np.nan), tokens


_BLOCK = 2048  # entries at a time: float32 sums stay short, two blocks stay in the nearest cache
_C1, _C3, _C5, _C7, _C9 = (np.float32(2 / np.log(2) / power) for power in (1, 3, 5, 7, 9))
_SQRT_HALF = np.int32(0x3F3504F3)  # the bits of float32 sqrt(1/2)
_LOOSE = {"reassoc", "contract", "arcp", "nsz"}


def js_divergences(probabilities: Float[np.ndarray, "n V"]) -> Float[np.ndarray, "n n"]:
    """Return all pairwise divergences in bits, float32, of distributions that are float32 rows."""
    sums = probabilities.sum(axis=1, dtype=np.float64)
    # Written so that NaN fails it.
    good = (np.abs(sums - 1) < 1e-3) & (probabilities.min(axis=1, initial=0) >= 0)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise PolytopeError(f"row {row} sums to {sums[row]:.4g}, which is no distribution; pass softmax of logits")
    p = np.ascontiguousarray(probabilities, dtype=np.float32)
    halves = np.array([float(entr(row.astype(np.float64)).sum()) for row in p]) / np.log(2) / 2
    # H of the middle: -sum (x / 2) (log2 x - 1) for x = p + q.
    middles = -_sums(p) / 2 + (sums[:, None] + sums) / 2
    out: Float[np.ndarray, "n n"] = np.clip(middles - halves[:, None] - halves, 0, 1).astype(np.float32)
    np.fill_diagonal(out, 0)
    return out


@compiled(fastmath=_LOOSE, error_model="numpy")
def _x_log2_x(a: Float[np.ndarray, " block"], b: Float[np.ndarray, " block"]) -> float:
    """Sum `x log2 x` of `x = a + b`; 0 where both are 0."""
    total = np.float32(0)
    for v in range(a.shape[0]):
        x = np.float32(a[v] + b[v])
        i = np.float32(x).view(np.int32)
        k = np.int32(np.int32(i - _SQRT_HALF) >> np.int32(23))
        f = np.int32(i - np.int32(k << np.int32(23))).view(np.float32)
        t = (f - np.float32(1)) / (f + np.float32(1))
        u = t * t
        total += x * (np.float32(k) + t * (_C1 + u * (_C3 + u * (_C5 + u * (_C7 + u * _C9)))))
    return float(total)


@compiled(parallel=True)
def _sums(p: Float[np.ndarray, "n V"]) -> Float[np.ndarray, "n n"]:
    n, width = p.shape
    out = np.zeros((n, n))
    for turn in numba.prange(n):
        # Long rows and short ones by turns, so that threads have equal work.
        half = turn // 2
        i = half if turn % 2 == 0 else n - 1 - half
        for first in range(0, width, _BLOCK):
            last = min(first + _BLOCK, width)
            for j in range(i + 1, n):
                out[i, j] += _x_log2_x(p[i, first:last], p[j, first:last])
    for i in range(n):
        for j in range(i):
            out[i, j] = out[j, i]
    return out
