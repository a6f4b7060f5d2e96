"""What a page is made of: any of the results, each with its own tab.

A page from results that were saved: the directories that `polytope-lm test`, `cross` and `demo` write.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError
from polytope_lm.result import load_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from polytope_lm.codes.overview import CodeOverview
    from polytope_lm.geometry.slices import Slice
    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.predictions.alignment.result import AlignmentResult
    from polytope_lm.predictions.boundaries.result import BoundariesResult
    from polytope_lm.predictions.clusters.result import ClustersResult
    from polytope_lm.predictions.clusters.specifications import Multiverse
    from polytope_lm.predictions.groups.result import GroupScores
    from polytope_lm.result import Result


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
        others: results of any other kind, as they show themselves.

    """

    clusters: ClustersResult | None = None
    crossings: tuple[Crossings, ...] = ()
    overview: CodeOverview | None = None
    multiverse: Multiverse | None = None
    groups: tuple[GroupScores, ...] = ()
    boundaries: BoundariesResult | None = None
    alignment: AlignmentResult | None = None
    slices: tuple[Slice, ...] = ()
    others: tuple[Result, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Model, revision, dtype and so on, of the first result that states them."""
        every = (self.clusters, self.overview, self.boundaries, self.multiverse, *self.groups, *self.crossings)
        for one in every:
            if one is not None:
                return one.provenance
        if self.alignment is not None:
            return {"model": self.alignment.layers[0].model}
        if self.slices:
            return {"model": self.slices[0].model}
        stated = (getattr(one, "provenance", None) for one in self.others)
        return next((provenance for provenance in stated if provenance), {})


def read_all(directories: Iterable[str | Path]) -> dict[str, Any]:
    """Return the results in some directories by what `write` calls them: their kinds."""
    found: dict[str, Any] = {}
    for folder in directories:
        for one in load_results(folder).values():
            if one.kind not in {each.name for each in fields(Results)}:
                found["others"] = (*found.get("others", ()), one)
            elif one.several:
                found[one.kind] = (*found.get(one.kind, ()), one)
            elif one.kind in found:
                raise PolytopeError(f"{str(folder)!r} holds a second {one.kind} result; write a page for each")
            else:
                found[one.kind] = one
    if not found:
        msg = "no directories given; name at least one that holds results, such as polytope-lm report DIR"
        raise PolytopeError(msg)
    return found
