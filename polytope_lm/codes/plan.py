"""What determines a capture's bytes, apart from the documents, and what it will cost."""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
import timeit
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm import __version__
from polytope_lm.codes.forward import Spec, specs
from polytope_lm.codes.store import tables
from polytope_lm.errors import PolytopeError
from polytope_lm.models.loading import select_sites
from polytope_lm.models.model import Model, weights_digest
from polytope_lm.tokens.tokenising import specials
from polytope_lm.tokens.windowing import Windowing, parse_rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polytope_lm.documents import Documents
    from polytope_lm.models.sites import Site

BATCH_TOKENS = 2048
DEVICE_BATCH_TOKENS = 65_536  # an accelerator is busy only with many
VERSIONED = ("polytope-lm", "torch", "transformers", "tokenizers", "numpy", "pyarrow")


@dataclass(frozen=True)
class Plan:
    """A capture's settings, checked."""

    model: Model
    sites: tuple[Site, ...]
    wanted: tuple[Spec, ...]
    keep: tuple[str, ...]
    keep_dtype: str
    windowing: Windowing
    batch_tokens: int

    def provenance(self) -> dict[str, Any]:
        """Return plain data: model, revision, dtype, rules, sites, versions."""
        model, windowing = self.model, self.windowing
        around = specials(model.tokenizer, windowing.bos)
        firsts = {model.tokenizer.bos_token_id, model.tokenizer.cls_token_id} - {None}
        return {
            **model.provenance,
            "device": model.device.type,
            "threads": torch.get_num_threads(),
            "sites": [site.to_dict() for site in self.sites],
            "declared": {s.key: weights_digest(w, b) for s, w, b in model.custom if s in self.sites},
            "keep": list(self.keep),
            "keep_dtype": self.keep_dtype,
            "tokens": str(windowing.rule),
            "seed": windowing.seed,
            "all_pieces": windowing.all_pieces,
            "special_tokens": {"before": list(around.prefix), "after": list(around.suffix)},
            "bos": bool(firsts & set(around.prefix)),
            "max_length": windowing.context_length,
            "min_context": windowing.min_context,
            "batch_tokens": self.batch_tokens,
            "versions": {name: _version(name) for name in VERSIONED},
        }


@cache  # what is imported stays, whatever happens to the environment's files or the right to read them
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package != VERSIONED[0]:
            raise
        return __version__  # run from a checkout that is not installed


def make_plan(  # noqa: PLR0913 - the options of `capture`, by name
    model: Model,
    *,
    layers: Sequence[int] | int | str,
    kind: str | None,
    keep: Sequence[str],
    tokens: str,
    keep_dtype: str = "float32",
    seed: int = 0,
    bos: bool | None = None,
    min_context: int | None = None,
    max_length: int | None = None,
    all_pieces: bool = False,
    batch_tokens: int | None = None,
) -> Plan:
    """Check the options of a capture; see `capture` for them."""
    if model.tokenizer is None:
        raise PolytopeError(f"{model.name} has no tokenizer: wrap(model, tokenizer)")
    if batch_tokens is None:
        batch_tokens = BATCH_TOKENS if model.device.type == "cpu" else DEVICE_BATCH_TOKENS
    if batch_tokens < 1:
        raise PolytopeError(f"batch_tokens {batch_tokens}: at least 1")
    if max_length is not None and max_length < 1:
        raise PolytopeError(f"max_length {max_length}: at least 1")
    if not isinstance(layers, (int, np.integer, Iterable)):
        raise PolytopeError(f"layers {layers!r}: give 'all', an index or a list of indices")
    sites = select_sites(model, layers, kind)
    length = min(max_length or model.context_length, model.context_length)
    if min_context is None:
        min_context = length // (4 if model.causal else 8)
    keep = tuple(dict.fromkeys([keep] if isinstance(keep, str) else keep))
    rule = parse_rule(tokens)
    bos = model.bos if bos is None else bos
    windowing = Windowing(rule, length, min_context, bos, all_pieces, seed, causal=model.causal)
    return Plan(model, sites, specs(model, sites, keep, keep_dtype), keep, keep_dtype, windowing, batch_tokens)


_log = logging.getLogger(__name__)
SAMPLE = 64
# Of what a bare matrix product reaches; attention, norms and activations take the rest.
EFFICIENCY = 0.6


@dataclass(frozen=True)
class Cost:
    """An estimate of a capture; None for what a stream of unknown length, or an untimed estimate, does not say."""

    documents: int | None
    characters: int | None
    tokens: int | None  # that the model reads
    stored: int | None
    gigabytes: float | None  # 10^9 bytes, texts included
    minutes: float | None
    tokens_per_document: float  # mean over the first documents
    source: Mapping[str, str] = field(default_factory=dict)  # sums of identifiers, and of labels and spans

    def __str__(self) -> str:
        if self.documents is None:
            return f"a stream of documents, about {self.tokens_per_document:,.0f} tokens each; its length is not known"
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
        return f"{round(minutes)} minute{'s' * (round(minutes) != 1)}"
    return f"{minutes / 60:,.1f} hours"


def estimate(plan: Plan, source: Documents, *, timed: bool = True) -> Cost:
    """Estimate a capture from its first documents, a count of the rest and a short matrix product."""
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
    lengths, digest = [], tables.SourceDigest()
    for document in source:
        lengths.append(len(document.text))
        digest.add(document)
    scale = sum(lengths) / max(sum(len(d.text) for d in sample), 1)
    tokens, stored = round(read * scale), round(windowed.n_kept * scale)
    row = sum(s.columns * (1 if s.bits else 4 if s.dtype == "float32" else 2) for s in plan.wanted)
    size = stored * (row + 8) + sum(lengths)
    minutes = tokens / _speed(plan) / 60 if timed else None
    sums = digest.sums()
    return Cost(len(lengths), sum(lengths), tokens, stored, size / 1e9, minutes, per_document, sums)


def check_sampled(plan: Plan, stored: int, without: int, documents: int) -> None:
    """Refuse a sample rule that stores nothing."""
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
    best = min(timeit.repeat(lambda: float((a @ b)[0, 0]), number=1, repeat=5))
    return EFFICIENCY * a.shape[0] * b.numel() / (max(best, 1e-6) * weights)
