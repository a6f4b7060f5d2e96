"""Ways to say that two tokens are alike: one idea a file, behind one small interface."""

from __future__ import annotations

from polytope_lm.representations import code, cosine, standardised
from polytope_lm.representations.registry import Representation, Rows, get, registered, representation

__all__ = ["Representation", "Rows", "code", "cosine", "get", "registered", "representation", "standardised"]
