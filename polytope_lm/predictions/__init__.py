"""Predictions of the polytope lens, each a claim that can be false."""

from __future__ import annotations

from polytope_lm.predictions.boundaries import boundaries
from polytope_lm.predictions.clusterers import clusterer, partition
from polytope_lm.predictions.clusters import clusters
from polytope_lm.predictions.multiverse import multiverse
from polytope_lm.predictions.overview import overview

__all__ = ["boundaries", "clusterer", "clusters", "multiverse", "overview", "partition"]
