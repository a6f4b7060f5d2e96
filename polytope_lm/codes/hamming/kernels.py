"""Compiled Hamming kernels: eight base rows are one vector, eight queries one pass over it.

Base rows are laid out in panels `[P, W, 8]` (word `w` of eight consecutive rows side by side), so one
vector operation advances eight distances at once and no sum across lanes is ever needed. Eight queries
share each load of a panel: per vector that is one xor, one popcount and one add, all in registers. With
AVX-512 VPOPCNTDQ these are one instruction each; elsewhere LLVM lowers the same vector code to what the
processor has.

`search` compares the eight by eight distances with the queries' worst kept neighbours by one branch; only
what passes touches a heap. All of this runs without the interpreter's lock: callers start threads, the
kernels start none.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from polytope_lm.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Int, UInt64

F = TypeVar("F", bound="Callable[..., Any]")

LANES = 8
_LEVEL_1_BYTES = 24 * 1024  # half a usual L1 data cache: a block of queries, with room for a panel
I64 = ir.IntType(64)
VECTOR = ir.VectorType(I64, LANES)


def emitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that emits LLVM code callable from compiled code, as the integer that it returns."""
    return cast("Callable[..., Any]", intrinsic(inspect.unwrap(function)))


def splat(builder: Any, scalar: Any) -> Any:
    """Repeat a 64-bit integer in every lane."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, lanes)


def count_bits(builder: Any, vector: Any) -> Any:
    """Set bits of every lane."""
    kind = ir.FunctionType(VECTOR, [VECTOR])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.v{LANES}i64")
    return builder.call(function, [vector])


def lanes_at(builder: Any, pointer: Any, offset: Any) -> Any:
    """Point to the eight consecutive words that start `offset` words behind `pointer`."""
    return builder.bitcast(builder.gep(pointer, [offset]), VECTOR.as_pointer())


def _accumulate(builder: Any, queries: list[Any], panel: Any, n_words: Any) -> list[Any]:
    """Emit the loop over words; return one vector of eight distances per query."""
    zero = ir.Constant(VECTOR, [0] * LANES)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in queries]
    with cgutils.for_range(builder, n_words) as loop:
        words = builder.load(lanes_at(builder, panel, builder.mul(loop.index, I64(LANES))), align=8)
        for query, total in zip(queries, sums, strict=True):
            word = splat(builder, builder.load(builder.gep(query, [loop.index])))
            count = count_bits(builder, builder.xor(words, word))
            builder.store(builder.add(builder.load(total), count), total)
    return [builder.load(total) for total in sums]


def sums_of_tile(builder: Any, queries: Any, row: Any, panels: Any, panel: Any) -> list[Any]:
    """Emit the distances of queries `row .. row + 7` from a panel's eight rows, one vector per query."""
    n_words = cgutils.unpack_tuple(builder, queries.shape)[1]
    rows = [builder.add(row, I64(r)) for r in range(LANES)]
    starts = [builder.gep(queries.data, [builder.mul(r, n_words)]) for r in rows]
    offset = builder.mul(panel, builder.mul(n_words, I64(LANES)))
    return _accumulate(builder, starts, builder.gep(panels.data, [offset]), n_words)


def below_limits(builder: Any, sums: list[Any], limits: Any, row: Any) -> Any:
    """Emit a 64-bit mask: bit `8 r + l` says that lane `l` of `sums[r]` is below `limits[row + r]`."""
    mask = I64(0)
    for r, total in enumerate(sums):
        limit = splat(builder, builder.load(builder.gep(limits.data, [builder.add(row, I64(r))])))
        below = builder.bitcast(builder.icmp_unsigned("<", total, limit), ir.IntType(LANES))
        mask = builder.or_(mask, builder.shl(builder.zext(below, I64), I64(LANES * r)))
    return mask


@emitted
def _tile(_typing: Any, queries: Any, row: Any, panels: Any, panel: Any, limits: Any, out: Any) -> Any:
    """Emit the distances of queries `row .. row + 7` from a panel's eight rows, written to `out` `[8, 8]`.

    Returns a 64-bit mask: bit `8 r + l` says that the distance of query `row + r` from lane `l` is below
    `limits[row + r]`.
    """
    signature = types.uint64(queries, row, panels, panel, limits, out)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arrays = [context.make_array(sig.args[i])(context, builder, args[i]) for i in (0, 2, 4, 5)]
        sums = sums_of_tile(builder, arrays[0], args[1], arrays[1], args[3])
        for r, total in enumerate(sums):
            builder.store(total, lanes_at(builder, arrays[3].data, I64(LANES * r)), align=8)
        return below_limits(builder, sums, arrays[2], args[1])

    return signature, emit


@emitted
def lowest_bit(_typing: Any, mask: Any) -> Any:
    """Emit the place of the lowest set bit of a mask that is not zero."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(mask), emit


@compiled(boundscheck=False)
def panels(words: UInt64[np.ndarray, "m W"]) -> UInt64[np.ndarray, "P W 8"]:
    """Lay rows out in panels of eight; the last panel is filled with zeros."""
    rows, n_words = words.shape
    out = np.zeros(((rows + LANES - 1) // LANES, n_words, LANES), np.uint64)
    for row in range(rows):
        for word in range(n_words):
            out[row // LANES, word, row % LANES] = words[row, word]
    return out


@compiled(boundscheck=False)
def fill(
    queries: UInt64[np.ndarray, "n8 W"], base: UInt64[np.ndarray, "P W 8"], out: Int[np.ndarray, "n m"]
) -> None:
    """Write all distances to `out`; `n8` is n filled up to a multiple of eight."""
    n, m = out.shape
    limits = np.zeros(queries.shape[0], np.uint64)
    tile = np.empty((LANES, LANES), np.uint64)
    for panel in range(base.shape[0]):
        lanes = min(LANES, m - panel * LANES)
        for row in range(0, n, LANES):
            _tile(queries, row, base, panel, limits, tile)
            for r in range(min(LANES, n - row)):
                for lane in range(lanes):
                    out[row + r, panel * LANES + lane] = tile[r, lane]


@compiled(boundscheck=False)
def search(
    queries: UInt64[np.ndarray, "n8 W"],
    base: UInt64[np.ndarray, "P W 8"],
    first: int,
    own: Int[np.ndarray, " n"],
    groups_queries: Int[np.ndarray, "n G"],
    groups_base: Int[np.ndarray, "m G"],
    limits: UInt64[np.ndarray, " n8"],
    heaps: UInt64[np.ndarray, "n k"],
) -> None:
    """Offer every row of a chunk of the base to every query's heap of its k nearest.

    A heap holds keys `distance * 2^32 + index`, greatest first, so ties go to the lower index if the chunks
    come in the base's order.

    Args:
        queries: rows as words, filled up with zeros to a multiple of eight rows.
        base: the chunk, from `panels`.
        first: the index in the whole base of the chunk's first row.
        own: the row of the base that a query may not have, or -1.
        groups_queries: groups of each query; a negative id is no group.
        groups_base: groups of each row of the whole base; a row that shares one with the query is left out.
        limits: distance of the worst kept neighbour of each query, updated; 0 for the rows that fill up.
        heaps: updated.

    """
    block = max(LANES, _LEVEL_1_BYTES // (8 * queries.shape[1]) // LANES * LANES)
    tile = np.empty((LANES, LANES), np.uint64)
    for start in range(0, queries.shape[0], block):
        stop = min(start + block, queries.shape[0])
        for panel in range(base.shape[0]):
            for row in range(start, stop, LANES):
                mask = _tile(queries, row, base, panel, limits, tile)
                if mask != 0:
                    column = first + panel * LANES
                    _offer(tile, mask, row, column, own, groups_queries, groups_base, limits, heaps)


@compiled(boundscheck=False)
def _offer(
    tile: UInt64[np.ndarray, "8 8"],
    mask: np.uint64,
    row: int,
    column: int,
    own: Int[np.ndarray, " n"],
    groups_queries: Int[np.ndarray, "n G"],
    groups_base: Int[np.ndarray, "m G"],
    limits: UInt64[np.ndarray, " n8"],
    heaps: UInt64[np.ndarray, "n k"],
) -> None:
    """Put a tile's distances that are below their query's limit into its heap, unless they are excluded."""
    while mask != 0:
        place = lowest_bit(mask)
        mask &= mask - np.uint64(1)
        r, lane = place // LANES, place % LANES
        query, index = row + r, column + lane
        # the limit falls while the tile is read; rows behind the base's end only fill up its last panel
        if tile[r, lane] >= limits[query] or index >= groups_base.shape[0] or index == own[query]:
            continue
        if _share_a_group(groups_queries[query], groups_base[index]):
            continue
        replace_greatest(heaps[query], (tile[r, lane] << np.uint64(32)) | np.uint64(index))
        limits[query] = heaps[query, 0] >> np.uint64(32)


@compiled(boundscheck=False)
def _share_a_group(a: Int[np.ndarray, " G"], b: Int[np.ndarray, " G"]) -> bool:
    for g in range(a.size):  # noqa: SIM110  numba compiles no generators of any()
        if a[g] >= 0 and a[g] == b[g]:
            return True
    return False


@compiled(boundscheck=False)
def replace_greatest(heap: UInt64[np.ndarray, " k"], key: int) -> None:
    """Put `key` in the place of a max-heap's greatest element."""
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= heap.size:
            break
        if child + 1 < heap.size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[hole] = heap[child]
        hole = child
    heap[hole] = key
