"""From a name, a directory or a loaded model to a `Model`: one door for hub, local and packaged models."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from polytope_lm.errors import PolytopeError, public
from polytope_lm.models import bridge as bridges
from polytope_lm.models.families import (
    find_blocks,
    survey,
)
from polytope_lm.models.model import Model as Model  # noqa: PLC0414 - others import it from here
from polytope_lm.models.model import exclusive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.models.sites import Site


DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


@public
def load(
    name: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Load a model by a packaged name, a directory or a hub name, in this order.

    Args:
        name: `tiny-gpt2`, `tiny-relu`, `smollm2-135m` or `minilm-l6`; a directory (written with a separator,
            such as `./gpt2`); or a name on the model hub, such as `gpt2`.
        device: a torch device.
        dtype: `float32` (the default: half precision flips 0.2 to 0.5 % of the bits), `float16`, `bfloat16`.
        revision: the hub's branch, tag or commit.
        trust_remote_code: run the model repository's own Python code. Off unless you trust it.

    Raises:
        PolytopeError: unknown name, unreachable hub, missing weights, or a model without supported sites.

    """
    if dtype not in DTYPES:
        raise PolytopeError(f"unknown dtype {dtype!r}; choose among {', '.join(DTYPES)}")
    from polytope_lm.models.sources import checked_device, locate, read_model  # noqa: PLC0415 - slow to import

    place = checked_device(device)
    source = locate(name, revision)
    hf, tokenizer, commit = read_model(source, DTYPES[dtype], trust_remote_code=trust_remote_code)
    return _assemble(hf.to(place), tokenizer, source.name, commit or source.revision)


@public
def wrap(model: Any, tokenizer: Any = None, *, name: str | None = None) -> Model:
    """Wrap a transformers model or a `TransformerBridge` that is loaded; it is not copied, nor changed.

    Args:
        model: a transformers model with its tokenizer, or a `TransformerBridge` with unprocessed weights.
        tokenizer: a fast tokenizer; a bridge brings its own, without the BOS that TransformerLens adds to it.
        name: a name for stores and reports; by default the configuration's.

    Raises:
        PolytopeError: a bridge with folded norms, a slow tokenizer, or a model without supported sites.

    """
    lens = model if bridges.is_bridge(model) else None
    if lens is not None:
        name = name or str(getattr(lens.cfg, "model_name", "bridge"))
        bridges.check_raw(lens, name)
        tokenizer = tokenizer or bridges.own_tokenizer(lens, name)
        model = lens.original_model
    if not isinstance(model, nn.Module):
        raise PolytopeError(
            f"can't wrap a {type(model).__name__}: give a transformers model or a TransformerBridge"
        )
    config = getattr(model, "config", None)
    # The last part only: a directory's path says where a machine keeps it, not which model it is.
    name = name or Path(str(getattr(config, "_name_or_path", "") or type(model).__name__)).name
    return _assemble(model, tokenizer, name, None, lens)


def _assemble(hf: nn.Module, tokenizer: Any, name: str, revision: str | None, lens: Any = None) -> Model:
    """Survey a loaded model and put a `Model` together."""
    if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
        raise PolytopeError(
            f"{name}: {type(tokenizer).__name__} is a slow tokenizer; labels need character offsets: pass a "
            f"fast one"
        )
    config = (
        lens.cfg if lens is not None and getattr(hf, "config", None) is None else getattr(hf, "config", None)
    )
    if config is not None and hasattr(config, "get_text_config"):  # what its decoder has
        config = config.get_text_config()
    trunk = getattr(hf, getattr(hf, "base_model_prefix", "") or "", hf)
    act = getattr(getattr(lens, "cfg", None), "act_fn", None)
    with exclusive(hf, trunk, name):
        blocks, causal = survey(trunk, find_blocks(trunk, name), config, name, act)
    return Model(
        name=name, revision=revision or _fingerprint(hf), hf=hf, tokenizer=tokenizer, trunk=trunk,
        blocks=tuple(blocks), causal=causal, lens=lens,
        context_length=_context_length(trunk, config, tokenizer),
    )  # fmt: skip


def _context_length(trunk: nn.Module, config: Any, tokenizer: Any) -> int:
    keys = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    lengths = [getattr(config, key, None) for key in keys]
    lengths += [getattr(tokenizer, "model_max_length", None)]
    for path, module in trunk.named_modules():
        # RoBERTa and its kin count positions from one past the pad's, whose row is never read.
        first = getattr(module, "padding_idx", None) if path.endswith("position_embeddings") else None
        if first is not None and isinstance(module, nn.Embedding):
            lengths.append(module.num_embeddings - first - 1)
    return int(min((n for n in lengths if n), default=sys.maxsize))


def _fingerprint(hf: nn.Module) -> str:
    """Hash all weights, so that two models of one name can't share a store."""
    digest = hashlib.sha256()
    for key, value in sorted(hf.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return "weights-" + digest.hexdigest()[:16]


def select_sites(model: Model, layers: Sequence[int] | int | str, kind: str | None) -> tuple[Site, ...]:
    """Return the sites of the layers that a user named.

    Args:
        model: the model.
        layers: indices, one index, or `all` (for a declared hook point: its own).
        kind: a code kind, a declared hook point, or None for the default.

    Raises:
        PolytopeError: no layers, a layer twice, or one out of range.

    """
    declared = tuple(site for site, _, _ in model.custom if site.hook == kind)
    if declared and layers == "all":
        return declared
    if isinstance(layers, str):
        if layers != "all":
            raise PolytopeError(f"layers {layers!r}: give 'all' or a list of indices")
        layers = range(model.n_layers)
    wanted = [layers] if isinstance(layers, (int, np.integer)) else list(layers)
    if not wanted:
        raise PolytopeError("no layers: give at least one index")
    if len(set(wanted)) < len(wanted):
        raise PolytopeError(f"layers {wanted}: each layer once")
    return tuple(model.site(layer, kind) for layer in sorted(wanted))
