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
    from polytope_lm.codes.overview import overview
    from polytope_lm.predictions.alignment.test import alignment
    from polytope_lm.predictions.boundaries.test import boundaries
    from polytope_lm.predictions.clusters.browsing import with_maps
    from polytope_lm.predictions.clusters.clusterers import clusterer, partition
    from polytope_lm.predictions.clusters.multiverse import multiverse
    from polytope_lm.predictions.clusters.test import clusters, clusters_by_label, joined
    from polytope_lm.predictions.determination.test import determination
    from polytope_lm.predictions.directions.test import directions
    from polytope_lm.predictions.groups import delphi
    from polytope_lm.predictions.groups import intruders as intruder_files
    from polytope_lm.predictions.groups.coherence import context_coherence, next_token_agreement
    from polytope_lm.predictions.groups.intruders import intruder_detection, intruder_items
    from polytope_lm.predictions.groups.stability import position_check, stability
    from polytope_lm.predictions.groups.test import groups
    from polytope_lm.predictions.neurons.test import neuron, rank_neurons
    from polytope_lm.predictions.routers.test import routers
    from polytope_lm.predictions.senses.test import senses

_PAGES = {
    "codes.overview": "overview",
    "predictions.alignment.test": "alignment",
    "predictions.boundaries.test": "boundaries",
    "predictions.clusters.browsing": "with_maps",
    "predictions.clusters.clusterers": "clusterer partition",
    "predictions.clusters.multiverse": "multiverse",
    "predictions.clusters.test": "clusters clusters_by_label joined",
    "predictions.determination.test": "determination",
    "predictions.directions.test": "directions",
    "predictions.groups.coherence": "context_coherence next_token_agreement",
    "predictions.groups.delphi": "delphi",
    "predictions.groups.intruders": "intruder_detection intruder_files intruder_items",
    "predictions.groups.stability": "position_check stability",
    "predictions.groups.test": "groups",
    "predictions.neurons.test": "neuron rank_neurons",
    "predictions.routers.test": "routers",
    "predictions.senses.test": "senses",
}
_HOMES = {name: f"polytope_lm.{page}" for page, names in _PAGES.items() for name in names.split()}

__all__ = [
    "alignment",
    "boundaries",
    "clusterer",
    "clusters",
    "clusters_by_label",
    "context_coherence",
    "delphi",
    "determination",
    "directions",
    "groups",
    "intruder_detection",
    "intruder_files",
    "intruder_items",
    "joined",
    "multiverse",
    "neuron",
    "next_token_agreement",
    "overview",
    "partition",
    "position_check",
    "rank_neurons",
    "routers",
    "senses",
    "stability",
    "with_maps",
]


class _Package(ModuleType):
    """A package in which a folder and the function that it is about share a name: the function has it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):  # what importing a folder does
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import a page when its function is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    page = importlib.import_module(_HOMES[name])
    return page if name in {"delphi", "intruder_files"} else getattr(page, name)


def __dir__() -> list[str]:
    return __all__
