"""Spline codes of language models: which polytope a token is in, and whether that matters."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polytope_lm import predictions, worlds
    from polytope_lm.codes.capture import capture, encode
    from polytope_lm.codes.codes import Codes
    from polytope_lm.codes.store import CodeStore, open_store
    from polytope_lm.documents import documents
    from polytope_lm.errors import PolytopeError
    from polytope_lm.models.loading import load, wrap
    from polytope_lm.paths.directions import direction_path, random_path
    from polytope_lm.paths.path import path
    from polytope_lm.paths.slices import slice  # noqa: A004 - `plm.slice`
    from polytope_lm.predictions.calibration import calibrate
    from polytope_lm.representations import representation

__version__ = "0.1.0"

_HOMES = {
    "load": "polytope_lm.models.loading",
    "wrap": "polytope_lm.models.loading",
    "documents": "polytope_lm.documents",
    "encode": "polytope_lm.codes.capture",
    "capture": "polytope_lm.codes.capture",
    "Codes": "polytope_lm.codes.codes",
    "CodeStore": "polytope_lm.codes.store",
    "open_store": "polytope_lm.codes.store",
    "path": "polytope_lm.paths.path",
    "slice": "polytope_lm.paths.slices",
    "direction_path": "polytope_lm.paths.directions",
    "random_path": "polytope_lm.paths.directions",
    "calibrate": "polytope_lm.predictions.calibration",
    "representation": "polytope_lm.representations",
    "PolytopeError": "polytope_lm.errors",
}

__all__ = [
    "CodeStore",
    "Codes",
    "PolytopeError",
    "calibrate",
    "capture",
    "direction_path",
    "documents",
    "encode",
    "load",
    "open_store",
    "path",
    "predictions",
    "random_path",
    "representation",
    "slice",
    "worlds",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import polytope_lm` stays instant."""
    if name in {"predictions", "worlds"}:
        return importlib.import_module(f"polytope_lm.{name}")
    if name not in _HOMES:
        msg = f"module 'polytope_lm' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
