"""Compiled Hamming kernels: eight rows are one vector, sixteen base rows and eight queries one tile.

Rows are laid out in panels `[P, W, 8]` (word `w` of eight consecutive rows side by side), so one vector operation
advances eight distances at once and no sum across lanes is ever needed. A tile is eight queries by two panels: its
sixteen sums stay in registers, and per vector there is one xor, one popcount and one add. With AVX-512 VPOPCNTDQ
these are one instruction each; elsewhere LLVM lowers the same vector code to what the processor has.

`search` compares a tile's distances with the queries' worst kept neighbours; only what is nearer touches a heap, and
only after the next tile has begun: the processor guesses whether anything is near, and while it finds that it was
wrong, it still has that tile's work to do. `search_pairs` compares the rows of one set, every pair once.
`search_filtered` counts some bits of every pair, and all bits only of those that look near. All of this runs without
the interpreter's lock: callers start threads, the kernels start none.
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
PANELS = 2  # that a tile takes: 16 sums, two panels' words and a query's fit the registers of AVX-512
PAIRS = PANELS * LANES * LANES  # of a tile
_LEVEL_1_BYTES = 24 * 1024  # of a block of queries: with two panels of 3,072 bits it fits an L1 data cache of 32 KB
I64 = ir.IntType(64)
VECTOR = ir.VectorType(I64, LANES)


def emitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that emits LLVM code callable from compiled code."""
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


def sums_of_tile(builder: Any, queries: Any, row: Any, panels: Any, panel: Any) -> list[list[Any]]:
    """Emit the distances of queries `row .. row + 7` from `panel` and the next: for each panel, a vector per query."""
    n_words = cgutils.unpack_tuple(builder, queries.shape)[1]
    size = builder.mul(n_words, I64(LANES))
    rows = builder.gep(queries.data, [builder.mul(row, n_words)])
    first = builder.gep(panels.data, [builder.mul(panel, size)])
    both = (first, builder.gep(first, [size]))
    zero = ir.Constant(VECTOR, [0] * LANES)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(LANES)] for _ in both]
    with cgutils.for_range(builder, n_words) as loop:
        offset = builder.mul(loop.index, I64(LANES))
        words = [builder.load(lanes_at(builder, start, offset), align=8) for start in both]
        for r in range(LANES):
            query = splat(builder, builder.load(builder.gep(rows, [builder.add(offset, I64(r))])))
            for word, totals in zip(words, sums, strict=True):
                count = count_bits(builder, builder.xor(word, query))
                builder.store(builder.add(builder.load(totals[r]), count), totals[r])
    return [[builder.load(total) for total in totals] for totals in sums]


def limits_of_tile(builder: Any, limits: Any, row: Any, limits_base: Any, panel: Any) -> list[list[Any]]:
    """Emit below which distance each pair is near: the query's limit, or the greater one of its and the base row's."""
    places = [builder.add(row, I64(r)) for r in range(LANES)]
    own = [splat(builder, builder.load(builder.gep(limits.data, [place]))) for place in places]
    if limits_base is None:
        return [own] * PANELS
    out = []
    for half in range(PANELS):
        place = builder.mul(builder.add(panel, I64(half)), I64(LANES))
        theirs = builder.load(lanes_at(builder, limits_base.data, place), align=8)
        out.append([builder.select(builder.icmp_unsigned(">", mine, theirs), mine, theirs) for mine in own])
    return out


@emitted
def _tile(
    _typing: Any, queries: Any, row: Any, panels: Any, panel: Any, limits: Any, limits_base: Any, tile: Any, near: Any
) -> Any:
    """Emit `tile` `[128]`, the distances of queries `row .. row + 7` from `panel` and the next, by panel, query, lane.

    The 128 bits of `near`, in the same order, say which pairs are near: below `limits` of the query, or `limits_base`
    of the base's row if that is not None. Returns whether any is.
    """
    signature = types.boolean(queries, row, panels, panel, limits, limits_base, tile, near)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        given = (_given(context, builder, *each) for each in zip(sig.args, args, strict=True))
        queries, row, panels, panel, limits, limits_base, tile, near = given
        sums = sums_of_tile(builder, queries, row, panels, panel)
        most = limits_of_tile(builder, limits, row, limits_base, panel)
        found = I64(0)
        for half in range(PANELS):
            mask = I64(0)
            for r in range(LANES):
                total = sums[half][r]
                if tile is not None:
                    builder.store(total, lanes_at(builder, tile.data, I64(LANES * (LANES * half + r))), align=8)
                below = builder.bitcast(builder.icmp_unsigned("<", total, most[half][r]), ir.IntType(LANES))
                mask = builder.or_(mask, builder.shl(builder.zext(below, I64), I64(LANES * r)))
            builder.store(mask, builder.gep(near.data, [I64(half)]))
            found = builder.or_(found, mask)
        return builder.icmp_unsigned("!=", found, I64(0))

    return signature, emit


def _given(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return an argument of emitted code: an array's parts, None, or the value itself."""
    if isinstance(kind, types.Array):
        return context.make_array(kind)(context, builder, value)
    return None if isinstance(kind, types.NoneType) else value


@emitted
def lowest_bit(_typing: Any, mask: Any) -> Any:
    """Emit the place of the lowest set bit of a mask that is not zero."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(mask), emit


@compiled(boundscheck=False)
def _row(place: int) -> int:
    """Return the query of a pair of a tile, 0 to 7."""
    return place >> 3 & 7


@compiled(boundscheck=False)
def _column(place: int) -> int:
    """Return the place in its two panels of a pair's row, 0 to 15."""
    return (place >> 6 << 3) + (place & 7)


@compiled(boundscheck=False)
def lay_out(words: UInt64[np.ndarray, "m W"], panels: UInt64[np.ndarray, "P W 8"]) -> None:
    """Write rows to panels of eight; what the last rows leave of them stays as it is."""
    rows, n_words = words.shape
    for row in range(rows):
        for word in range(n_words):
            panels[row // LANES, word, row % LANES] = words[row, word]


@compiled(boundscheck=False)
def fill(queries: UInt64[np.ndarray, "Q W 8"], base: UInt64[np.ndarray, "P W 8"], out: Int[np.ndarray, "n m"]) -> None:
    """Write all distances to `out`."""
    n, m = out.shape
    limits = np.zeros(queries.shape[0] * LANES, np.uint64)
    tile, near = np.empty(PAIRS, np.uint64), np.empty(PAIRS // 64, np.uint64)
    for panel in range(0, base.shape[0], PANELS):
        for row in range(0, n, LANES):
            _tile(queries, row, base, panel, limits, None, tile, near)
            for half in range(PANELS):
                first = (panel + half) * LANES
                for r in range(min(LANES, n - row)):
                    for lane in range(min(LANES, m - first)):
                        out[row + r, first + lane] = tile[(half * LANES + r) * LANES + lane]


@compiled(boundscheck=False)
def search(
    queries: UInt64[np.ndarray, "Q W 8"],
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

    Both are panels, an even number of them, filled up with zeros. `base` is the chunk, and `first`
    the index of its first row in the whole base. A query may not have the row `own` (-1: none), nor one that
    shares a group with it (a negative id is no group); `groups_base` is of the whole base. `limits`, the
    distance of each query's worst kept neighbour (0 for the rows that fill up), and the heaps are updated.
    """
    block = max(LANES, _LEVEL_1_BYTES // (8 * queries.shape[1]) // LANES * LANES)
    tiles, near = np.empty((2, PAIRS), np.uint64), np.empty((2, PAIRS // 64), np.uint64)
    slot, late, at = 0, False, (0, 0)
    for start in range(0, queries.shape[0] * LANES, block):
        stop = min(start + block, queries.shape[0] * LANES)
        for panel in range(0, base.shape[0], PANELS):
            for row in range(start, stop, LANES):
                found = _tile(queries, row, base, panel, limits, None, tiles[slot], near[slot])
                slot = 1 - slot
                if late:
                    _offer(tiles[slot], near[slot], at, first, own, groups_queries, groups_base, limits, heaps)
                late, at = found, (row, panel)
    if late:
        _offer(tiles[1 - slot], near[1 - slot], at, first, own, groups_queries, groups_base, limits, heaps)


@compiled(boundscheck=False)
def _offer(
    tile: UInt64[np.ndarray, " 128"],
    near: UInt64[np.ndarray, " 2"],
    at: tuple[int, int],
    first: int,
    own: Int[np.ndarray, " n"],
    groups_queries: Int[np.ndarray, "n G"],
    groups_base: Int[np.ndarray, "m G"],
    limits: UInt64[np.ndarray, " n8"],
    heaps: UInt64[np.ndarray, "n k"],
) -> None:
    """Put a tile's distances that are below their query's limit into its heap, unless they are excluded."""
    row, panel = at
    for half in range(len(near)):
        mask = near[half]
        while mask != 0:
            place = 64 * half + lowest_bit(mask)
            mask &= mask - np.uint64(1)
            query, index = row + _row(place), first + panel * LANES + _column(place)
            distance = tile[place]
            # the limit falls while the tile is read; rows behind the base's end only fill up its panels
            if distance >= limits[query] or index >= groups_base.shape[0] or index == own[query]:
                continue
            if _share_a_group(groups_queries, query, groups_base, index):
                continue
            worst = replace_greatest(heaps, query, (distance << np.uint64(32)) | np.uint64(index))
            limits[query] = worst >> np.uint64(32)


@compiled(boundscheck=False)
def _share_a_group(a: Int[np.ndarray, "n G"], row: int, b: Int[np.ndarray, "m G"], other: int) -> bool:
    for g in range(a.shape[1]):  # noqa: SIM110  numba compiles no generators of any()
        if a[row, g] >= 0 and a[row, g] == b[other, g]:
            return True
    return False


@compiled(boundscheck=False)
def replace_greatest(heaps: UInt64[np.ndarray, "n k"], row: int, key: np.uint64) -> np.uint64:
    """Put `key` in the place of a row's greatest key and return the new greatest; keys stay sorted, greatest first."""
    last = heaps.shape[1] - 1
    for place in range(last):  # without a branch: each becomes the greater of the next key and the lesser of both
        heaps[row, place] = max(heaps[row, place + 1], min(heaps[row, place], key))
    heaps[row, last] = min(heaps[row, last], key)
    greatest: np.uint64 = heaps[row, 0]
    return greatest


@compiled(boundscheck=False)
def search_pairs(
    queries: UInt64[np.ndarray, "Q W 8"],
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
    tiles, near = np.empty((2, PAIRS), np.uint64), np.empty((2, PAIRS // 64), np.uint64)
    slot, late, at = 0, False, (0, 0)
    same = first[0] == first[1]
    limits = np.array([_limit(heaps, row, first[1]) for row in range(len(heaps))])
    limits_base = limits if same else np.array([_limit(heaps_base, row, first[0]) for row in range(len(heaps_base))])
    for start in range(0, queries.shape[0] * LANES, block):
        stop = min(start + block, queries.shape[0] * LANES)
        for panel in range(0, base.shape[0], PANELS):
            for row in range(max(start, panel * LANES) if same else start, stop, LANES):
                found = _tile(queries, row, base, panel, limits, limits_base, tiles[slot], near[slot])
                slot = 1 - slot
                if late:
                    _offer_pairs(tiles[slot], near[slot], at, first, groups, limits, limits_base, heaps, heaps_base)
                late, at = found, (row, panel)
    if late:
        _offer_pairs(tiles[1 - slot], near[1 - slot], at, first, groups, limits, limits_base, heaps, heaps_base)


@compiled(boundscheck=False)
def _offer_pairs(
    tile: UInt64[np.ndarray, " 128"],
    near: UInt64[np.ndarray, " 2"],
    at: tuple[int, int],
    first: tuple[int, int],
    groups: Int[np.ndarray, "n G"],
    limits: UInt64[np.ndarray, " q"],
    limits_base: UInt64[np.ndarray, " b"],
    heaps: UInt64[np.ndarray, "q k"],
    heaps_base: UInt64[np.ndarray, "b k"],
) -> None:
    """Offer a tile's pairs that are near for either of their rows to the heaps of both."""
    row, panel = at
    n, same = groups.shape[0], first[0] == first[1]
    for half in range(len(near)):
        mask = near[half]
        while mask != 0:
            place = 64 * half + lowest_bit(mask)
            mask &= mask - np.uint64(1)
            one, two = row + _row(place), panel * LANES + _column(place)
            i, j = first[0] + one, first[1] + two
            # a tile on the diagonal has each pair twice
            if i >= n or j >= n or (same and i <= j) or _share_a_group(groups, i, groups, j):
                continue
            distance = tile[place] << np.uint64(32)
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
    prefixes: UInt64[np.ndarray, "Q P 8"],
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

    Both blocks are whole multiples of sixteen rows. `prefixes` are drawn bits of one, `panels` those of the other, or
    of the `same`; `words` and `base` are all bits of both, `names` their indices, -1 for rows that fill up. `table`
    holds, for the distance of a heap's worst, the drawn distance from which on a row is left out (the last entry is
    for heaps that are not full); `limits` that distance for each row, 0 for rows that fill up. Limits and heaps, of
    keys as in `search`, are updated.
    """
    counted = 0
    block = max(LANES, _LEVEL_1_BYTES // (8 * prefixes.shape[1]) // LANES * LANES)
    near = np.empty((2, PAIRS // 64), np.uint64)
    slot, late, at = 0, False, (0, 0)
    for start in range(0, prefixes.shape[0] * LANES, block):
        stop = min(start + block, prefixes.shape[0] * LANES)
        for panel in range(0, panels.shape[0], PANELS):
            for row in range(max(start, panel * LANES) if same else start, stop, LANES):
                found = _tile(prefixes, row, panels, panel, limits, limits_base, None, near[slot])
                slot = 1 - slot
                if late:
                    counted += _offer_filtered(
                        near[slot], at, words, base, names, names_base, table, limits, limits_base, heaps,
                        heaps_base, same,
                    )  # fmt: skip
                late, at = found, (row, panel)
    if late:
        counted += _offer_filtered(
            near[1 - slot], at, words, base, names, names_base, table, limits, limits_base, heaps,
            heaps_base, same,
        )  # fmt: skip
    return counted


@compiled(boundscheck=False)
def _offer_filtered(  # noqa: PLR0913, PLR0917 - compiled code takes arrays one by one
    near: UInt64[np.ndarray, " 2"],
    at: tuple[int, int],
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
    """Offer a tile's pairs that look near to the heaps of both of their rows; return how many were counted whole."""
    (row, panel), counted, last = at, 0, np.uint64(table.size - 1)
    for half in range(len(near)):
        mask = near[half]
        while mask != 0:
            place = 64 * half + lowest_bit(mask)
            mask &= mask - np.uint64(1)
            one, two = row + _row(place), panel * LANES + _column(place)
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
