"""Compiled Hamming kernels: eight base rows are one vector, eight queries one pass over it.

Base rows are laid out in panels `[P, W, 8]` (word `w` of eight consecutive rows side by side), so one
vector operation advances eight distances at once and no sum across lanes is ever needed. Eight queries
share each load of a panel: per vector that is one xor, one popcount and one add, all in registers. With
AVX-512 VPOPCNTDQ these are one instruction each; elsewhere LLVM lowers the same vector code to what the
processor has.

`search` compares the eight by eight distances with the queries' worst kept neighbours by one branch; only
what passes touches a heap. `search_pairs` compares the rows of one set, every pair once. `search_filtered`
counts some bits of every pair, and all bits only of those that look near. All of this runs without the
interpreter's lock: callers start threads, the kernels start none.
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

    from jaxtyping import Int, UInt8, UInt64

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


def below_limits(builder: Any, sums: list[Any], limits: Any, row: Any, lanes: Any = None) -> Any:
    """Emit a 64-bit mask: bit `8 r + l` says that lane `l` of `sums[r]` is below `limits[row + r]` or its own limit."""
    mask = I64(0)
    for r, total in enumerate(sums):
        limit = splat(builder, builder.load(builder.gep(limits.data, [builder.add(row, I64(r))])))
        if lanes is not None:
            limit = builder.select(builder.icmp_unsigned(">", limit, lanes), limit, lanes)
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
def fill(queries: UInt64[np.ndarray, "n8 W"], base: UInt64[np.ndarray, "P W 8"], out: Int[np.ndarray, "n m"]) -> None:
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

    Queries are filled up with zeros to a multiple of eight rows. `base` is the chunk, from `panels`, and `first`
    the index of its first row in the whole base. A query may not have the row `own` (-1: none), nor one that
    shares a group with it (a negative id is no group); `groups_base` is of the whole base. `limits`, the
    distance of each query's worst kept neighbour (0 for the rows that fill up), and the heaps are updated.
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
        r, lane = place >> 3, place & 7
        query, index = row + r, column + lane
        # the limit falls while the tile is read; rows behind the base's end only fill up its last panel
        if tile[r, lane] >= limits[query] or index >= groups_base.shape[0] or index == own[query]:
            continue
        if _share_a_group(groups_queries, query, groups_base, index):
            continue
        replace_greatest(heaps, query, (tile[r, lane] << np.uint64(32)) | np.uint64(index))
        limits[query] = heaps[query, 0] >> np.uint64(32)


@compiled(boundscheck=False)
def _share_a_group(a: Int[np.ndarray, "n G"], row: int, b: Int[np.ndarray, "m G"], other: int) -> bool:
    for g in range(a.shape[1]):  # noqa: SIM110  numba compiles no generators of any()
        if a[row, g] >= 0 and a[row, g] == b[other, g]:
            return True
    return False


@compiled(boundscheck=False)
def replace_greatest(heaps: UInt64[np.ndarray, "n k"], row: int, key: int) -> None:
    """Put `key` in the place of a row's greatest key; the keys stay sorted, greatest first."""
    place = 1
    while place < heaps.shape[1] and heaps[row, place] > key:
        heaps[row, place - 1] = heaps[row, place]
        place += 1
    heaps[row, place - 1] = key


@emitted
def _tile_of_pairs(
    _typing: Any, queries: Any, row: Any, panels: Any, panel: Any, limits: Any, limits_base: Any, out: Any
) -> Any:
    """Emit the distances of a tile as `_tile`, and the pairs that are near for either of their rows.

    Bit `8 r + l` of the mask says that the distance is below `limits[row + r]` or `limits_base[8 panel + l]`.
    """
    signature = types.uint64(queries, row, panels, panel, limits, limits_base, out)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arrays = [context.make_array(sig.args[i])(context, builder, args[i]) for i in (0, 2, 4, 5, 6)]
        sums = sums_of_tile(builder, arrays[0], args[1], arrays[1], args[3])
        lanes = lanes_at(builder, arrays[3].data, builder.mul(args[3], I64(LANES)))
        for r, total in enumerate(sums):
            builder.store(total, lanes_at(builder, arrays[4].data, I64(LANES * r)), align=8)
        return below_limits(builder, sums, arrays[2], args[1], builder.load(lanes, align=8))

    return signature, emit


@compiled(boundscheck=False)
def search_pairs(
    queries: UInt64[np.ndarray, "q W"],
    base: UInt64[np.ndarray, "P W 8"],
    first: tuple[int, int],
    groups: Int[np.ndarray, "n G"],
    heaps: UInt64[np.ndarray, "q k"],
    heaps_base: UInt64[np.ndarray, "b k"],
) -> None:
    """Offer every pair of rows of two blocks of one set to the heaps of both of its rows.

    Keys are compared whole, so that the order in which pairs come does not matter.

    `base` is the other block, or the same one; `first`, the indices in the whole set of both blocks' first
    rows; `groups` are of the whole set; the rest as in `search`, of either block.
    """
    block = max(LANES, _LEVEL_1_BYTES // (8 * queries.shape[1]) // LANES * LANES)
    tile = np.empty((LANES, LANES), np.uint64)
    n, same = groups.shape[0], first[0] == first[1]
    limits = np.array([_limit(heaps, row, first[1]) for row in range(len(heaps))])
    limits_base = limits if same else np.array([_limit(heaps_base, row, first[0]) for row in range(len(heaps_base))])
    for start in range(0, queries.shape[0], block):
        stop = min(start + block, queries.shape[0])
        for panel in range(base.shape[0]):
            for row in range(max(start, panel * LANES) if same else start, stop, LANES):
                mask = _tile_of_pairs(queries, row, base, panel, limits, limits_base, tile)
                while mask != 0:
                    place = lowest_bit(mask)
                    mask &= mask - np.uint64(1)
                    r, lane = place >> 3, place & 7
                    one, two = row + r, panel * LANES + lane
                    i, j = first[0] + one, first[1] + two
                    # a tile on the diagonal has each pair twice
                    if i >= n or j >= n or (same and i <= j) or _share_a_group(groups, i, groups, j):
                        continue
                    distance = tile[r, lane] << np.uint64(32)
                    if distance | np.uint64(j) < heaps[one, 0]:
                        replace_greatest(heaps, one, distance | np.uint64(j))
                        limits[one] = _limit(heaps, one, first[1])
                    if distance | np.uint64(i) < heaps_base[two, 0]:
                        replace_greatest(heaps_base, two, distance | np.uint64(i))
                        limits_base[two] = _limit(heaps_base, two, first[0])


@compiled(boundscheck=False)
def _limit(heaps: UInt64[np.ndarray, "n k"], row: int, first: int) -> np.uint64:
    """Return the least distance at which no row from `first` on is nearer than a heap's worst, ties by the index."""
    worst: np.uint64 = heaps[row, 0]
    return (worst >> np.uint64(32)) + np.uint64(worst & np.uint64(2**32 - 1) > np.uint64(first))


@emitted
def _near(_typing: Any, queries: Any, row: Any, panels: Any, panel: Any, limits: Any, limits_base: Any) -> Any:
    """Emit bit `8 r + l`: the drawn bits of query `row + r` and lane `l` differ in fewer than either's limit."""
    signature = types.uint64(queries, row, panels, panel, limits, limits_base)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arrays = [context.make_array(sig.args[i])(context, builder, args[i]) for i in (0, 2, 4, 5)]
        sums = sums_of_tile(builder, arrays[0], args[1], arrays[1], args[3])
        lanes = lanes_at(builder, arrays[3].data, builder.mul(args[3], I64(LANES)))
        return below_limits(builder, sums, arrays[2], args[1], builder.load(lanes, align=8))

    return signature, emit


@emitted
def _differing(_typing: Any, a: Any, row: Any, b: Any, other: Any) -> Any:
    """Emit the Hamming distance of row `row` of `a` and row `other` of `b`, whole vectors of words long."""
    signature = types.uint64(a, row, b, other)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arrays = [context.make_array(sig.args[i])(context, builder, args[i]) for i in (0, 2)]
        n_words = cgutils.unpack_tuple(builder, arrays[0].shape)[1]
        starts = [
            builder.gep(array.data, [builder.mul(at, n_words)])
            for array, at in zip(arrays, (args[1], args[3]), strict=True)
        ]
        total = cgutils.alloca_once_value(builder, ir.Constant(VECTOR, [0] * LANES))
        with cgutils.for_range(builder, builder.udiv(n_words, I64(LANES))) as loop:
            offset = builder.mul(loop.index, I64(LANES))
            one, two = (builder.load(lanes_at(builder, start, offset), align=8) for start in starts)
            count = count_bits(builder, builder.xor(one, two))
            builder.store(builder.add(builder.load(total), count), total)
        kind = ir.FunctionType(I64, [VECTOR])
        name = f"llvm.vector.reduce.add.v{LANES}i64"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [builder.load(total)])

    return signature, emit


@compiled(boundscheck=False)
def drawn(packed: UInt8[np.ndarray, "m B"], bits: Int[np.ndarray, " b"], out: UInt64[np.ndarray, "m P"]) -> None:
    """Write the bits `bits` of each packed code to `out`, 64 to a word; `out` holds zeros before."""
    for row in range(packed.shape[0]):
        for place in range(bits.size):
            bit = (packed[row, bits[place] >> 3] >> (bits[place] & 7)) & 1
            out[row, place >> 6] |= np.uint64(bit) << np.uint64(place & 63)


@compiled(boundscheck=False)
def search_filtered(  # noqa: PLR0913, PLR0917 - compiled code takes arrays one by one
    prefixes: UInt64[np.ndarray, "q P"],
    panels: UInt64[np.ndarray, "C P 8"],
    words: UInt64[np.ndarray, "q W8"],
    base: UInt64[np.ndarray, "b W8"],
    names: Int[np.ndarray, " q"],
    names_base: Int[np.ndarray, " b"],
    table: UInt64[np.ndarray, " N2"],
    limits: UInt64[np.ndarray, " q"],
    limits_base: UInt64[np.ndarray, " b"],
    heaps: UInt64[np.ndarray, "q k"],
    heaps_base: UInt64[np.ndarray, "b k"],
    same: bool,
) -> int:
    """Offer every pair of rows of two blocks of one set to the heaps of both of its rows; return pairs counted.

    Both blocks are whole multiples of eight rows. `prefixes` are drawn bits of one block, `panels` those of the other,
    or of the `same`; `words` and `base` are all bits of both, `names` their indices, -1 for rows that fill up. `table`
    holds, for the distance of a heap's worst, the drawn distance from which on a row is left out (the last entry is
    for heaps that are not full); `limits` that distance for each row, 0 for rows that fill up. Limits and heaps, of
    keys as in `search`, are updated.
    """
    counted, last = 0, np.uint64(table.size - 1)
    block = max(LANES, _LEVEL_1_BYTES // (8 * prefixes.shape[1]) // LANES * LANES)
    for start in range(0, prefixes.shape[0], block):
        stop = min(start + block, prefixes.shape[0])
        for panel in range(panels.shape[0]):
            for row in range(max(start, panel * LANES) if same else start, stop, LANES):
                mask = _near(prefixes, row, panels, panel, limits, limits_base)
                while mask != 0:
                    place = lowest_bit(mask)
                    mask &= mask - np.uint64(1)
                    one, two = row + place // LANES, panel * LANES + place % LANES
                    # a tile on the diagonal has each pair twice
                    if names[one] < 0 or names_base[two] < 0 or (same and one <= two):
                        continue
                    counted += 1
                    distance = _differing(words, one, base, two) << np.uint64(32)
                    if distance | np.uint64(names_base[two]) < heaps[one, 0]:
                        replace_greatest(heaps, one, distance | np.uint64(names_base[two]))
                        limits[one] = table[min(heaps[one, 0] >> np.uint64(32), last)]
                    if distance | np.uint64(names[one]) < heaps_base[two, 0]:
                        replace_greatest(heaps_base, two, distance | np.uint64(names[one]))
                        limits_base[two] = table[min(heaps_base[two, 0] >> np.uint64(32), last)]
    return counted
