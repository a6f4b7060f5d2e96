"""The one place that imports TransformerLens: building a bridge, and checking one that a user brings."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from torch import nn


def is_bridge(candidate: object) -> bool:
    """Whether an object is a `TransformerBridge`, told by its class's name: nothing heavy is imported."""
    return any(c.__name__ == "TransformerBridge" for c in type(candidate).__mro__)


def check_raw(bridge: Any, name: str) -> None:
    """Refuse a bridge whose weights were processed, or which is in compatibility mode.

    Folding a norm's gain into the next weights changes `u` and, with centred weights, `x`: codes would stay, but
    distances, paths and SimHash controls on `u` would mean something else than in every other store.
    """
    if getattr(bridge, "compatibility_mode", False) or getattr(bridge, "_weights_processed", False):
        raise PolytopeError(
            f"{name}: this TransformerBridge has folded norms or is in compatibility mode, so its MLP inputs "
            f"are not the model's own; boot a fresh one with TransformerBridge.boot_transformers(...) and do "
            f"not call enable_compatibility_mode() or process_weights()"
        )


def default_bos(bridge: Any) -> bool | None:
    """Return whether a bridge puts BOS before texts, as its `to_tokens` and so `run_with_cache` decide.

    True where it adds one that the tokenizer does not; False where it takes the tokenizer's away; None: as the
    tokenizer.
    """
    wanted = bool(getattr(bridge.cfg, "default_prepend_bos", True))
    given = bool(getattr(bridge.cfg, "tokenizer_prepends_bos", True))
    if bridge.tokenizer is None or wanted == given:
        return None
    bos = bridge.tokenizer.bos_token  # it may be one that the vocabulary lacks, and then is left out
    atom = bos is not None and len(bridge.tokenizer(bos, add_special_tokens=False)["input_ids"]) == 1
    return (True if atom else None) if wanted else False


def build(model: nn.Module, tokenizer: Any, name: str) -> Any:
    """Build a `TransformerBridge` around a copy of a transformers model.

    A bridge replaces the submodules of its model and switches attention to eager: the original keeps its fast path.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module  # noqa: PLC0415

    duplicate = copy.deepcopy(model)
    bridge = build_bridge_from_module(
        duplicate, type(model).__name__, hf_config=duplicate.config, tokenizer=None, model_name=name
    )
    # Given to the builder, it would be read again from the hub by its name, replaced by one that adds BOS.
    bridge.tokenizer = tokenizer
    return bridge
