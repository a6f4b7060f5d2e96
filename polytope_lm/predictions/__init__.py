"""Predictions of the polytope lens, each a claim that can be false.

Each name is a page of its own and is imported when it is first used: results can be read and reported without
the libraries that made them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polytope_lm.predictions import intruder_files as intruder_files
    from polytope_lm.predictions.alignment import alignment
    from polytope_lm.predictions.boundaries import boundaries
    from polytope_lm.predictions.clusterers import clusterer, partition
    from polytope_lm.predictions.clusters import clusters
    from polytope_lm.predictions.coherence import context_coherence
    from polytope_lm.predictions.groups import groups
    from polytope_lm.predictions.intruders import intruder_detection, intruder_items
    from polytope_lm.predictions.multiverse import multiverse
    from polytope_lm.predictions.neurons import neuron, rank_neurons
    from polytope_lm.predictions.next_token import next_token_agreement
    from polytope_lm.predictions.overview import overview
    from polytope_lm.predictions.positions import position_check
    from polytope_lm.predictions.senses import senses
    from polytope_lm.predictions.stability import stability
    from polytope_lm.predictions.token_maps import with_maps

_HOMES = {
    "alignment": "alignment",
    "boundaries": "boundaries",
    "clusterer": "clusterers",
    "clusters": "clusters",
    "context_coherence": "coherence",
    "groups": "groups",
    "intruder_detection": "intruders",
    "intruder_items": "intruders",
    "multiverse": "multiverse",
    "neuron": "neurons",
    "next_token_agreement": "next_token",
    "overview": "overview",
    "partition": "clusterers",
    "position_check": "positions",
    "rank_neurons": "neurons",
    "senses": "senses",
    "stability": "stability",
    "with_maps": "token_maps",
}
_PAGES = ("intruder_files",)
"""Pages that are used as such."""

__all__ = [
    "alignment",
    "boundaries",
    "clusterer",
    "clusters",
    "context_coherence",
    "groups",
    "intruder_detection",
    "intruder_files",
    "intruder_items",
    "multiverse",
    "neuron",
    "next_token_agreement",
    "overview",
    "partition",
    "position_check",
    "rank_neurons",
    "senses",
    "stability",
    "with_maps",
]


class _Package(ModuleType):
    """A package in which a page and the function that it is about share a name: the function has it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):  # what importing a page does to its package
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import a page when its function is first used."""
    if name in _PAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
