"""Planted truth: data whose answer is known, on which the tool is tested before a model is."""

from __future__ import annotations

from polytope_lm.worlds.boundary_world import boundary_world
from polytope_lm.worlds.code_world import code_world
from polytope_lm.worlds.direction_world import direction_world
from polytope_lm.worlds.distance_world import distance_world
from polytope_lm.worlds.flipback_world import flipback_world
from polytope_lm.worlds.null_world import null_world

__all__ = [
    "boundary_world",
    "code_world",
    "direction_world",
    "distance_world",
    "flipback_world",
    "null_world",
]
