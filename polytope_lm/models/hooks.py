"""Reading activations: the trunk only, stopping after the last wanted layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Int

    from polytope_lm.models.loading import Model

Point = Literal["x", "u", "h", "gate", "up", "post", "resid_pre", "resid_post"]
"""What can be read of a block: `x` the stream that the MLP's norm reads, `u` the MLP's input, `h` the
pre-activations (`gate` for gated MLPs), `gate` and `up` a gated MLP's branches, `post` the down projection's
input, `resid_pre` the block's input, `resid_post` its output."""

Tap = tuple[int, Point]
Reader = Callable[[Tensor], None]


class _Done(Exception):  # noqa: N818 - it is no error
    """Raised inside a hook to leave the forward pass once everything wanted was read."""


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
        return lambda _m, _args, out: deliver(tap, out[0] if isinstance(out, tuple) else out)

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
    if point in {"resid_pre", "resid_post"}:
        return block.module, point == "resid_post"
    kind = {"h": "gate" if gated else "pre", "gate": "gate", "up": "up"}.get(point)
    if kind is None or kind not in block.pre:
        known = f"x, u, h, {'gate, up, ' * gated}post, resid_pre, resid_post"
        raise PolytopeError(
            f"{model.name}, layer {layer}: no activation {point!r} here; choose among {known}"
        )
    return block.pre[kind], True
