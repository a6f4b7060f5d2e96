"""What a search for nearest codes is given and what it finds: the same on a processor and on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import tie_order

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from jaxtyping import Int, Int32, Int64, Real, UInt8


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Packed codes that are read some rows at a time: to a search they are an array.

    Attributes:
        take: returns the rows of these numbers, `[R, B]`.
        shape: how many rows there are, and their bytes.

    """

    take: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, int]
    dtype: ClassVar[Any] = np.dtype(np.uint8)
    ndim: ClassVar[int] = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Int[np.ndarray, " R"]) -> UInt8[np.ndarray, "R B"]:
        return self.take(np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows)


Packed = np.ndarray | StoredRows
"""What can be searched."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest rows of a base to each query, nearest first, ties in one drawn order (`seeds.tie_order`).

    Attributes:
        indices: rows of the base, `[n, k]`; -1 where fewer than k rows were allowed.
        distances: Hamming distances in bits, `[n, k]`; -1 where there is no neighbour.

    """

    indices: Int32[np.ndarray, "n k"]
    distances: Int32[np.ndarray, "n k"]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per query and neighbour found: `query`, `rank` (from 1), `index`, `distance`."""
        import pandas as pd  # noqa: PLC0415 - memory: a capture needs no table

        n, k = self.indices.shape
        query, rank = np.repeat(np.arange(n), k), np.tile(np.arange(1, k + 1), n)
        columns = {"query": query, "rank": rank, "index": self.indices.ravel(), "distance": self.distances.ravel()}
        frame = pd.DataFrame(columns)
        return frame[frame["index"] >= 0].reset_index(drop=True)


def ranked(distance: Real[np.ndarray, " n"], k: int, row: int | None = None, seed: int = 0) -> Int64[np.ndarray, " k"]:
    """Return the k rows at the least distances but `row`, nearest first, ties as in a search."""
    order = tie_order(len(distance), seed)
    order = order[np.argsort(distance[order], kind="stable")[: k + 1]]
    return order[order != row][:k] if row is not None else order[:k]


def check_pair(a: Packed, b: Packed, names: tuple[str, str]) -> None:
    """Check that two arrays of codes, one a row, have the same width."""
    for name, codes in zip(names, (a, b), strict=True):
        check_rows(codes, name)
    check_same_width(a, b, names)


def check_search(
    queries: Packed, base: Packed, k: int, exclude_self: bool,
    of_queries: np.ndarray | None, of_base: np.ndarray | None,
) -> tuple[Int32[np.ndarray, "n G"], Int32[np.ndarray, "m G"]]:  # fmt: skip
    """Check what a search is given; return the groups of queries and base."""
    check_pair(queries, base, ("queries", "base"))
    _check_k(len(queries), len(base), k, exclude_self)
    return _groups(of_queries, of_base, len(queries), len(base))


def _check_k(n: int, m: int, k: int, exclude_self: bool) -> None:
    if exclude_self and n != m:
        raise PolytopeError(
            f"exclude_self with {n} queries and {m} base rows; it needs the base itself as queries, so leave it out"
        )
    most = m - 1 if exclude_self else m
    if not 1 <= k <= most:
        others = " other" if exclude_self else ""
        raise PolytopeError(f"k is {k}, but the base has {most}{others} rows; give a k from 1 to {most}, or more codes")


def _groups(
    of_queries: np.ndarray | None, of_base: np.ndarray | None, n: int, m: int
) -> tuple[Int32[np.ndarray, "n G"], Int32[np.ndarray, "m G"]]:
    if of_queries is None and of_base is None:
        return np.empty((n, 0), np.int32), np.empty((m, 0), np.int32)
    if of_queries is None or of_base is None:
        missing = "groups_queries" if of_queries is None else "groups_base"
        raise PolytopeError(f"{missing} is missing; groups of queries and base are compared, so give both")
    a, b = (g[:, None] if g.ndim == 1 else g for g in (np.asarray(of_queries), np.asarray(of_base)))
    if a.ndim != 2 or a.shape != (n, a.shape[-1]) or b.shape != (m, a.shape[-1]):
        raise PolytopeError(f"groups have shapes {a.shape} and {b.shape}; these codes need [{n}, G] and [{m}, G]")
    for name, ids in (("groups_queries", a), ("groups_base", b)):
        if not np.issubdtype(ids.dtype, np.integer) or (ids.size and int(ids.max()) >= 2**31):
            raise PolytopeError(
                f"{name} has type {ids.dtype}; give integer ids below 2^31 (pandas.factorize makes them)"
            )
    # every negative id means "no group": cut to -1 it survives the narrowing
    return np.maximum(a, -1).astype(np.int32), np.maximum(b, -1).astype(np.int32)


def check_bytes(packed: Packed, name: str) -> None:
    """Check that codes are packed."""
    if packed.dtype != np.uint8 or packed.ndim == 0:
        got = f"{name} has type {packed.dtype} and shape {packed.shape}"
        raise PolytopeError(f"{got}; packed codes are uint8 [..., bytes]: pack booleans with hamming.pack first")


def check_rows(codes: Packed, name: str) -> None:
    """Check that codes are packed, one a row."""
    check_bytes(codes, name)
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise PolytopeError(f"{name} has shape {codes.shape}; give [rows, bytes] (one code: code[None])")


def check_same_width(a: Packed, b: Packed, names: tuple[str, str]) -> None:
    """Check that two arrays of codes have the same width."""
    if a.shape[-1] != b.shape[-1]:
        sizes = f"{names[0]} has {a.shape[-1]} bytes a code, {names[1]} has {b.shape[-1]}"
        raise PolytopeError(f"{sizes}; only codes of the same site and model can be compared")
