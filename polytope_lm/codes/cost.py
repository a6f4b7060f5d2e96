"""What a capture will cost, told before it is spent: tokens, gigabytes, minutes."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from polytope_lm.codes.plan import Plan
    from polytope_lm.documents import Documents

SAMPLE = 64
# Of what a bare matrix product reaches; attention, norms and activations take the rest.
EFFICIENCY = 0.6


@dataclass(frozen=True)
class Cost:
    """An estimate of a capture.

    Attributes:
        documents: how many, or None for a stream of unknown length.
        characters: of all documents, or None.
        tokens: tokens that the model reads, or None.
        stored: tokens that are stored, or None.
        gigabytes: of the finished store (10^9 bytes), texts included, or None.
        minutes: on this device, or None.
        tokens_per_document: mean over the first documents.

    """

    documents: int | None
    characters: int | None
    tokens: int | None
    stored: int | None
    gigabytes: float | None
    minutes: float | None
    tokens_per_document: float

    def __str__(self) -> str:
        if self.documents is None:
            return (
                f"a stream of documents, about {self.tokens_per_document:,.0f} tokens each; its length is "
                f"not known"
            )
        return (
            f"{self.documents:,} documents, about {self.tokens:,} tokens to read, {self.stored:,} to store, "
            f"{self.gigabytes:.3g} GB, {self.minutes:.1f} minutes on this machine"
        )


def estimate(plan: Plan, source: Documents) -> Cost:
    """Estimate a capture from its first documents, a count of the rest and a short matrix product.

    Args:
        plan: what will be captured.
        source: the documents; a local source is read once to count characters, a hub stream is not.

    """
    sample = list(itertools.islice(iter(source), SAMPLE))
    windowed = plan.windowing.apply(sample, 0, plan.model.tokenizer)
    read = sum(len(w.input_ids) for w in windowed.windows)
    per_document = read / len(sample)
    if source.name.startswith("hub:"):
        return Cost(None, None, None, None, None, None, per_document)
    lengths = [len(d.text) for d in source]
    scale = sum(lengths) / max(sum(len(d.text) for d in sample), 1)
    tokens, stored = round(read * scale), round(windowed.n_kept * scale)
    row = sum(s.columns * (1 if s.bits else 4 if s.dtype == "float32" else 2) for s in plan.wanted)
    size = stored * (row + 8) + sum(lengths)
    return Cost(
        len(lengths), sum(lengths), tokens, stored, size / 1e9, tokens / _speed(plan) / 60, per_document
    )


def _speed(plan: Plan) -> float:
    """Return about how many tokens a second the trunk reads up to the last wanted layer."""
    model = plan.model
    blocks = [model.block(i).module for i in range(max(site.layer for site in plan.sites) + 1)]
    weights = sum(p.numel() for block in blocks for p in block.parameters())
    a = torch.ones(256, model.d_model, device=model.device, dtype=model.dtype)
    b = torch.ones(model.d_model, 4 * model.d_model, device=model.device, dtype=model.dtype)
    best = min(_seconds(a, b) for _ in range(5))
    return EFFICIENCY * a.shape[0] * b.numel() / (best * weights)


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    float((a @ b)[0, 0])
    return max(time.perf_counter() - start, 1e-6)
