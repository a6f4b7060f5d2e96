"""Texts to vectors: the mean over tokens of an encoder's last hidden states.

Reimers & Gurevych, "Sentence-BERT" (EMNLP 2019): the mean over all tokens of a text, its special ones
included, pads not; for all-MiniLM-L6-v2 this is the pooling it was trained with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import forward

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float

    from polytope_lm.models.model import Model

_BATCH_TOKENS = 4096
MAX_TOKENS = 256
"""Longest text that is read, as all-MiniLM-L6-v2's own pipeline cuts it; a context of 150 characters on each
side has about 80."""


@torch.inference_mode()
def mean_pooled(model: Model, texts: Sequence[str]) -> Float[np.ndarray, "n D"]:
    """Return one vector a text, float32.

    Args:
        model: the encoder.
        texts: what to read; cut to 256 tokens or the model's context.

    Raises:
        PolytopeError: the encoder has no tokenizer.

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
