"""Writing activations: one forward pass for many versions of one position, everything before it kept.

`run_replaced` writes every position of a sequence at once. What is replaced at a layer, and what follows:

- `mlp_in`: `u`, what this layer's MLP reads. The residual stream keeps its own value (scope `mlp`).
- `resid_mid`: the stream that the MLP's norm reads (scope `stream`), written in place, so that whatever the
  block carries on (this stream, or in OPT-350m the norm's output) changes with it. In parallel blocks it is
  the block's input, so this block's attention reads the new one as well.
- `embed`: what block 0 reads, the token's embedding with its position's.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import Done, Tap, forward, tapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jaxtyping import Float, Int

    from polytope_lm.models.families import Block
    from polytope_lm.models.model import Model
    from polytope_lm.models.prefix import Prefix

Space = Literal["resid_mid", "mlp_in", "embed"]

_TOKENS = 4096  # of all versions in one batch: enough to keep the cores busy, little memory
_carried: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_SHARED_TOKENS = 16384  # of all keys in one batch, where only the last token of each version is computed


@dataclass(frozen=True, eq=False, repr=False)
class Patched:
    """What was read of `n` versions of one sequence, float32; of several positions one after the other."""

    activations: Mapping[Tap, Float[np.ndarray, "n width"]]
    logits: Float[np.ndarray, "n V"] | None

    def __repr__(self) -> str:
        parts = {f"{point} of layer {layer}": value for (layer, point), value in self.activations.items()}
        if self.logits is not None:
            parts["logits"] = self.logits
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in parts.items())
        return f"Patched: {shapes or 'nothing was read'}"


@torch.inference_mode()
def run_patched(
    model: Model,
    input_ids: Int[np.ndarray, " S"],
    vectors: Float[np.ndarray, "n D"],
    *,
    layer: int,
    position: int,
    at: Space = "resid_mid",
    taps: Sequence[Tap] = (),
    logits: bool = True,
    prefix: Prefix | None = None,
) -> Patched:
    """Run one sequence with the activation at one position of one layer replaced by each of `n` vectors.

    What is tapped before the replaced place is the clean run's. With `prefix` (`share_prefix` of the same sequence,
    layer and position) only this position is run, from this layer on, which is all that can be read. A model that reads
    both ways is refused: every position would change, not only this one.
    """
    model.block(layer)
    if not model.causal:
        raise PolytopeError(
            f"{model.name} reads both ways: changing one position changes all of them, so no context is left "
            "for later layers; use a causal model, or stay in the path's own layer (downstream=False)"
        )
    if np.ndim(vectors) != 2 or np.shape(vectors)[1] != model.d_model or not len(vectors):
        raise PolytopeError(f"vectors have shape {np.shape(vectors)}, expected [n, {model.d_model}], n at least 1")
    if not 0 <= position < len(input_ids):
        raise PolytopeError(f"position {position} is outside the sequence of {len(input_ids)} tokens")
    check_streams(model, layer, at)
    # Nothing after the position reaches it.
    ids = torch.as_tensor(np.asarray(input_ids)[: position + 1], device=model.device)
    return _run(model, ids, vectors, Replaced(layer, at, -1), [-1], taps=taps, logits=logits, prefix=prefix)


@torch.inference_mode()
def run_replaced(
    model: Model,
    input_ids: Int[np.ndarray, " S"],
    sequences: Float[np.ndarray, "n S D"],
    *,
    layer: int,
    positions: Sequence[int],
    at: Space = "resid_mid",
    taps: Sequence[Tap] = (),
    logits: bool = True,
    prefix: Prefix | None = None,
) -> Patched:
    """Run one sequence with the activations of one layer replaced at all positions by each of `n` versions.

    Nothing of `input_ids` is left in the stream but with `at="mlp_in"`, where it keeps its own values. Models that read
    both ways are run too: no context is kept. `positions` are read; logits are those after the last of them. With
    `prefix` (`share_context`, whose `tokens` are then the ids) each position is replaced by itself and reads the clean
    context.
    """
    check_streams(model, layer, at)
    expected = (len(input_ids), model.d_model)
    if np.ndim(sequences) != 3 or np.shape(sequences)[1:] != expected or not len(sequences):
        raise PolytopeError(f"sequences have shape {np.shape(sequences)}, expected [n, {expected[0]}, {expected[1]}]")
    where = list(positions)
    if not where or not all(0 <= position < len(input_ids) for position in where):
        raise PolytopeError(f"positions {where} are not all inside the sequence of {len(input_ids)} tokens")
    ids = torch.as_tensor(np.asarray(input_ids), device=model.device)
    back = [position - len(ids) for position in where]
    place = Replaced(layer, at, slice(None))
    return _run(model, ids, sequences, place, back, taps=taps, logits=logits, prefix=prefix)


@dataclass(frozen=True)
class Replaced:
    """What is replaced: the layer, the place in it, and one position or all."""

    layer: int
    at: Space
    position: int | slice


def _run(
    model: Model, ids: Tensor, versions: np.ndarray, replaced: Replaced, back: list[int], *,
    taps: Sequence[Tap], logits: bool, prefix: Prefix | None = None,
) -> Patched:  # fmt: skip
    """Run versions batch by batch and read the positions `back`, counted from the end."""
    read: dict[Tap, list[Tensor]] = {tap: [] for tap in taps}
    scores: list[Tensor] = []
    size, wanted = max(1, (_TOKENS if prefix is None else _SHARED_TOKENS) // len(ids)), logits and model.has_logits
    for first in range(0, len(versions), size):
        rows = torch.as_tensor(versions[first : first + size]).to(model.device, model.dtype)
        with ExitStack() as stack:
            stack.enter_context(model.alone())
            more: dict[str, Any] = {}
            batch = ids.expand(len(rows), -1)
            if prefix is not None:
                batch, more = stack.enter_context(prefix.entered(len(rows)))

            left = set(taps)

            def keep(tap: Tap, value: Tensor, shape: torch.Size = batch.shape, left: set[Tap] = left) -> None:
                read[tap].append(rearrange(value.reshape(*shape, -1)[:, back], "row at n -> row (at n)").float().cpu())
                left.discard(tap)
                if not (left or wanted):
                    raise Done

            stack.enter_context(patched(model.block(replaced.layer), replaced, rows, batch.shape))
            stack.enter_context(tapped(model, taps, keep))
            if wanted:
                out = forward(model, batch, logits=True, logits_to_keep=-back[-1], **more).logits
                scores.append(out[:, back[-1]].float().cpu())
            elif taps:
                with suppress(Done):
                    forward(model, batch, **more)
    found = {tap: torch.cat(parts).numpy() for tap, parts in read.items()}
    return Patched(found, torch.cat(scores).numpy() if scores else None)


def check_streams(model: Model, layer: int, at: Space) -> None:
    """Refuse a place whose replacement would not reach all that the block carries on."""
    if at != "mlp_in" and not model.block(layer).streams:
        raise PolytopeError(
            f"{model.name}, layer {layer}: the block carries several streams side by side, so replacing {at} "
            "leaves the others as they were; use at='mlp_in'"
        )
    if at == "resid_mid" and not _carries(model, layer):
        raise PolytopeError(
            f"{model.name}, layer {layer}: {type(model.block(layer).module).__name__} carries on a copy of "
            "what its norm reads, so resid_mid can't be replaced; use at='mlp_in'"
        )


def _carries(model: Model, layer: int) -> bool:
    """Check once a block that giving one token another's `x` gives that token's output of the block."""
    block = model.block(layer)
    if block.parallel or not model.causal:
        return True
    if block.module not in _carried:
        ids = torch.tensor([[0, 1], [0, 2]], device=model.device)
        read: dict[Tap, Tensor] = {}

        def keep(tap: Tap, value: Tensor) -> None:
            read[tap] = value.reshape(len(ids), 2, -1)[:, -1].clone()

        with model.alone(), tapped(model, [(layer, "x"), (layer, "resid_post")], keep):
            forward(model, ids)
        x, clean = read[layer, "x"], read[layer, "resid_post"]
        patch = patched(block, Replaced(layer, "resid_mid", -1), x.flip(0), ids.shape)
        with model.alone(), patch, tapped(model, [(layer, "resid_post")], keep):
            forward(model, ids)
        off = (read[layer, "resid_post"] - clean.flip(0)).abs().max()
        _carried[block.module] = not bool(off > 1e-2 * clean.abs().max())
    return _carried[block.module]


@contextmanager
def patched(
    block: Block, replaced: Replaced, rows: Tensor | Callable[[Tensor], Tensor], shape: torch.Size
) -> Iterator[None]:
    """Put `rows`, or what a function makes of the own ones, in the replaced place while the context lasts."""
    at = replaced.at
    in_place = at == "resid_mid" and not block.parallel

    def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = args[0] if args else kwargs["hidden_states"]
        # The tensor that a norm reads is the one that the block carries on: written in place, both change.
        changed = value if in_place else value.clone()
        place = changed.view(*shape, -1)
        place[:, replaced.position] = rows(place[:, replaced.position]) if callable(rows) else rows
        if in_place:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    mlp = tuple(block.pre.values()) if block.routing is None else (block.down,)
    modules = mlp if at == "mlp_in" else (block.norm if in_place else block.module,)
    with ExitStack() as stack:
        for module in dict.fromkeys(modules):
            stack.callback(module.register_forward_pre_hook(on_input, with_kwargs=True).remove)
        yield
