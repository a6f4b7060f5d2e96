"""Isolates learning from architecture: the same model with its weights permuted, or as it began.

- *permuted*: the entries of every matrix, embeddings too, in a random order; norms and biases stay. Each
  matrix keeps its distribution of weights, heavy tails and scale, and loses everything it learned.
- *untrained*: the same configuration, initialised anew as the architecture does it. The weaker control:
  neighbours of an untrained model nearly all share a document.

Both are models like any other; `recaptured` reads them at the tokens, sites and settings of codes that there
are, so that a comparison differs in the weights alone.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from polytope_lm.codes.capture import encode
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.models.loading import wrap
from polytope_lm.tokens import specials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from polytope_lm.codes.codes import Codes, TokenCodes
    from polytope_lm.models.model import Model

CHARACTERS_AT_ONCE = 20_000
"""Text read in one piece: all its tokens' activations are held until the compared ones are chosen."""
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAME = ("max_length", "min_context", "batch_tokens", "keep_dtype")


def permuted(model: Model, seed: int = 0) -> Model:
    """Return a copy of a model with the entries of every matrix permuted.

    Tied matrices stay tied; parameters of one dimension (norms, biases) stay as they are.

    Args:
        model: from `load` or `wrap`; it is copied, so there must be memory for a second one.
        seed: of the permutations.

    Raises:
        PolytopeError: a model with declared sites, or one inside a `TransformerBridge`.

    """
    _check_plain(model)
    hf = copy.deepcopy(model.hf)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                parameter.copy_(_shuffled(parameter, rng))
    return wrap(hf, model.tokenizer, name=f"{model.name} (weights permuted, seed {seed})")


def untrained(model: Model, seed: int = 0) -> Model:
    """Return a model of the same configuration, initialised anew by its own architecture's rule.

    Args:
        model: from `load` or `wrap`; its dtype, device and attention stay.
        seed: of the initialisation; torch's global generator is left as it was.

    Raises:
        PolytopeError: a model with declared sites, one inside a `TransformerBridge`, or one without a
            configuration to build it from.

    """
    _check_plain(model)
    config = getattr(model.hf, "config", None)
    if config is None:
        msg = f"{model.name}: {model.family} has no configuration to initialise it from; use permuted(model)"
        raise PolytopeError(msg)
    build: Any = type(model.hf)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf: nn.Module = build(copy.deepcopy(config))
    hf = hf.to(device=model.device, dtype=model.dtype)
    return wrap(hf, model.tokenizer, name=f"{model.name} (untrained, seed {seed})")


def recaptured(codes: TokenCodes, model: Model, *, keep: Sequence[str] | None = None) -> Codes:
    """Read a control's codes at the tokens, sites and settings of codes that there are, in memory.

    Args:
        codes: codes of the real model, as `encode`, `capture` or `open_store` gave them; their labels are
            carried over.
        model: from `permuted` or `untrained`, or any model with the same tokenizer and sites.
        keep: activations to keep beside the bits; by default those that `codes` has.

    Raises:
        PolytopeError: codes that no capture made or that hold no token, another tokenizer (other special
            tokens, or tokens that do not match), or a model without these sites.

    """
    table, settings = codes.tokens, _settings(codes, model)
    settings["keep"] = codes.kept if keep is None else keep
    used = np.unique(table["document"].to_numpy())
    parts, places = [], []
    for numbers in _pieces(used, codes.texts):
        documents = [Document(id=str(codes.ids[i]), text=codes.texts[i]) for i in numbers]
        places.append(np.flatnonzero(table["document"].isin(numbers).to_numpy()))
        # All tokens are read, the stored ones chosen: a sample rule may have asked for the source's spans.
        read = encode(model, documents, tokens="all", **settings)
        parts.append(read.select(_rows(read.tokens, table.iloc[places[-1]], numbers, model.name)))
    back = np.argsort(np.concatenate(places), kind="stable")
    asked = {name: codes.provenance[name] for name in ("tokens", "seed", "all_pieces")}
    found = replace(
        parts[0],
        table=table.reset_index(drop=True),
        arrays=_joined([part.arrays for part in parts], back),
        kept_arrays=_joined([part.kept_arrays for part in parts], back),
        ids=codes.ids,
        texts=codes.texts,
        provenance={**parts[0].provenance, **asked},
    )
    return found if found.layers == codes.layers else found.joined().select(np.arange(len(found)))


def _pieces(used: np.ndarray, texts: Sequence[str]) -> list[np.ndarray]:
    """Divide documents into runs of about `CHARACTERS_AT_ONCE`, a longer one alone."""
    characters = np.cumsum([len(texts[i]) for i in used])
    cuts = np.flatnonzero(np.diff(characters // CHARACTERS_AT_ONCE)) + 1
    return [piece for piece in np.split(used, cuts) if len(piece)]


def _joined(parts: Sequence[Mapping[str, np.ndarray]], order: np.ndarray) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts])[order] for key in parts[0]}


def _rows(read: pd.DataFrame, wanted: pd.DataFrame, documents: np.ndarray, name: str) -> np.ndarray:
    """Return the rows of `read` (its documents count from 0) that hold the wanted tokens, in order."""
    keys = ["document", "position", "token_id"]
    number = np.searchsorted(documents, wanted["document"].to_numpy())
    there = pd.MultiIndex.from_frame(read[keys])
    rows = there.get_indexer(pd.MultiIndex.from_frame(wanted[keys].assign(document=number)))
    if (rows < 0).any():
        token = wanted.iloc[int(np.flatnonzero(rows < 0)[0])]
        raise PolytopeError(
            f"{name} reads another token at position {token['position']} of document {token['document']} "
            f"than {token['token']!r}; capture both with the same tokenizer"
        )
    return rows


def _settings(codes: TokenCodes, model: Model) -> dict[str, Any]:
    """Return the options of `encode` that repeat a capture, apart from which tokens it kept."""
    was: Mapping[str, Any] = codes.provenance
    if "special_tokens" not in was or not len(codes.tokens):
        msg = f"{len(codes.tokens)} tokens of {was.get('model')!r} were not captured; give codes from a capture"
        raise PolytopeError(msg)
    before, after = (tuple(was["special_tokens"][side]) for side in ("before", "after"))
    for bos in (None, False, True):
        if bos and model.tokenizer.bos_token_id is None and model.tokenizer.cls_token_id is None:
            continue
        around = specials(model.tokenizer, model.bos if bos is None else bos)
        if (around.prefix, around.suffix) == (before, after):
            break
    else:
        raise PolytopeError(
            f"{model.name} puts other special tokens around a text than {list(before)} and {list(after)}; "
            "use the tokenizer of the capture"
        )
    sites = [part for site in codes.sites for part in site.components]
    layers, kind = tuple(dict.fromkeys(site.layer for site in sites)), sites[0].name
    return {"layers": layers, "kind": kind, "bos": bos, **{name: was[name] for name in _SAME}}


def _check_plain(model: Model) -> None:
    if model.lens is not None:
        msg = f"{model.name} is inside a TransformerBridge; load the transformers model itself for this control"
        raise PolytopeError(msg)
    if model.custom:
        raise PolytopeError(
            f"{model.name} has declared sites ({model.custom[0][0].hook}), whose weights are not its own; "
            "make the control of the plain model and declare sites on it"
        )


def _shuffled(parameter: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the entries in a random order, through integers of their width: numpy has no bfloat16."""
    flat = parameter.detach().cpu().contiguous().clone().reshape(-1)
    rng.shuffle(flat.view(_INTEGERS[flat.element_size()]).numpy())
    return flat.reshape(parameter.shape).to(parameter.device)
