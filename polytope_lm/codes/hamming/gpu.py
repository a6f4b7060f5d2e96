"""Exact nearest neighbours on an accelerator: Hamming distances as products of matrices of small integers.

With the bits of codes written as +1 and -1, `distance = (N - a . b) / 2`: one int8 product of two tiles gives
all their distances, on a GPU's matrix units. Distance and place of a base row make one 32-bit key,

    key = distance * 2^p + place - 2^31,     N + 1 < 2^(32 - p),

so that the smallest keys are the nearest rows. The base is permuted once, by the order that breaks ties on the CPU,
too (`seeds.tie_order`), and a place is one in this order: every index agrees. At 3,072 bits p is 20, 10^6 rows of the
base; a larger base is searched part by part.

The first tile of the base is small and sorted whole; then only keys below a query's k-th so far are kept, appended to
a list a query, and lists are merged into the k nearest after every tile. Once `s` rows were seen, a tile of `c` more
is expected to add `k c / s` keys at most, whatever the codes are: the order is drawn. Should a list overflow all the
same, its query is searched again with every tile sorted. So each product is read once, and nothing but the result
leaves the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from polytope_lm.codes.hamming.searching import Neighbours, Packed, check_search
from polytope_lm.errors import PolytopeError
from polytope_lm.on_device import checked_device, verified
from polytope_lm.seeds import tie_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Int, Int8, Int32, UInt8

NOTHING = torch.iinfo(torch.int32).max
_OFFSET = 2**31
_ROWS = 32  # matrices are filled up to a multiple of so many rows
_UNPACKED = 8192  # rows at a time


@dataclass(frozen=True)
class Tiles:
    """How much is computed at a time; results do not depend on it.

    Attributes:
        queries: queries of one product.
        base: most rows of the base of one product.
        first: rows of the base that are sorted whole at first.
        room: keys that a tile may add to a query's list; by default eight times k, and 64 at least.
        part: most rows of the base that are on the device at one time.

    """

    queries: int = 16_384
    base: int = 32_768
    first: int = 4096
    room: int | None = None
    part: int = 2**20


def nearest_on(
    device: torch.device | str,
    queries: UInt8[Packed, "n B"],
    base: UInt8[Packed, "m B"],
    k: int,
    *,
    exclude_self: bool = False,
    groups_queries: Int[np.ndarray, "n ..."] | None = None,
    groups_base: Int[np.ndarray, "m ..."] | None = None,
    seed: int = 0,
    tiles: Tiles | None = None,
) -> Neighbours:
    """Find the k rows of `base` that are nearest to each query, as `hamming.nearest` does, on a torch device.

    Raises:
        PolytopeError: as `hamming.nearest`; a device that is not here; codes too wide for 32-bit keys.

    """
    place, tiles = checked_device(device), tiles or Tiles()
    of_queries, of_base = check_search(queries, base, k, exclude_self, groups_queries, groups_base)
    if exclude_self:  # each row is a group of its own
        own = np.arange(len(base), dtype=np.int32)[:, None]
        of_queries, of_base = np.hstack([of_queries, own]), np.hstack([of_base, own])
    size = min(tiles.part, 2 ** place_bits(_whole(8 * queries.shape[1])))
    order = tie_order(len(base), seed)
    found = np.full((len(queries), k), np.iinfo(np.int64).max)  # distance * 2^32 + place
    for first in range(0, len(base), size):
        rows = order[first : first + size]
        part = _Part.of(base[rows], of_base[rows], place)
        cuts = [slice(start, start + tiles.queries) for start in range(0, len(queries), tiles.queries)]
        blocks = ((_signs(_on(queries[rows], place)), _on(of_queries[rows], place)) for rows in cuts)
        keys = torch.cat([_search(signs, groups, part, k, tiles) for signs, groups in blocks]).cpu().numpy()
        wide = keys.astype(np.int64) + _OFFSET
        wide = ((wide >> part.bits) << 32) + (wide & (2**part.bits - 1)) + first
        wide[keys == NOTHING] = np.iinfo(np.int64).max
        found = np.sort(np.concatenate([found, wide], axis=1), axis=1)[:, :k] if first else wide
    there = found < np.iinfo(np.int64).max
    indices = order[np.where(there, found & (2**32 - 1), 0)]
    return Neighbours(*(np.where(there, x, -1).astype(np.int32) for x in (indices, found >> 32)))


def place_bits(width: int) -> int:
    """Return how many bits of a 32-bit key are left for a row's place beside a distance of up to `width` bits."""
    bits = 32 - int(width + 1).bit_length()
    if bits < 12:
        raise PolytopeError(f"codes of {width:,} bits are too wide for 32-bit keys on a device: leave device out")
    return bits


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of the base on the device, in the drawn order; `signs` are filled up with rows of zeros."""

    signs: Int8[Tensor, "m32 N"]
    place: Int32[Tensor, " m"]
    groups: Int32[Tensor, "m G"]
    bits: int  # of a key that hold the place

    @classmethod
    def of(cls, packed: np.ndarray, groups: np.ndarray, device: torch.device) -> _Part:
        signs = _signs(_on(packed, device))
        place = _on(np.arange(len(packed), dtype=np.int32), device)
        return cls(signs, place, _on(groups, device), place_bits(signs.shape[1]))

    def tile(self, start: int, stop: int) -> _Part:
        """Return some rows."""
        signs = self.signs[start : -(-stop // _ROWS) * _ROWS]
        return _Part(signs, self.place[start:stop], self.groups[start:stop], self.bits)

    def products(self, signs: Int8[Tensor, "q N"]) -> Int32[Tensor, "q m32"]:
        """Return all scalar products, exact: in int32, or in float32 where a device has no int8 product."""
        if signs.device.type in {"cpu", "cuda"}:
            return torch._int_mm(signs, self.signs.t())
        return (signs.float() @ self.signs.float().t()).to(torch.int32)  # |a . b| < 2^24


def _on(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _whole(width: int) -> int:
    """Return a width as matrices have it: a multiple of 64."""
    return -(-width // 64) * 64


def _signs(packed: UInt8[Tensor, "n B"]) -> Int8[Tensor, "n32 N"]:
    """Unpack codes into +1 and -1, filled up with rows of zeros.

    Bits behind the code's width count as bits: they are off in both codes.
    """
    width = 8 * packed.shape[1]
    bits = torch.arange(8, dtype=torch.uint8, device=packed.device)
    out = torch.zeros(-(-len(packed) // _ROWS) * _ROWS, _whole(width), dtype=torch.int8, device=packed.device)
    for start in range(0, len(packed), _UNPACKED):
        on = (packed[start : start + _UNPACKED, :, None] >> bits) & 1
        out[start : start + len(on), :width] = on.flatten(1).to(torch.int8) * 2 - 1
    out[: len(packed), width:] = -1
    return out


@dataclass(frozen=True, eq=False)
class Lists:
    """What n queries have found: each one's k least keys, ascending, and a list of what a tile adds to them."""

    best: Int32[Tensor, "n k"]
    added: Int32[Tensor, "n room"]
    count: Int32[Tensor, " n"]  # added, those beyond the room too
    overflowed: Bool[Tensor, " n"]

    @classmethod
    def empty(cls, n: int, k: int, room: int, device: torch.device) -> Lists:
        """Return lists of no keys."""
        best, added = (torch.full((n, size), NOTHING, dtype=torch.int32, device=device) for size in (k, room))
        count = torch.zeros(n, dtype=torch.int32, device=device)
        return cls(best, added, count, torch.zeros(n, dtype=torch.bool, device=device))

    def settle(self) -> None:
        """Merge what was added into the least keys."""
        self.overflowed.logical_or_(self.count > self.added.shape[1])
        self.offer(self.added)
        self.added.fill_(NOTHING)
        self.count.zero_()

    def offer(self, keys: Int32[Tensor, "n m"]) -> None:
        """Keep the least of what is kept and of some keys."""
        both = torch.cat([self.best, keys], dim=1)
        self.best.copy_(both.topk(self.best.shape[1], dim=1, largest=False).values)


def _search(
    signs: Int8[Tensor, "n32 N"], groups: Int32[Tensor, "n G"], part: _Part, k: int, tiles: Tiles
) -> Int32[Tensor, "n k"]:
    """Return the k least keys of each query in one part of the base; `NOTHING` where fewer rows are allowed."""
    lists = Lists.empty(len(groups), k, tiles.room or max(64, 8 * k), signs.device)
    append = append_below if signs.device.type != "cuda" else _fastest(signs.device)
    start, size = 0, tiles.first
    while start < len(part.place):
        tile = part.tile(start, min(start + size, len(part.place)))
        if start == 0:
            lists.offer(_allowed(signs, groups, tile))
        else:
            append(tile.products(signs), tile.place, groups, tile.groups, lists, tile.bits, signs.shape[1])
            lists.settle()
        start += size
        size = min(start, tiles.base)
    again = lists.overflowed.nonzero()[:, 0]
    if len(again):  # every tile sorted
        rows = torch.zeros(-(-len(again) // _ROWS) * _ROWS, signs.shape[1], dtype=torch.int8, device=signs.device)
        rows[: len(again)] = signs[again]
        anew = Lists.empty(len(again), k, 0, signs.device)
        for start in range(0, len(part.place), tiles.base):
            anew.offer(_allowed(rows, groups[again], part.tile(start, min(start + tiles.base, len(part.place)))))
        lists.best[again] = anew.best
    return lists.best


def _allowed(signs: Int8[Tensor, "n32 N"], groups: Int32[Tensor, "n G"], tile: _Part) -> Int32[Tensor, "n m"]:
    """Return all keys of a tile, `NOTHING` for pairs that share a group."""
    keys = _keys(tile.products(signs)[: len(groups), : len(tile.place)], tile.place, tile.bits, signs.shape[1])
    for mine, theirs in zip(groups.t(), tile.groups.t(), strict=True):
        keys[(mine[:, None] == theirs) & (mine[:, None] >= 0)] = NOTHING
    return keys


def _keys(products: Int32[Tensor, "n m"], place: Int32[Tensor, " m"], bits: int, width: int) -> Int32[Tensor, "n m"]:
    """Return `distance * 2^bits + place - 2^31`, in one pass: the distance is `(width - product) / 2`."""
    return torch.add(place + ((width << (bits - 1)) - _OFFSET), products, alpha=-(1 << (bits - 1)))


def append_below(
    products: Int32[Tensor, "n32 m32"],
    place: Int32[Tensor, " m"],
    groups: Int32[Tensor, "n G"],
    theirs: Int32[Tensor, "m G"],
    lists: Lists,
    bits: int,
    width: int,
) -> None:
    """Append to each query's list the keys of a tile that are below its k-th, but of pairs that share a group."""
    n, room = len(groups), lists.added.shape[1]
    keys = _keys(products[:n, : len(place)], place, bits, width)
    rows, columns = (keys < lists.best[:, -1:]).nonzero(as_tuple=True)
    shared = ((groups[rows] == theirs[columns]) & (groups[rows] >= 0)).any(dim=1)
    rows, columns = rows[~shared], columns[~shared]
    count = torch.bincount(rows, minlength=n)
    rank = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]
    fits = rank < room
    lists.added[rows[fits], rank[fits]] = keys[rows[fits], columns[fits]]
    lists.count.copy_(count)


@cache
def _fastest(device: torch.device) -> Callable[..., None]:
    """Return the compiled filter, if it is there and does on a small tile what the plain one does."""

    def trial(append: Callable[..., None]) -> Tensor:
        rng = np.random.default_rng(0)
        codes = [_on(rng.choice(np.array([-1, 1], np.int8), (rows, 64)), device) for rows in (64, 96)]
        groups = [_on(rng.integers(-1, 9, (rows, 2)).astype(np.int32), device) for rows in (50, 96)]
        lists = Lists.empty(50, 3, 64, device)
        lists.best.fill_((30 << 25) - _OFFSET)
        place = torch.arange(96, dtype=torch.int32, device=device)
        append(torch._int_mm(codes[0], codes[1].t()), place, *groups, lists, 25, 64)
        lists.settle()
        return lists.best

    return verified("append_below", append_below, trial)
