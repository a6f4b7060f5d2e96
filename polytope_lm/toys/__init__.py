"""Small networks whose polytopes can be seen, and the loop that trains them and the small language models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polytope_lm.geometry.regions import regions
    from polytope_lm.toys.networks import exact_circle, exact_xor, existing, fit, orthants, pieces, task

_HOMES = {
    "exact_circle": "polytope_lm.toys.networks",
    "exact_xor": "polytope_lm.toys.networks",
    "existing": "polytope_lm.toys.networks",
    "fit": "polytope_lm.toys.networks",
    "orthants": "polytope_lm.toys.networks",
    "pieces": "polytope_lm.toys.networks",
    "regions": "polytope_lm.geometry.regions",
    "task": "polytope_lm.toys.networks",
}

__all__ = ["exact_circle", "exact_xor", "existing", "fit", "orthants", "pieces", "regions", "task"]


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: pictures are read without torch."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)
