"""Signs of pre-activations as packed bits: bit i of a row is `h_i > 0` (little bit order), 8 to a byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int32, UInt8

EXPONENT = np.int32(0x7F800000)


class NotFiniteError(PolytopeError):
    """A pre-activation is NaN or infinite; `index` says where in the array that was packed."""

    def __init__(self, value: float, index: list[int]) -> None:
        super().__init__(
            f"pre-activation {value}: a code needs finite values; check the weights and the dtype"
        )
        self.index = index


def pack(h: Tensor) -> UInt8[np.ndarray, "... B"]:
    """Pack the signs of pre-activations into bytes, zero being off.

    Args:
        h: pre-activations `[..., N]`, on any device.

    Returns:
        `uint8 [..., ceil(N/8)]`.

    Raises:
        NotFiniteError: a value is NaN or infinite; whoever knows adds site and token.

    """
    if h.device.type == "cpu" and h.dtype == torch.float32 and h.is_contiguous():
        rows = h.detach().numpy().view(np.int32).reshape(-1, h.shape[-1])
        packed = np.zeros((len(rows), -(-h.shape[-1] // 8)), np.uint8)
        finite = _pack(rows, packed)
        packed = packed.reshape(*h.shape[:-1], packed.shape[-1])
    else:
        finite = bool(torch.isfinite(h).all())
        packed = pack_on_device(h > 0).cpu().numpy()
    if not finite:
        bad = torch.nonzero(~torch.isfinite(h))[0].tolist()
        raise NotFiniteError(h[tuple(bad)].item(), bad)
    return packed


def pack_on_device(on: Bool[Tensor, "... N"]) -> UInt8[Tensor, "... B"]:
    """Pack booleans where they are, as `np.packbits` does: an accelerator sends an eighth of the bytes."""
    padded = nn.functional.pad(on.to(torch.uint8), (0, -on.shape[-1] % 8))
    powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=on.device)
    bytes_of_bits = padded.reshape(*padded.shape[:-1], padded.shape[-1] // 8, 8) * powers
    return bytes_of_bits.sum(-1, dtype=torch.uint8)


@compiled
def _pack(h: Int32[np.ndarray, "T N"], packed: UInt8[np.ndarray, "T B"]) -> bool:
    """Pack in one pass without temporaries; return whether all values are finite.

    A float32 read as an integer is positive where the float is (or is a NaN), and has all exponent bits set
    where the float is not finite: integer tests, which compile to vector code where float sums would not.
    """
    rows, width = h.shape
    not_finite = False
    for row in range(rows):
        for i in range(width):
            not_finite |= (h[row, i] & EXPONENT) == EXPONENT
        for byte in range(width // 8):
            bits = np.uint8(0)
            for i in range(8):
                bits |= np.uint8(h[row, 8 * byte + i] > 0) << np.uint8(i)
            packed[row, byte] = bits
        for i in range(width - width % 8, width):
            packed[row, i // 8] |= np.uint8(h[row, i] > 0) << np.uint8(i % 8)
    return not not_finite
