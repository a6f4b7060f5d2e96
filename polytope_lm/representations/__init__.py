"""Ways to say that two tokens are alike: one idea a file, behind one small interface."""

from __future__ import annotations

from polytope_lm.representations import (
    branches,
    code,
    cosine,
    directions,
    factors,
    margins,
    neurons,
    softened,
    standardised,
    thresholded,
)
from polytope_lm.representations.registry import Representation, Rows, get, registered, representation

__all__ = [
    "Representation",
    "Rows",
    "branches",
    "code",
    "cosine",
    "directions",
    "factors",
    "get",
    "margins",
    "neurons",
    "registered",
    "representation",
    "softened",
    "standardised",
    "thresholded",
]
