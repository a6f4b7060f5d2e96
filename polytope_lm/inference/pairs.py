"""Mean likeness of pairs of tokens inside groups, against random groups of the same sizes.

For a symmetric `s_ij` (a divergence, a cosine) the score of a grouping is the mean over tokens of the mean
`s_ij` to the other tokens of the token's group, so that a group counts by its tokens and not by their square.
Pairs of one document do not count where documents are given: they share a context, which any grouping by
place would find. A token without another one to pair with is left out, and counted.

Two nulls: groups permuted among all tokens (what sizes alone give), and among tokens of one identity (what
the word gives).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, no_type_check

import numba
import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.nulls import AgainstNull, Better, against, counted, random_groups

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class PairScore:
    """The mean likeness inside groups.

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
    likeness: Float[np.ndarray, "n n"],
    groups: Int[np.ndarray, " n"],
    *,
    better: Better,
    apart: Int[np.ndarray, " n"] | None = None,
    token: Int[np.ndarray, " n"] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> PairScore:
    """Score the pairs inside groups against random groups.

    Args:
        likeness: `s_ij`, symmetric; the diagonal is not read.
        groups: id of each token's group, -1 for none.
        better: whether more alike is `higher` or `lower`.
        apart: document of each token; pairs of one document do not count.
        token: id of each token's identity, for the second null.
        draws: random groupings behind each z and p.
        seed: of these.

    Raises:
        PolytopeError: shapes that do not fit, no token in a group, or no pair to count.

    """
    inside = counted(groups, *(column for column in (apart, token) if column is not None))
    _check(likeness, groups)
    ids = np.unique(groups[inside], return_inverse=True)[1].astype(np.int32)
    near = np.ascontiguousarray(likeness[np.ix_(inside, inside)], dtype=np.float32)
    documents = _documents(groups, apart)[inside]
    value, tokens = _mean(near, ids, documents)
    if not tokens:
        raise PolytopeError(
            f"no two of {len(ids)} tokens share a group and differ in document; ask for fewer groups or "
            "more tokens"
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
    likeness: Float[np.ndarray, "n n"],
    groups: Int[np.ndarray, " n"],
    inside: Bool[np.ndarray, "draws n"],
    apart: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " draws"]:
    """Return the score of fixed groups on each of many subsets of the tokens; NaN where there is no pair.

    Args:
        likeness: `s_ij`, symmetric.
        groups: id of each token's group, -1 for none.
        inside: which tokens each draw keeps.
        apart: document of each token; pairs of one document do not count.

    """
    found = counted(groups)
    _check(likeness, groups)
    near, documents = np.ascontiguousarray(likeness, dtype=np.float32), _documents(groups, apart)
    kept = (np.where(mask & found, groups, -1).astype(np.int32) for mask in inside)
    return np.array([_mean(near, ids, documents)[0] for ids in kept])


def _check(likeness: Float[np.ndarray, "n m"], groups: Int[np.ndarray, " k"]) -> None:
    if likeness.shape != (len(groups), len(groups)):
        raise PolytopeError(
            f"likeness of shape {likeness.shape} does not fit {len(groups)} tokens; give one row and column "
            "a token"
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


@numba.njit(cache=True, nogil=True)
@no_type_check
def _mean(
    near: Float[np.ndarray, "n n"], ids: Int[np.ndarray, " n"], documents: Int[np.ndarray, " n"]
) -> tuple[float, int]:
    """Return the mean over tokens of their mean likeness to their group, and how many tokens have one."""
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
