"""Planted truth: data whose answer is known, on which the tool is tested before a model is."""

from __future__ import annotations

from polytope_lm.worlds.direction_worlds import direction_mlp_world
from polytope_lm.worlds.pair_worlds import boundary_world, distance_world, flipback_world
from polytope_lm.worlds.token_worlds import code_world, direction_world, null_world

__all__ = [
    "boundary_world",
    "code_world",
    "direction_mlp_world",
    "direction_world",
    "distance_world",
    "flipback_world",
    "null_world",
]
