"""Ways to say that two tokens are alike: one idea a file, behind one small interface."""

from __future__ import annotations

from polytope_lm.representations import binary, controls, directions, routers, softened
from polytope_lm.representations.registry import Representation, Rows, get, registered, representation

__all__ = [
    "Representation",
    "Rows",
    "binary",
    "controls",
    "directions",
    "get",
    "registered",
    "representation",
    "routers",
    "softened",
]
