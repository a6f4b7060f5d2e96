"""Next-token logits at chosen positions of a batch, without those of all others.

A batch of 2,048 tokens has 400 MB of logits in a vocabulary of 50,000. So the LM head's input is cut down to
the chosen positions on its way in; what a family does after its head (scales, soft caps) is the model's own
forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.models.loading import Model


def check_logits(model: Model) -> None:
    """Refuse a model that has no next-token distribution.

    Raises:
        PolytopeError: an encoder, or a trunk without an LM head.

    """
    if model.has_logits:
        return
    why = "is an encoder, which reads both ways" if not model.causal else "was loaded without an LM head"
    raise PolytopeError(
        f"{model.name} {why}, so it has no next-token distribution; give a causal model with an LM head"
    )


@torch.inference_mode()
def logits_at(
    model: Model, input_ids: Int[Tensor, "B S"], rows: Int[Tensor, " K"], columns: Int[Tensor, " K"]
) -> Float[Tensor, "K V"]:
    """Return the next-token logits at some positions, float32.

    Args:
        model: a causal model with an LM head.
        input_ids: token ids, padded on the right (nothing real sees a pad).
        rows: the row of each position.
        columns: its column.

    Raises:
        PolytopeError: a model without next-token distributions.

    """
    check_logits(model)
    ids = input_ids.to(model.device)
    place = (rows.to(model.device), columns.to(model.device))
    find: Any = getattr(model.hf, "get_output_embeddings", None)
    head = None if find is None else find()
    more: dict[str, Any] = {}
    if hasattr(getattr(model.hf, "config", None), "use_cache"):
        more["use_cache"] = False
    if not isinstance(head, nn.Module):
        whole: Tensor = model.hf(ids, **more).logits
        return whole[place].float()

    def chosen(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].reshape(*ids.shape, -1)[place][None], *args[1:])

    handle = head.register_forward_pre_hook(chosen)
    try:
        logits: Tensor = model.hf(ids, **more).logits
    finally:
        handle.remove()
    return logits.reshape(len(rows), -1).float()
