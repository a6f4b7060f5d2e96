"""What a model puts out: next-token logits at chosen positions, a logit lens, and one vector a text.

A batch of 2,048 tokens has 400 MB of logits in a vocabulary of 50,000. So the LM head's input is cut down to the chosen
positions on its way in; what a family does after its head (scales, soft caps) is the model's own forward.
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
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float, Int

    from polytope_lm.models.model import Model

_ROWS = 256  # logits held at once: 50 MB for a vocabulary of 50,000
_BATCH_TOKENS = 4096
MAX_TOKENS = 256  # all-MiniLM-L6-v2's own pipeline cuts texts there; 150 characters on each side have about 80


def check_logits(model: Model) -> None:
    """Refuse a model that has no next-token distribution: an encoder, or a trunk without an LM head."""
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
    """Return the next-token logits at positions `(rows, columns)` of ids padded on the right, float32."""
    check_logits(model)
    ids = input_ids.to(model.device)
    place = (rows.to(model.device), columns.to(model.device))
    head = getattr(model.hf, "get_output_embeddings", lambda: None)()
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


@torch.inference_mode()
def next_token_logits(model: Model, residual: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n V"]:
    """Return the logits that the final norm and LM head give for residual vectors (`resid_post`), float32.

    nostalgebraist, "interpreting GPT: the logit lens" (2020): an early guess in the last layer's terms. Every block is
    passed by and the vectors are put in the place of the last one's output, so that what a family does there (final
    norm, projection out, soft caps) is the model's own forward.
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


@torch.inference_mode()
def mean_pooled(model: Model, texts: Sequence[str]) -> Float[np.ndarray, "n D"]:
    """Return the mean over a text's tokens of an encoder's last hidden states, float32.

    Reimers & Gurevych, "Sentence-BERT" (EMNLP 2019): special tokens count, pads do not; for all-MiniLM-L6-v2 this is
    the pooling it was trained with. Texts are cut to 256 tokens or the model's context.
    """
    if model.tokenizer is None:
        raise PolytopeError(f"{model.name} has no tokenizer: wrap(model, tokenizer)")
    longest = min(MAX_TOKENS, model.context_length)
    ids = model.tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
    out = np.zeros((len(texts), model.d_model), np.float32)
    for rows in _batches([len(each) for each in ids]):
        width = max(len(ids[row]) for row in rows)
        batch, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
        for i, row in enumerate(rows):
            batch[i, : len(ids[row])] = torch.as_tensor(ids[row])
            mask[i, : len(ids[row])] = 1
        mask = mask.to(model.device)
        with model.alone():
            states = forward(model, batch.to(model.device), attention_mask=mask.long()).last_hidden_state
        pooled = (states.float() * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        out[rows] = pooled.cpu().numpy()
    return out


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield indices of texts of like length, at most so many tokens with pads at a time."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and (len(rows) + 1) * lengths[row] > _BATCH_TOKENS:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
