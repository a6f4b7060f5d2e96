"""Spline codes of language models: which polytope a token is in, and whether that matters."""

from __future__ import annotations

import gc
from typing import Any

import lazy_loader

__version__ = "0.1.0"

# The public names stand in `__init__.pyi`; each is imported when it is first used.
_attached, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a public name; torch's objects stay, so looking for garbage among them would be lost time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _attached(name)
    finally:
        if collecting:
            gc.enable()
