"""Spline codes of language models: which polytope a token is in, and whether that matters."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polytope_lm import codes as codes
    from polytope_lm import pairs as pairs
    from polytope_lm import paths as paths
    from polytope_lm import predictions, worlds
    from polytope_lm.codes.capture import capture, encode
    from polytope_lm.codes.store.reader import open_store
    from polytope_lm.documents import documents
    from polytope_lm.errors import PolytopeError
    from polytope_lm.models.loading import load, wrap
    from polytope_lm.paths.path import path
    from polytope_lm.predictions.calibration.test import calibrate
    from polytope_lm.representations import representation

__version__ = "0.1.0"

_HOMES = {
    "load": "polytope_lm.models.loading",
    "wrap": "polytope_lm.models.loading",
    "documents": "polytope_lm.documents",
    "encode": "polytope_lm.codes.capture",
    "capture": "polytope_lm.codes.capture",
    "open_store": "polytope_lm.codes.store.reader",
    "path": "polytope_lm.paths.path",
    "calibrate": "polytope_lm.predictions.calibration.test",
    "representation": "polytope_lm.representations",
    "PolytopeError": "polytope_lm.errors",
}
_PARTS = ("codes", "pairs", "paths", "predictions", "worlds")

__all__ = [
    "PolytopeError",
    "calibrate",
    "capture",
    "documents",
    "encode",
    "load",
    "open_store",
    "path",
    "predictions",
    "representation",
    "worlds",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import polytope_lm` stays instant."""
    if name in _PARTS:
        return importlib.import_module(f"polytope_lm.{name}")
    if name not in _HOMES:
        msg = f"module 'polytope_lm' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
