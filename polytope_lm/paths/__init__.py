"""Paths between prompts and the polytope boundaries that they cross."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polytope_lm.paths.batch import crossings_of_pairs
    from polytope_lm.paths.directions import direction_path, random_path
    from polytope_lm.paths.slices import slice  # noqa: A004 - `plm.paths.slice`

_HOMES = {
    "crossings_of_pairs": "batch",
    "direction_path": "directions",
    "random_path": "directions",
    "slice": "slices",
}

__all__ = ["crossings_of_pairs", "direction_path", "random_path", "slice"]


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: results of paths are read without a model's libraries."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
