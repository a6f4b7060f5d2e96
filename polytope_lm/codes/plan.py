"""What determines a capture's bytes, apart from the documents."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.codes.forward import Spec, specs
from polytope_lm.errors import PolytopeError
from polytope_lm.models.loading import Model, select_sites
from polytope_lm.models.model import weights_digest
from polytope_lm.tokens import Windowing, parse_rule, specials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.models.sites import Site

BATCH_TOKENS = 2048
VERSIONED = ("polytope-lm", "torch", "transformers", "tokenizers", "numpy", "pyarrow")


@dataclass(frozen=True)
class Plan:
    """A capture's settings, checked.

    Attributes:
        model: the model.
        sites: where codes are read.
        wanted: the arrays to fill.
        keep: activations kept beside the bits.
        keep_dtype: their dtype.
        windowing: how documents become windows and which tokens are stored.
        batch_tokens: tokens of one batch, pads included.

    """

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
    return importlib.metadata.version(package)


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
    batch_tokens: int = BATCH_TOKENS,
) -> Plan:
    """Check the options of a capture; see `capture` for them.

    Raises:
        PolytopeError: no tokenizer, or an option out of range.

    """
    if model.tokenizer is None:
        raise PolytopeError(f"{model.name} has no tokenizer: wrap(model, tokenizer)")
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
    return Plan(
        model, sites, specs(model, sites, keep, keep_dtype), keep, keep_dtype, windowing, batch_tokens
    )
