"""What a capture will cost, told before it is spent: tokens, gigabytes, minutes.

Cost and progress on stderr: on a terminal by default, nowhere else unless asked.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from polytope_lm.codes.store import tables
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from polytope_lm.codes.plan import Plan
    from polytope_lm.documents import Documents

_log = logging.getLogger(__name__)
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
        minutes: on this device, or None where nobody asked (measuring the device takes time itself).
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
        counts = f"{self.documents:,} document{'s' if self.documents != 1 else ''}, about {self.tokens:,} "
        counts += f"token{'s' if self.tokens != 1 else ''} to read, {self.stored:,} to store"
        size = f"{counts}, {_size(self.gigabytes or 0.0)}"
        return size if self.minutes is None else f"{size}, {_time(self.minutes)} on this machine"


def _size(gigabytes: float) -> str:
    for unit, size in (("GB", 1.0), ("MB", 1e-3), ("kB", 1e-6)):
        if gigabytes >= size:
            return f"{gigabytes / size:,.1f} {unit}"
    return "under 1 kB"


def _time(minutes: float) -> str:
    if minutes < 1:
        return "under a minute"
    if minutes < 120:
        whole = round(minutes)
        return f"{whole} minute{'s' if whole != 1 else ''}"
    return f"{minutes / 60:,.1f} hours"


def estimate(plan: Plan, source: Documents, *, timed: bool = True) -> Cost:
    """Estimate a capture from its first documents, a count of the rest and a short matrix product.

    Args:
        plan: what will be captured.
        source: the documents; a local source is read once to count characters, a hub stream is not.
        timed: measure this device, and tell the minutes.

    Raises:
        PolytopeError: a label with a reserved name, or few documents that all give no token.

    """
    sample = list(itertools.islice(iter(source), SAMPLE + 1))
    tables.check_label_names(name for document in sample for name in document.labels)
    everything, sample = len(sample) <= SAMPLE, sample[:SAMPLE]
    windowed = plan.windowing.apply(sample, 0, plan.model.tokenizer)
    if everything:
        check_sampled(plan, windowed.n_kept, windowed.n_without, len(sample))
    read = sum(len(w.input_ids) for w in windowed.windows)
    per_document = read / len(sample)
    if source.name.startswith("hub:"):
        return Cost(None, None, None, None, None, None, per_document)
    lengths = [len(d.text) for d in source]
    scale = sum(lengths) / max(sum(len(d.text) for d in sample), 1)
    tokens, stored = round(read * scale), round(windowed.n_kept * scale)
    row = sum(s.columns * (1 if s.bits else 4 if s.dtype == "float32" else 2) for s in plan.wanted)
    size = stored * (row + 8) + sum(lengths)
    minutes = tokens / _speed(plan) / 60 if timed else None
    return Cost(len(lengths), sum(lengths), tokens, stored, size / 1e9, minutes, per_document)


def check_sampled(plan: Plan, stored: int, without: int, documents: int) -> None:
    """Refuse a sample rule that stores nothing.

    Args:
        plan: the capture.
        stored: tokens that are stored.
        without: documents that give no token.
        documents: of so many.

    Raises:
        PolytopeError: no token at all is stored.

    """
    if not stored and documents:
        raise PolytopeError(
            f"no token is stored: {_without(plan, without, documents)}; use tokens 'all' or 'random:80'"
        )


def warn_sampled(plan: Plan, without: int, documents: int) -> None:
    """Say through `logging` how many documents give no token."""
    if without:
        _log.warning("%s", _without(plan, without, documents))


def _without(plan: Plan, without: int, documents: int) -> str:
    rule = plan.windowing.rule
    one = without == 1
    why = f"{'is' if one else 'are'} too short for {rule} and give{'s' if one else ''}"
    if rule.kind != "every":
        why = f"ha{'s' if one else 've'} nothing for {rule} and give{'s' if one else ''}"
    return f"{without} of {documents} document{'s' if documents != 1 else ''} {why} no token"


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


def on_terminal() -> bool:
    """Tell whether somebody watches stderr."""
    return sys.stderr.isatty()


@contextmanager
def reporter(cost: Cost, *, show: bool) -> Iterator[Callable[[int], None]]:
    """Show a capture's cost, then its progress in characters read.

    Args:
        cost: told before anything is computed.
        show: whether to.

    Yields:
        A function that takes the number of characters just read.

    """
    if not show:
        yield lambda _characters: None
        return
    console = Console(stderr=True)
    console.print(f"capture: {cost}", markup=False, highlight=False, soft_wrap=True)
    columns = (TextColumn("capture"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("capture", total=cost.characters)
        yield lambda characters: bar.update(task, advance=characters)
