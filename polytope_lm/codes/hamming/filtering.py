"""Compiled search that counts some bits of every pair, and all bits only of those that look near.

The distance of two codes on `m` bits drawn at random out of `N` is hypergeometric, whatever the codes are.
So a few words of every pair say, with a chance of error that is known, that it cannot be among the nearest.
The words drawn lie in panels as in `kernels`; the whole rows lie one behind the other, because few are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from polytope_lm.codes.hamming.kernels import (
    I64,
    LANES,
    VECTOR,
    below_limits,
    count_bits,
    emitted,
    lanes_at,
    lowest_bit,
    replace_greatest,
    sums_of_tile,
)
from polytope_lm.compiled import compiled

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8, UInt64

_LEVEL_1_BYTES = 24 * 1024


@emitted
def _near(_typing: Any, queries: Any, row: Any, panels: Any, panel: Any, limits: Any) -> Any:
    """Emit bit `8 r + l`: the drawn bits of query `row + r` and lane `l` differ in fewer than its limit."""
    signature = types.uint64(queries, row, panels, panel, limits)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arrays = [context.make_array(sig.args[i])(context, builder, args[i]) for i in (0, 2, 4)]
        sums = sums_of_tile(builder, arrays[0], args[1], arrays[1], args[3])
        return below_limits(builder, sums, arrays[2], args[1])

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
def drawn(
    packed: UInt8[np.ndarray, "m B"], bits: Int[np.ndarray, " b"], out: UInt64[np.ndarray, "m P"]
) -> None:
    """Write the bits `bits` of each packed code to `out`, 64 to a word; `out` holds zeros before."""
    for row in range(packed.shape[0]):
        for place in range(bits.size):
            bit = (packed[row, bits[place] >> 3] >> (bits[place] & 7)) & 1
            out[row, place >> 6] |= np.uint64(bit) << np.uint64(place & 63)


@compiled(boundscheck=False)
def search(
    prefixes: UInt64[np.ndarray, "n8 P"],
    panels: UInt64[np.ndarray, "C P 8"],
    words: UInt64[np.ndarray, "n8 W8"],
    base: UInt64[np.ndarray, "m W8"],
    names: Int[np.ndarray, " n8"],
    names_base: Int[np.ndarray, " m"],
    table: UInt64[np.ndarray, " N2"],
    limits: UInt64[np.ndarray, " n8"],
    heaps: UInt64[np.ndarray, "n8 k"],
) -> int:
    """Offer every row of a chunk of the base to every query's heap of its k nearest; return pairs counted.

    Args:
        prefixes: drawn bits of the queries; as all about them, filled up to a multiple of eight rows.
        panels: drawn bits of the chunk, from `kernels.panels`.
        words: all bits of the queries.
        base: all bits of the chunk.
        names: the queries' indices; a query is not its own neighbour.
        names_base: the chunk's indices.
        table: for the distance of a heap's worst, the drawn distance from which on a row is left out; the
            last entry is for heaps that are not full.
        limits: that drawn distance for each query, updated; 0 for the rows that fill up.
        heaps: keys `distance * 2^32 + index`, greatest first; updated.

    """
    counted = 0
    block = max(LANES, _LEVEL_1_BYTES // (8 * prefixes.shape[1]) // LANES * LANES)
    for start in range(0, prefixes.shape[0], block):
        stop = min(start + block, prefixes.shape[0])
        for panel in range(panels.shape[0]):
            for row in range(start, stop, LANES):
                mask = _near(prefixes, row, panels, panel, limits)
                while mask != 0:
                    place = lowest_bit(mask)
                    mask &= mask - np.uint64(1)
                    query, other = row + place // LANES, panel * LANES + place % LANES
                    if other >= base.shape[0] or names_base[other] == names[query]:
                        continue
                    counted += 1
                    distance = _differing(words, query, base, other)
                    key = (distance << np.uint64(32)) | np.uint64(names_base[other])
                    if key < heaps[query, 0]:
                        replace_greatest(heaps[query], key)
                        worst = heaps[query, 0] >> np.uint64(32)
                        limits[query] = table[min(worst, np.uint64(table.size - 1))]
    return counted
