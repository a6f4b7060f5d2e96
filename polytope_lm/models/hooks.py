"""Reading activations: one pass at a time on a model, the trunk only, stopping after the last wanted layer.

A code is the signs of pre-activations as packed bits: bit i of a row is `h_i > 0` (little bit order), 8 to a byte.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError
from polytope_lm.models.families import stream_of
from polytope_lm.models.sites import Point
from polytope_lm.on_device import sent, verified

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Int32, UInt8

    from polytope_lm.models.model import Model

Tap = tuple[int, Point]
Reader = Callable[[Tensor], None]
EXPONENT = np.int32(0x7F800000)


class Done(Exception):  # noqa: N818 - it is no error
    """Raised inside a hook to leave the forward pass once everything wanted was read."""


def forward(model: Model, ids: Tensor, *, logits: bool = False, **options: Any) -> Any:
    """Run the trunk, or with `logits` the whole model, with those options that its signature takes.

    Keys and values are kept only if asked for, by `cache` (before transformers 5.24 `past_key_values`) or `use_cache`.
    """
    module = model.hf if logits else model.trunk
    taken = inspect.signature(module.forward).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    options = {"use_cache": False, "return_dict": True, **options}
    if "cache" in options and "cache" not in taken:
        options["past_key_values"] = options.pop("cache")
    known = {"return_dict", *(["use_cache"] if hasattr(getattr(model.hf, "config", None), "use_cache") else [])}
    return module(ids, **{k: v for k, v in options.items() if k in taken or (anything and k in known)})


@torch.inference_mode()
def read(
    model: Model, input_ids: Int[Tensor, "B S"], attention_mask: Int[Tensor, "B S"] | None, taps: Mapping[Tap, Reader]
) -> None:
    """Run the trunk and hand each wanted activation, `(layer, point)`, to its reader, once, as `[B, S, width]`.

    The forward pass ends after the last tapped module, and the LM head is never run. Rows are padded on the right; a
    causal model then needs no mask, since nothing real can see a pad.
    """
    ids = sent(input_ids, model.device)
    more: dict[str, Any] = {}
    if attention_mask is not None:
        mask = sent(attention_mask, model.device)
        ids = ids.masked_fill(mask == 0, 0)  # a pad may have no row in the embeddings
        if not model.causal:
            more["attention_mask"] = mask
    waiting = set(taps)

    def deliver(tap: Tap, value: Tensor) -> None:
        taps[tap](value.reshape(*ids.shape, value.shape[-1]))
        waiting.discard(tap)
        if not waiting:
            raise Done

    with model.alone(), tapped(model, taps, deliver):
        try:
            forward(model, ids, **more)
        except Done:
            return
    missing = sorted(f"{point} of layer {layer}" for layer, point in waiting)
    raise PolytopeError(f"{model.name}: its forward pass never reached {', '.join(missing)}")


@contextmanager
def tapped(model: Model, taps: Iterable[Tap], deliver: Callable[[Tap, Tensor], None]) -> Iterator[None]:
    """Put hooks on the modules that the taps need while the context lasts; the model is had alone.

    `deliver` gets each tap and its activation as the module has it: `[B, S, width]`, in OPT `[B * S, width]`.
    """

    def on_output(tap: Tap, values: Callable[[Any], Tensor]) -> Any:
        return lambda _m, _args, out: deliver(tap, values(out))

    def on_input(tap: Tap) -> Any:
        return lambda _m, args, kwargs: deliver(tap, args[0] if args else kwargs["hidden_states"])

    with ExitStack() as stack:
        for tap in taps:
            module, values = _where(model, tap)
            if values is not None:
                stack.callback(module.register_forward_hook(on_output(tap, values)).remove)
            else:
                stack.callback(module.register_forward_pre_hook(on_input(tap), with_kwargs=True).remove)
        yield


def _where(model: Model, tap: Tap) -> tuple[nn.Module, Callable[[Any], Tensor] | None]:
    """Return the module that a tap reads, and what takes it out of its output; None for its input."""
    layer, point = tap
    block = model.block(layer)
    own = block.kinds[0]
    inputs = {"x": block.norm, "u": next(iter(block.pre.values())), "post": block.down}
    if point in inputs and not (point == "post" and own == "router"):
        return inputs[point], None
    if point in {"resid_pre", "resid_post"}:
        if not block.streams:
            raise PolytopeError(
                f"{model.name}, layer {layer}: the block carries several streams side by side, so {point} is "
                f"not one vector a token; read x, u, h or post"
            )
        return block.module, stream_of if point == "resid_post" else None
    kind = {"h": own, "gate": "gate", "up": "up", "chosen": "router"}.get(point)
    if kind is None or kind not in block.pre:
        more = {"gate": "gate, up, post", "router": "chosen"}.get(own, "post")
        known = f"x, u, h, {more}, resid_pre, resid_post"
        raise PolytopeError(f"{model.name}, layer {layer}: no activation {point!r} here; choose among {known}")
    return block.pre[kind], partial(block.values, "chosen" if point == "chosen" else kind)


def read_bridge(model: Model, input_ids: Tensor, readers: dict[str, Any]) -> None:
    """Read hook points that only the bridge has, by one more forward pass through it."""

    def reader(name: str) -> Any:
        def hook(value: Tensor, hook: Any) -> None:  # noqa: ARG001 - TransformerLens passes it by name
            readers[name](value.reshape(*input_ids.shape, -1))

        return hook

    with model.alone():
        model.bridge.run_with_hooks(input_ids, return_type=None, fwd_hooks=[(name, reader(name)) for name in readers])


class NotFiniteError(PolytopeError):
    """A pre-activation is NaN or infinite; `index` says where in the array that was packed."""

    def __init__(self, value: float, index: list[int]) -> None:
        super().__init__(f"pre-activation {value}: a code needs finite values; check the weights and the dtype")
        self.index = index


def pack(h: Tensor) -> UInt8[np.ndarray, "... B"]:
    """Pack the signs of pre-activations, on any device, into bytes, zero being off; refuse NaN and infinity."""
    if h.device.type == "cpu" and h.dtype == torch.float32 and h.is_contiguous():
        rows = h.detach().numpy().view(np.int32).reshape(-1, h.shape[-1])
        packed = np.zeros((len(rows), -(-h.shape[-1] // 8)), np.uint8)
        finite = _pack(rows, packed)
        packed = packed.reshape(*h.shape[:-1], packed.shape[-1])
    else:
        rows_packed, each = pack_rows(h.reshape(-1, h.shape[-1]))
        finite, packed = bool(each.all()), rows_packed.cpu().numpy().reshape(*h.shape[:-1], rows_packed.shape[1])
    if not finite:
        bad = torch.nonzero(~torch.isfinite(h))[0].tolist()
        raise NotFiniteError(h[tuple(bad)].item(), bad)
    return packed


def pack_rows(h: Float[Tensor, "T N"]) -> tuple[UInt8[Tensor, "T B"], Bool[Tensor, " T"]]:
    """Pack the signs of rows where they are, an eighth of a byte each; say of each row whether all of it is finite."""
    if h.is_cuda and h.dtype in {torch.float32, torch.bfloat16, torch.float16} and h.stride(-1) == 1:
        return _fastest_packing(h.device)(h)
    return _pack_rows(h)


def _pack_rows(h: Float[Tensor, "T N"]) -> tuple[UInt8[Tensor, "T B"], Bool[Tensor, " T"]]:
    """Pack eight bytes of 0 or 1, read as one integer, by a product: its highest byte sums byte i times 2^i."""
    low, high = torch.aminmax(h, dim=-1)  # NaN where there is one
    on = nn.functional.pad((h > 0).view(torch.uint8), (0, -h.shape[-1] % 8)).contiguous()
    return ((on.view(torch.int64) * _GATHER) >> 56).to(torch.uint8), torch.isfinite(low) & torch.isfinite(high)


_GATHER = sum(1 << (56 - 7 * i) for i in range(8))


@cache
def _fastest_packing(device: torch.device) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the compiled packing, if it is there and does on some rows what the plain one does."""

    def trial(packing: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        h = torch.randn(64, 1003, generator=torch.Generator().manual_seed(0)).to(device)
        h[1, 7], h[2, 1000], h[3] = float("nan"), float("inf"), 0.0
        parts = [packing(h.to(dtype)) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
        return torch.cat([torch.where(finite[:, None], packed, 255) for packed, finite in parts])

    return verified("pack_rows", _pack_rows, trial)


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
