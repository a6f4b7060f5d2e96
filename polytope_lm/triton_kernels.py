"""Kernels for a GPU that read their input once, where plain torch reads it several times.

Each does what a plain torch function does that has its name or stands beside its use: `on_device.verified` compares
them before the first use. With `TRITON_INTERPRET=1` they run on the CPU.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float, Int32, UInt8
    from torch import Tensor

F = TypeVar("F", bound="Callable[..., Any]")
_EXPONENT = {torch.float32: 0x7F800000, torch.bfloat16: 0x7F80, torch.float16: 0x7C00}
_BYTES = 256  # of a row that are packed by one program
_TILE = (8, 512)  # rows and columns of one program


def _kernel(function: F) -> F:
    """Compile on first use; Triton reads a kernel's annotations as code, so only `tl.constexpr` may stand there."""
    return cast("F", triton.jit(inspect.unwrap(function)))


@_kernel
def _pack(  # type: ignore[no-untyped-def]
    h, packed, odd, width, stride, n_bytes, exponent, size: tl.constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    byte = tl.program_id(1) * size + tl.arange(0, size)
    bit = tl.arange(0, 8)
    at = byte[:, None] * 8 + bit[None, :]
    # a float read as an integer is positive where the float is, and all ones in its exponent is infinity or NaN
    value = tl.load(h + row * stride + at, mask=at < width, other=0).to(tl.int32)
    bits = tl.sum((value > 0).to(tl.int32) << bit[None, :], axis=1)
    tl.store(packed + row * n_bytes + byte, bits.to(tl.uint8), mask=byte < n_bytes)
    not_finite = tl.max(tl.max(((value & exponent) == exponent).to(tl.int32), axis=1), axis=0)
    tl.store(odd + row, 1, mask=not_finite > 0)


def pack_rows(h: Float[Tensor, "T N"]) -> tuple[UInt8[Tensor, "T B"], Bool[Tensor, " T"]]:
    """Pack the signs of rows, and say of each whether all of it is finite."""
    integers = h.view(torch.int32 if h.dtype == torch.float32 else torch.int16)
    rows, width = h.shape
    n_bytes = -(-width // 8)
    packed = torch.empty(rows, n_bytes, dtype=torch.uint8, device=h.device)
    odd = torch.zeros(rows, dtype=torch.uint8, device=h.device)
    if rows:
        grid: Any = (rows, triton.cdiv(n_bytes, _BYTES))
        kernel: Any = _pack
        with torch.cuda.device(h.device) if h.is_cuda else torch.inference_mode():
            kernel[grid](integers, packed, odd, width, h.stride(0), n_bytes, _EXPONENT[h.dtype], size=_BYTES)
    return packed, odd == 0


@_kernel
def _append(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917 - pointers and sizes
    products, place, mine, theirs, best, added, count,
    rows, columns, stride, k, room, offset, shift,
    groupings: tl.constexpr, tall: tl.constexpr, wide: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * tall + tl.arange(0, tall)
    column = tl.program_id(1) * wide + tl.arange(0, wide)
    there = (row < rows)[:, None] & (column < columns)[None, :]
    product = tl.load(products + row.to(tl.int64)[:, None] * stride + column[None, :], mask=there, other=0)
    at = tl.load(place + column, mask=column < columns, other=0)
    key = (at + offset)[None, :] - (product << shift)
    limit = tl.load(best + row * k + (k - 1), mask=row < rows, other=-2147483648)
    below = there & (key < limit[:, None])
    if tl.max(tl.max(below.to(tl.int32), axis=1), axis=0) > 0:
        for g in tl.static_range(groupings):
            own = tl.load(mine + row * groupings + g, mask=row < rows, other=-1)
            other = tl.load(theirs + column * groupings + g, mask=column < columns, other=-1)
            below = below & ((own[:, None] != other[None, :]) | (own < 0)[:, None])
        counters = count + row[:, None] + tl.zeros([tall, wide], tl.int32)
        slot = tl.atomic_add(counters, tl.full([tall, wide], 1, tl.int32), mask=below, sem="relaxed")
        tl.store(added + row.to(tl.int64)[:, None] * room + slot, key, mask=below & (slot < room))


def append_below(
    products: Int32[Tensor, "n32 m32"],
    place: Int32[Tensor, " m"],
    groups: Int32[Tensor, "n G"],
    theirs: Int32[Tensor, "m G"],
    lists: Any,
    bits: int,
    width: int,
) -> None:
    """Append to each query's list the keys of a tile that are below its k-th, as `gpu.append_below` does."""
    n, m, offset = len(groups), len(place), (width << (bits - 1)) - 2**31
    grid: Any = (triton.cdiv(n, _TILE[0]), triton.cdiv(m, _TILE[1]))
    kernel: Any = _append
    with torch.cuda.device(products.device) if products.is_cuda else torch.inference_mode():
        kernel[grid](
            products, place, groups, theirs, lists.best, lists.added, lists.count,
            n, m, products.stride(0), lists.best.shape[1], lists.added.shape[1], offset, bits - 1,
            groupings=groups.shape[1], tall=_TILE[0], wide=_TILE[1],
        )  # fmt: skip
