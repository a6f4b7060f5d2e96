"""What a page is made of: any of the results, each with its own tab.

A page from results that were saved: the directories that `polytope-lm test`, `cross` and `demo` write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.slices import Slice
from polytope_lm.paths.crossings import Crossings
from polytope_lm.predictions.alignment.result import AlignmentResult
from polytope_lm.predictions.boundaries.result import BoundariesResult
from polytope_lm.predictions.clusters.result import ClustersResult
from polytope_lm.predictions.clusters.specifications import Multiverse
from polytope_lm.predictions.groups.result import GroupScores
from polytope_lm.predictions.overview import CodeOverview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


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


_FILES = (  # in this order
    "result.json",
    "overview.json",
    "multiverse.json",
    "groups.json",
    "layer-*/groups.json",
    "crossings*.json",
    "slice*.json",
)
_SEVERAL = ("groups", "crossings", "slices")


def read_all(directories: Iterable[str | Path]) -> dict[str, Any]:
    """Return the results in some directories by what `write` calls them."""
    found: dict[str, Any] = {}
    for folder in (Path(directory) for directory in directories):
        for kind, one in _read(folder):
            if kind in _SEVERAL:
                found[kind] = (*found.get(kind, ()), one)
            elif kind in found:
                raise PolytopeError(f"{str(folder)!r} holds a second {kind} result; write a page for each")
            else:
                found[kind] = one
    if not found:
        msg = "no directories given; name at least one that holds results, such as polytope-lm report DIR"
        raise PolytopeError(msg)
    return found


def _read(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield every result in a directory with its kind."""
    names = _results_in(folder)
    for name in names:
        file = folder / name
        if name == "result.json":
            yield _tested(folder)
        elif name == "overview.json":
            yield "overview", _overview(file)
        elif name == "multiverse.json":
            yield "multiverse", Multiverse.load(folder)
        elif file.name == "groups.json":
            yield "groups", GroupScores.load(file.parent)
        elif name.startswith("slice"):
            yield "slices", Slice.load(file)
        else:
            yield "crossings", Crossings.load(file)


def _tested(folder: Path) -> tuple[str, Any]:
    """Read `result.json`, whichever prediction it is of."""
    try:
        kind = json.loads((folder / "result.json").read_text(encoding="utf-8"))["prediction"]
    except (ValueError, KeyError, TypeError):
        kind = "clusters"  # whose own error says what is wrong
    if kind == "boundaries":
        return kind, BoundariesResult.load(folder)
    if kind == "alignment":
        return kind, AlignmentResult.load(folder / "result.json")
    return "clusters", ClustersResult.load(folder)


def _results_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        msg = f"{str(folder)!r} is not a directory; give one that `polytope-lm test` or `demo` has written"
        raise PolytopeError(msg)
    names = [str(file.relative_to(folder)) for pattern in _FILES for file in sorted(folder.glob(pattern))]
    if not names:
        msg = (
            f"no result in {str(folder)!r} (none of {', '.join(_FILES)}); write one with `polytope-lm test "
            "clusters ... --out DIR`"
        )
        raise PolytopeError(msg)
    return names


def _overview(path: Path) -> CodeOverview:
    try:
        return CodeOverview.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{str(path)!r} is not a saved CodeOverview ({type(error).__name__}: {error}); write it again"
        raise PolytopeError(msg) from error
