"""What would look the same if the claim were false: one control a file."""

from __future__ import annotations

from polytope_lm.controls import labels, rotation, shuffled, simhash, simhash_zero

__all__ = ["labels", "rotation", "shuffled", "simhash", "simhash_zero"]
