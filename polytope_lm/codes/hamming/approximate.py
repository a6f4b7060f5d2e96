"""Approximate nearest neighbours among 10^6 packed codes and more, with a recall that is known and measured.

Every pair is looked at, but of most pairs only some bits. On `m` of the `N` bits, drawn at random, two codes
at distance `d` differ in a hypergeometric number of bits, `X ~ H(N, d, m)`, whatever the codes are. While a
row's k-th nearest so far lies at distance `L`, another whose drawn bits differ in more than
`t(L) = min {t : P[H(N, L, m) <= t] >= r}` is left out; of all others the whole distance is counted. A true
neighbour, being no farther than `L`, passes with probability `r` at least: the expected recall is `r` or
more, for clustered codes as for any. Trees and graphs have no such bound, and inside a large cluster, where
all distances are nearly equal, they lose the most.

Queries meet the rows that share their nearest pivot first, so that `L` is small from the start. How many bits
are drawn is decided by the cost that some queries predict, up to all of them, which is the exact search. Time
still goes as the square of the rows. Two parts of the rows are searched at one time (`hamming.PART`): with S parts
all codes are read about S / 2 + 3 times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.searching import Neighbours, Packed, check_rows
from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import tie_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Int, Int64, UInt8, UInt64

CHUNK = 8192
_VECTOR_BYTES = 64
_PIVOTS, _ROWS_PER_PIVOT = 4096, 64
_PILOT_QUERIES, _PILOT_ROWS = 128, 2048
_NOTHING = np.iinfo(np.uint64).max
# What a pair costs, in the time of one 64-bit word in a tile: beside its words, and counted by itself.
_PAIR_COST, _COUNT_COST = 1.0, 230.0
Z = 1.96


@dataclass(frozen=True)
class Recall:
    """The share of true neighbours that were found, counted by distance, on some queries searched exactly.

    A found neighbour counts if it is no farther than the true k-th. The 95 % interval is Wilson's with the
    query as the unit, which is wider than the queries' own spread would make it.

    Attributes:
        value: mean over the queries.
        low: lower bound.
        high: upper bound.
        queries: how many.
        k: neighbours of each.

    """

    value: float
    low: float
    high: float
    queries: int
    k: int

    def __str__(self) -> str:
        bounds = f"[{self.low:.4f}, {self.high:.4f}]"
        return f"recall@{self.k} {self.value:.4f} {bounds} on {self.queries:,} exact queries"


@dataclass(frozen=True, eq=False, repr=False)
class ApproximateNeighbours(Neighbours):
    """The k nearest rows to each row, itself left out, all but some found; distances are exact.

    Attributes:
        recall: how many were found.
        bits: bits compared of every pair.
        counted: share of the pairs of which all bits were counted.

    """

    recall: Recall
    bits: int
    counted: float

    def __repr__(self) -> str:
        rows = f"{len(self.indices):,} rows, {self.bits} bits of every pair, all of {self.counted:.2%}"
        return f"ApproximateNeighbours({rows}; {self.recall})"


@dataclass(frozen=True, eq=False)
class _Part:
    """Some rows, in the order in which they are searched, filled up to whole vectors; with their drawn bits."""

    first: int
    words: UInt64[np.ndarray, "n8 W8"]
    panels: UInt64[np.ndarray, "C P 8"]


def approximate_neighbours(
    packed: UInt8[Packed, "n B"],
    k: int,
    *,
    seed: int,
    expected_recall: float = 0.97,
    recall_queries: int = 1000,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ApproximateNeighbours:
    """Find nearly all of the k rows nearest to each row, and measure how many.

    Distances are exact, ties among what was found come in the order of `nearest`, and the result is the same for every
    number of threads. Memory beyond the result: three parts of the codes, one of them as it is read, and 8 k + 24
    bytes a row. It stops within seconds when interrupted.

    Args:
        packed: packed codes `[n, B]`; may be a memory map or `StoredRows`: it is read part by part.
        k: neighbours of each row, at most n - 1.
        seed: of the drawn bits, the pivots, the queries searched exactly and the order of ties.
        expected_recall: least expected share found, above 0 and at most 1; 1 is the exact search.
        recall_queries: rows whose neighbours are searched exactly to measure the recall.
        threads: how many threads; by default `OMP_NUM_THREADS`, or every core that the process may use.
        progress: told `(done, total)` in pairs of rows after each chunk.

    Raises:
        PolytopeError: not uint8 `[rows, bytes]`, a k, an expected recall or a number of queries out of range.

    """
    _check(packed, k, expected_recall, recall_queries)
    rng = np.random.default_rng(seed)
    queries = np.sort(rng.choice(len(packed), size=min(recall_queries, len(packed)), replace=False))
    # the query itself is one of the k + 1, at distance 0
    exact = hamming.nearest(packed[queries], packed, k + 1, threads=threads).distances[:, 1:]
    bits = _bits_to_draw(packed, queries, exact[:, -1], expected_recall, rng)
    if bits == 8 * packed.shape[1]:
        found, counted = hamming.nearest_in_set(packed, k, threads=threads, seed=seed, progress=progress), 1.0
    else:
        rows = _by_pivot(packed, rng, threads)
        drawn = np.sort(rng.choice(8 * packed.shape[1], size=bits, replace=False))
        table = drawn_limits(8 * packed.shape[1], bits, expected_recall)
        order = tie_order(len(packed), seed)
        heaps, pairs = _search(packed, rows, np.argsort(order)[rows], (drawn, table), k, threads, progress)
        found = hamming.read_heaps(heaps, order, rows)
        counted = 2 * pairs / (len(packed) * (len(packed) - 1))
    recall = _recall(found.distances[queries], exact)
    return ApproximateNeighbours(found.indices, found.distances, recall, bits, counted)


def _check(packed: Packed, k: int, expected_recall: float, recall_queries: int) -> None:
    check_rows(packed, "packed")
    if not 1 <= k < len(packed):
        most = len(packed) - 1
        raise PolytopeError(f"k is {k}, but a row has {most} others; give a k from 1 to {most}, or more codes")
    if not 0 < expected_recall <= 1:
        raise PolytopeError(f"expected_recall is {expected_recall}; give a share above 0 and at most 1, as 0.97")
    if recall_queries < 1:
        raise PolytopeError(f"recall_queries is {recall_queries}; give 1 or more, or the recall is unknown")


def _recall(found: Int[np.ndarray, "q k"], exact: Int[np.ndarray, "q k"]) -> Recall:
    hits = (found >= 0) & (found <= exact[:, -1:])
    value, n = float(hits.mean()), len(found)
    middle, scale = value + Z**2 / (2 * n), 1 + Z**2 / n
    half = Z * np.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    low, high = float((middle - half) / scale), float(min((middle + half) / scale, 1.0))
    return Recall(value, low, high, n, found.shape[1])


def drawn_limits(width: int, bits: int, expected_recall: float) -> UInt64[np.ndarray, " N2"]:
    """Return, for each distance 0 to `width`, the least drawn distance that is left out: `t(L) + 1`.

    `t(L)` is the smallest t with `P[H(width, L, bits) <= t] >= expected_recall`. One more entry, above all
    distances, is for rows that have no k neighbours yet. The law's weights are summed within ten standard deviations
    of its mean: scipy's own quantiles take most of a minute at 36,864 bits.
    """
    from scipy.special import gammaln  # noqa: PLC0415 -- slow to import

    factorial = gammaln(np.arange(width + 1) + 1.0)  # its logarithm
    reach = int(5 * bits**0.5) + 1
    around = np.arange(-reach, reach + 1)
    out = np.full(width + 2, bits + 1, np.uint64)
    for some in hamming.slices(width + 1, CHUNK // 8):
        distance = np.arange(some.start, some.stop)[:, None]
        drawn = bits * distance // width + around
        possible = (drawn >= np.maximum(0, bits + distance - width)) & (drawn <= np.minimum(bits, distance))
        inside = np.where(possible, drawn, np.maximum(0, bits + distance - width))
        parts = (inside, distance - inside, bits - inside, width - distance - bits + inside)
        weight = np.where(possible, -sum(factorial[part] for part in parts), -np.inf)
        law = np.exp(weight - weight.max(axis=1, keepdims=True)).cumsum(axis=1)
        last = (law < expected_recall * law[:, -1:]).sum(axis=1)
        out[some] = drawn[np.arange(len(drawn)), last] + 1
    return out


def _bits_to_draw(
    packed: Packed,
    queries: Int[np.ndarray, " q"],
    farthest: Int[np.ndarray, " q"],
    expected_recall: float,
    rng: np.random.Generator,
) -> int:
    """Return the number of bits, whole words or all, with the least cost predicted on some pairs."""
    from scipy.special import ndtr, ndtri  # noqa: PLC0415 -- slow to import

    width = 8 * int(packed.shape[1])
    if expected_recall == 1:
        return width
    some = rng.choice(len(queries), size=min(_PILOT_QUERIES, len(queries)), replace=False)
    rows = np.sort(rng.choice(len(packed), size=min(_PILOT_ROWS, len(packed)), replace=False))
    distance = hamming.distances(packed[queries[some]], packed[rows], threads=1)
    n_words = -(-width // 64)
    costs: dict[int, float] = {width: n_words + _PAIR_COST}
    for words in [w for w in (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32) if 64 * w < width]:
        mean, sd = _moments(farthest[some, None], width, 64 * words)
        limit = mean + ndtri(expected_recall) * sd
        mean, sd = _moments(distance, width, 64 * words)
        near = float(ndtr((limit + 0.5 - mean) / sd).mean())
        costs[64 * words] = (words + _PAIR_COST) / 2 + _COUNT_COST * near  # every pair once, counted for either row
    return int(min(costs, key=costs.__getitem__))


def _moments(distance: np.ndarray, width: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the hypergeometric number of drawn bits that differ."""
    share = distance / width
    return bits * share, np.sqrt(bits * share * (1 - share) * (width - bits) / max(width - 1, 1)) + 1e-9


def _by_pivot(packed: Packed, rng: np.random.Generator, threads: int | None) -> Int64[np.ndarray, " n"]:
    """Return the rows in the order of their nearest pivots."""
    n = len(packed)
    pivots = np.sort(rng.choice(n, size=max(1, min(_PIVOTS, n // _ROWS_PER_PIVOT)), replace=False))
    nearest = hamming.nearest(packed, packed[pivots], 1, threads=threads).indices[:, 0]
    return np.argsort(nearest, kind="stable")


def _search(
    packed: Packed, rows: Int64[np.ndarray, " n"], places: Int64[np.ndarray, " n"],
    filter_: tuple[Int64[np.ndarray, " b"], UInt64[np.ndarray, " N2"]], k: int, threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[UInt64[np.ndarray, "n k"], int]:  # fmt: skip
    """Return the heaps of the rows in the order given, and how many pairs were counted in full.

    `places` are the rows' in the order of ties; the filter is the drawn bits and their limits. What is found does not
    depend on threads: see `hamming.meetings`.
    """
    from polytope_lm.codes.hamming import kernels  # noqa: PLC0415  numba takes half a second to import

    n, (drawn, table) = len(rows), filter_
    names = np.concatenate([places, np.full(hamming.filled(n) - n, -1)])
    heaps = np.full((len(names), k), _NOTHING, np.uint64)
    limits = np.where(names < 0, 0, table[-1]).astype(np.uint64)

    def load(part: slice) -> _Part:
        codes = np.zeros(
            (hamming.filled(part.stop - part.start), -(-packed.shape[1] // _VECTOR_BYTES) * _VECTOR_BYTES), np.uint8
        )
        prefixes = np.zeros((len(codes), len(drawn) // 64), np.uint64)
        codes[: part.stop - part.start, : packed.shape[1]] = packed[rows[part]]
        hamming.run_on_rows(lambda some: kernels.drawn(codes[some], drawn, prefixes[some]), len(codes), threads)
        return _Part(part.start, codes.view(np.uint64), hamming.in_panels(prefixes, threads))

    def meet(one: _Part, two: _Part, a: slice, b: slice) -> int:
        at_a, at_b = (slice(part.first + x.start, part.first + x.stop) for part, x in ((one, a), (two, b)))
        drawn_a, drawn_b = one.panels[hamming.panels_of(a)], two.panels[hamming.panels_of(b)]
        counted: int = kernels.search_filtered(
            drawn_a, drawn_b, one.words[a], two.words[b], names[at_a], names[at_b],
            table, limits[at_a], limits[at_b], heaps[at_a], heaps[at_b], at_a == at_b,
        )  # fmt: skip
        return counted

    counted = 0
    for done, total, pairs in hamming.meetings(n, CHUNK, load, meet, threads):
        counted += sum(pairs)
        if progress is not None:
            progress(n * n * done // total, n * n)
    return heaps[:n], counted
