"""A page from results that were saved: the directories that `polytope-lm test`, `cross` and `demo` write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from polytope_lm.errors import PolytopeError
from polytope_lm.paths.crossings import Crossings
from polytope_lm.predictions.overview import CodeOverview
from polytope_lm.predictions.results import ClustersResult
from polytope_lm.report.page import write

if TYPE_CHECKING:
    from collections.abc import Iterable


def from_directories(
    directories: Iterable[str | Path], path: str | Path, *, title: str | None = None
) -> Path:
    """Write one page from saved results.

    A directory may hold `result.json` (with `tokens.parquet` beside it), `overview.json` and any number of
    `crossings*.json`. One page has one comparison of clusters and one overview; crossings add up.

    Args:
        directories: where results are.
        path: the HTML file to write.
        title: as for `write`.

    Returns:
        The path of the page.

    Raises:
        PolytopeError: a directory is missing or has no result, a file is not what its name says, or two
            directories both have a comparison.

    """
    clusters: ClustersResult | None = None
    overview: CodeOverview | None = None
    crossings: list[Crossings] = []
    for folder in (Path(directory) for directory in directories):
        found = _results_in(folder)
        if "result.json" in found:
            if clusters is not None:
                msg = f"{str(folder)!r} holds a second clusters result; write a page for each"
                raise PolytopeError(msg)
            clusters = ClustersResult.load(folder)
        if "overview.json" in found:
            overview = _overview(folder / "overview.json")
        crossings += [Crossings.load(folder / name) for name in found if name.startswith("crossings")]
    if clusters is None and overview is None and not crossings:
        msg = "no directories given; name at least one that holds results, such as polytope-lm report DIR"
        raise PolytopeError(msg)
    return write(path, clusters=clusters, crossings=crossings, overview=overview, title=title)


def _results_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        msg = f"{str(folder)!r} is not a directory; give one that `polytope-lm test` or `demo` has written"
        raise PolytopeError(msg)
    names = sorted(
        file.name
        for pattern in ("crossings*.json", "overview.json", "result.json")
        for file in folder.glob(pattern)
    )
    if not names:
        msg = (
            f"no result in {str(folder)!r} (no result.json, overview.json or crossings*.json); write one "
            "with `polytope-lm test clusters ... --out DIR`"
        )
        raise PolytopeError(msg)
    return names


def _overview(path: Path) -> CodeOverview:
    try:
        return CodeOverview.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{str(path)!r} is not a saved CodeOverview ({type(error).__name__}: {error}); write it again"
        raise PolytopeError(msg) from error
