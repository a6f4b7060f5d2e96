"""Many versions of some layers' MLPs in one batch: a row each, what lies below the layer computed once.

One layer alone: the blocks below it are passed by, their clean output in their place. Several layers at once: each
writes what its row says of the stream that has already been changed below. The first position is left alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polytope_lm.models.gates import Mlp, rewriting
from polytope_lm.models.hooks import forward, tapped
from polytope_lm.models.prefix import passed_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaxtyping import Float, Int64

    from polytope_lm.models.hooks import Tap
    from polytope_lm.models.model import Model

_LOGITS = 2**26
"""Numbers of all rows' logits in one batch: 256 MB in float32."""
_TOKENS = 2048
"""Of all rows in one batch."""


@dataclass(frozen=True, eq=False)
class Clean:
    """The clean run of one sequence.

    Attributes:
        ids: the sequence.
        out: logits, or the final states of a model without them.
        entry: what the first written block reads, where the blocks below can be passed by.

    """

    ids: Int64[Tensor, " S"]
    out: Float[Tensor, "S V"]
    entry: Tensor | None

    @property
    def targets(self) -> Tensor:
        """The ids to be predicted."""
        return self.ids[2:]


@dataclass(frozen=True, eq=False)
class Row:
    """One version.

    Attributes:
        write: given the layer and what its MLP has of the sequence but the first position, makes `post`, or where
            `reads_out` the MLP's output.
        reads_out: `write` makes the output.

    """

    write: Callable[[int, Mlp], Float[Tensor, "S _"]]
    reads_out: bool = False


def can_start_at(model: Model, layers: Sequence[int]) -> bool:
    """Whether the blocks below these layers can be passed by."""
    streams = all(block.streams for block in model.blocks)
    return len(layers) == 1 and min(layers) > 0 and model.lens is None and streams


@torch.no_grad()
def run_clean(model: Model, layers: Sequence[int], ids: Int64[Tensor, " S"]) -> Clean:
    """Run a sequence as it is, and keep what its rows will need."""
    ids = ids.to(model.device)
    entry: dict[str, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(model.alone())
        if can_start_at(model, layers):
            tap: Tap = (min(layers), "resid_pre")
            keep = lambda _, x: entry.update(x=x.detach().reshape(1, len(ids), -1))  # noqa: E731
            stack.enter_context(tapped(model, [tap], keep))
        return Clean(ids, final(model, ids[None])[0], entry.get("x"))


def run_rows(model: Model, layers: Sequence[int], clean: Clean, rows: Sequence[Row]) -> Iterator[Float[Tensor, "S V"]]:
    """Yield each row's logits, or final states, as many rows at once as memory likes."""
    size = max(1, _TOKENS // len(clean.ids))
    if model.has_logits:
        size = max(1, min(size, _LOGITS // clean.out.numel()))
    for first in range(0, len(rows), size):
        yield from _batch(model, layers, clean, rows[first : first + size])


def scores(out: Tensor, clean: Clean, model: Model) -> tuple[float, float]:
    """Return the sums of loss and KL over one row's positions after the first.

    With logits: the cross-entropy of the next token and the KL from the clean run, in nats. Without: `1 - cosine` of
    the final state with the clean one, and 0.
    """
    if not model.has_logits:
        cosine = torch.nn.functional.cosine_similarity(out[1:].double(), clean.out[1:].double(), dim=-1)
        return float((1 - cosine).sum()), 0.0
    log_q = out[1:-1].log_softmax(-1)
    loss = -log_q.gather(-1, clean.targets[:, None]).double().sum()
    log_p = clean.out[1:-1].log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).double().sum()
    return float(loss), float(kl)


def final(model: Model, ids: Tensor) -> Tensor:
    """Return logits, or the final states of a model without them, float32."""
    found = forward(model, ids, logits=model.has_logits)
    out: Tensor = (found.logits if model.has_logits else found.last_hidden_state).float()
    return out


@torch.no_grad()
def _batch(model: Model, layers: Sequence[int], clean: Clean, rows: Sequence[Row]) -> Tensor:
    """Run some rows in one batch."""

    def one(mlp: Mlp, row: int) -> Mlp:
        return Mlp(mlp.u[row, 1:], mlp.h[row, 1:], None if mlp.up is None else mlp.up[row, 1:], mlp.post[row, 1:])

    def written(layer: int, mlp: Mlp, was: Tensor, *, out: bool) -> Tensor:
        new = was.clone()
        for number, row in enumerate(rows):
            if row.reads_out == out:
                new[number, 1:] = row.write(layer, one(mlp, number))
        return new

    def post(layer: int, mlp: Mlp) -> Tensor:
        return written(layer, mlp, mlp.post, out=False)

    def output(layer: int, mlp: Mlp, out: Tensor) -> Tensor:
        return written(layer, mlp, out, out=True)

    with ExitStack() as stack:
        stack.enter_context(rewriting(model, layers, post, output))
        if clean.entry is not None:
            entry = clean.entry.expand(len(rows), -1, -1)
            for block in model.blocks[: min(layers)]:
                stack.enter_context(passed_by(block, entry))
        return final(model, clean.ids.expand(len(rows), -1))
