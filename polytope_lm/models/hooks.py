"""Reading activations: the trunk only, stopping after the last wanted layer, packing inside the hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, UInt8

    from polytope_lm.models.loading import Model

Point = Literal["x", "u", "h", "gate", "up", "post", "resid_pre"]
"""What can be read of a block: `x` the stream that the MLP's norm reads, `u` the MLP's input, `h` the
pre-activations (`gate` for gated MLPs), `gate` and `up` a gated MLP's branches, `post` the down projection's
input, `resid_pre` the block's input."""

Tap = tuple[int, Point]
Reader = Callable[[Tensor], None]


class NotFiniteError(PolytopeError):
    """A pre-activation is NaN or infinite; `index` says where in the array that was packed."""

    def __init__(self, value: float, index: list[int]) -> None:
        super().__init__(
            f"pre-activation {value}: a code needs finite values; check the weights and the dtype"
        )
        self.index = index


class _Done(Exception):  # noqa: N818 - it is no error
    """Raised inside a hook to leave the forward pass once everything wanted was read."""


def pack(h: Tensor) -> UInt8[np.ndarray, "... B"]:
    """Pack the signs of pre-activations into bytes, bit i of a row being `h_i > 0` (little bit order).

    Args:
        h: pre-activations `[..., N]`, on any device.

    Returns:
        `uint8 [..., ceil(N/8)]`.

    Raises:
        NotFiniteError: a value is NaN or infinite; whoever knows adds site and token.

    """
    # A sum is not finite if any term is not; it reads the array once where isfinite().all() writes a mask
    # first.
    if not torch.isfinite(h.sum(dtype=torch.float32)) and not bool(torch.isfinite(h).all()):
        bad = torch.nonzero(~torch.isfinite(h))[0].tolist()
        raise NotFiniteError(h[tuple(bad)].item(), bad)
    on = h > 0
    if h.device.type == "cpu":
        return np.packbits(on.numpy(), axis=-1, bitorder="little")
    return pack_on_device(on).cpu().numpy()


def pack_on_device(on: Bool[Tensor, "... N"]) -> UInt8[Tensor, "... B"]:
    """Pack booleans where they are, as `np.packbits` does: an accelerator sends an eighth of the bytes."""
    padded = nn.functional.pad(on.to(torch.uint8), (0, -on.shape[-1] % 8))
    powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=on.device)
    bytes_of_bits = padded.reshape(*padded.shape[:-1], padded.shape[-1] // 8, 8) * powers
    return bytes_of_bits.sum(-1, dtype=torch.uint8)


@torch.inference_mode()
def read(
    model: Model,
    input_ids: Int[Tensor, "B S"],
    attention_mask: Int[Tensor, "B S"] | None,
    taps: Mapping[Tap, Reader],
) -> None:
    """Run the trunk and hand each wanted activation to its reader, once, as `[B, S, width]`.

    The forward pass ends after the last tapped module, and the LM head is never run. Rows are padded on the
    right; a causal model then needs no mask, since nothing real can see a pad.

    Args:
        model: the model.
        input_ids: token ids, padded on the right.
        attention_mask: 1 for real tokens; `None` for a batch without pads.
        taps: what to read, `(layer, point)`, and who reads it.

    """
    ids = input_ids.to(model.device)
    more: dict[str, Any] = {}
    if hasattr(getattr(model.hf, "config", None), "use_cache"):
        # Keys and values of every layer would be kept for a next token that never comes.
        more["use_cache"] = False
    if attention_mask is not None and not model.causal:
        more["attention_mask"] = attention_mask.to(model.device)
    waiting = set(taps)

    def deliver(tap: Tap, value: Tensor) -> None:
        taps[tap](value.reshape(*ids.shape, value.shape[-1]))
        waiting.discard(tap)
        if not waiting:
            raise _Done

    with tapped(model, taps, deliver):
        try:
            model.trunk(ids, **more)
        except _Done:
            return
    missing = sorted(f"{point} of layer {layer}" for layer, point in waiting)
    raise PolytopeError(f"{model.name}: its forward pass never reached {', '.join(missing)}")


@contextmanager
def tapped(model: Model, taps: Iterable[Tap], deliver: Callable[[Tap, Tensor], None]) -> Iterator[None]:
    """Put hooks on the modules that the taps need, and take them off whatever happens.

    Args:
        model: the model.
        taps: what to read.
        deliver: gets each tap and its activation as the module has it: `[B, S, width]`, in OPT `[B * S,
            width]`.

    """

    def on_output(tap: Tap) -> Any:
        return lambda _m, _args, out: deliver(tap, out)

    def on_input(tap: Tap) -> Any:
        return lambda _m, args, kwargs: deliver(tap, args[0] if args else kwargs["hidden_states"])

    with ExitStack() as stack:
        for tap in taps:
            module, is_output = _where(model, tap)
            if is_output:
                handle = module.register_forward_hook(on_output(tap))
            else:
                handle = module.register_forward_pre_hook(on_input(tap), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _where(model: Model, tap: Tap) -> tuple[nn.Module, bool]:
    """Return the module whose output (True) or input (False) a tap reads."""
    layer, point = tap
    block = model.block(layer)
    gated = "gate" in block.pre
    if point == "x":
        return block.norm, False
    if point == "u":
        return next(iter(block.pre.values())), False
    if point == "post":
        return block.down, False
    if point == "resid_pre":
        return block.module, False
    kind = {"h": "gate" if gated else "pre", "gate": "gate", "up": "up"}.get(point)
    if kind is None or kind not in block.pre:
        known = "x, u, h, gate, up, post, resid_pre" if gated else "x, u, h, post, resid_pre"
        raise PolytopeError(
            f"{model.name}, layer {layer}: no activation {point!r} here; choose among {known}"
        )
    return block.pre[kind], True
