"""Next-token logits at chosen positions of a batch, without those of all others.

A batch of 2,048 tokens has 400 MB of logits in a vocabulary of 50,000. So the LM head's input is cut down to
the chosen positions on its way in; what a family does after its head (scales, soft caps) is the model's own
forward.

Logit lens: the residual stream of any layer read by the model's own final norm and LM head.

nostalgebraist, "interpreting GPT: the logit lens" (2020). Every block is passed by and the given vectors put
in the place of the last one's output, so that what a family does there (final norm, projection out, soft
caps) is the model's own forward. It is an early guess in the last layer's terms: in early layers a change of
it may be no change of what the model knows.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import forward
from polytope_lm.models.prefix import passed_by

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.models.model import Model


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
    if not isinstance(head, nn.Module):
        with model.alone():
            whole: Tensor = forward(model, ids, logits=True).logits
        return whole[place].float()

    def chosen(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].reshape(*ids.shape, -1)[place][None], *args[1:])

    with model.alone(), ExitStack() as stack:
        stack.callback(head.register_forward_pre_hook(chosen).remove)
        logits: Tensor = forward(model, ids, logits=True).logits
    return logits.reshape(len(rows), -1).float()


_ROWS = 256  # logits held at once: 50 MB for a vocabulary of 50,000


@torch.inference_mode()
def next_token_logits(model: Model, residual: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n V"]:
    """Return the logits that the final norm and LM head give for residual vectors, float32.

    Args:
        model: a causal model with an LM head.
        residual: outputs of a block (`resid_post`), one a row.

    Raises:
        PolytopeError: a model without an LM head, or vectors of another width.

    """
    if not model.has_logits:
        raise PolytopeError(f"{model.name} has no LM head: a logit lens needs a causal model with logits")
    if not all(block.streams for block in model.blocks):
        raise PolytopeError(
            f"{model.name}: its blocks carry several streams side by side: no one vector a token is decoded"
        )
    if residual.ndim != 2 or residual.shape[1] != model.d_model:
        raise PolytopeError(f"residual has shape {residual.shape}, expected [n, {model.d_model}]")
    parts = []
    for first in range(0, len(residual), _ROWS):
        rows = torch.as_tensor(residual[first : first + _ROWS]).to(model.device, model.dtype)[:, None]
        ids = torch.zeros(rows.shape[:2], dtype=torch.long, device=model.device)
        with model.alone(), ExitStack() as stack:
            for block in model.blocks:
                stack.enter_context(passed_by(block, rows))
            logits = forward(model, ids, logits=True, logits_to_keep=1).logits[:, -1]
        parts.append(logits.float().cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
