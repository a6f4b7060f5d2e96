"""Sharing what comes before a position: its keys and values once, then only what follows, from one layer on.

In a causal model, replacing an activation at one position changes nothing before it. So the earlier tokens' keys and
values are computed in one forward pass and lent to every version, and the blocks below the replaced layer are passed
by: their clean output is put in their place. Everything else (masks, position ids, final norm, LM head) is the model's
own forward, so that no family is written down here. Derivatives may be taken: nothing is an inference tensor.

`share_context` does the same for many positions at once, each moved by itself: they run as if they came after the whole
sequence, and a mask lets each see what comes before its own place in the clean sequence, and itself.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from polytope_lm.models.hooks import Tap, forward, tapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int

    from polytope_lm.models.families import Block
    from polytope_lm.models.model import Model

_TOLERANCE = 1e-2  # of the largest value: a wrong mask or position is off by its whole size, half precision is not
_supported: WeakKeyDictionary[nn.Module, dict[bool, bool]] = WeakKeyDictionary()
"""By model, for one token and for several after the prefix."""
_in_context: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""By model, for positions that are each moved by itself."""


class _Lent(DynamicCache):  # type: ignore[misc]
    """Keys and values of one prefix for any number of rows; what a row adds is handed back, never kept."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        self.layers = layers

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the prefix's keys and values with the rows' own after them."""
        layer = copy(self.layers[layer_idx])
        rows = len(key_states)
        layer.keys, layer.values = (kept.expand(rows, -1, -1, -1) for kept in (layer.keys, layer.values))
        both: tuple[Tensor, Tensor] = layer.update(key_states, value_states, *args, **kwargs)
        return both


@dataclass(frozen=True, eq=False)
class Prefix:
    """The tokens before one position, computed once: `layer` is the first block that is run again.

    Attributes:
        tokens: the ids from the position on.
        cache: keys and values of what comes before it.
        entry: the clean input of that block from the position on.

    """

    model: Model
    layer: int
    tokens: Int[Tensor, " k"]
    cache: Any
    entry: Float[Tensor, "1 k D"]

    @property
    def options(self) -> dict[str, Any]:
        """What the forward is told beside the ids."""
        return {"cache": self.cache, "use_cache": True}

    @contextmanager
    def entered(self, rows: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Pass the blocks below by while the context lasts; gives the ids and the forward's options."""
        clean = self.entry.expand(rows, -1, -1)
        with ExitStack() as stack:
            for block in self.model.blocks[: self.layer]:
                stack.enter_context(passed_by(block, clean))
            yield self.tokens.expand(rows, -1), self.options


@dataclass(frozen=True, eq=False)
class Context(Prefix):
    """A sequence, computed once, in which some positions can be moved, each by itself.

    Attributes:
        places: the positions.
        mask: what each sees: what comes before it in the sequence, and itself.

    """

    places: Int[Tensor, " k"]
    mask: Float[Tensor, "1 1 k keys"]

    @property
    def options(self) -> dict[str, Any]:
        """What the forward is told beside the ids."""
        return {**super().options, "attention_mask": self.mask, "position_ids": self.places[None]}


@contextmanager
def passed_by(block: Block, clean: Tensor) -> Iterator[None]:
    """Let a block give a fixed stream while the context lasts, without being run."""
    module = block.module
    own = vars(module).get("forward")
    module.forward = lambda *_args, **_kwargs: block.packed(clean)
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@torch.no_grad()
def share_prefix(
    model: Model, input_ids: Int[Tensor, " S"], *, layer: int, position: int, last: int | None = None
) -> Prefix | None:
    """Compute what comes before a position once, for many versions of it from block `layer` on.

    What follows is run to `last`; by default the position is the last. None where the prefix can't be shared (a
    position without one, a `TransformerBridge`, a model that keeps another kind of state than keys and values): then
    run whole sequences. Each model is checked the first time: the shared run of the clean sequence must give the last
    block's output of a plain forward pass.
    """
    odd = model.lens is not None or not all(block.streams for block in model.blocks)
    last = position if last is None else last
    several = last > position
    known = _supported.setdefault(model.hf, {})
    if position == 0 or odd or known.get(several) is False:
        return None
    ids = input_ids[: last + 1].to(model.device)
    tokens = ids[position:]
    with model.alone():
        entry, end, state = _clean(model, ids[None], len(tokens), layer, use_cache=True)
        layers = getattr(state, "layers", [])
        kinds = {type(part) for part in layers}
        if len(layers) != model.n_layers or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
            known[several] = False
            return None
        prefix = Prefix(model, int(layer), tokens, _Lent(_before(model, ids, len(tokens), layers)), entry)
        if several not in known:
            known[several] = _agrees(prefix, end)
    return prefix if known[several] else None


@torch.no_grad()
def share_context(
    model: Model, input_ids: Int[Tensor, " S"], *, layer: int, positions: Int[Tensor, " k"]
) -> Context | None:
    """Compute a sequence once, for versions of several of its positions from block `layer` on, each by itself.

    None where that can't be done (see `share_prefix`; a window of attention shorter than the sequence; attention
    kernels that take no mask): then run position by position. Each model is checked the first time, like a prefix.
    """
    odd = model.lens is not None or not all(block.streams for block in model.blocks)
    known = _in_context.get(model.hf)
    if odd or known is False or model.attention not in {"sdpa", "eager"}:
        return None
    ids = input_ids.to(model.device)
    places = positions.to(model.device)
    with model.alone():
        entry, end, state = _clean(model, ids[None], len(ids), layer, use_cache=True)
        layers = getattr(state, "layers", [])
        kinds = {type(part) for part in layers}
        whole = all(part.keys.shape[-2] == len(ids) for part in layers if hasattr(part, "keys"))
        if len(layers) != model.n_layers or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer} or not whole:
            return None
        sees = torch.arange(len(ids), device=ids.device) < places[:, None]
        sees = torch.cat([sees, torch.eye(len(places), dtype=torch.bool, device=ids.device)], dim=1)
        mask = torch.zeros(sees.shape, dtype=model.dtype, device=ids.device)
        mask = mask.masked_fill(~sees, torch.finfo(model.dtype).min)[None, None]
        context = Context(model, int(layer), ids[places], _Lent(layers), entry[:, places], places, mask)
        if known is None:
            try:
                _in_context[model.hf] = _agrees(context, end[:, places])
            except (RuntimeError, ValueError, TypeError, IndexError):  # attention that takes no such mask (ALiBi)
                _in_context[model.hf] = False
    return context if _in_context[model.hf] else None


def _before(model: Model, ids: Tensor, count: int, layers: list[Any]) -> list[Any]:
    """Take the last tokens' keys and values away; windows have dropped others for them: run them without."""
    if any(type(part) is DynamicSlidingWindowLayer for part in layers):
        return list(_state(forward(model, ids[None, :-count], use_cache=True)).layers)
    for part in layers:
        part.keys, part.values = part.keys[:, :, :-count], part.values[:, :, :-count]
    return layers


def _agrees(prefix: Prefix, plain: Tensor) -> bool:
    """Compare the last block's output of the shared runs with a plain forward's."""
    with prefix.entered(2) as (rows, more):
        _, shared, _ = _clean(prefix.model, rows, len(prefix.tokens), prefix.model.n_layers - 1, **more)
    scale = float(plain.abs().max())
    same = shared.shape[1:] == plain.shape[1:]
    return same and float((shared - plain).abs().max()) <= _TOLERANCE * scale


def _clean(model: Model, ids: Tensor, count: int, layer: int, **more: Any) -> tuple[Tensor, Tensor, Any]:
    """Run the trunk; return a block's input, the last one's output, `[B, count, D]` at the end, and the state."""
    read: dict[Any, Tensor] = {}

    def keep(tap: Tap, value: Tensor) -> None:
        read[tap] = value.reshape(*ids.shape, -1)[:, -count:].clone()

    end: Tap = (model.n_layers - 1, "resid_post")
    with tapped(model, [(int(layer), "resid_pre"), end], keep):
        state = _state(forward(model, ids, **more))
    return read[int(layer), "resid_pre"], read[end], state


def _state(out: Any) -> Any:
    """Return the keys and values of a forward's output: `past_key_values` before transformers 5.24."""
    return next((value for key, value in out.items() if key in {"cache", "past_key_values"}), None)
