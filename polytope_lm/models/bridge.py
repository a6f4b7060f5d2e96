"""The one place that imports TransformerLens: building a bridge, and checking one that a user brings."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from torch import nn


_log = logging.getLogger(__name__)


def is_bridge(candidate: object) -> bool:
    """Whether an object is a `TransformerBridge`, told by its class's name: nothing heavy is imported."""
    return any(c.__name__ == "TransformerBridge" for c in type(candidate).__mro__)


def check_raw(bridge: Any, name: str) -> None:
    """Refuse a bridge whose weights were processed.

    Folding a norm's gain into the next weights changes `u` and, with centred weights, `x`: codes would stay,
    but distances, paths and SimHash controls on `u` would mean something else than in every other store.

    Raises:
        PolytopeError: the bridge is in compatibility mode or has folded norms.

    """
    if getattr(bridge, "compatibility_mode", False) or getattr(bridge, "_weights_processed", False):
        raise PolytopeError(
            f"{name}: this TransformerBridge has folded norms or is in compatibility mode, so its MLP inputs "
            f"are not the model's own; boot a fresh one with TransformerBridge.boot_transformers(...) and do "
            f"not call enable_compatibility_mode() or process_weights()"
        )


def own_tokenizer(bridge: Any, name: str) -> Any:
    """Return a bridge's tokenizer as the model's authors made it.

    Booting a bridge reloads the tokenizer with `add_bos_token=True`, also for models such as GPT-2 whose
    tokenizer adds none; codes would then differ from those of the same model loaded in any other way. Where
    its files are at hand it is read again without that; where not, one line says what is read.

    Args:
        bridge: a `TransformerBridge`.
        name: the model's name, for the notice.

    """
    tokenizer = bridge.tokenizer
    if not getattr(tokenizer, "init_kwargs", {}).get("add_bos_token"):
        return tokenizer
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow to import

    try:
        return AutoTokenizer.from_pretrained(tokenizer.name_or_path, local_files_only=True)
    except (OSError, ValueError):
        _log.warning(
            "%s: the bridge's tokenizer puts BOS before texts; for the model's own: wrap(bridge, tokenizer)",
            name,
        )
        return tokenizer


def build(model: nn.Module, tokenizer: Any, name: str) -> Any:
    """Build a `TransformerBridge` around a copy of a transformers model.

    A bridge replaces the submodules of the model that it is given, and switches attention to eager: the copy
    leaves the original's fast path as it was.

    Args:
        model: a transformers model.
        tokenizer: its tokenizer.
        name: its name.

    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module  # noqa: PLC0415

    duplicate = copy.deepcopy(model)
    bridge = build_bridge_from_module(
        duplicate, type(model).__name__, hf_config=duplicate.config, tokenizer=None, model_name=name
    )
    # Given to the builder, it would be read again from the hub by its name, replaced by one that adds BOS.
    bridge.tokenizer = tokenizer
    return bridge
