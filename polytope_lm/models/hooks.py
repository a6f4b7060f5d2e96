"""Reading activations: the trunk only, stopping after the last wanted layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Point as Point  # noqa: PLC0414 - others import it from here

if TYPE_CHECKING:
    from jaxtyping import Int

    from polytope_lm.models.model import Model

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


def read_bridge(model: Model, input_ids: Tensor, readers: dict[str, Any]) -> None:
    """Read hook points that only the bridge has, by one more forward pass through it.

    Args:
        model: the model.
        input_ids: `[B, S]`, padded on the right.
        readers: who reads which hook point.

    """

    def reader(name: str) -> Any:
        def hook(value: Tensor, hook: Any) -> None:  # noqa: ARG001 - TransformerLens passes it by name
            readers[name](value.reshape(*input_ids.shape, -1))

        return hook

    model.bridge.run_with_hooks(
        input_ids, return_type=None, fwd_hooks=[(name, reader(name)) for name in readers]
    )
