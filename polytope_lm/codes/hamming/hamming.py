"""Exact Hamming distances and nearest neighbours of packed codes.

The Hamming distance of two codes is the number of neurons that are on in one and off in the other.
Codes are packed eight to a byte in little bit order: bit `i` of a code is bit `i % 8` of byte `i // 8`,
as `numpy.packbits(bitorder="little")` writes it. Bits of the last byte behind the code's width have to
be zero, or they count.

Rows are copied into 64-bit words, so a width that is no multiple of 64 costs as much as the next one.
All results are exact and the same for every number of threads. Of rows that are searched, an array or `StoredRows`,
only two parts are held at a time, while a third is read; neighbours at the same distance come in one drawn order
(`seeds.tie_order`).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from polytope_lm.codes.hamming.searching import (
    Neighbours,
    Packed,
    check_bytes,
    check_pair,
    check_same_width,
    check_search,
)
from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import tie_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from jaxtyping import Bool, Float, Int, Int32, Int64, UInt8, UInt64

P = TypeVar("P")
T = TypeVar("T")

PART = 131_072  # rows that are read at one time: at most two such parts are held, and one more as it is read
_CHUNK = 1024  # rows of the base that are searched at one time: at 3,072 bits they stay in the L2 cache
_TASK = 2048  # most queries of one task
_BLOCK = 4096  # most rows of a set that meet others at one time: threads wait for each other after every round
_LANES = 8  # rows of a panel
_ROWS = 2 * _LANES  # of which the kernels take two at once
_NOTHING = np.iinfo(np.uint64).max


def pack(bits: Bool[np.ndarray, "*rows N"]) -> UInt8[np.ndarray, "*rows B"]:
    """Pack booleans along the last axis into ceil(N/8) bytes; the last byte is filled with zeros."""
    if bits.dtype != np.bool_:
        raise PolytopeError(f"pack takes booleans, not {bits.dtype}; compare first, as in pack(h > 0)")
    return np.packbits(bits, axis=-1, bitorder="little")


def unpack(packed: UInt8[np.ndarray, "*rows B"], width: int) -> Bool[np.ndarray, "*rows N"]:
    """Return the `width` booleans of each packed code: the inverse of `pack`."""
    _check_width(packed, width)
    bits: np.ndarray = np.unpackbits(packed, axis=-1, count=width, bitorder="little").view(np.bool_)
    return bits


def beside(packed: Sequence[np.ndarray], widths: Sequence[int]) -> UInt8[np.ndarray, "T B"]:
    """Return packed codes side by side, packed anew: bit i of the second follows the first one's last."""
    if len(packed) == 1:
        return packed[0]
    if all(width % 8 == 0 for width in widths[:-1]):
        return np.concatenate(packed, axis=1)
    out = np.empty((len(packed[0]), -(-sum(widths) // 8)), np.uint8)
    for start in range(0, len(out), _CHUNK):
        rows = slice(start, start + _CHUNK)
        bits = [unpack(np.asarray(part[rows]), width) for part, width in zip(packed, widths, strict=True)]
        out[rows] = pack(np.concatenate(bits, axis=1))
    return out


def xor(a: UInt8[np.ndarray, "*#rows B"], b: UInt8[np.ndarray, "*#rows B"]) -> UInt8[np.ndarray, "... B"]:
    """Return the bits in which codes differ, packed; leading axes broadcast."""
    for name, codes in (("a", a), ("b", b)):
        check_bytes(codes, name)
    check_same_width(a, b, ("a", "b"))
    return np.asarray(np.bitwise_xor(a, b))


def popcount(packed: UInt8[np.ndarray, "*rows B"]) -> Int64[np.ndarray, "*rows"]:
    """Return the number of set bits of each packed code."""
    check_bytes(packed, "packed")
    return np.asarray(np.bitwise_count(packed).sum(axis=-1, dtype=np.int64))


def counts(packed: UInt8[np.ndarray, "T B"], width: int) -> Int64[np.ndarray, " N"]:
    """Count for each neuron the codes in which it is on, int64 `[N]`."""
    _check_width(packed, width)
    if packed.ndim != 2:
        raise PolytopeError(
            f"codes to be counted have shape {packed.shape}; give [tokens, bytes] (one code: code[None])"
        )
    total = np.zeros(width, np.int64)
    for start in range(0, len(packed), _CHUNK):
        total += unpack(np.asarray(packed[start : start + _CHUNK]), width).sum(axis=0, dtype=np.int64)
    return total


def rates(packed: UInt8[np.ndarray, "T B"], width: int) -> Float[np.ndarray, " N"]:
    """Return each neuron's firing rate `r_i = mean_t z_ti`, float64 `[N]`, from packed codes `[T, B]`."""
    total = counts(packed, width)
    if len(packed) == 0:
        raise PolytopeError(f"firing rates need at least one token; the codes have shape {packed.shape}")
    return total / len(packed)


def distances(
    a: UInt8[np.ndarray, "n B"], b: UInt8[np.ndarray, "m B"], *, threads: int | None = None
) -> Int32[np.ndarray, "n m"]:
    """Return all Hamming distances in bits between the rows of `a` and the rows of `b`, int32 `[n, m]`."""
    from polytope_lm.codes.hamming import kernels  # noqa: PLC0415  numba takes half a second to import

    check_pair(a, b, ("a", "b"))
    queries = in_panels(words_of(a), threads)
    out = np.empty((len(a), len(b)), np.int32)
    for part in slices(len(b), PART):
        panels = in_panels(words_of(b[part]), threads)
        columns = out[:, part]

        def task(rows: slice, panels: Any = panels, columns: Any = columns) -> None:
            kernels.fill(queries[panels_of(rows)], panels, columns[rows])

        run_on_rows(task, filled(len(a)), threads)
    return out


def nearest(
    queries: UInt8[Packed, "n B"],
    base: UInt8[Packed, "m B"],
    k: int,
    *,
    exclude_self: bool = False,
    groups_queries: Int[np.ndarray, "n ..."] | None = None,
    groups_base: Int[np.ndarray, "m ..."] | None = None,
    threads: int | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Neighbours:
    """Find the k rows of `base` that are nearest to each query: exact, ties in the order that `seed` draws.

    Groups say which pairs are no neighbours: a row of the base that shares a group with the query, in any of
    the G groupings (document, lemma, form, ...), is left out. A negative id is no group and shares nothing.
    Where fewer than k rows are left, index and distance are -1. Ids are below 2^31, `[rows, G]`, or `[rows]`
    for one grouping. `exclude_self`: the queries are the base, and row i is not its own neighbour. Queries and base
    may be memory maps or `StoredRows`: they are read part by part. Threads: by default `OMP_NUM_THREADS`, or every core
    that the process may use. `device`: a torch device, such as `cuda`, finds the same rows there; by default the
    processor.
    """
    if device is not None and str(device) != "cpu":
        from polytope_lm.codes.hamming.gpu import nearest_on  # noqa: PLC0415  torch takes a second to import

        return nearest_on(
            device, queries, base, k,
            exclude_self=exclude_self, groups_queries=groups_queries, groups_base=groups_base, seed=seed,
        )  # fmt: skip
    grouped_queries, grouped_base = check_search(queries, base, k, exclude_self, groups_queries, groups_base)
    one_set = exclude_self and np.array_equal(grouped_queries, grouped_base)
    if one_set and (queries is base or all(np.array_equal(queries[s], base[s]) for s in slices(len(base), PART))):
        return nearest_in_set(base, k, grouped_base, threads=threads, seed=seed)
    order = tie_order(len(base), seed)
    grouped_base = grouped_base[order]
    own = np.argsort(order) if exclude_self else np.full(len(queries), -1)
    heaps = np.full((len(queries), k), _NOTHING, np.uint64)
    for some in slices(len(queries), PART):
        count = some.stop - some.start
        limits = np.zeros(filled(count), np.uint64)
        limits[:count] = _NOTHING >> np.uint64(32)
        mine = _Queries(
            in_panels(words_of(queries[some]), threads), own[some], grouped_queries[some], limits, heaps[some]
        )
        for part in slices(len(base), PART):
            search = partial(mine.search, in_panels(words_of(base[order[part]]), threads), part.start, grouped_base)
            run_on_rows(search, len(limits), threads)
            del search  # before the next part is read
        del mine
    return read_heaps(heaps, order)


@dataclass(frozen=True, eq=False)
class _Queries:
    """What kernels are given of some queries: see `kernels.search`."""

    panels: UInt64[np.ndarray, "Q W 8"]
    own: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, "n G"]
    limits: UInt64[np.ndarray, " n8"]
    heaps: UInt64[np.ndarray, "n k"]

    def search(self, panels: np.ndarray, first: int, groups_base: np.ndarray, rows: slice) -> None:
        """Offer a part of the base to some of them, chunk by chunk."""
        from polytope_lm.codes.hamming import kernels  # noqa: PLC0415  numba takes half a second to import

        given = (self.own[rows], self.groups[rows], groups_base, self.limits[rows], self.heaps[rows])
        for chunk in slices(len(panels) * _LANES, _CHUNK):
            kernels.search(self.panels[panels_of(rows)], panels[panels_of(chunk)], first + chunk.start, *given)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some places of the searched order."""

    first: int
    panels: UInt64[np.ndarray, "P W 8"]


def nearest_in_set(
    packed: UInt8[Packed, "n B"],
    k: int,
    groups: Int32[np.ndarray, "n G"] | None = None,
    *,
    threads: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Neighbours:
    """Find all rows' nearest others in one set, as `nearest` does, every pair of rows counted once.

    `progress` is told `(done, total)` in pairs of rows.
    """
    from polytope_lm.codes.hamming import kernels  # noqa: PLC0415  numba takes half a second to import

    n, order = len(packed), tie_order(len(packed), seed)
    placed = np.empty((n, 0), np.int32) if groups is None else groups[order]
    heaps = np.full((filled(n), k), _NOTHING, np.uint64)
    heaps[n:] = 0
    workers, rows = thread_count(threads), filled(min(n, PART))
    players = 2 * workers * max(1, -(-rows // (2 * workers * _BLOCK)))  # each round, as many pairs for each thread

    def load(places: slice) -> _Part:
        return _Part(places.start, in_panels(words_of(packed[order[places]]), threads))

    def meet(one: _Part, two: _Part, a: slice, b: slice) -> None:
        firsts = (one.first + a.start, two.first + b.start)
        both = (heaps[first : first + block.stop - block.start] for first, block in zip(firsts, (a, b), strict=True))
        kernels.search_pairs(one.panels[panels_of(a)], two.panels[panels_of(b)], firsts, placed, *both)

    for done, total, _ in meetings(n, filled(-(-rows // players)), load, meet, threads):
        if progress is not None:
            progress(n * n * done // total, n * n)
    return read_heaps(heaps[:n], order, order)


def meetings(
    rows: int, size: int, load: Callable[[slice], P], meet: Callable[[P, P, slice, slice], T], threads: int | None
) -> Iterator[tuple[int, int, list[T]]]:
    """Let all blocks of so many rows meet, each itself and every other once; yield after each round.

    At most two parts of the rows are at hand, from `load`; `meet` is given these and a block of each. No block is twice
    in a round, so that threads never write to one heap. A part meets itself before it meets others, a block likewise.
    Yielded are how many meetings are done, of how many, and what the round's returned.
    """
    parts = slices(rows, PART)
    blocks = [slices(filled(part.stop - part.start), size) for part in parts]
    pairs = [(i, i) for i in range(len(parts))] + list(combinations(range(len(parts)), 2))
    every = sum(map(len, blocks))
    held: dict[int, P] = {}
    done, total = 0, every * (every + 1) // 2
    with ThreadPoolExecutor(thread_count(threads)) as pool:
        for one, two in pairs:
            held = {i: part for i, part in held.items() if i in {one, two}}
            held |= {i: load(parts[i]) for i in {one, two} - held.keys()}
            mine, theirs = blocks[one], blocks[two]
            for players in rounds(len(mine)) if one == two else rounds_between(len(mine), len(theirs)):
                done += len(players)
                own, others = [mine[i] for i, _ in players], [theirs[j] for _, j in players]
                yield done, total, list(pool.map(partial(meet, held[one], held[two]), own, others))


def slices(rows: int, size: int) -> list[slice]:
    """Return so many rows as slices of the size, the last one shorter."""
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]


def rounds(players: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the rounds of a tournament in which everyone meets himself first, then each other once.

    Nobody plays twice in a round.
    """
    yield [(i, i) for i in range(players)]
    circle = list(range(players + players % 2))  # an odd number: who meets the last one waits
    half = len(circle) // 2
    for _ in circle[1:]:
        pairs = zip(circle[:half], circle[: half - 1 : -1], strict=True)
        yield [pair for pair in pairs if max(pair) < players]
        circle[1:] = [circle[-1], *circle[1:-1]]


def rounds_between(players: int, others: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the rounds in which everyone of one side meets everyone of another once, nobody twice in a round."""
    most = max(players, others)
    for shift in range(most):
        yield [(i, (i + shift) % most) for i in range(players) if (i + shift) % most < others]


def read_heaps(
    heaps: UInt64[np.ndarray, "n k"], order: Int64[np.ndarray, " m"], of: Int64[np.ndarray, " n"] | None = None
) -> Neighbours:
    """Take heaps of keys apart, `distance * 2^32 + place`, greatest first; all ones is no neighbour.

    `order` has the row at each place, `of` the row whose heap each is; by default they come in the rows' order.
    """
    indices, distances = (np.empty(heaps.shape, np.int32) for _ in range(2))
    for some in slices(len(heaps), _CHUNK):
        keys = heaps[some, ::-1]
        there, rows = keys != _NOTHING, some if of is None else of[some]
        place = np.where(there, keys & np.uint64(2**32 - 1), 0).astype(np.int64)
        indices[rows] = np.where(there, order[place], -1)
        distances[rows] = np.where(there, (keys >> np.uint64(32)).astype(np.int64), -1)
    return Neighbours(indices, distances)


def run_on_rows(task: Callable[[slice], None], rows: int, threads: int | None) -> None:
    """Run a task on slices of the rows, each a multiple of sixteen long, in as many threads.

    Plain threads, not OpenMP's: they survive a fork and do not compete with torch's pool.
    """
    workers = thread_count(threads)
    tasks = workers * max(4, -(-rows // (workers * _TASK)))  # as many for each thread
    size = filled(-(-rows // tasks))
    slices = [slice(start, min(start + size, rows)) for start in range(0, rows, max(size, 1))]
    if workers == 1 or len(slices) < 2:
        list(map(task, slices))
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(task, slices))


def thread_count(threads: int | None) -> int:
    """Return how many threads: those asked for, `OMP_NUM_THREADS`, or a thread for every core."""
    if threads is not None:
        if threads < 1:
            raise PolytopeError(f"threads is {threads}; give 1 or more, or leave it out for every core")
        return threads
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def filled(rows: int) -> int:
    """Return the next multiple of the rows that the kernels take at once."""
    return -(-rows // _ROWS) * _ROWS


def panels_of(rows: slice) -> slice:
    """Return the places of the panels, of eight rows, that hold these rows; they start and end with a panel."""
    return slice(rows.start // _LANES, rows.stop // _LANES)


def words_of(packed: UInt8[np.ndarray, "n B"]) -> UInt64[np.ndarray, "n W"]:
    """Return codes as 64-bit words, filled up with zeros: the same memory where nothing is to be filled."""
    if packed.shape[1] % 8 == 0 and packed.flags.c_contiguous:
        return packed.view(np.uint64)
    out = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    out[:, : packed.shape[1]] = packed
    return out.view(np.uint64)


def in_panels(words: UInt64[np.ndarray, "n W"], threads: int | None) -> UInt64[np.ndarray, "P W 8"]:
    """Lay rows out as the kernels read them: in panels of eight, an even number of them, filled up with zeros."""
    from polytope_lm.codes.hamming import kernels  # noqa: PLC0415  numba takes half a second to import

    shape = (filled(len(words)) // _LANES, words.shape[1], _LANES)
    size = prod(shape)
    memory = np.zeros(size + _LANES, np.uint64)
    first = -(memory.ctypes.data // 8) % _LANES  # a vector that lies in two cache lines takes two loads
    out = memory[first : first + size].reshape(shape)
    run_on_rows(lambda rows: kernels.lay_out(words[rows], out[panels_of(rows)]), filled(len(words)), threads)
    return out


def _check_width(packed: np.ndarray, width: int) -> None:
    check_bytes(packed, "packed")
    if width < 1 or packed.shape[-1] != -(-width // 8):
        raise PolytopeError(f"codes of {packed.shape[-1]} bytes are not {width} bits wide; give the site's width")
