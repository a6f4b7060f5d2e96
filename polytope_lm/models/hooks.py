"""Reading activations: one pass at a time on a model, the trunk only, stopping after the last wanted layer.

A code is the signs of pre-activations as packed bits: bit i of a row is `h_i > 0` (little bit order), 8 to a byte.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from polytope_lm.compiled import compiled
from polytope_lm.errors import PolytopeError
from polytope_lm.models.families import stream_of
from polytope_lm.models.sites import Point

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, Int32, UInt8

    from polytope_lm.models.model import Model

Tap = tuple[int, Point]
Reader = Callable[[Tensor], None]
EXPONENT = np.int32(0x7F800000)


class _Done(Exception):  # noqa: N818 - it is no error
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
    ids = input_ids.to(model.device)
    more: dict[str, Any] = {}
    if attention_mask is not None:
        mask = attention_mask.to(model.device)
        ids = ids.masked_fill(mask == 0, 0)  # a pad may have no row in the embeddings
        if not model.causal:
            more["attention_mask"] = mask
    waiting = set(taps)

    def deliver(tap: Tap, value: Tensor) -> None:
        taps[tap](value.reshape(*ids.shape, value.shape[-1]))
        waiting.discard(tap)
        if not waiting:
            raise _Done

    with model.alone(), tapped(model, taps, deliver):
        try:
            forward(model, ids, **more)
        except _Done:
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
    return (rearrange(padded, "... (byte bit) -> ... byte bit", bit=8) * powers).sum(-1, dtype=torch.uint8)


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
