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
from polytope_lm.models.hooks import tapped
from polytope_lm.models.mlp_rows import Clean, Row, can_start_at, final, run_rows, scores
from polytope_lm.predictions.determination.arms import Arm, Here
from polytope_lm.predictions.determination.fitting import Fit, donors_of
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from polytope_lm.models.model import Model


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


def measure(plan: Plan, ids: Int64[np.ndarray, " S"], document: int) -> dict[str, Any]:
    """Return sums over one document's positions after the first: of each arm's loss and KL, and of the clean loss.

    With logits: `loss` is the cross-entropy of the next token, KL that of the next-token distributions, in nats.
    Without: `loss` is `1 - cosine` of the final state with the clean one, KL is left out.
    """
    model = plan.model
    place = torch.as_tensor(np.asarray(ids), device=model.device)
    rng = np.random.default_rng([derived(plan.seed, Purpose.DONORS), document])
    clean, heres = _prepare(plan, place, rng)
    rows = [
        Row(
            lambda layer, mlp, arm=arm: arm.write(heres[layer], mlp),  # type: ignore[misc]
            arm.reads_out,
        )
        for arm in plan.arms
    ]
    found = [scores(out, clean, model) for out in run_rows(model, plan.layers, clean, rows)]
    losses, kls = ([each[i] for each in found] for i in (0, 1))
    own, _ = scores(clean.out, clean, model)
    with_donor = {
        name: float(np.mean([np.mean(here.donors[name] >= 0) for here in heres.values()])) * (len(ids) - 1)
        for name in next(iter(heres.values())).donors
    }
    counted = len(ids) - 2 if model.has_logits else len(ids) - 1
    return {
        "tokens": counted, "replaced": len(ids) - 1, "clean": own, "loss": losses, "donors": with_donor,
        "kl": kls if model.has_logits else [],
    }  # fmt: skip


def _prepare(plan: Plan, ids: Int64[Tensor, " S"], rng: np.random.Generator) -> tuple[Clean, dict[int, Here]]:
    """Run the clean sequence: what is read of it, donors, and which neurons matter."""
    model, first = plan.model, min(plan.layers)
    h: dict[int, Tensor] = {}
    post: dict[int, Tensor] = {}
    reuse = can_start_at(model, plan.layers)
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
        out = final(model, ids[None])[0]
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
    return Clean(ids, out.detach(), entry.get("x")), heres


def _largest(value: Float[Tensor, "S N"], count: int) -> Tensor:
    """Return which are the `count` largest of each row."""
    chosen = torch.zeros_like(value, dtype=torch.bool)
    return chosen.scatter_(-1, value.topk(min(count, value.shape[-1]), dim=-1).indices, value=True)


def over(
    plan: Plan, windows: Sequence[Int64[np.ndarray, " _"]], left: Iterable[int]
) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
    """Yield each document that is left with what measures it, for a run that can be resumed."""
    for number in left:
        yield number, partial(measure, plan, windows[number], number)
