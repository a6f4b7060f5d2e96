"""Paths between prompts and the polytope boundaries that they cross."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polytope_lm.paths.many import crossings_of_pairs
    from polytope_lm.paths.path import direction_path, random_path

_HOMES = {
    "crossings_of_pairs": "polytope_lm.paths.many",
    "direction_path": "polytope_lm.paths.path",
    "random_path": "polytope_lm.paths.path",
    "slice": "polytope_lm.geometry.slices",
}

__all__ = ["crossings_of_pairs", "direction_path", "random_path", "slice"]


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: results of paths are read without a model's libraries."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)
