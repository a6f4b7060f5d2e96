"""What a polytope and its map are like."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = (
    "affine",
    "boundary",
    "distinct",
    "jacobian",
    "linear_mapping",
    "local_complexity",
    "matching",
    "plane_regions",
    "reduction",
    "relu_network",
    "slices",
    "spline_features",
    "token_measures",
)


def __getattr__(name: str) -> Any:
    """Import a module when it is first used: `plm.geometry.affine`."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return importlib.import_module(f"{__name__}.{name}")
