"""Exact Hamming distances and nearest neighbours of packed codes.

The Hamming distance of two codes is the number of neurons that are on in one and off in the other.
Codes are packed eight to a byte in little bit order: bit `i` of a code is bit `i % 8` of byte `i // 8`,
as `numpy.packbits(bitorder="little")` writes it. Bits of the last byte behind the code's width have to
be zero, or they count.

Rows are copied into 64-bit words, so a width that is no multiple of 64 costs as much as the next one.
All results are exact and the same for every number of threads.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.hamming.searching import Neighbours, check_bytes, check_pair, check_same_width, check_search
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from jaxtyping import Bool, Float, Int, Int32, Int64, UInt8, UInt64

_CHUNK = 4096  # rows of the base in panels at one time: at 3,072 bits they stay in the L2 cache
_TASK = 1024  # most queries of one task
_ROWS = 8  # what the kernels take at once
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
    words = _words(a, filled(len(a)))
    out = np.empty((len(a), len(b)), np.int32)
    for first in range(0, len(b), _CHUNK):
        chunk = b[first : first + _CHUNK]
        panels = kernels.panels(_words(chunk, len(chunk)))
        columns = out[:, first : first + len(chunk)]

        def task(rows: slice, panels: Any = panels, columns: Any = columns) -> None:
            kernels.fill(words[rows], panels, columns[rows])

        run_on_rows(task, len(words), threads)
    return out


def nearest(
    queries: UInt8[np.ndarray, "n B"],
    base: UInt8[np.ndarray, "m B"],
    k: int,
    *,
    exclude_self: bool = False,
    groups_queries: Int[np.ndarray, "n ..."] | None = None,
    groups_base: Int[np.ndarray, "m ..."] | None = None,
    threads: int | None = None,
    device: torch.device | str | None = None,
) -> Neighbours:
    """Find the k rows of `base` that are nearest to each query: exact, ties by the lower index.

    Groups say which pairs are no neighbours: a row of the base that shares a group with the query, in any of
    the G groupings (document, lemma, form, ...), is left out. A negative id is no group and shares nothing.
    Where fewer than k rows are left, index and distance are -1. Ids are below 2^31, `[rows, G]`, or `[rows]`
    for one grouping. `exclude_self`: the queries are the base, and row i is not its own neighbour. The base
    may be a memory map. Threads: by default `OMP_NUM_THREADS`, or every core that the process may use. `device`: a
    torch device, such as `cuda`, finds the same rows there; by default the processor.
    """
    if device is not None and str(device) != "cpu":
        from polytope_lm.codes.hamming.gpu import nearest_on  # noqa: PLC0415  torch takes a second to import

        return nearest_on(
            device, queries, base, k,
            exclude_self=exclude_self, groups_queries=groups_queries, groups_base=groups_base,
        )  # fmt: skip
    grouped_queries, grouped_base = check_search(queries, base, k, exclude_self, groups_queries, groups_base)
    from polytope_lm.codes.hamming import kernels  # noqa: PLC0415  numba takes half a second to import

    one_set = exclude_self and (queries is base or np.array_equal(queries, base))
    if one_set and np.array_equal(grouped_queries, grouped_base):
        return _nearest_of_pairs(_words(base, filled(len(base))), k, grouped_base, threads)
    own = np.arange(len(queries)) if exclude_self else np.full(len(queries), -1)
    words = _words(queries, filled(len(queries)))
    heaps = np.full((len(queries), k), _NOTHING, np.uint64)
    limits = np.zeros(len(words), np.uint64)
    limits[: len(queries)] = _NOTHING >> np.uint64(32)
    for first in range(0, len(base), _CHUNK):
        chunk = base[first : first + _CHUNK]
        panels = kernels.panels(_words(chunk, len(chunk)))

        def task(rows: slice, panels: Any = panels, first: int = first) -> None:
            mine = (own[rows], grouped_queries[rows], grouped_base, limits[rows], heaps[rows])
            kernels.search(words[rows], panels, first, *mine)

        run_on_rows(task, len(words), threads)
    return read_heaps(heaps)


def _nearest_of_pairs(
    words: UInt64[np.ndarray, "n8 W"], k: int, groups: Int32[np.ndarray, "n G"], threads: int | None
) -> Neighbours:
    """Find all rows' nearest in one set, every pair of rows counted once.

    Blocks meet as players of a tournament do: the pairs of a round share no block, so that threads never
    write to one heap.
    """
    from polytope_lm.codes.hamming import kernels  # noqa: PLC0415  numba takes half a second to import

    n, workers = len(groups), thread_count(threads)
    players = 2 * workers * max(1, -(-len(words) // (2 * workers * _TASK)))  # each round, as many pairs for each thread
    size = filled(max(1, -(-len(words) // players)))
    blocks = [slice(first, min(first + size, len(words))) for first in range(0, len(words), size)]
    panels = kernels.panels(words)
    heaps = np.full((len(words), k), _NOTHING, np.uint64)
    heaps[n:] = 0

    def meet(pair: tuple[int, int]) -> None:
        one, two = (blocks[i] for i in pair)
        base = panels[two.start // _ROWS : two.stop // _ROWS]
        kernels.search_pairs(words[one], base, (one.start, two.start), groups, heaps[one], heaps[two])

    with ThreadPoolExecutor(workers) as pool:
        for pairs in rounds(len(blocks)):
            list(pool.map(meet, pairs))
    return read_heaps(heaps[:n])


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


def read_heaps(heaps: UInt64[np.ndarray, "n k"]) -> Neighbours:
    """Sort heaps of keys, `distance * 2^32 + index`, and take them apart; all ones is no neighbour."""
    keys = np.sort(heaps, axis=1)
    parts = (keys & np.uint64(2**32 - 1), keys >> np.uint64(32))
    return Neighbours(*(np.where(keys == _NOTHING, -1, part.astype(np.int64)).astype(np.int32) for part in parts))


def run_on_rows(task: Callable[[slice], None], rows: int, threads: int | None) -> None:
    """Run a task on slices of the rows, each a multiple of eight long, in as many threads.

    Plain threads, not OpenMP's: they survive a fork and do not compete with torch's pool.
    """
    workers = thread_count(threads)
    size = min(_TASK, filled(-(-rows // (4 * workers))))
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


def _words(packed: UInt8[np.ndarray, "n B"], rows: int) -> UInt64[np.ndarray, "rows W"]:
    """Copy codes into 64-bit words, filled up with zeros to whole words and to `rows` rows."""
    out = np.zeros((rows, -(-packed.shape[1] // 8) * 8), np.uint8)
    out[: len(packed), : packed.shape[1]] = packed
    return out.view(np.uint64)


def _check_width(packed: np.ndarray, width: int) -> None:
    check_bytes(packed, "packed")
    if width < 1 or packed.shape[-1] != -(-width // 8):
        raise PolytopeError(f"codes of {packed.shape[-1]} bytes are not {width} bits wide; give the site's width")
