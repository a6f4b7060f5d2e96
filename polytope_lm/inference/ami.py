"""Adjusted mutual information, fast enough for thousands of resamples.

`AMI(U, V) = (MI - E[MI]) / ((H(U) + H(V)) / 2 - E[MI])` in nats: 0 in expectation when two partitions with
these sizes are unrelated (the fixed-size permutation model), 1 when they are equal. With sizes `a_i` and
`b_j` of n tokens,

    E[MI] = sum_ij sum_m (m / n) log(n m / (a_i b_j)) P(m),   m ~ Hypergeometric(n, a_i, b_j).

The sum depends on the sizes alone, so each *distinct* pair of sizes is summed once: with token identity as
one of the partitions (thousands of classes, a few dozen sizes) this is what makes it fast. Zero in
expectation is not zero bias under resampling with replacement, where repeated rows raise MI: resample without
(see `intervals`).

Source: Vinh, Epps & Bailey, "Information theoretic measures for clusterings comparison" (JMLR 2010).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, no_type_check

import numba
import numpy as np
from scipy.special import gammaln

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def adjusted_mutual_information(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Return the AMI of two partitions of the same n tokens, arithmetic averaging.

    Args:
        a: class of each token, any integers.
        b: the other partition.

    Raises:
        PolytopeError: the partitions differ in length or are empty.

    """
    return float(resampled_ami(a, b, np.ones((1, len(a)), dtype=bool))[0])


def expected_information(a: Int[np.ndarray, " r"], b: Int[np.ndarray, " c"]) -> float:
    """Return E[MI] in nats of two partitions with these class sizes, over all ways to lay one on the other.

    Args:
        a: sizes of one partition's classes.
        b: sizes of the other's, with the same sum.

    """
    n = int(a.sum())
    return float(_expected(a, b, n, gammaln(np.arange(n + 1) + 1.0)))


def resampled_ami(
    a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], inside: Bool[np.ndarray, "draws n"]
) -> Float[np.ndarray, " draws"]:
    """Return the AMI of two fixed partitions on each of many subsets of the tokens.

    Args:
        a: class of each token.
        b: the other partition.
        inside: which tokens each draw keeps.

    Raises:
        PolytopeError: the partitions differ in length or are empty.

    """
    if len(a) != len(b) or len(a) == 0:
        msg = (
            f"partitions of {len(a)} and {len(b)} tokens can not be compared; give both the same, non-empty "
            "tokens"
        )
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


@numba.njit(cache=True, nogil=True)
@no_type_check
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
        out[draw] = _ami(table, log_factorial)
    return out


@numba.njit(cache=True, nogil=True)
@no_type_check
def _ami(table: Int[np.ndarray, "r c"], log_factorial: Float[np.ndarray, " m"]) -> float:
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
    expected = _expected(a, b, n, log_factorial)
    room = (_entropy(a, n) + _entropy(b, n)) / 2 - expected
    eps = 2.220446049250313e-16
    room = min(room, -eps) if room < 0 else max(room, eps)
    return float((mi - expected) / room)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _entropy(sizes: Int[np.ndarray, " k"], n: int) -> float:
    total = 0.0
    for size in sizes:
        if size > 0:
            total -= size / n * (math.log(size) - math.log(n))
    return total


@numba.njit(cache=True, nogil=True)
@no_type_check
def _expected(
    a: Int[np.ndarray, " r"], b: Int[np.ndarray, " c"], n: int, lf: Float[np.ndarray, " m"]
) -> float:
    """Sum over distinct pairs of sizes, each weighted by how often it occurs."""
    often_a = np.bincount(a, minlength=n + 1)
    often_b = np.bincount(b, minlength=n + 1)
    sizes_a = np.nonzero(often_a[1:])[0] + 1
    sizes_b = np.nonzero(often_b[1:])[0] + 1
    total = 0.0
    for s in sizes_a:
        for t in sizes_b:
            fixed = lf[s] + lf[t] + lf[n - s] + lf[n - t] - lf[n]
            base = math.log(n) - math.log(s) - math.log(t)
            part = 0.0
            for m in range(max(1, int(s) + int(t) - n), min(int(s), int(t)) + 1):
                p = math.exp(fixed - lf[m] - lf[s - m] - lf[t - m] - lf[n - s - t + m])
                part += m / n * (base + math.log(m)) * p
            total += part * often_a[s] * often_b[t]
    return total
