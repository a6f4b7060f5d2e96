"""What a change at one place of a model does to its output: the truth, and what the estimates of it are worth."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polytope_lm.changes.integrated import integrated_exactly
    from polytope_lm.changes.places import class_means, random_direction
    from polytope_lm.changes.steering import continuation, contrast, linear_accessibility, steer

_HOMES = {
    "class_means": "polytope_lm.changes.places",
    "continuation": "polytope_lm.changes.steering",
    "contrast": "polytope_lm.changes.steering",
    "integrated_exactly": "polytope_lm.changes.integrated",
    "linear_accessibility": "polytope_lm.changes.steering",
    "random_direction": "polytope_lm.changes.places",
    "steer": "polytope_lm.changes.steering",
}

__all__ = [
    "class_means", "continuation", "contrast", "integrated_exactly", "linear_accessibility", "random_direction",
    "steer",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: results are read without a model's libraries."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)
