"""Small networks whose polytopes can be seen, and the loop that trains them and the small language models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polytope_lm.geometry.plane_regions import regions
    from polytope_lm.toys.animation import record
    from polytope_lm.toys.networks import exact_circle, exact_xor, existing, fit, orthants, pieces, task

_HOMES = {
    "above": "polytope_lm.toys.pictures",
    "broken_line": "polytope_lm.toys.pictures",
    "dual": "polytope_lm.toys.pictures",
    "exact_circle": "polytope_lm.toys.networks",
    "exact_xor": "polytope_lm.toys.networks",
    "existing": "polytope_lm.toys.networks",
    "fit": "polytope_lm.toys.networks",
    "folded": "polytope_lm.toys.bends",
    "image": "polytope_lm.toys.pictures",
    "line": "polytope_lm.toys.bends",
    "origami": "polytope_lm.toys.pictures",
    "orthants": "polytope_lm.toys.networks",
    "pieces": "polytope_lm.toys.networks",
    "record": "polytope_lm.toys.animation",
    "regions": "polytope_lm.geometry.plane_regions",
    "save_sliders": "polytope_lm.toys.bends",
    "sliders": "polytope_lm.toys.bends",
    "task": "polytope_lm.toys.networks",
}

__all__ = [
    "above",
    "broken_line",
    "dual",
    "exact_circle",
    "exact_xor",
    "existing",
    "fit",
    "folded",
    "image",
    "line",
    "origami",
    "orthants",
    "pieces",
    "record",
    "regions",
    "save_sliders",
    "sliders",
    "task",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: pictures are read without torch."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)
