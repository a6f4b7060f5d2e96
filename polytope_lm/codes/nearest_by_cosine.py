"""Every row's nearest others by the cosine of centred rows: exact, for a fraction of the products.

For orthonormal V, [N, d], a unit row a is Vᵀa and a rest of length r_a = √(1 - |Vᵀa|²), and by Cauchy-Schwarz

    a·b <= Vᵀa · Vᵀb + r_a r_b,

itself a product of d + 1 numbers. Only a pair whose bound is above the cosine of the worst neighbour found so far is
multiplied out. V are the leading principal directions of some of the rows: pre-activations h = W u + b have at most
d_model of them, a quarter of their width, and half as many hold nine tenths of their squared length. Where the rows
have no such directions, the bound is the product itself. What rounding could take from a bound is added to the rests,
so that no neighbour is lost to it. Cosines are summed in double precision and compared after they were rounded to
single: equal rows are equally near, and come in one drawn order (`seeds.tie_order`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from polytope_lm.codes.hamming.hamming import run_on_rows
from polytope_lm.compiled import compiled
from polytope_lm.seeds import tie_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Float, Float32, Float64, Int32, Int64

_QUERIES, _BASE = 16_384, 1024  # rows at hand at one time
_TILE = 256  # queries of one product: their bounds stay in the cache
_RUN = 64  # bounds behind one branch
_SAMPLE = 1024  # rows that the principal directions are taken of
_RESTS = 0.1, 0.01  # mean squared rests, of the first bound and of the second


def nearest_by_cosine(
    blocks: Callable[[], Iterator[np.ndarray]], k: int, seed: int = 0
) -> tuple[Int32[np.ndarray, "T k"], Float32[np.ndarray, "T k"]]:
    """Return each row's k nearest others by the cosine of centred rows, and the cosines, nearest first.

    The rows are given block by block, as often as asked. Ties come in the order that `seed` draws. A row that is the
    mean has cosine 0 with all.
    """
    count = sum(len(block) for block in blocks())
    total: Any = sum(block.sum(axis=0, dtype=np.float64) for block in blocks())
    mean = (total / count).astype(np.float32)
    step = max(1, count // (2 * _SAMPLE))
    directions = _directions(np.concatenate([block[::step] for block in blocks()]) - mean)
    indices, values = np.full((count, k), -1, np.int32), np.full((count, k), -np.inf, np.float32)
    place = np.argsort(tie_order(count, seed))
    for start, queries in _centred(blocks, mean, _QUERIES):
        mine = slice(start, start + len(queries))
        rows = (queries, _lengths(queries), *_bounds(queries, directions))
        for first, base in _centred(blocks, mean, _BASE):
            coarse, fine = _bounds(base, directions)
            search = partial(
                _search, rows, (indices[mine], values[mine]), np.ascontiguousarray(coarse.T),
                (base, _lengths(base), fine, start - first, first), place,
            )  # fmt: skip
            with threadpool_limits(1, user_api="blas"):  # each thread multiplies its own rows
                run_on_rows(search, len(queries), None)
    return indices, values


def _search(
    queries: tuple[np.ndarray, ...], found: tuple[np.ndarray, ...], columns: np.ndarray, base: tuple[Any, ...],
    place: Int64[np.ndarray, " T"], some: slice,
) -> None:  # fmt: skip
    """Offer a block's rows to some queries."""
    *others, apart, first = base
    for start in range(some.start, some.stop, _TILE):
        tile = slice(start, min(start + _TILE, some.stop))
        rows, lengths, coarse, fine = (one[tile] for one in queries)
        _offer(
            coarse @ columns, (rows, lengths, fine), tuple(others), apart + start, first, place,
            found[0][tile], found[1][tile],
        )  # fmt: skip


def _centred(
    blocks: Callable[[], Iterator[np.ndarray]], mean: Float32[np.ndarray, " N"], rows: int
) -> Iterator[tuple[int, Float32[np.ndarray, "r N"]]]:
    """Yield where each piece of so many centred rows begins, and the piece, until the next is asked for."""
    piece, first, held = np.empty((rows, len(mean)), np.float32), 0, 0
    for block in blocks():
        part = block
        while len(part):
            some = min(len(part), rows - held)
            np.subtract(part[:some], mean, out=piece[held : held + some])
            part, held = part[some:], held + some
            if held == rows:
                yield first, piece
                first, held = first + rows, 0
    if held:
        yield first, piece[:held]


def _lengths(rows: Float32[np.ndarray, "r N"]) -> Float64[np.ndarray, " r"]:
    return np.asarray(np.sqrt(np.einsum("rn,rn->r", rows, rows, dtype=np.float64)))


def _directions(rows: Float[np.ndarray, "r N"]) -> tuple[Float32[np.ndarray, "N D"], int]:
    """Return orthonormal directions that leave little of unit rows, and how many of them are the first to ask."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.divide(rows, lengths, out=np.zeros(rows.shape), where=lengths > 0)
    own, others = units[::2], units[1::2]
    _, sizes, directions = np.linalg.svd(own, full_matrices=False)
    left = 1 - np.cumsum(sizes**2) / max(np.sum(sizes**2), np.finfo(float).tiny)
    few, many = (1 + int(np.argmax(left <= rest)) for rest in _RESTS)
    unseen = np.mean(1 - np.sum((others @ directions[:few].T) ** 2, axis=1)) if len(others) else 0.0
    if unseen > 2 * _RESTS[0] or 2 * few > rows.shape[1]:
        return np.eye(rows.shape[1], dtype=np.float32), rows.shape[1]
    return directions[:many].T.astype(np.float32), few


def _bounds(
    rows: Float32[np.ndarray, "r N"], directions: tuple[Float32[np.ndarray, "N D"], int]
) -> tuple[Float32[np.ndarray, "r e"], Float32[np.ndarray, "r E"]]:
    """Return what bounds two rows' cosine as a product, Vᵀa and the rest: for the first directions, and for all."""
    lengths = _lengths(rows)[:, None].astype(np.float32)
    lead = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0) @ directions[0]
    rounding = 4 * (rows.shape[1] + 64) * 2.0**-24  # of sums of N numbers: in V, in Vᵀa, in the product
    coarse, fine = (
        np.concatenate([some, np.sqrt(np.maximum(1 - np.sum(some**2, axis=1, keepdims=True), 0) + rounding)], axis=1)
        for some in (lead[:, : directions[1]], lead)
    )
    return coarse * (lengths > 0), fine * (lengths > 0)


@compiled(boundscheck=False, fastmath={"reassoc", "contract"})
def _product(one: Float32[np.ndarray, " N"], other: Float32[np.ndarray, " N"], zero: Any) -> Any:
    """Return the rows' product in the precision of `zero`."""
    total = zero
    for i in range(one.size):
        total += type(zero)(one[i]) * type(zero)(other[i])
    return total


@compiled(boundscheck=False)
def _offer(
    bounds: Float32[np.ndarray, "q b"],
    queries: tuple[Float32[np.ndarray, "q N"], Float64[np.ndarray, " q"], Float32[np.ndarray, "q E"]],
    base: tuple[Float32[np.ndarray, "b N"], Float64[np.ndarray, " b"], Float32[np.ndarray, "b E"]],
    apart: int,
    first: int,
    places: Int64[np.ndarray, " T"],
    indices: Int32[np.ndarray, "q k"],
    values: Float32[np.ndarray, "q k"],
) -> None:
    """Put a block's rows among their queries' k nearest; of a tie the row with the lower place is nearer.

    Queries and base: the centred rows, their lengths, the second bounds. The block begins `first`, and the queries
    `apart` rows later.
    """
    for row in range(bounds.shape[0]):
        worst = values[row, -1]
        for start in range(0, bounds.shape[1], _RUN):
            near = False
            for i in range(start, min(start + _RUN, bounds.shape[1])):
                near |= bounds[row, i] >= worst
            if not near:
                continue
            for i in range(start, min(start + _RUN, bounds.shape[1])):
                if bounds[row, i] < worst or i == row + apart:
                    continue
                if _product(queries[2][row], base[2][i], np.float32(0)) < worst:
                    continue
                scale = queries[1][row] * base[1][i]
                cosine = np.float32(_product(queries[0][row], base[0][i], 0.0) / scale) if scale > 0 else np.float32(0)
                at, own = values.shape[1] - 1, places[first + i]
                if cosine < worst or (cosine == worst and places[indices[row, at]] < own):
                    continue
                while at > 0 and (
                    values[row, at - 1] < cosine
                    or (values[row, at - 1] == cosine and places[indices[row, at - 1]] > own)
                ):
                    indices[row, at], values[row, at] = indices[row, at - 1], values[row, at - 1]
                    at -= 1
                indices[row, at], values[row, at] = first + i, cosine
                worst = values[row, -1]
