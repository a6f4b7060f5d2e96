"""What a page is made of: any of the results, each with its own tab."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.paths.slices import Slice
    from polytope_lm.predictions.alignment_results import AlignmentResult
    from polytope_lm.predictions.boundary_results import BoundariesResult
    from polytope_lm.predictions.group_results import GroupScores
    from polytope_lm.predictions.overview import CodeOverview
    from polytope_lm.predictions.results import ClustersResult
    from polytope_lm.predictions.specifications import Multiverse


@dataclass(frozen=True)
class Results:
    """The results that a page shows; any may be missing.

    Attributes:
        clusters: prediction 1 put to the test.
        crossings: boundaries crossed between prompts, one a pair; the first one is on the first screen.
        overview: firing rates and ambiguous bits of each layer.
        multiverse: every choice that could have been made otherwise.
        groups: further scores of the clusters, one a layer.
        boundaries: prediction 2 put to the test.
        alignment: whether boundaries are dense where the output changes.
        slices: planes through three prompts' activations.

    """

    clusters: ClustersResult | None = None
    crossings: tuple[Crossings, ...] = ()
    overview: CodeOverview | None = None
    multiverse: Multiverse | None = None
    groups: tuple[GroupScores, ...] = ()
    boundaries: BoundariesResult | None = None
    alignment: AlignmentResult | None = None
    slices: tuple[Slice, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Model, revision, dtype and so on, of the first result that states them."""
        every = (
            self.clusters,
            self.overview,
            self.boundaries,
            self.multiverse,
            *self.groups,
            *self.crossings,
        )
        for one in every:
            if one is not None:
                return one.provenance
        if self.alignment is not None:
            return {"model": self.alignment.layers[0].model}
        return {"model": self.slices[0].model} if self.slices else {}
