"""What would look the same if the claim were false: one control a file."""

from __future__ import annotations

from polytope_lm.controls import simhash

__all__ = ["simhash"]
