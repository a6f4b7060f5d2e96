"""Running the arms over the tested documents: many arms in one batch, what lies below the layer computed once.

Each row of a batch is one arm. One layer alone: the blocks below it are passed by, their clean output in their place.
All layers at once: every layer writes what its arm says of the stream that has already been changed below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from polytope_lm.models.gates import Mlp, rewriting
from polytope_lm.models.hooks import forward, tapped
from polytope_lm.models.prefix import passed_by
from polytope_lm.predictions.determination.arms import Arm, Here
from polytope_lm.predictions.determination.fitting import Fit, donors_of
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from polytope_lm.models.model import Model

_LOGITS = 2**26
"""Numbers of all arms' logits in one batch: 256 MB in float32."""
_TOKENS = 2048
"""Of all arms in one batch."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is run.

    Attributes:
        layers: that are written: one, or all of the model at once.
        arms: the rows.
        fits: by layer.
        neurons: how many count as causal.
        draws: of random neurons.

    """

    model: Model
    layers: tuple[int, ...]
    arms: tuple[Arm, ...]
    fits: Mapping[int, Fit]
    neurons: int
    draws: int
    seed: int


@dataclass(frozen=True, eq=False)
class _Clean:
    """The clean run of one sequence, `target` the ids to be predicted."""

    ids: Int64[Tensor, " S"]
    out: Float[Tensor, "S V"]
    entry: Tensor | None

    @property
    def targets(self) -> Tensor:
        return self.ids[2:]


def measure(plan: Plan, ids: Int64[np.ndarray, " S"], document: int) -> dict[str, Any]:
    """Return sums over one document's positions after the first: of each arm's loss and KL, and of the clean loss.

    With logits: `loss` is the cross-entropy of the next token, KL that of the next-token distributions, in nats.
    Without: `loss` is `1 - cosine` of the final state with the clean one, KL is left out.
    """
    model = plan.model
    place = torch.as_tensor(np.asarray(ids), device=model.device)
    rng = np.random.default_rng([derived(plan.seed, Purpose.DONORS), document])
    clean, heres = _prepare(plan, place, rng)
    size = max(1, _TOKENS // len(ids))
    if model.has_logits:
        size = max(1, min(size, _LOGITS // clean.out.numel()))
    losses: list[float] = []
    kls: list[float] = []
    for first in range(0, len(plan.arms), size):
        for out in _rows(plan, clean, heres, plan.arms[first : first + size]):
            loss, kl = _scores(out, clean, model)
            losses.append(loss)
            kls.append(kl)
    own, _ = _scores(clean.out, clean, model)
    with_donor = {
        name: float(np.mean([np.mean(here.donors[name] >= 0) for here in heres.values()])) * (len(ids) - 1)
        for name in next(iter(heres.values())).donors
    }
    counted = len(ids) - 2 if model.has_logits else len(ids) - 1
    return {
        "tokens": counted, "replaced": len(ids) - 1, "clean": own, "loss": losses, "donors": with_donor,
        "kl": kls if model.has_logits else [],
    }  # fmt: skip


def _scores(out: Tensor, clean: _Clean, model: Model) -> tuple[float, float]:
    """Return the sums of loss and KL over one row's positions."""
    if not model.has_logits:
        cosine = torch.nn.functional.cosine_similarity(out[1:].double(), clean.out[1:].double(), dim=-1)
        return float((1 - cosine).sum()), 0.0
    log_q = out[1:-1].log_softmax(-1)
    loss = -log_q.gather(-1, clean.targets[:, None]).double().sum()
    log_p = clean.out[1:-1].log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).double().sum()
    return float(loss), float(kl)


def _final(model: Model, ids: Tensor) -> Tensor:
    """Return logits, or the final states of a model without them, float32."""
    found = forward(model, ids, logits=model.has_logits)
    out: Tensor = (found.logits if model.has_logits else found.last_hidden_state).float()
    return out


def _prepare(plan: Plan, ids: Int64[Tensor, " S"], rng: np.random.Generator) -> tuple[_Clean, dict[int, Here]]:
    """Run the clean sequence: what is read of it, donors, and which neurons matter."""
    model, first = plan.model, min(plan.layers)
    h: dict[int, Tensor] = {}
    post: dict[int, Tensor] = {}
    reuse = len(plan.layers) == 1 and first > 0 and model.lens is None and all(b.streams for b in model.blocks)
    entry: dict[str, Tensor] = {}

    def keep(layer: int, mlp: Mlp) -> Tensor:
        h[layer] = mlp.h[0, 1:].detach()
        post[layer] = mlp.post if mlp.post.requires_grad else mlp.post.detach().requires_grad_()
        return post[layer]

    with ExitStack() as stack:
        stack.enter_context(rewriting(model, plan.layers, keep))
        if reuse:
            stack.enter_context(
                tapped(model, [(first, "resid_pre")], lambda _, x: entry.update(x=x.detach().reshape(1, len(ids), -1)))
            )
        stack.enter_context(torch.enable_grad())
        out = _final(model, ids[None])[0]
        if model.has_logits:
            scalar = out[1:].log_softmax(-1).max(-1).values.sum()
        else:
            scalar = (out[1:] * out[1:].detach()).sum()
        slopes = torch.autograd.grad(scalar, [post[layer] for layer in plan.layers])
    heres = {}
    for layer, slope in zip(plan.layers, slopes, strict=True):
        # post = p h with p = act(h)/h held fixed: RelP's relevance of h at this layer.
        relevance = (post[layer].detach() * slope)[0, 1:].abs()
        heres[layer] = Here(
            fit=plan.fits[layer],
            donors=donors_of(plan.fits[layer], h[layer], ids[1:].cpu().numpy(), rng),
            causal=_largest(relevance, plan.neurons),
            random=[
                _largest(torch.as_tensor(rng.random(relevance.shape, np.float32), device=ids.device), plan.neurons)
                for _ in range(plan.draws)
            ],
        )  # fmt: skip
    return _Clean(ids, out.detach(), entry.get("x")), heres


def _largest(value: Float[Tensor, "S N"], count: int) -> Tensor:
    """Return which are the `count` largest of each row."""
    chosen = torch.zeros_like(value, dtype=torch.bool)
    return chosen.scatter_(-1, value.topk(min(count, value.shape[-1]), dim=-1).indices, value=True)


@torch.inference_mode()
def _rows(plan: Plan, clean: _Clean, heres: Mapping[int, Here], rows: Sequence[Arm]) -> Tensor:
    """Run some arms in one batch, a row each."""

    def one(mlp: Mlp, row: int) -> Mlp:
        return Mlp(mlp.u[row, 1:], mlp.h[row, 1:], None if mlp.up is None else mlp.up[row, 1:], mlp.post[row, 1:])

    def post(layer: int, mlp: Mlp) -> Tensor:
        new = mlp.post.clone()
        for row, arm in enumerate(rows):
            if not arm.reads_out:
                new[row, 1:] = arm.write(heres[layer], one(mlp, row))
        return new

    def output(layer: int, mlp: Mlp, out: Tensor) -> Tensor:
        new = out.clone()
        for row, arm in enumerate(rows):
            if arm.reads_out:
                new[row, 1:] = arm.write(heres[layer], one(mlp, row))
        return new

    model = plan.model
    with ExitStack() as stack:
        stack.enter_context(rewriting(model, plan.layers, post, output))
        if clean.entry is not None:
            entry = clean.entry.expand(len(rows), -1, -1)
            for block in model.blocks[: min(plan.layers)]:
                stack.enter_context(passed_by(block, entry))
        return _final(model, clean.ids.expand(len(rows), -1))


def over(
    plan: Plan, windows: Sequence[Int64[np.ndarray, " _"]], left: Iterable[int]
) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
    """Yield each document that is left with what measures it, for a run that can be resumed."""
    for number in left:
        yield number, partial(measure, plan, windows[number], number)
